"""An outbox: a worker process sends what lies in it; the table mailbox stands for whoever receives."""

import os
import sys

import psycopg
import pytest

TABLES = """
CREATE TABLE outbox (id integer PRIMARY KEY, sent boolean NOT NULL DEFAULT false);
CREATE TABLE mailbox (id integer PRIMARY KEY);
INSERT INTO outbox VALUES (1);
"""


def send(connection: psycopg.Connection, number: int) -> None:
    connection.execute("INSERT INTO mailbox VALUES (%s) ON CONFLICT DO NOTHING", (number,))


def mark(connection: psycopg.Connection, number: int) -> None:
    connection.execute("UPDATE outbox SET sent = true WHERE id = %s", (number,))


def work() -> None:
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    for (number,) in connection.execute("SELECT id FROM outbox WHERE NOT sent ORDER BY id").fetchall():
        send(connection, number)
        mark(connection, number)


if __name__ == "__main__":
    work()


# --- the test
@pytest.mark.crashlab(points="commits")
def test_everything_is_sent(crash):
    psycopg.connect(crash.url, autocommit=True).execute(TABLES)
    crash.invariant("marked means sent", "SELECT id FROM outbox WHERE sent EXCEPT SELECT id FROM mailbox")
    with crash:
        worker = crash.process([sys.executable, __file__])
        worker.wait()
    assert worker.wait() == 0  # the one that was started after the crash
    crash.check()
    assert crash.connect().execute("SELECT count(*) FROM mailbox").fetchone() == (1,)
