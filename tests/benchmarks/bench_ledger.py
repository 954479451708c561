"""What does it cost to compare a million acknowledged transactions with what came back?

    python tests/benchmarks/bench_ledger.py [N]

One run writes a ledger of N transactions, each with a marker and one row of its own, puts the same rows into a real
PostgreSQL, and measures, on the same machine in the same process, first reading all rows with COPY through psycopg
(`copy.rows()`), then everything that crashlab does: read the ledger, read the rows from the server, judge. The
target is a ratio of 2, and a peak of resident memory below 1 GB.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from crashlab.contract import contract_for
from crashlab.history import read_ledger
from crashlab.ledger import SCHEMA, Ack, Begin, End, Event, Header, Intent, Write, ledger_digest
from crashlab.model import (
    REQUIRED_CHECKS,
    CheckRun,
    CrashClass,
    Injection,
    MarkerRead,
    Observation,
    Outcome,
    Recovery,
    RelationRead,
)
from crashlab.oracle import judge
from crashlab.recovery.rows import read_markers, read_rows
from crashlab.server import ServerSpec, create_server

CLIENTS = 4
ROUNDS = 3
TABLES = """
    CREATE TABLE register (key text PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL, value text);
    CREATE TABLE marker (tx bigint PRIMARY KEY, client integer NOT NULL, xid bigint NOT NULL);
"""
MARKERS = "SELECT tx, client, xid FROM marker"
ROWS = "SELECT key, version, writer, value FROM register"


def write_ledger(path: Path, count: int) -> None:
    """Write what the clients would have written, without an fsync or a system call a line."""
    encode = msgspec.json.Encoder().encode
    now_ns = 10**15
    digest = ledger_digest()
    with path.open("wb") as file:

        def write_lines(*events: Header | Event) -> None:
            lines = b"".join(encode(event) + b"\n" for event in events)
            digest.update(lines)
            file.write(lines)

        write_lines(Header(schema=SCHEMA, seed=1))
        for tx in range(1, count + 1):
            client = 1 + tx % CLIENTS
            lsn = (1 << 32) + tx * 300
            write = Write("register", f"key-{tx}", 1, f"value-{tx}")
            events: tuple[Event, ...] = (
                Begin(tx, client, now_ns),
                Intent(
                    tx,
                    client,
                    now_ns + 100_000,
                    sync="on" if tx % 2 else "off",
                    xid=tx + 700,
                    writes=(write,),
                    ticket=tx,
                    insert_lsn=lsn,
                    write_lsn=lsn,
                    flush_lsn=lsn,
                ),
                Ack(tx, client, now_ns + 200_000),
            )
            write_lines(*events)
            now_ns += 300_000
        file.write(encode(End(1 + 3 * count, digest.hexdigest())) + b"\n")


def fill(connection: psycopg.Connection[Any], count: int) -> None:
    """Put the rows of these transactions into the server."""
    connection.execute(TABLES)
    connection.execute(
        "INSERT INTO register SELECT 'key-' || n, 1, n, 'value-' || n FROM generate_series(1, %s) n", (count,)
    )
    connection.execute(
        f"INSERT INTO marker SELECT n, 1 + n %% {CLIENTS}, n + 700 FROM generate_series(1, %s) n", (count,)
    )
    connection.execute("VACUUM ANALYZE")


def copy_all(connection: psycopg.Connection[Any]) -> int:
    """Read all rows with COPY, as a user of psycopg would."""
    count = 0
    for query in (MARKERS, ROWS):
        with connection.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT") as copy:
            for _ in copy.rows():
                count += 1
    return count


def timed(what: str, spent: dict[str, float], do: Callable[[], Any]) -> Any:
    """Run something and note its seconds."""
    begun = time.perf_counter()
    result = do()
    spent[what] = time.perf_counter() - begun
    return result


def observation_of(markers: Any, rows: Any) -> Observation:
    """What the observer would hand over."""
    return Observation(
        recovery=Recovery(started=True, ran=True, seconds=0.1),
        checks={name: CheckRun(status="ran", count=1, seconds=0.0) for name in REQUIRED_CHECKS},
        marker=MarkerRead(file=None, rows=markers),
        relations=[RelationRead(relation="register", file=None, rows=rows)],
    )


def injection(count: int) -> Injection:
    """Return a receipt."""
    return Injection(
        kind="kill",
        target="all",
        pid=None,
        pids=[],
        confirmed=True,
        proof=[],
        crashes_server=True,
        bounds_window=True,
        acked_before=count,
        ledger_position=3 * count,
        at_ns=2 * 10**15,
    )


def compare(connection: psycopg.Connection[Any], ledger: Path, count: int) -> dict[str, float]:
    """Do all that crashlab does; return seconds by stage."""
    spent: dict[str, float] = {}
    history = timed("ledger", spent, lambda: read_ledger(ledger))
    markers = timed("markers", spent, lambda: read_markers(connection, MARKERS))
    rows = timed("rows", spent, lambda: read_rows(connection, ROWS))
    observation = observation_of(markers, rows)
    contract = contract_for({}, CrashClass.PROCESS_CRASH)
    verdict = timed("judge", spent, lambda: judge(history, contract, [injection(count)], observation, acked_min=1))
    assert verdict.outcome is Outcome.INTACT, verdict
    assert verdict.counts.acked == count
    return spent


def main(count: int) -> int:
    """Measure and print; 1 if the target was missed."""
    settings = {"shared_buffers": "256MB", "fsync": "off", "max_wal_size": "4GB", "autovacuum": "off"}
    ratios = []
    print(f"{count} acknowledged transactions, {2 * count} rows; seconds")
    with tempfile.TemporaryDirectory() as folder, create_server(ServerSpec(kind="local", settings=settings)) as server:
        ledger = Path(folder) / "ledger.jsonl"
        write_ledger(ledger, count)
        server.start()
        with server.connect(autocommit=True) as connection:
            fill(connection, count)
            for _ in range(ROUNDS):
                spent: dict[str, float] = {}
                timed("copy", spent, lambda: copy_all(connection))
                ours = compare(connection, ledger, count)
                ratios.append(sum(ours.values()) / spent["copy"])
                stages = "  ".join(f"{what} {seconds:.2f}" for what, seconds in (spent | ours).items())
                print(f"  {stages}  crashlab {sum(ours.values()):.2f}, {ratios[-1]:.2f} x copy")
    ratio = statistics.median(ratios)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"crashlab / copy, median: {ratio:.2f} (target 2); peak memory {peak_mb:.0f} MB (target 1000)")
    return int(ratio > 2 or peak_mb > 1000)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
