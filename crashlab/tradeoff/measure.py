"""How is one cell measured once? A server under its settings, pgbench, a kill -9 and a recovery.

Choices:
    pgbench is PostgreSQL's own, and costs less of the machine than clients of ours would. Its time includes everything
    from the first transaction on: no warm-up is cut off, for full-page images are what a checkpoint costs.
    One data directory serves all runs, made fresh by its own tables: so each run begins after a checkpoint, with new
    tables and WAL segments to recycle.
    The time of a recovery is that from the start of a killed server until a session gets in, under the same settings.
    It is a kill -9: the kernel has all that was written. After a power cut its reads are slower.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from crashlab.errors import ServerError
from crashlab.observe import Sampler, Samples
from crashlab.observe.samples import CLIENTS, flushes, wait_table
from crashlab.server.base import Server
from crashlab.tradeoff.plan import WORKLOADS, Cell

GRACE_S = 60.0
"""How much longer than asked for pgbench may take before it hangs."""
PROGRAM = "pgbench"
SET_UP = """
DROP TABLE IF EXISTS crashlab_account, crashlab_bulk;
CREATE TABLE crashlab_account (id int PRIMARY KEY, balance bigint, changed int, filler char(80)) WITH (fillfactor = 80);
INSERT INTO crashlab_account SELECT i, 0, 0, '' FROM generate_series(1, 100000) AS i;
CREATE TABLE crashlab_bulk (id int, filler text);
VACUUM (FREEZE, ANALYZE) crashlab_account;
CHECKPOINT;
"""
COUNTED = ("fdatasync", "fsync")
"""The values of wal_sync_method whose flushes the server counts; Linux's own default comes first."""
POSITION = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
REDO = "SELECT (redo_lsn - '0/0')::bigint FROM pg_control_checkpoint()"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One cell, measured once."""

    block: int
    order: int  # within the block
    cell: Cell
    transactions: int
    per_second: float
    median_ms: float  # latency of a transaction
    p99_ms: float
    wal_bytes: float  # of WAL a transaction
    flushes: float | None  # of the WAL a transaction; None: the server does not count them
    page_images: float | None  # a transaction
    recovery_s: float
    redo_bytes: int  # of WAL between the last checkpoint and the crash
    waits: dict[str, float]  # "LWLock.WALInsert" -> share of what the sessions were doing
    samples: int

    @property
    def checkpointed(self) -> bool:
        """Whether a checkpoint began and ended in it: then it would be replayed from a place behind its beginning."""
        return self.redo_bytes < self.wal_bytes * self.transactions


@dataclass(frozen=True)
class Bench:
    """A server and a pgbench, ready for any number of runs."""

    server: Server
    pgbench: Path
    workload: str
    seconds: int

    def run(self, cell: Cell, settings: dict[str, str], *, block: int, order: int, seed: int) -> Run:
        """Measure a cell once; the server is stopped before and afterwards.

        Raises:
            ServerError: the settings are not in force, or server or pgbench failed.
        """
        server = self.server
        server.start(overrides=settings)
        try:
            method = server.read_settings().get("wal_sync_method", COUNTED[0])
            with server.connect(autocommit=True) as connection:
                for statement in SET_UP.strip().split(";\n"):
                    connection.execute(statement.encode())
                (first,) = connection.execute(POSITION).fetchone() or (0,)
            with Sampler(lambda: server.connect(autocommit=True)) as sampler:
                latencies_ms, per_second = self._pgbench(cell.sessions, seed)
                samples = sampler.stop()
            with server.connect(autocommit=True) as connection:
                (last,) = connection.execute(POSITION).fetchone() or (0,)
                (redo,) = connection.execute(REDO).fetchone() or (0,)
            recovery_s = self._recover(settings)
            server.stop("fast", timeout_s=GRACE_S)
        finally:
            server.kill_all()
        count, counted = len(latencies_ms), samples.counted()
        # pg_stat_wal: with the other methods each write is its own flush, and none is counted
        flushed = flushes(counted) if method in COUNTED else None
        images = counted.get("pg_stat_wal.wal_fpi")
        return Run(
            block=block,
            order=order,
            cell=cell,
            transactions=count,
            per_second=per_second,
            median_ms=latencies_ms[count // 2],
            p99_ms=latencies_ms[int(0.99 * (count - 1))],
            wal_bytes=(last - first) / count,
            flushes=None if flushed is None else flushed / count,
            page_images=None if images is None else images / count,
            recovery_s=recovery_s,
            redo_bytes=last - redo,
            waits=_waits(samples),
            samples=len(samples.samples),
        )

    def _recover(self, settings: dict[str, str]) -> float:
        self.server.kill_all()
        begun = time.monotonic()
        self.server.start(overrides=settings, timeout_s=GRACE_S)
        return time.monotonic() - begun

    def _pgbench(self, sessions: int, seed: int) -> tuple[list[float], float]:
        """Run it, and return the latency of each transaction, ascending, in ms, and how many there were a second."""
        with tempfile.TemporaryDirectory(prefix="crashlab-pgbench-") as name:
            folder = Path(name)
            script = folder / "script.sql"
            script.write_text(WORKLOADS[self.workload])
            command = [
                *(str(self.pgbench), "--no-vacuum", "--protocol=prepared", f"--file={script}"),
                *(f"--client={sessions}", f"--jobs={min(sessions, len(os.sched_getaffinity(0)))}"),
                *(f"--time={self.seconds}", f"--random-seed={seed}", "--log", f"--log-prefix={folder / 'log'}"),
                self.server.conninfo(),
            ]
            _finish(command, self.seconds + GRACE_S)
            return _latencies(sorted(folder.glob("log.*")))


def _finish(command: Sequence[str], timeout_s: float) -> None:
    """Run pgbench to its end; whatever interrupts us ends it, too."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"could not finish pgbench within {timeout_s:g} s") from error
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        raise ServerError("could not finish pgbench", detail="\n".join(said.strip().splitlines()[-5:]))


def _latencies(logs: Sequence[Path]) -> tuple[list[float], float]:
    """Read pgbench's log of transactions: client, number, microseconds, script, and when it ended."""
    found: list[float] = []
    ends: list[float] = []
    for log in logs:
        for line in log.read_text().splitlines():
            _, _, took_us, _, epoch_s, epoch_us = line.split()[:6]
            found.append(int(took_us) / 1000)
            ends.append(int(epoch_s) + int(epoch_us) / 1e6)
    if len(found) < 2:
        raise ServerError("could not measure: pgbench finished no two transactions", hint="Give each run more seconds.")
    first = min(end - took_ms / 1000 for end, took_ms in zip(ends, found, strict=True))
    return sorted(found), len(found) / (max(ends) - first)


def _waits(samples: Samples) -> dict[str, float]:
    return {".".join(filter(None, (row.kind, row.event))): round(row.share, 4) for row in wait_table(samples, CLIENTS)}


def find_pgbench(places: Sequence[Path]) -> Path:
    """Return the first pgbench among folders. Raises ServerError: there is none."""
    for place in places:
        if (place / PROGRAM).is_file():
            return place / PROGRAM
    raise ServerError(
        "could not find pgbench, which makes the load",
        detail=f"Looked in {', '.join(str(place) for place in places)}.",
        hint="Install PostgreSQL's own (Debian: postgresql-NN), or pip install 'crashlab[embedded]'.",
    )
