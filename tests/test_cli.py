"""The command line: exit codes, what goes to which stream, and bad input that needs no server."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crashlab import campaign
from crashlab.campaign.budget import Account
from crashlab.campaign.executor import InlineExecutor
from crashlab.campaign.runner import Runner
from crashlab.cli import cli, invoke
from crashlab.errors import ServerError
from crashlab.server.builds import find_build
from tests.made_results import broken, inconclusive, intact, permitted_loss
from tests.terminal import as_in_a_terminal

FAULT = '[[faults]]\nkind = "kill"\ntarget = "all"\nwhen = { acks = 5 }\n'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """No test leaves .crashlab where it was started."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def told(monkeypatch):
    """Let `run` be answered by results made by hand; they say what is told, not what PostgreSQL does."""
    answers: dict[str, Any] = {}

    def answer_by_hand(self, task):
        job = self._jobs[task.job]
        answer = answers.get(task.job, intact())
        if isinstance(answer, BaseException):
            raise answer
        if job not in answers.setdefault("jobs", []):
            answers["jobs"].append(job)
        job.out.mkdir(parents=True, exist_ok=True)
        (job.out / "evidence").touch()
        return replace(answer, trial=task.trial)

    monkeypatch.setattr(campaign, "executor_for", lambda *_: InlineExecutor())
    monkeypatch.setattr(Runner, "run", answer_by_hand)
    return answers


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["frobnicate"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["run", "kil9-all"], 2, 'hint: Did you mean "kill9-all"?'),
        (["run", "./nowhere.toml"], 2, 'could not find profile file "nowhere.toml"'),
        (["validate", "/tmp"], 2, '"/tmp" is a folder, not a profile file'),
        (["run", "kill9-all", "--trials", "0"], 2, "--trials"),
        (["run", "kill9-all", "--time-limit", "5 parsecs"], 2, "ms, s, m, h"),
        (["run", "kill9-all", "--server", "vm"], 2, "--server"),
        (["run", "kill9-all", "--image", "postgres:17", "--pg-bindir", "/x"], 2, "exclude each other"),
        (["run", "kill9-all", "--set", "workload.clinets=1"], 2, 'did you mean "clients"?'),
        (["run", "kill9-all", "kill9-all"], 2, "asked for twice"),
        (["run", "kill9-all", "--one-recording"], 2, "--one-recording is for trials of recorded runs"),
        (["run", "kill9-container", "--server", "local"], 2, "It needs --server container"),
        (["run", "kill9-all", "--json", "/nowhere/x.json"], 4, 'could not write --json "/nowhere/x.json"'),
        (["run", "kill9-all", "--junit-xml", "/"], 4, 'could not write --junit-xml "/"'),
        (["run", "kill9-all", "--html", "/nowhere/x.html"], 4, 'could not write --html "/nowhere/x.html"'),
        (["run", "kill9-all", "--quiet", "--verbose"], 2, "exclude each other"),
        (["run", "kill9-all", "--dry-run", "--html", "x"], 2, "--dry-run makes no report"),
        (["run", "kill9-all", "--out", "/dev/null/x"], 4, "could not write to output folder"),
        (["run", "kill9-all", "--dry-run", "--json", "-"], 2, "--dry-run makes no report"),
        (["run", "kill9-all", "--pg-bindir", "/nowhere"], 4, 'could not find "postgres" in "/nowhere"'),
        (["validate", "/etc/passwd"], 2, "cannot use profile"),
        (["judge", "nowhere"], 4, 'no evidence of a trial in "nowhere": there is no such folder'),
        (["replay", "kill9-all:3"], 2, 'unknown trial "kill9-all:3"'),
        (["shrink", "kill9-all"], 2, 'unknown trial "kill9-all": there is no such folder'),
        (["waits", "kill9-all"], 2, "PROFILE:TRIAL of the latest run, such as"),
        (["explain", "LOSS-ASYNK"], 2, "unknown finding code"),
        (["shrink", "x", "--code", "LOSS-ASYNC-WINDOWS"], 2, 'Did you mean "LOSS-ASYNC-WINDOW"?'),
        (["bisect", "x", "--versions", "1..2", "--builds", "x", "--code", "NO"], 2, "crashlab explain lists all codes"),
        (
            ["bisect", "kill9-container", "--versions", "15.1..15.2", "--builds", "x"],
            2,
            "it cannot run on a local server",
        ),
        (["bisect", "kill9-all", "--versions", "15.1..15.2", "--builds", "x"], 2, "could not find two releases"),
        (["report", "x", "--json", "-", "--markdown", "-"], 2, "--json - and --markdown - exclude each other"),
        (["run", "kill9-all", "--json", "-", "--markdown", "-"], 2, "--json - and --markdown - exclude each other"),
    ],
)
def test_bad_input_is_named_with_the_right_exit_code(args, code, expected, capfd):
    """A mistake ends at once, says what is wrong, and leaves nothing behind."""
    assert invoke(args) == code
    out, err = capfd.readouterr()
    assert expected in err
    assert out == "" or "could not find" in expected  # a run's header may already be there
    assert "Traceback" not in err
    assert [path.name for path in Path().rglob("*") if path.is_dir() and path.name != ".crashlab"] == []


