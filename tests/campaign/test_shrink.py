"""Does a trial of a recording shrink to a small crash state with the same finding, told so that it can be followed?

The trials are those of `stored/recorded-schema-1.tar.xz`, see `test_replay_stored`.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.campaign.same import Same
from crashlab.campaign.shorter import SHARES, Shorter, asked_for, with_transactions
from crashlab.campaign.shrink import IMAGE, shrink
from crashlab.campaign.shrunk import PROFILE, README, SHORTER, Shrunk, ShrunkRun, readme
from crashlab.cli import invoke
from crashlab.errors import UsageProblem
from crashlab.model import Outcome
from crashlab.profile import load_profile
from crashlab.server import ServerChoice
from crashlab.server.privileges import server_environment, server_user
from tests.campaign.command import Command, left_behind, temporary_home
from tests.campaign.test_replay_stored import trials, unpacked
from tests.made_results import broken, recovered_by
from tests.overrides import kill_after

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("stored"))


def trial_with(run: Path, outcome: Outcome) -> Path:
    """Return the first trial with an outcome."""
    return next(folder for folder in trials(run) if evidence.load_verdict(folder).outcome is outcome)


@pytest.mark.parametrize("outcome", [Outcome.CORRUPTION, Outcome.NO_START, Outcome.LOSS])
def test_a_trial_shrinks_to_few_lost_writes_with_the_same_finding(stored, tmp_path, monkeypatch, outcome):
    """Fewer losses than drawn, no later point, a README that names each, and a folder that replays to the same code."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "small"
    out.mkdir()
    done = shrink(trial_with(stored, outcome), out=out, server=ServerChoice(), trials=0, time_limit_s=120)
    assert isinstance(done, Shrunk)
    assert done.code in [one.code for one in done.result.verdict.findings]
    # An asynchronous commit that was never written is gone by a kill -9, with nothing lost by the disk
    assert (0 if outcome is Outcome.LOSS else 1) <= done.lost < done.lost_before
    assert done.position <= done.position_before
    told = (out / README).read_text()
    assert len(done.lines) == done.lost
    assert all(line in told for line in done.lines)
    assert all("operation" in line or "size of" in line for line in done.lines)
    assert (out / IMAGE / "PG_VERSION").is_file()
    assert not (out / IMAGE / "postmaster.pid").exists()
    assert invoke(["replay", str(out), "--out", "again"]) == 0
    (again,) = trials(tmp_path / "again")
    assert done.code in [one.code for one in evidence.load_verdict(again).findings]


@pytest.mark.parametrize(
    ("outcome", "said"), [(Outcome.LOSS, "ready to accept connections"), (Outcome.NO_START, "PANIC:  ")]
)
def test_a_server_starts_on_the_image_as_the_readme_says(stored, tmp_path, outcome, said):
    """It recovers, or does not start for what was found: the image is a whole data directory."""
    out = tmp_path / "small"
    assert invoke(["shrink", str(trial_with(stored, outcome)), "--trials", "0", "--out", str(out)]) == 0
    command = (out / README).read_text().splitlines()[-1].strip()
    record = evidence.load_trial(out)
    assert record.server is not None
    # max_prepared_transactions, for one, decides whether a recovery succeeds
    assert all(f" -c {name}={value}" in command for name, value in record.server.requested.items())
    user = server_user()
    with temporary_home() as home:  # which the server's user can reach
        user.own(home)
        shutil.copytree(out / IMAGE, home / IMAGE, symlinks=True)
        subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", home / IMAGE], check=True)
        server = subprocess.Popen(
            ["sh", "-c", f"{command} -c listen_addresses= -k {home}"],
            cwd=home,
            env={**server_environment(), "PATH": f"{record.server.source}:{os.environ['PATH']}"},
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            **user.credentials(),
        )
        assert server.stderr is not None
        told = []
        try:
            for line in server.stderr:
                told.append(line)
                if said in line:
                    break
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.communicate(timeout=60)
        assert said in told[-1], "".join(told)


def test_an_interrupt_keeps_the_best_so_far(stored, tmp_path):
    """Ctrl-C, as it reaches a command on a terminal: what is smaller by then is written down, and told as that."""
    with temporary_home() as home:
        trial = str(trial_with(stored, Outcome.CORRUPTION))
        command = Command("shrink", trial, "--trials", "0", "--out", "small", cwd=tmp_path, home=home)
        try:
            command.wait_for_text(" lost, at operation")
            command.interrupt()
            assert command.ended() == 130, command.text()
        finally:
            command.end()
        assert left_behind(home) == []
    said = command.text()
    assert "interrupted: the best so far is written down" in said
    assert "It was interrupted: this is the best so far, and there may be a smaller one." in said
    out = tmp_path / "small"
    assert "it was interrupted before the search ended" in (out / README).read_text()
    assert (out / IMAGE / "PG_VERSION").is_file()
    assert invoke(["judge", str(out)]) == 0  # on a disk that lies nothing was promised


