"""Does the sampler see what a real server of each version waits for, and does it end with the server?"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from crashlab import evidence
from crashlab.cli import invoke
from crashlab.observe import SAMPLES, Sampler, Samples, queries
from crashlab.observe import sampler as module
from crashlab.observe.samples import BUSY_MAX, CLIENTS, Sample, Wait, flushes, share_of, wait_table
from crashlab.server import ServerSpec, create_server
from crashlab.server.base import Server
from crashlab.trial.chronicle import chronicle_of
from tests.power.test_known_bugs import build

pytestmark = pytest.mark.server
EVERY_MS = 2.0
LOOKS = 25
SECONDS_MAX = 30
INSERTS = 40
COLLECTOR_S = 1.5  # before 15 a process of its own gathered the statistics, and told them twice a second at most


@contextmanager
def started(tmp_path: Path, version: str | None = None, **settings: str) -> Iterator[Server]:
    """A server of its own; None: the build that is found."""
    bindir = None if version is None else build(version)
    with create_server(ServerSpec(kind="local", pg_bindir=bindir, settings=settings)) as server:
        server.start()
        yield server


def wait_for_looks(sampler: Sampler, more: int = LOOKS) -> None:
    """Wait until it has looked so often again."""
    enough, end = sampler.looks + more, time.monotonic() + SECONDS_MAX
    while sampler.looks < enough:
        assert time.monotonic() < end
        threading.Event().wait(0.002)


def connected(server: Server, **more: Any) -> "psycopg.Connection[Any]":
    return server.connect(autocommit=True, **more)


@pytest.mark.parametrize("version", [None, "14.23", "15.18", "16.14", "17.10"])
def test_what_a_version_counts_and_what_its_sessions_wait_for(tmp_path, version):
    """On each version: a lock is seen by its name, WAL positions grow, flushes and bytes of WAL are counted."""
    with started(tmp_path, version) as server, connected(server) as holder, connected(server) as other:
        holder.execute("CREATE TABLE t (v int)")
        sampler = Sampler(lambda: connected(server), every_ms=EVERY_MS)
        sampler.start()
        wait_for_looks(sampler, 1)
        for number in range(INSERTS):
            other.execute("INSERT INTO t VALUES (%s)", [number])
        with holder.transaction():
            holder.execute("LOCK TABLE t")
            waiting = threading.Thread(target=other.execute, args=("INSERT INTO t VALUES (1)",))
            waiting.start()
            wait_for_looks(sampler)
        waiting.join()
        holder.close()
        other.close()  # a session hands over what it counted when it ends
        threading.Event().wait(COLLECTOR_S if server.version.major < 15 else 0)
        wait_for_looks(sampler, 2)
        samples = sampler.stop()
    assert samples.version_num == server.version.num
    assert samples.ended is None
    locked = {(row.kind, row.event): row.seen for row in wait_table(samples, CLIENTS)}
    assert locked["Lock", "relation"] >= LOOKS - 1
    assert share_of(samples, "relation") > 0.5
    first, last = samples.samples[0], samples.samples[-1]
    assert last.insert_lsn > first.insert_lsn
    assert all(one.insert_lsn >= one.write_lsn >= one.flush_lsn for one in samples.samples)
    counted = samples.counted()
    assert counted["pg_stat_wal.wal_bytes"] > 0
    flushed = flushes(counted)
    assert flushed is not None
    assert flushed >= INSERTS
    checkpoints = {"pg_stat_checkpointer.num_timed", "pg_stat_bgwriter.checkpoints_timed"}
    assert len(checkpoints & samples.readings[-1].counters.keys()) == 1


def test_without_commits_no_flush_is_counted(tmp_path):
    """The twin of the above: an idle server shows no lock and no WAL of its clients."""
    with started(tmp_path, autovacuum="off") as server, connected(server) as idle:
        idle.execute("SELECT 1")
        sampler = Sampler(lambda: connected(server), every_ms=EVERY_MS)
        sampler.start()
        wait_for_looks(sampler)
        samples = sampler.stop()
    assert wait_table(samples, CLIENTS) == []
    assert not samples.counted().get("pg_stat_wal.wal_bytes")


def test_it_ends_with_the_server_and_keeps_what_it_saw(tmp_path):
    """After kill -9: all samples so far, the reason, and no thread left."""
    with started(tmp_path) as server:
        sampler = Sampler(lambda: connected(server), every_ms=EVERY_MS)
        sampler.start()
        wait_for_looks(sampler)
        server.kill_all()
        samples = sampler.stop()
    assert len(samples.samples) >= LOOKS
    assert samples.ended
    assert "crashlab-observe" not in {thread.name for thread in threading.enumerate()}


def test_it_looks_seldom_where_a_look_takes_long(tmp_path, monkeypatch):
    """A look of 10 ms may come no oftener than every half second. Only the first, which plans its queries, is free."""
    monkeypatch.setattr(module, "SAMPLE", queries.SAMPLE.replace("SELECT (", "SELECT pg_sleep(0.01), (", 1))
    monkeypatch.setattr(module, "sample_of", lambda at_ns, row: queries.sample_of(at_ns, row[1:]))
    with started(tmp_path) as server:
        sampler = Sampler(lambda: connected(server), every_ms=EVERY_MS)
        sampler.start()
        wait_for_looks(sampler, 4)
        samples = sampler.stop()
    gaps = [later.at_ns - one.at_ns for one, later in zip(samples.samples, samples.samples[1:], strict=False)]
    assert min(gaps[1:]) >= 0.01e9 * (1 / BUSY_MAX - 1)


def test_a_trial_that_is_observed_has_its_samples_and_its_twin_has_none(tmp_path, capsys):
    """`run --observe` leaves them beside the evidence, `waits` tells them; without it there is a clear error."""
    args = ["--trials", "1", "--seed", "5", "-q", "-j", "1", "--server", "local", "--set", "faults.0.when={acks=300}"]
    assert invoke(["run", "power-loss", "--observe", "--out", str(tmp_path / "recorded")]) == 2
    assert "cannot observe a recorded run" in capsys.readouterr().err
    for out, more in (("with", ["--observe"]), ("without", [])):
        assert invoke(["run", "kill9-all", *args, *more, "--out", str(tmp_path / out)]) == 0
    trial = tmp_path / "with" / "kill9-all" / "trial-0000"
    samples = evidence.load(trial / SAMPLES, Samples)
    assert samples.samples
    capsys.readouterr()
    assert invoke(["waits", str(trial)]) == 0
    said = capsys.readouterr().out
    assert "looking took at most" in said or "too few" in said
    assert invoke(["judge", str(trial)]) == 0
    assert invoke(["waits", str(tmp_path / "without" / "kill9-all" / "trial-0000")]) == 4
    assert "the trial was not observed" in capsys.readouterr().err
    for name in ("with", "without"):
        shutil.copytree(tmp_path / name / "kill9-all" / "trial-0000", tmp_path / name / "kill9-all" / "trial-0001")
    assert invoke(["waits", str(tmp_path / "without")]) == 4
    assert "--observe" in capsys.readouterr().err
    assert invoke(["waits", str(tmp_path / "with")]) == 2
    assert f"hint: Choose one: {trial}\n" in capsys.readouterr().err

    fault_ns = evidence.load_trial(trial).injections[-1].at_ns
    seen = (Wait(CLIENTS, "IO", "WalSync", False, 2), Wait(CLIENTS, "", "", False, 2))
    looks = [Sample(fault_ns - back * 1_000_000, 9, 9, 9, [one]) for back, one in zip((300, 100), seen, strict=True)]
    evidence.save(trial, SAMPLES, msgspec.structs.replace(samples, samples=looks))
    drawn = {one.kind: one for one in chronicle_of(trial).happenings}
    assert (drawn["WAL wait"].at, drawn["busy spell"].until) == pytest.approx((-300, -100), abs=1)
    assert "2.0 IO.WalSync" in drawn["WAL wait"].says
    twin = chronicle_of(tmp_path / "without" / "kill9-all" / "trial-0000")
    assert [one.kind for one in twin.happenings] == ["fault"]
