"""What did the samples of a running server show? Records, and what is made of them; pure.

Choices:
    Wait events are kept by the names that the server itself gives them: WALSync up to 16 is WalSync from 17 on, and
    `EVENTS` alone knows that they are one.
    A share is one of samples, not of time that anybody clocked: an event that was seen in 5 of 100 samples of a
    backend took 5 % of its time, give or take what chance does to 100 samples. One that lasts less than a sampling
    period is seen in proportion, and one that is rare may be missed.
    A process without a wait event is running, or waiting for a processor: the server does not tell these apart.
    What a server counts, its processes hand over when they end, or once a second. So a read right before a crash
    is up to a second behind.

Source: PostgreSQL manual, "The Cumulative Statistics System" (tables of wait events; pg_stat_wal, pg_stat_io,
pg_stat_checkpointer, pg_stat_bgwriter); src/backend/utils/activity/pgstat.c (PGSTAT_MIN_INTERVAL).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

SCHEMA = 1
SAMPLES = "samples.json"
"""In a trial's folder, if it was observed."""
CLIENTS = "client backend"
RUNNING = "running"
BUSY_MAX = 0.02
"""The share of one processor that looking may take; the sampler goes slower where it would take more."""

EVENTS: dict[tuple[str, str], str] = {
    ("LWLock", "WALInsert"): "a slot to copy a record into the WAL buffers",
    ("LWLock", "WALWrite"): "another process that writes or flushes the WAL",
    ("LWLock", "WALBufMapping"): "a page of the WAL buffers that is still full",
    ("IO", "WalWrite"): "the kernel takes a write of the WAL",
    ("IO", "WalSync"): "the disk keeps the WAL",
    ("Client", "ClientWrite"): "the client takes the answer",
}
"""The events that commits wait for, as 17 and newer name them -> what they wait for."""
_OLDER = {("IO", "WALWrite"): ("IO", "WalWrite"), ("IO", "WALSync"): ("IO", "WalSync")}