def test_one_that_ends_by_itself_says_nothing_of_an_interrupt(stored, tmp_path):
    """Nor one whose time was up."""
    trial, told = trial_with(stored, Outcome.CORRUPTION), {}
    for limit_s in (0.001, 120):
        out = tmp_path / str(limit_s)
        out.mkdir()
        done = shrink(trial, out=out, server=ServerChoice(), trials=0, time_limit_s=limit_s)
        told[limit_s] = " ".join(done.told()) + (out / README).read_text()
    assert all("interrupted" not in text for text in told.values())
    assert "The time was up: this is the best so far, and there may be a smaller one (--time-limit)." in told[0.001]
    assert "time was up" not in told[120]


def test_an_interrupt_ends_the_search_for_a_shorter_run(tmp_path):
    """The run that was recorded stays the best; without any finding yet there is nothing to keep."""
    sets = settings("clients=2", "acked_min=2", kill_after(12))
    assert invoke(["run", "async-commit", "--trials", "12", "-q", "--out", str(tmp_path / "live"), *sets]) == 0
    asked = []

    def interrupted() -> bool:
        asked.append(1)
        return True

    out = tmp_path / "small"
    out.mkdir()
    live = trial_with(tmp_path / "live", Outcome.LOSS)
    try:
        done = shrink(live, out=out, server=ServerChoice(), trials=20, interrupted=interrupted)
    except KeyboardInterrupt:
        assert not (out / README).exists()
    else:
        assert isinstance(done, ShrunkRun)
        assert done.rate_before == (1, 1)
        assert done.run.tried == 0
        assert "It was interrupted before the search ended." in (out / README).read_text()
    assert asked


def test_a_shorter_run_that_shows_the_same_is_taken(tmp_path, monkeypatch):
    """Fewer transactions; its recording stays, and is what the result is replayed from."""
    monkeypatch.chdir(tmp_path)
    sets = settings("synchronous_commit='off'", "clients=1", "acked_min=10", "power_loss.acks=30")
    assert invoke(["run", "kill9-every-write", "--trials", "12", "--seed", "1", "-q", "--out", "run", *sets]) == 0
    trial = trial_with(tmp_path / "run", Outcome.LOSS)  # at most cuts a commit was answered since the last write
    monkeypatch.setattr(Shorter, "run", first_that_shows_it(8))
    out = tmp_path / "small"
    out.mkdir()
    done = shrink(trial, out=out, server=ServerChoice(), trials=12)
    assert isinstance(done, Shrunk)
    assert (done.code, done.lost) == ("LOSS-ASYNC-WINDOW", 0)
    assert done.run is not None
    assert done.run.taken
    assert 0 < done.begun < 20 < done.begun_before
    told = (out / README).read_text()
    assert f"{done.begun} transactions had begun by then (before: {done.begun_before})" in told
    assert f"of a shorter run: {done.run.size}" in told
    assert asked_for(load_profile(str(out / PROFILE))) == 8
    recorded = (out / str(evidence.load_trial(out).recording)).resolve()
    assert recorded.is_relative_to(out / SHORTER)
    assert all(path.resolve().is_relative_to(out) for path in (out / IMAGE).rglob("*"))  # no link leads out of it
    assert invoke(["replay", str(out), "--out", "again"]) == 0
    (again,) = trials(tmp_path / "again")
    assert done.code in [one.code for one in evidence.load_verdict(again).findings]


