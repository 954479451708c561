"""LISTEN and NOTIFY: a worker is woken for each job; a crash forgets whom it wanted to wake, and so it looks, too."""

from collections.abc import Callable

import psycopg
import pytest

TABLES = "CREATE TABLE jobs (id integer PRIMARY KEY, done boolean NOT NULL DEFAULT false)"


class Office:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)

    def order(self, number: int) -> None:
        self.connection.execute("INSERT INTO jobs VALUES (%s)", (number,))
        self.connection.execute("NOTIFY jobs")
        self.connection.commit()


class Worker:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("LISTEN jobs")

    def wait(self) -> None:
        assert list(self.connection.notifies(timeout=20, stop_after=1))

    def work(self, tell: Callable[[int], object]) -> None:
        for (number,) in self.connection.execute("SELECT id FROM jobs WHERE NOT done ORDER BY id").fetchall():
            with self.connection.transaction():
                self.connection.execute("UPDATE jobs SET done = true WHERE id = %s", (number,))
            tell(number)


# --- the test
@pytest.mark.crashlab(points="statements")
def test_no_job_is_forgotten(crash):
    psycopg.connect(crash.url, autocommit=True).execute(TABLES)
    office, worker = Office(crash.url), Worker(crash.url)
    with crash:
        for number in range(2):
            office.order(number)
            worker.wait()
            worker.work(tell=crash.told)
    crash.check("SELECT id FROM jobs WHERE done")
    Worker(crash.url).work(tell=print)  # nobody wakes it
    assert crash.connect().execute("SELECT FROM jobs WHERE NOT done").fetchall() == []
