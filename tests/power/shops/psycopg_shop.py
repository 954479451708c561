"""A shop on psycopg. Right in all that it does; `planted_bugs.py` says how it is made wrong."""

from collections.abc import Callable

import psycopg

from tests.power.shops import TABLES


class Shop:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)
        self.connection.execute(TABLES)
        self.connection.commit()
        self.last = 0

    def order(self, number: int, tell: Callable[[int], object]) -> None:
        self.connection.execute("INSERT INTO orders VALUES (%s)", (number,))
        self.connection.commit()
        tell(number)

    def book(self, number: int, seat: int) -> bool:
        self.connection.execute("INSERT INTO bookings VALUES (%s, %s)", (number, seat))
        try:
            self.connection.commit()
        except psycopg.errors.UniqueViolation:
            return False
        return True

    def view(self, page: int) -> None:
        self.connection.execute("SET LOCAL synchronous_commit = off")
        self.connection.execute("INSERT INTO views VALUES (%s)", (page,))
        self.connection.commit()

    def transfer(self, amount: int) -> None:
        self.connection.execute("UPDATE accounts SET balance = balance - %s WHERE id = 1", (amount,))
        # both, or none
        self.connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = 2", (amount,))
        self.connection.commit()

    def send_all(self) -> None:
        for (number,) in self.connection.execute("SELECT id FROM outbox WHERE NOT sent ORDER BY id").fetchall():
            self.send(number)
            self.mark(number)

    def send(self, number: int) -> None:
        self.connection.execute("INSERT INTO mailbox VALUES (%s) ON CONFLICT DO NOTHING", (number,))
        self.connection.commit()

    def mark(self, number: int) -> None:
        self.connection.execute("UPDATE outbox SET sent = true WHERE id = %s", (number,))
        self.connection.commit()

    def take(self) -> int:
        self.last += 1
        self.save()
        return self.last

    def save(self) -> None:
        self.connection.execute("UPDATE numbers SET last = %s", (self.last,))
        self.connection.commit()
