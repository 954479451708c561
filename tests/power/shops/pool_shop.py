"""A shop on psycopg_pool, with one connection that all share. Right in all that it does, see `planted_bugs.py`."""

from collections.abc import Callable

import psycopg
from psycopg_pool import ConnectionPool

from tests.power.shops import TABLES


class Shop:
    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.last = 0
        self.run(TABLES)

    def run(self, sql: str, *values: object) -> None:
        with self.pool.connection() as connection:
            connection.execute(sql, values or None)

    def order(self, number: int, tell: Callable[[int], object]) -> None:
        with self.pool.connection() as connection:
            connection.execute("INSERT INTO orders VALUES (%s)", (number,))
        tell(number)

    def book(self, number: int, seat: int) -> bool:
        try:
            self.run("INSERT INTO bookings VALUES (%s, %s)", number, seat)
        except psycopg.errors.UniqueViolation:
            return False
        return True

    def view(self, page: int) -> None:
        with self.pool.connection() as connection:
            connection.execute("SET LOCAL synchronous_commit = off")
            connection.execute("INSERT INTO views VALUES (%s)", (page,))

    def transfer(self, amount: int) -> None:
        with self.pool.connection() as connection:
            connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = 1", (amount,))
            # both, or none
            connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = 2", (amount,))

    def send_all(self) -> None:
        with self.pool.connection() as connection:
            unsent = connection.execute("SELECT id FROM outbox WHERE NOT sent ORDER BY id").fetchall()
        for (number,) in unsent:
            self.send(number)
            self.mark(number)

    def send(self, number: int) -> None:
        self.run("INSERT INTO mailbox VALUES (%s) ON CONFLICT DO NOTHING", number)

    def mark(self, number: int) -> None:
        self.run("UPDATE outbox SET sent = true WHERE id = %s", number)

    def take(self) -> int:
        self.last += 1
        self.save()
        return self.last

    def save(self) -> None:
        self.run("UPDATE numbers SET last = %s", self.last)