def test_a_shorter_run_that_is_not_taken_leaves_nothing(tmp_path, monkeypatch):
    """It showed the same after more transactions than it may: what is said, what is there and what replays agree."""
    monkeypatch.chdir(tmp_path)
    sets = settings("synchronous_commit='off'", "clients=1", "acked_min=10", "power_loss.acks=30")
    assert invoke(["run", "kill9-every-write", "--trials", "12", "--seed", "1", "-q", "--out", "run", *sets]) == 0
    trial = trial_with(tmp_path / "run", Outcome.LOSS)
    monkeypatch.setattr(Shorter, "run", none_is_few_enough)
    out = tmp_path / "small"
    out.mkdir()
    done = shrink(trial, out=out, server=ServerChoice(), trials=12)
    assert isinstance(done, Shrunk)
    assert done.run is not None
    assert not done.run.taken
    assert "2 shorter runs were tried; none was better." in done.told()
    assert not (out / SHORTER).exists()
    assert not (out / PROFILE).exists()
    recorded = (out / str(evidence.load_trial(out).recording)).resolve()
    assert recorded.is_relative_to(tmp_path / "run")
    assert invoke(["replay", str(out), "--out", "again"]) == 0
    (again,) = trials(tmp_path / "again")
    assert done.code in [one.code for one in evidence.load_verdict(again).findings]


def settings(*changes):
    """Return the arguments for a run of one kind of plain transactions, with more changes."""
    few = ["kinds=['register']", *(f"{share}=0" for share in SHARES), *changes]
    return [word for one in few for word in ("--set", one)]


def first_that_shows_it(count):
    """Return a search that proposes one and the same run, up to twenty times: each recording is another one."""

    def run(search):
        search.complete = True
        for _ in range(20):
            profile = with_transactions(search.best, count)
            search.tried += 1
            begun = search._found(profile, search.transactions)
            if begun is not None:
                search.best, search.transactions = profile, begun
                break
        return search.best

    return run


def none_is_few_enough(search):
    """Search among two short runs, each of which begins more transactions than it may."""
    search.complete = True
    search.transactions = -search.best.workload.clients
    assert not any(search._try(with_transactions(search.best, count)) for count in range(8, 10))
    return search.best


def test_a_live_trial_shrinks_to_a_shorter_run(tmp_path, monkeypatch):
    """An asynchronous commit is lost among few as among a dozen; how often is told for both.

    A commit is lost only if nobody has written the log since: most attempts find a shorter run, not all.
    """
    for seed in map(str, range(1, 11)):
        out = tmp_path / seed
        out.mkdir()
        monkeypatch.chdir(out)
        sets = settings("clients=2", "acked_min=2", kill_after(12))
        assert invoke(["run", "async-commit", "--trials", "12", "--seed", seed, "-q", "--out", "live", *sets]) == 0
        shrunk = shrink(trial_with(out / "live", Outcome.LOSS), out=out, server=ServerChoice(), trials=2)
        assert isinstance(shrunk, ShrunkRun)
        if (done := shrunk).run.taken:
            break
    assert done.run.taken
    assert (done.code, done.rate_before[1], done.rate[1]) == ("LOSS-ASYNC-WINDOW", 2, 2)
    assert 0 < done.begun < done.begun_before
    assert 0 < (asked_for(load_profile(str(out / PROFILE))) or 0) <= 12  # fewer clients may be all that is less
    told = (out / README).read_text()
    assert f"| found in | {done.rate_before[0]} of 2 trials | {done.rate[0]} of 2 trials |" in told
    assert done.folder is not None
    assert done.code in [one.code for one in evidence.load_verdict(done.folder).findings]


def test_what_cannot_be_shrunk_is_refused_with_the_reason(stored, tmp_path):
    """A code that it did not find; a live trial whose run is to stay as it is."""
    out = tmp_path / "small"
    out.mkdir()
    with pytest.raises(UsageProblem, match="it did not find CORRUPT-HOLE-OF-ANOTHER-KIND"):
        shrink(trial_with(stored, Outcome.LOSS), out=out, server=ServerChoice(), code="CORRUPT-HOLE-OF-ANOTHER-KIND")
    assert invoke(["run", "kill9-all", "--trials", "1", "--seed", "1", "-q", "--out", str(tmp_path / "live")]) == 0
    (live,) = trials(tmp_path / "live")
    with pytest.raises(UsageProblem, match="it did not find anything"):
        shrink(live, out=out, server=ServerChoice())


def test_the_readme_names_the_release_that_recovered():
    """It is the one that shows the finding; without another one that is the one that crashed."""
    for result, release in ((recovered_by(broken()), "18.9"), (broken(), "18.6")):
        shrunk = Shrunk(
            result=result,
            same=Same("CORRUPT-HOLE", ""),
            lost_before=9,
            lost=1,
            position_before=9,
            position=1,
            begun_before=9,
            begun=1,
            tried=1,
            complete=True,
            passed_over=0,
            run=None,
            lines=[],
        )
        assert f"start PostgreSQL {release} on a copy" in readme(shrunk, Path("out"))