@pytest.mark.parametrize("args", [["docs", "limits"], ["explain"], ["--help"]])
def test_an_output_that_nobody_takes_is_no_broken_promise(args):
    """1 is about the database: a reader who has gone is 141, a full disk 4 in one line, a closed stdout nothing."""
    command = [sys.executable, "-m", "crashlab", *args]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone, Path("/dev/full").open("wb") as full:
        left = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
        refused = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    closed = subprocess.run(["sh", "-c", '"$@" >&-', "-", *command], capture_output=True, text=True, check=False)
    assert (left.returncode, left.stderr) == (141, "")
    assert refused.returncode == 4
    assert refused.stderr.startswith("crashlab: error: could not write to stdout: No space left on device\n")
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize(("answer", "code"), [(intact(), 0), (permitted_loss(), 0), (broken(), 1), (inconclusive(), 3)])
def test_the_exit_code_says_what_the_trials_showed(told, answer, code):
    """0 kept, 1 broken, 3 inconclusive; one bad profile among good ones decides."""
    told["kill9-all"] = answer
    assert invoke(["run", "kill9-walwriter", "kill9-all", "kill9-backend"]) == code


def test_json_on_stdout_is_pure_and_everything_else_is_on_stderr(told, capfd):
    """A program can read stdout as it is."""
    assert invoke(["run", "kill9-all", "--json", "-", "--seed", "7"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["profile"] == "kill9-all"
    assert "seed 7" in err
    assert "No promise was broken." in err


def test_in_github_actions_findings_become_annotations(told, monkeypatch, capfd):
    """One line of its own for each broken finding; never in the way of the JSON document, and nowhere else."""
    told["kill9-all"] = broken()
    for where, annotated in (("true", 1), ("", 0)):
        with monkeypatch.context() as here:
            here.setenv("GITHUB_ACTIONS", where)
            assert invoke(["run", "kill9-all", "--json", "-"]) == 1
        told_on = capfd.readouterr()
        assert json.loads(told_on.out)["promise"] == "broken"
        lines = [line for line in told_on.err.splitlines() if line.startswith("::")]
        assert len(lines) == annotated
        assert all(line.startswith("::error title=CORRUPT-HOLE::") for line in lines)


def test_a_run_leaves_its_report_beside_the_evidence_and_is_the_latest(told, capfd):
    """Without --out the evidence is below .crashlab, `latest` points at it, and the last lines say how to repeat it."""
    assert invoke(["run", "quick", "--seed", "7", "--trials", "1", "--set", "fsync=off", "--junit-xml", "j.xml"]) == 0
    out, _ = capfd.readouterr()
    assert "crashlab run quick --seed 7 --trials 1 --set fsync=off" in out
    reports = json.loads(Path(".crashlab/latest/report.json").read_text())
    assert len(reports) == len(told["jobs"]) > 10
    assert {job.plan.run_seed for job in told["jobs"]} == {7}
    assert {job.plan.profile.server.settings["fsync"] for job in told["jobs"]} == {"off"}
    assert "<testsuites" in Path("j.xml").read_text()


def test_the_time_limit_is_shared_by_the_profiles(told, monkeypatch):
    """A tour within two minutes gives its last profile time, too."""
    shares = []
    monkeypatch.setattr(Account, "start", lambda self, share_s: shares.append(share_s))
    assert invoke(["run", "kill9-all", "kill9-backend", "--time-limit", "2m"]) == 0
    assert shares == [pytest.approx(60, abs=1), pytest.approx(120, abs=1)]


def test_an_error_of_the_environment_keeps_what_was_finished(told, capfd):
    """The profiles before it are reported, the error is told, and the code is the environment's."""
    told["kill9-backend"] = ServerError("could not start", hint="Look at server.log.")
    assert invoke(["run", "kill9-all", "kill9-backend", "kill9-walwriter", "--out", "o", "--json", "r.json"]) == 4
    out, err = capfd.readouterr()
    assert "kill9-all" in out
    assert "crashlab: error: could not start\ncrashlab: hint: Look at server.log." in err
    assert [report["profile"] for report in json.loads(Path("r.json").read_text())] == ["kill9-all", "kill9-backend"]


def test_an_interrupt_reports_what_was_finished(told, capfd):
    """Ctrl-C: exit code 130, and the profiles before it are in the report."""
    told["kill9-backend"] = KeyboardInterrupt()
    assert invoke(["run", "kill9-all", "kill9-backend", "--out", "o"]) == 130
    assert "kill9-all" in capfd.readouterr().out
    reports = json.loads(Path("o/report.json").read_text())
    assert [report["interrupted"] for report in reports] == [False, True]


def test_a_bug_is_never_taken_for_a_broken_promise(told, capfd):
    """Python's exit code for a traceback is 1, which here means something about the database."""
    told["kill9-all"] = ZeroDivisionError()
    assert invoke(["run", "kill9-all"]) == 4
    assert "this is a bug in crashlab" in capfd.readouterr().err


def test_evidence_is_never_overwritten(told, capfd):
    """A second run into the same folder is refused before anything starts; an empty one is taken."""
    Path("o").mkdir()
    assert invoke(["run", "kill9-all", "--out", "o"]) == 0
    assert invoke(["run", "kill9-all", "--out", "o"]) == 2
    assert "crashlab judge o" in capfd.readouterr().err
    assert len(told["jobs"]) == 1


def test_a_folder_in_use_by_another_run_is_refused(told, monkeypatch, capfd):
    """Two runs never write to one folder; when the first has ended, its lock is gone."""
    codes = []

    def run_another(self, task):
        codes.append(invoke(["run", "kill9-all", "--out", "o"]))
        raise ServerError("could not go on")

    with monkeypatch.context() as first_run:
        first_run.setattr(Runner, "run", run_another)
        assert invoke(["run", "kill9-all", "--out", "o"]) == 4
    assert codes == [4]
    assert "in use by another run" in capfd.readouterr().err
    assert invoke(["run", "kill9-all", "--out", "o"]) == 0


def test_a_run_that_could_not_start_leaves_no_folder(told):
    """No evidence, no folder to trip over."""
    told["kill9-all"] = ServerError("could not find a PostgreSQL build")
    assert invoke(["run", "kill9-all"]) == 4
    assert [path.name for path in Path(".crashlab").iterdir()] == [".gitignore"]


def test_dry_run_prints_the_plan_and_starts_nothing(told, capfd):
    """Trials, seeds, settings, faults and contract, resolved, and the same seeds every time."""
    args = ["run", "async-commit", "--dry-run", "--seed", "7", "--trials", "2", "--set", "wal_level=logical"]
    assert invoke(args) == 0
    first = capfd.readouterr().out
    assert invoke(args) == 0
    assert capfd.readouterr().out == first
    for expected in (
        "seed 7",
        "wal_level = logical",
        "autovacuum = off",
        "stop walwriter at a seeded moment",
        "kill all after 150",
    ):
        assert expected in first
    assert "contract" in first
    assert "jobs" not in told
    assert not Path(".crashlab").exists()


def test_dry_run_shows_an_applications_own_sql(told, capfd):
    """What is asserted is part of the plan."""
    assert invoke(["run", "own-application", "--dry-run"]) == 0
    out = capfd.readouterr().out
    for expected in (
        "tables in the ledger: item, orders",
        "67% UPDATE item SET stock",
        "goods are in stock or sold: SELECT id, stock, sold FROM item WHERE stock + sold <> 500\n",
    ):
        assert expected in out


def test_options_come_from_the_environment_too(told, monkeypatch):
    """CRASHLAB_RUN_SEED is --seed."""
    monkeypatch.setenv("CRASHLAB_RUN_SEED", "99")
    assert invoke(["run", "kill9-all"]) == 0
    assert told["jobs"][0].plan.run_seed == 99


def test_validate_shows_all_mistakes_of_all_files_at_once(capfd):
    """Good ones are called valid, bad ones are listed with file and line, the code is 2."""
    Path("good.toml").write_text('description = "x"\n' + FAULT)
    Path("bad.toml").write_text('descriptoin = "x"\ntrials = "ten"\n' + FAULT)
    assert invoke(["validate", "./good.toml", "kill9-all"]) == 0
    assert invoke(["validate", "./bad.toml", "./good.toml"]) == 2
    out, err = capfd.readouterr()
    assert out.count("good.toml: valid") == 2
    assert "bad.toml:1: descriptoin: unknown key; did you mean" in err
    assert "bad.toml:2: trials: " in err


def test_validate_holds_values_of_settings_against_servers(capfd):
    """What no version takes is a mistake, all of them at once; what one of them takes is none."""
    Path("bad.toml").write_text(
        'description = "x"\n' + FAULT + "[server.settings]\n"
        'max_wal_size = "1 parsec"\nwal_sync_method = "magic"\nfsync = "perhaps"\n'
        'shared_buffers = 1\nwork_mem = "4MB"\n'
    )
    assert invoke(["validate", "./bad.toml"]) == 2
    err = capfd.readouterr().err
    for expected in (
        'server.settings.max_wal_size: must be a number, with a unit such as MB, not "1 parsec"',
        "server.settings.wal_sync_method: must be one of fsync, fdatasync, open_sync, open_datasync",
        'server.settings.fsync: must be on or off, not "perhaps"',
        "server.settings.shared_buffers: must be within 128kB and ",
    ):
        assert expected in err
    assert "work_mem" not in err
    settings = ("vacuum_defer_cleanup_age=7", "io_method=sync", "wal_compression=lz4", "mine.own=x", "max_wal_size=64")
    assert (
        invoke(["validate", "kill9-all", *(word for one in settings for word in ("--set", f"server.settings.{one}"))])
        == 0
    )


def test_validate_holds_what_is_left_open_against_servers(capfd):
    """Each value of `[vary]`, as those of `[server.settings]`."""
    profile = 'description = "x"\n' + FAULT + "[vary]\n"
    Path("bad.toml").write_text(profile + 'work_mem = ["4MB", "-5"]\nfull_page_writes = ["on", "maybe"]\n')
    Path("segments.toml").write_text(profile + 'wal_segsize = ["1", "3"]\n')
    Path("good.toml").write_text(profile + 'work_mem = ["4MB", "64kB"]\nwal_segsize = ["1", "16"]\n')
    assert invoke(["validate", "./bad.toml"]) == 2
    err = capfd.readouterr().err
    assert 'vary.full_page_writes: must be on or off, not "maybe"' in err
    assert "vary.work_mem: must be within " in err
    assert invoke(["validate", "./segments.toml"]) == 2
    assert "vary.wal_segsize must be one of 1, 2, 4" in capfd.readouterr().err
    assert invoke(["validate", "./good.toml"]) == 0


@pytest.mark.server
def test_validate_asks_the_build_that_is_named(capfd):
    """It knows more than the table, such as its own check of a text; what one refuses that was only found is a note."""
    build = find_build()
    assert build is not None
    wrong = ["--set", "synchronous_standby_names=FIRST ("]
    assert invoke(["validate", "kill9-all", *wrong]) == 0
    out = capfd.readouterr().out
    assert f"note: server.settings.synchronous_standby_names: PostgreSQL {build.version.text}" in out
    assert invoke(["validate", "kill9-all", *wrong, "--pg-bindir", str(build.bindir)]) == 2
    assert "invalid value for parameter" in capfd.readouterr().err
    assert invoke(["validate", "kill9-all", "--set", "work_mem=64MB", "--pg-bindir", str(build.bindir)]) == 0


@pytest.mark.server
def test_validate_takes_a_misspelt_setting_for_a_mistake(capfd):
    """Whichever build was found; a name like no other may be a newer server's, and one with a dot an extension's."""
    assert invoke(["validate", "kill9-all", "--set", "server.settings.synchronus_commit=off"]) == 2
    assert 'Did you mean "synchronous_commit"?' in capfd.readouterr().err
    assert invoke(["validate", "kill9-all", "--set", "server.settings.brand_new=1"]) == 0
    assert 'unrecognized configuration parameter "brand_new"' in capfd.readouterr().out
    assert invoke(["validate", "kill9-all", "--set", "server.settings.auto_explain.log_min=1"]) == 0


def test_a_printed_profile_can_be_made_ones_own(capfd):
    """`crashlab profiles NAME` prints the file, comments and all."""
    assert invoke(["profiles", "async-commit"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("#")
    Path("mine.toml").write_text(text)
    assert invoke(["validate", "./mine.toml"]) == 0
    assert invoke(["profiles"]) == 0
    assert "kill9-container" in capfd.readouterr().out


def test_every_code_can_be_explained(capfd):
    """`crashlab explain` lists the codes, and each has a paragraph."""
    assert invoke(["explain"]) == 0
    codes = [line.split()[0] for line in capfd.readouterr().out.splitlines()]
    assert len(codes) > 10
    for code in codes:
        assert invoke(["explain", code.lower()]) == 0
        assert "Severity: " in capfd.readouterr().out


@pytest.mark.server
def test_doctor_says_what_this_machine_can_run(capfd):
    """Able or not, it ends with an answer, and the exit code agrees with it."""
    code = invoke(["doctor"])
    out = capfd.readouterr().out
    assert ("crashlab can run here." in out) == (code == 0)
    assert code in (0, 4)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_fast_and_complete(flag):
    """Help needs no driver, no schema library and no table library; every command has one line and its own help."""
    code = (
        "import sys\nfrom crashlab.cli import invoke\n"
        f"assert invoke([{flag!r}]) == 0\n"
        "heavy = {'rich', 'jinja2', 'pydantic', 'psycopg', 'testcontainers', 'docker'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    for name in cli.commands:
        assert f"\n  {name} " in done.stdout
        assert invoke([name, flag]) == 0
    assert "130  interrupted" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_a_run_with_a_report(number, tmp_path):
    """SIGTERM and SIGHUP are treated as Ctrl-C."""
    code = (
        "import sys, time\nfrom crashlab.campaign.runner import Runner\nfrom crashlab.cli import invoke\n"
        "def run(self, task):\n    out = self._jobs[task.job].out\n    out.mkdir()\n"
        "    (out / 'begun').touch()\n    time.sleep(60)\n"
        "Runner.run = run\nargs = ['run', 'kill9-all', '-j', '1', '--out', 'o', '--json', 'r.json']\n"
        "sys.exit(invoke(args))"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, preexec_fn=as_in_a_terminal)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "o/kill9-all/begun").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, number)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
    assert json.loads((tmp_path / "r.json").read_text())["interrupted"] is True
