"""Who looks at a running server, how often, and when does it stop?

Choices:
    A thread with a session of its own. A process of its own would cost less of the clients' interpreter, and a tenth
    of a second to start; tests/benchmarks/bench_observe.py says what the thread costs.
    It looks no more often than leaves its own share below `samples.BUSY_MAX`: on a machine where a look takes long it
    goes slower, and says so, rather than take from those whom it watches. The quickest of the last looks counts for
    that: one that had to wait for a processor took nothing meanwhile. The first one does not: it plans its queries.
    It ends with its session, for a crash is what it is there to see come; what it has seen until then is kept.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crashlab.observe.queries import SAMPLE, counters, profile_of, sample_of, views_of
from crashlab.observe.samples import BUSY_MAX, Reading, Sample, Samples

if TYPE_CHECKING:
    import psycopg

EVERY_MS = 50.0
COUNTERS_EVERY_S = 1.0
RECENT = 5
END_TIMEOUT_S = 5.0


class Sampler:
    """Looks at a server from `start` to `stop`; a context manager does both."""

    def __init__(self, connect: "Callable[[], psycopg.Connection[Any]]", *, every_ms: float = EVERY_MS) -> None:
        """Connect nobody yet.

        Args:
            connect: opens an autocommit session of a role that may see what others do (superuser, pg_monitor).
        """
        self._connect = connect
        self._every_s = every_ms / 1000
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crashlab-observe", daemon=True)
        self._samples: list[Sample] = []
        self._readings: list[Reading] = []
        self._looking_s = 0.0
        self._version_num = 0
        self._profile: dict[str, int] | None = None
        self._ended: str | None = None
        self._connection: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        """Connect and begin. Raises psycopg.Error: the session could not be opened."""
        self._connection = self._connect()
        self._thread.start()

    @property
    def looks(self) -> int:
        """How often it has looked so far."""
        return len(self._samples)

    def stop(self) -> Samples:
        """End it and return what was seen. Called again it returns the same.

        Where a server stands still it does not answer: then what was seen before is returned.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(END_TIMEOUT_S)
        if self._thread.is_alive():
            self._ended = f"no answer within {END_TIMEOUT_S:g} s"
        return Samples(
            version_num=self._version_num,
            every_ms=self._every_s * 1000,
            samples=list(self._samples),
            readings=list(self._readings),
            looking_s=self._looking_s,
            profile=self._profile,
            ended=self._ended,
        )

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _run(self) -> None:
        from psycopg import Error

        assert self._connection is not None
        try:
            with self._connection, self._connection.cursor() as cursor:
                self._version_num = self._connection.info.server_version
                self._look_on(cursor)
        except Error as error:
            self._ended = str(error).strip().split("\n")[0]

    def _look_on(self, cursor: "psycopg.Cursor[Any]") -> None:
        views = views_of(cursor)
        counted_at = -math.inf
        recent: deque[float] = deque(maxlen=RECENT)
        while True:
            begun = time.monotonic()
            row = cursor.execute(SAMPLE, prepare=True).fetchone()
            assert row is not None
            self._samples.append(sample_of(time.monotonic_ns(), row))
            if begun - counted_at >= COUNTERS_EVERY_S:
                counted_at = self._count(cursor, views)
            took = time.monotonic() - begun
            pause = self._every_s - took
            if len(self._samples) > 1:  # time is counted from the first look's end on
                self._looking_s += took
                recent.append(took)
                pause = max(pause, min(recent) * (1 / BUSY_MAX - 1))
            if self._stop.wait(max(0.0, pause)):
                break
        self._count(cursor, views)
        self._profile = profile_of(cursor)

    def _count(self, cursor: "psycopg.Cursor[Any]", views: list[str]) -> float:
        self._readings.append(Reading(time.monotonic_ns(), counters(cursor, views)))
        return time.monotonic()
