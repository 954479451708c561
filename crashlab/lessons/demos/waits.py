"""What do sessions wait for that all write much WAL, with small and with large WAL buffers?

Each session inserts two thousand rows of a kilobyte, again and again, so that WAL is most of the work; commits are
asynchronous, so that nobody waits for the disk at their end. What the sessions wait for is sampled.
Usage: python waits.py. Writes facts.json beside this file.
"""

import json
import threading
import time
from pathlib import Path

from crashlab.observe import Sampler
from crashlab.observe.samples import share_of, wait_table
from crashlab.server import Server, ServerSpec, create_server

HERE = Path(__file__).parent
SECONDS = 1.5
FILL = "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 2000)"
LOCKS = ("WALInsert", "WALBufMapping", "WALWrite")
SETTINGS = {"synchronous_commit": "off", "checkpoint_timeout": "1h", "max_wal_size": "4GB", "autovacuum": "off"}
INSERTED = "SELECT pg_current_wal_insert_lsn() - '0/0'"


def work(server: Server, until: float, done: list[int]) -> None:
    """One session: insert, commit, again."""
    with server.connect(autocommit=True) as session:
        while time.monotonic() < until:
            session.execute(FILL)
            done.append(1)


def observe(wal_buffers: str, sessions: int) -> dict[str, float]:
    """Run so many sessions; return each lock's share of what they were doing, in percent, and the WAL inserted."""
    settings = SETTINGS | {"wal_buffers": wal_buffers}
    with create_server(ServerSpec(settings=settings)) as server:
        server.start()
        with server.connect(autocommit=True) as session:
            session.execute("CREATE TABLE filler (text text STORAGE PLAIN)")
            (before,) = session.execute(INSERTED).fetchone() or (0,)
        done: list[int] = []
        until = time.monotonic() + SECONDS
        threads = [threading.Thread(target=work, args=(server, until, done)) for _ in range(sessions)]
        with Sampler(lambda: server.connect(autocommit=True), every_ms=5) as sampler:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        samples = sampler.stop()
        with server.connect(autocommit=True) as session:
            (after,) = session.execute(INSERTED).fetchone() or (0,)
    shares = {lock: 100 * share_of(samples, lock) for lock in LOCKS}
    wal_bytes = int(after - before)
    print(f"{sessions} sessions, wal_buffers={wal_buffers}: {wal_bytes} bytes of WAL, {len(samples.samples)} looks")
    for row in wait_table(samples, "client backend")[:6]:
        print(f"  {100 * row.share:5.1f} %  {row.kind or '-':<8} {row.event:<16} {row.says}")
    return shares | {"bytes": wal_bytes}


def main() -> None:
    """Each number of sessions with each size."""
    facts = {}
    for sessions in (3, 10):
        for wal_buffers in ("512kB", "4MB"):
            for name, value in observe(wal_buffers, sessions).items():
                facts[f"{name}-{sessions}-{wal_buffers}"] = round(value, 1)
    (HERE / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
