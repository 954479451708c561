"""What does a flush cost at a place, by each method that PostgreSQL has for its WAL?

The question of pg_test_fsync: one page of 8 kB is written over in a file that has its length already, and made
durable. As PostgreSQL does with its WAL: the file is filled and flushed before.

Choices:
    Methods take turns in an order drawn for each round, so that what else the disk does hits all of them alike.
    The interval is Student's over the logarithms of the rounds' medians; percentiles are those of all flushes.
    `none` writes and flushes nothing: what a write costs that no disk has to keep.
    fsync_writethrough belongs to macOS and Windows. open_datasync and open_sync without O_DIRECT, as PostgreSQL
    opens its WAL; but with wal_level = minimal up to 15, and with debug_io_direct from 16 on, it adds O_DIRECT.

Source: PostgreSQL manual, "pg_test_fsync", "wal_sync_method"; src/backend/access/transam/xlog.c (get_sync_bit,
issue_xlog_fsync).
"""

import contextlib
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crashlab.confidence import mean_interval
from crashlab.errors import EvidenceError
from crashlab.seeds import stream

PAGE_BYTES = 8192
FILE_BYTES = 16 << 20
"""As a segment of the WAL."""
NONE = "none"


@dataclass(frozen=True)
class Method:
    """One way to make a write durable: flags of open(2), and what is called after each write."""

    flags: int = 0
    call: Callable[[int], None] | None = None


METHODS: dict[str, Method] = {
    "open_datasync": Method(flags=os.O_DSYNC),
    "fdatasync": Method(call=os.fdatasync),
    "fsync": Method(call=os.fsync),
    "open_sync": Method(flags=os.O_SYNC),
    NONE: Method(),
}
"""The values of wal_sync_method that Linux has, in the order in which PostgreSQL prefers them, and no flush at all."""
UNAVAILABLE = {"fsync_writethrough": "not on Linux: of macOS and Windows"}


@dataclass(frozen=True, kw_only=True)
class FlushCost:
    """What one method cost; all times in milliseconds."""

    method: str
    flushes: int
    median_ms: float
    p99_ms: float
    quick_ms: float  # one flush in twenty was as quick, or quicker
    low_ms: float  # ends of the 95 % interval of the median
    high_ms: float

    @property
    def per_second(self) -> float:
        """So many flushes one after the other in a second."""
        return 1000 / self.median_ms


def measure(place: Path, seed: int, *, seconds: float = 1.0, rounds: int = 5) -> list[FlushCost]:
    """Measure each method for about so long, on a file that is made in a folder and removed again.

    Raises:
        EvidenceError: no file can be made there, or the disk refuses to flush.
        ValueError: fewer than two rounds.
    """
    if rounds < 2:
        raise ValueError("one round says nothing about the next")
    times: dict[str, list[list[float]]] = {name: [] for name in METHODS}
    rng = stream(seed, "flush")
    try:
        with _filled(place) as path:
            for _ in range(rounds):
                for name in rng.sample(list(METHODS), len(METHODS)):
                    times[name].append(_round(path, METHODS[name], seconds / rounds, rng.randrange))
    except OSError as error:
        raise EvidenceError(f'could not measure flushes in "{place}": {error.strerror}') from error
    return [_cost(name, found) for name, found in times.items()]


@contextlib.contextmanager
def _filled(place: Path) -> Iterator[Path]:
    """Give a durable file as long as a segment of the WAL."""
    try:
        fd, name = tempfile.mkstemp(prefix="crashlab-flush-", dir=place)
    except OSError as error:  # /proc says that there is no such file, of one that is to be made
        raise EvidenceError(
            f'could not measure flushes in "{place}": no file can be made there ({error.strerror})',
            hint="Name a folder that you can write to, on the disk in question.",
        ) from error
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            for _ in range(FILE_BYTES >> 20):
                file.write(b"\x5a" * (1 << 20))
            os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink()


def _round(path: Path, method: Method, seconds: float, draw: Callable[[int], int]) -> list[float]:
    """Return the milliseconds of each write with its flush, for about so long, at least three."""
    page = os.urandom(PAGE_BYTES)
    found: list[float] = []
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | method.flags)
    try:
        end = time.monotonic() + seconds
        while len(found) < 3 or time.monotonic() < end:
            offset = draw(FILE_BYTES // PAGE_BYTES) * PAGE_BYTES
            begun = time.perf_counter()
            os.pwrite(fd, page, offset)
            if method.call is not None:
                method.call(fd)
            found.append((time.perf_counter() - begun) * 1000)
    finally:
        os.close(fd)
    return found


def _cost(name: str, rounds: list[list[float]]) -> FlushCost:
    everything = sorted(ms for one in rounds for ms in one)
    medians = [statistics.median(one) for one in rounds]
    low, _, high = mean_interval([math.log(one) for one in medians])
    return FlushCost(
        method=name,
        flushes=len(everything),
        median_ms=statistics.median(everything),
        p99_ms=everything[min(len(everything) - 1, int(0.99 * len(everything)))],
        quick_ms=everything[len(everything) // 20],
        low_ms=math.exp(low),
        high_ms=math.exp(high),
    )
