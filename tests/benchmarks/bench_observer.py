"""What does the observer add to a round trip?

    python tests/benchmarks/bench_observer.py [ROUNDS]

SELECT 1 by psycopg over a Unix socket, directly and through the observer, and a small commit (one row inserted in
autocommit mode; BEGIN, INSERT, COMMIT), which is asked for its transaction besides. Rounds of both alternate; medians
of single calls are compared. The target is 0.2 ms more for SELECT 1.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from crashlab.observer import Observer, Upstream
from crashlab.server import ServerSpec, create_server

CALLS = 300
TARGET_MS = 0.2
Work = Callable[[psycopg.Connection[Any]], object]


def explicit(connection: psycopg.Connection[Any]) -> None:
    """Four messages in three round trips or more."""
    with connection.transaction():
        connection.execute("INSERT INTO t VALUES (1)")


WORK: dict[str, tuple[int, Work]] = {
    "SELECT 1": (1, lambda connection: connection.execute("SELECT 1")),
    "SELECT with a parameter": (1, lambda connection: connection.execute("SELECT %s::int", [1])),
    "INSERT in autocommit mode": (1, lambda connection: connection.execute("INSERT INTO t VALUES (1)")),
    "BEGIN, INSERT, COMMIT": (3, explicit),
}
"""What is done -> its round trips, and how."""


def times_ms(connection: psycopg.Connection[Any], work: Work) -> list[float]:
    """Do it many times."""
    found = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        work(connection)
        found.append((time.perf_counter() - begun) * 1000)
    return found


def main(rounds: int) -> int:
    """Measure and print; 1 if the target was missed."""
    missed = False
    settings = {"fsync": "off", "autovacuum": "off"}
    with (
        tempfile.TemporaryDirectory() as name,
        create_server(ServerSpec(kind="local", settings=settings)) as server,
    ):
        server.start()
        folder = Path(name)
        with server.connect(autocommit=True) as direct:
            direct.execute("CREATE TABLE t (v int)")
            info = direct.info
            with (
                Observer(Upstream(info.host, info.port), folder / "conversation.jsonl", folder=folder) as observer,
                psycopg.connect(
                    host=str(observer.address.sockets),
                    port=observer.address.port,
                    user=info.user,
                    dbname=info.dbname,
                    autocommit=True,
                ) as through,
            ):
                for what, (trips, work) in WORK.items():
                    with_ms: list[float] = []
                    without_ms: list[float] = []
                    for _ in range(rounds):
                        without_ms += times_ms(direct, work)
                        with_ms += times_ms(through, work)
                    without, observed = statistics.median(without_ms), statistics.median(with_ms)
                    added = (observed - without) / trips
                    print(
                        f"{what}: {without:.3f} ms directly, {observed:.3f} ms through the observer, "
                        f"{observed / without:.2f} x, {added:.3f} ms added a round trip ({trips})"
                    )
                    missed = missed or (what == "SELECT 1" and added > TARGET_MS)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