class Wait(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """So many processes of a kind were found in one state at one moment."""

    backend: str  # backend_type
    kind: str  # wait_event_type; empty: running
    event: str  # wait_event, as the server names it
    idle: bool  # a client's process that has nothing to do, in or outside a transaction
    count: int


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One look."""

    at_ns: int  # monotonic, the clock of the ledger
    insert_lsn: int
    write_lsn: int
    flush_lsn: int
    waits: list[Wait]


class Reading(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One read of all counters."""

    at_ns: int
    counters: dict[str, float]  # "pg_stat_wal.wal_bytes"; of pg_stat_io also backend, object and context


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was seen of one server's life."""

    schema: int = SCHEMA
    version_num: int
    every_ms: float  # asked for; a busy machine stretches it
    samples: list[Sample]
    readings: list[Reading]
    looking_s: float  # spent in the looks after the first, from question to answer
    profile: dict[str, int] | None = None  # of pg_wait_sampling, "IO.WalSync" -> samples; None: it is not there
    ended: str | None = None  # why there are no more; None: it was told to stop

    @property
    def seconds(self) -> float:
        """From the first to the last look."""
        return (self.samples[-1].at_ns - self.samples[0].at_ns) / 1e9 if self.samples else 0.0

    @property
    def busy(self) -> float | None:
        """The share of the time that was spent looking: no more than this can have been taken from one processor."""
        return self.looking_s / self.seconds if self.seconds else None

    def counted(self) -> dict[str, float]:
        """Return by how much each counter grew from the first read to the last."""
        if not self.readings:
            return {}
        first, last = self.readings[0].counters, self.readings[-1].counters
        return {name: value - first.get(name, 0.0) for name, value in last.items() if value != first.get(name, 0.0)}


@dataclass(frozen=True, kw_only=True)
class WaitShare:
    """One row of the table of waits."""

    backend: str
    kind: str
    event: str
    seen: int  # processes in this state, over all samples
    share: float  # ... of all samples of this backend's kind that were not idle
    says: str  # what it waits for; empty: see the manual


def named(kind: str, event: str) -> tuple[str, str]:
    """Return an event as 17 and newer name it."""
    return _OLDER.get((kind, event), (kind, event))


def wait_table(samples: Samples, backend: str | None = None) -> list[WaitShare]:
    """Return what was waited for, by kind of process, the most frequent first; idle clients are left out.

    Args:
        backend: only this kind of process.
    """
    seen: Counter[tuple[str, str, str]] = Counter()
    for sample in samples.samples:
        for wait in sample.waits:
            if not wait.idle and backend in (None, wait.backend):
                seen[(wait.backend, *named(wait.kind, wait.event))] += wait.count
    whole: Counter[str] = Counter()
    for (process, _, _), count in seen.items():
        whole[process] += count
    rows = [
        WaitShare(
            backend=process,
            kind=kind,
            event=event or RUNNING,
            seen=count,
            share=count / whole[process],
            says=EVENTS.get((kind, event), ""),
        )
        for (process, kind, event), count in seen.items()
    ]
    return sorted(rows, key=lambda row: (row.backend != CLIENTS, row.backend, -row.seen, row.kind, row.event))


def share_of(samples: Samples, event: str, backend: str = CLIENTS) -> float:
    """Return the share of one event, such as "WalSync", among what the clients' processes were doing."""
    return sum(row.share for row in wait_table(samples, backend) if row.event == event)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One piece of the time of a trial, for a timeline to draw over."""

    begin_ns: int  # monotonic, the clock of the ledger
    end_ns: int
    waits: Mapping[str, float]  # "IO.WalSync", "running" -> clients' processes in this state, on average
    inserted: int  # bytes of WAL at the end of the piece, from the first sample on
    written: int
    flushed: int


def slots(samples: Samples, most: int = 100) -> list[Slot]:
    """Cut the time into at most so many pieces of one length, and say of each what the clients waited for.

    A piece without a sample is left out: nobody looked.

    Raises:
        ValueError: fewer than one piece.
    """
    if most < 1:
        raise ValueError("at least one piece")
    found = samples.samples
    if not found:
        return []
    first = found[0]
    width = max(1, -(-(found[-1].at_ns - first.at_ns + 1) // min(most, len(found))))
    pieces: dict[int, list[Sample]] = {}
    for sample in found:
        pieces.setdefault((sample.at_ns - first.at_ns) // width, []).append(sample)
    return [
        Slot(
            begin_ns=first.at_ns + number * width,
            end_ns=first.at_ns + (number + 1) * width,
            waits=_averages(inside),
            inserted=inside[-1].insert_lsn - first.insert_lsn,
            written=inside[-1].write_lsn - first.insert_lsn,
            flushed=inside[-1].flush_lsn - first.insert_lsn,
        )
        for number, inside in pieces.items()
    ]


def _averages(inside: list[Sample]) -> dict[str, float]:
    seen: Counter[str] = Counter()
    for sample in inside:
        for wait in sample.waits:
            if wait.backend == CLIENTS and not wait.idle:
                seen[".".join(filter(None, named(wait.kind, wait.event))) or RUNNING] += wait.count
    return {name: count / len(inside) for name, count in sorted(seen.items())}


def flushes(counted: Mapping[str, float]) -> float | None:
    """Return how often the WAL was flushed: pg_stat_wal says so up to 17, pg_stat_io from 18 on; None: neither does."""
    if "pg_stat_wal.wal_sync" in counted:
        return counted["pg_stat_wal.wal_sync"]
    found = {name: value for name, value in counted.items() if name.startswith("pg_stat_io.") and ".wal." in name}
    return sum(value for name, value in found.items() if name.endswith(".fsyncs")) if found else None


def cost_line(samples: Samples) -> str:
    """Say what looking cost."""
    count = len(samples.samples)
    if samples.busy is None:
        return f"{count} sample{'s' if count != 1 else ''}: too few to say what looking cost"
    period_ms = samples.seconds * 1000 / max(1, count - 1)
    line = (
        f"{count} samples in {samples.seconds:.1f} s, one every {period_ms:.0f} ms;"
        f" looking took at most {100 * samples.busy:.1f} % of one processor"
    )
    if period_ms > 2 * samples.every_ms:
        line += f" (asked for one every {samples.every_ms:g} ms; each took too long for that)"
    return line
