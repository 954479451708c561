"""Does `crashlab tradeoff` measure what it says, lose nothing when it is cut short, and tell it all?"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.cli.tradeoff import _pgbench
from crashlab.errors import EvidenceError, ServerError
from crashlab.flush.place import IN_MEMORY, place_of
from crashlab.model import Outcome
from crashlab.report.tradeoff import RISKS, Tradeoff, as_json, cells, crash_table, heading, notes, page, verdict
from crashlab.seeds import stream
from crashlab.server import ServerSpec, create_server
from crashlab.tradeoff.blocks import RUNS, orders, runs_so_far
from crashlab.tradeoff.crashes import Crashes
from crashlab.tradeoff.measure import Bench, Run, _latencies, find_pgbench
from crashlab.tradeoff.plan import Cell
from tests.tradeoff import made

DISK = Path("/var/tmp")
"""Is on a disk by convention, where the tests' own temporary folder may lie in memory."""
PLAN = """
seconds = 1
blocks = 3
states = 2
[settings]
autovacuum = "off"
[[variation]]
name = "defaults"
[[variation]]
settings = { synchronous_commit = "off" }
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a disk that the server's user can reach."""
    path = Path(tempfile.mkdtemp(prefix="crashlab-tradeoff-", dir=DISK))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.server
