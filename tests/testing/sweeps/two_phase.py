"""Two-phase commit: a debit and a credit on two connections, a decision in between, and a coordinator that recovers."""

from collections.abc import Callable

import psycopg
import pytest

TABLES = "CREATE TABLE debits (id integer); CREATE TABLE credits (id integer); CREATE TABLE decisions (id integer)"


class Coordinator:
    def __init__(self, url: str) -> None:
        self.log, *sides = (psycopg.connect(url, autocommit=True) for _ in range(3))
        self.sides = dict(zip(("debits", "credits"), sides, strict=True))

    def transfer(self, number: int, tell: Callable[[int], object]) -> None:
        for table, connection in self.sides.items():
            connection.execute("BEGIN")
            connection.execute(f"INSERT INTO {table} VALUES ({number})")
            connection.execute(f"PREPARE TRANSACTION '{table} {number}'")
        self.log.execute("INSERT INTO decisions VALUES (%s)", (number,))
        tell(number)
        for table, connection in self.sides.items():
            connection.execute(f"COMMIT PREPARED '{table} {number}'")

    def recover(self) -> None:
        for (gid,) in self.log.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid").fetchall():
            number = gid.split()[1]
            decided = self.log.execute("SELECT FROM decisions WHERE id = %s", (number,)).fetchone() is not None
            self.log.execute(f"{'COMMIT' if decided else 'ROLLBACK'} PREPARED '{gid}'")


# --- the test
@pytest.mark.crashlab(profile="two-phase", points="statements")
def test_both_or_none(crash):
    psycopg.connect(crash.url, autocommit=True).execute(TABLES)
    coordinator = Coordinator(crash.url)
    with crash:
        coordinator.transfer(1, tell=crash.told)
    Coordinator(crash.url).recover()
    crash.check("SELECT id FROM debits JOIN credits USING (id)")
    halves = "SELECT FROM debits FULL JOIN credits USING (id) WHERE debits.id IS NULL OR credits.id IS NULL"
    assert crash.connect().execute(f"{halves} UNION ALL SELECT FROM pg_prepared_xacts").fetchall() == []