def test_it_ranks_as_anybody_would_expect_and_is_cut_short_without_a_loss(folder):
    """On a disk asynchronous commits are faster, and lose some; Ctrl-C costs one run at most."""
    (folder / "mine.toml").write_text(PLAN)
    out = folder / "out"
    command = [sys.executable, "-m", "crashlab", "tradeoff"]
    first = subprocess.Popen(
        [*command, str(folder / "mine.toml"), "--seed", "11", "--out", str(out), "-j", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stderr is not None
    for line in first.stderr:
        if line.startswith("block 2"):
            first.send_signal(signal.SIGINT)
            break
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    measured = runs_so_far(out)
    assert 3 <= len(measured) <= 4
    assert "Not finished. Go on: crashlab tradeoff --resume" in said
    assert not list(out.glob("*/data"))  # the data directory is gone, and so is who worked in it
    with (out / RUNS).open("ab") as file:
        file.write(b'{"block": 9, "cut')
    second = subprocess.run([*command, "--resume", str(out), "-j", "1"], capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    runs = runs_so_far(out)
    assert runs[: len(measured)] == measured
    assert len(runs) == 6
    told = json.loads((out / "tradeoff.json").read_text())
    assert told["resume"] is None
    _, loose = told["rows"]
    ratio = loose["figures"]["per_second"]["ratio"]
    if place_of(DISK).kind not in IN_MEMORY:
        assert ratio["mean"] > 1.3, told["rows"]
    assert told["rows"][0]["risk"] == "kept"
    assert loose["risk"] in ("kept", "loss")  # two crashes may meet a moment at which nothing is in flight
    assert [one["trials"] for one in told["crashes"]] == [2] * 4
    assert loose["figures"]["wal_bytes"]["value"]["mean"] > 100
    assert all(run.transactions > 20 and run.recovery_s > 0 and run.redo_bytes > 0 for run in runs)
    assert (out / "tradeoff.html").read_text().count("<circle") >= 1


def test_what_cannot_be_gone_on_with_is_left_as_it_is(tmp_path, capfd):
    """There is no such folder, or it is something else's, such as a run's."""
    (tmp_path / "run").mkdir()
    for name, why in (("nowhere", "there is no such folder"), ("run", "it is not the folder of a crashlab tradeoff")):
        assert invoke(["tradeoff", "--resume", str(tmp_path / name)]) == 2
        assert f'cannot resume "{tmp_path / name}": {why}' in capfd.readouterr().err
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.server
def test_a_folder_that_the_server_cannot_reach_has_a_hint_that_helps(tmp_path, capfd):
    """It is --work that says where, and not TMPDIR as for other servers."""
    if os.geteuid() != 0:
        pytest.skip("only root runs servers as another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert invoke(["tradeoff", "--out", str(closed / "out")]) == 4
    said = capfd.readouterr().err
    assert "cannot reach it" in said
    assert "(--work)" in said
    assert "TMPDIR" not in said


@pytest.mark.server
def test_flushes_that_a_server_does_not_count_are_no_figure(folder):
    """With open_datasync each write is a flush, and pg_stat_wal and pg_stat_io say 0."""
    with create_server(ServerSpec(kind="local"), work=folder) as server:
        bench = Bench(server, _pgbench(server), "commit", 1)
        for method, counted in (("fdatasync", True), ("open_datasync", False)):
            cell = Cell(method, 1)
            run = bench.run(cell, {"wal_sync_method": method}, block=0, order=0, seed=1)
            assert (run.flushes is not None) == counted
    assert (Cell("a", 1).told, Cell("a", 8).told) == ("a, 1 session", "a, 8 sessions")


def told(kind: str = "ext4", flush_ms: float = 1.0, resume: str | None = None) -> Tradeoff:
    """A made-up result: one variation loses, one damages, one is as fast as the first."""
    plan = made.plan({"synchronous_commit": "off"}, {"fsync": "off"}, {"commit_delay": "10"}, states=2)
    loose, off, delay = (one.title for one in plan.variation[1:])
    runs = made.runs(plan, {"defaults": 1000.0, loose: 9000.0, off: 9500.0, delay: 1000.0}, stream(1, "told"))
    crashed = []
    for title, outcome in (("defaults", Outcome.INTACT), (loose, Outcome.LOSS), (off, Outcome.CORRUPTION)):
        outcomes = {one: 2 * (one == outcome) for one in Outcome}
        crashed.append(
            Crashes(
                variation=title,
                crash_class="power_loss",
                trials=2,
                outcomes={str(one): count for one, count in outcomes.items()},
                lost_most=3 * (outcome != Outcome.INTACT),
                broken=0,
                promised="p",
                folder="f",
            )
        )
    return Tradeoff.of(made.asked(plan, kind, flush_ms), runs, crashed, again="crashlab tradeoff made", resume=resume)


def test_page_table_and_json_tell_the_same():
    """Each cell of the terminal's table stands on the page; each risk has its own words and shape; JSON has it all."""
    result = told()
    text = re.sub(r"&#39;", "'", page(result).decode())
    for row in result.rows:
        assert all(cell in text for cell in cells(result, row))
    assert [result.risk(row.cell.variation) for row in result.rows] == ["kept", "loss", "damage", "untried"]
    assert all(says in text for says in RISKS.values())
    chart = text.split("<figcaption>")[0]
    shapes = [chart.count(shape) for shape in ("<circle", 'Z"/>', "M", "<title>crashlab")]
    assert shapes[:2] == [2, 1]
    assert "script" not in text
    assert "http" not in text.replace("Content-Security-Policy", "").replace("http-equiv", "")
    rows = as_json(result)["rows"]
    assert [row["figures"]["per_second"]["differs"] for row in rows] == [False, True, True, False]
    assert crash_table(result) is not None
    said = verdict(result)
    assert "fsync=off" in said
    assert "synchronous_commit=off" in said
    assert "commit_delay" not in said


def test_what_was_not_measured_to_its_end_is_not_said_to_be_no_faster():
    """Without all runs it says so, and which variations are known to be faster; with all, that nothing is."""
    plan = made.plan({"commit_delay": "10"})
    equal = made.runs(plan, {"defaults": 1000.0, "commit_delay=10": 1000.0}, stream(1, "equal"))

    def said(runs: list[Run]) -> str:
        return verdict(Tradeoff.of(made.asked(plan), runs, [], again="again", resume=None))

    assert said(equal) == "Nothing was seen to be faster than defaults."
    assert [said(equal[:count]) for count in (0, 1, 9)] == [f"Not finished, {count} of 10 runs." for count in (0, 1, 9)]
    faster = made.runs(plan, {"defaults": 1000.0, "commit_delay=10": 9000.0}, stream(1, "faster"))
    assert said(faster[:-1]).startswith("Not finished, 9 of 10 runs: faster than defaults: commit_delay=10 (")
    assert said(faster).startswith("Faster than defaults: commit_delay=10 (")


def test_where_flushes_cost_nothing_that_is_said():
    """In memory the heading warns; on a disk it does not."""
    assert any("cannot show" in line for line in heading(told("tmpfs", 0.001)))
    assert not any("cannot show" in line for line in heading(told()))
    assert any("Go on: again" in line for line in notes(told(resume="again")))


def test_runs_too_short_for_a_checkpoint_are_said_to_be():
    """Where checkpoints are what is compared; a run in which one ended is replayed from behind its beginning."""
    for setting, redo_bytes, idle in (
        ("max_wal_size", 900_000, True), ("max_wal_size", 100_000, False), ("commit_delay", 900_000, False)
    ):  # fmt: skip
        plan = made.plan({setting: "32"})
        runs = [made.run(block, cell, redo_bytes=redo_bytes) for block, _, cell in orders(plan, 1)]
        said = " ".join(notes(Tradeoff.of(made.asked(plan), runs, [], again="again", resume=None)))
        assert (f"No checkpoint ended in any run of defaults; {setting}=32: " in said) == idle


def test_each_block_has_each_cell_once_in_an_order_of_its_own():
    """The seed alone decides."""
    plan = made.plan(*({"commit_delay": str(number)} for number in range(5)), sessions=(1, 2), blocks=4)
    found = list(orders(plan, 5))
    assert found == list(orders(plan, 5))
    assert found != list(orders(plan, 6))
    by_block = [[cell for block, _, cell in found if block == wanted] for wanted in range(4)]
    assert all(sorted(one, key=repr) == sorted(plan.cells(), key=repr) for one in by_block)
    assert len({tuple(one) for one in by_block}) == 4


def test_latencies_and_rate_by_hand(tmp_path):
    """Three transactions of 10, 20 and 30 ms in two files: the rate counts from the first one's begin."""
    (tmp_path / "log.1").write_text("0 1 20000 0 100 20000\n0 2 30000 0 100 50000\n")
    (tmp_path / "log.1.1").write_text("1 1 10000 0 100 60000\n")
    latencies, rate = _latencies(sorted(tmp_path.glob("log.*")))
    assert latencies == [10, 20, 30]
    assert rate == pytest.approx(3 / 0.06)
    with pytest.raises(ServerError, match="no two transactions"):
        _latencies([])


def test_what_is_missing_or_damaged_is_a_clear_error(tmp_path, capsys):
    """No pgbench, a damaged line, an option that a resumed run has been told already."""
    with pytest.raises(ServerError, match="could not find pgbench"):
        find_pgbench([tmp_path])
    (tmp_path / RUNS).write_text("nonsense\n")
    with pytest.raises(EvidenceError, match="damaged evidence"):
        runs_so_far(tmp_path)
    assert invoke(["tradeoff", "--resume", str(tmp_path), "--seed", "3"]) == 2
    assert "leave out --seed" in capsys.readouterr().err
    assert invoke(["tradeoff", "--out", str(tmp_path / "out"), "--work", str(tmp_path / "gone")]) == 2
    assert "it is no folder" in capsys.readouterr().err
