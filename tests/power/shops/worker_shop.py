"""A worker, a process of its own: it does what its first argument says. Right in all that it does, see
`planted_bugs.py`.

It knows nothing of the test: its database comes from DATABASE_URL, and what it tells its user is a line in a file.
"""

import os
import sys
from pathlib import Path

import psycopg


class Worker:
    def __init__(self) -> None:
        self.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)

    def tell(self, number: int) -> None:
        with Path(os.environ["CRASHLAB_TOLD"]).open("a", encoding="utf-8") as mail:
            mail.write(f"{number}\n")

    def order(self) -> None:
        for _ in range(2):
            with self.connection.transaction():
                row = self.connection.execute("INSERT INTO orders SELECT nextval('number') RETURNING id").fetchone()
            assert row is not None
            self.tell(row[0])

    def book(self) -> None:
        for number in (1, 2):
            try:
                self.connection.execute("INSERT INTO bookings VALUES (%s, 1)", (number,))
            except psycopg.errors.UniqueViolation:
                continue
            self.tell(number)

    def transfer(self) -> None:
        with self.connection.transaction():  # both, or none
            self.connection.execute("UPDATE accounts SET balance = balance - 10 WHERE id = 1")
            self.connection.execute("UPDATE accounts SET balance = balance + 10 WHERE id = 2")

    def send_all(self) -> None:
        for (number,) in self.connection.execute("SELECT id FROM outbox WHERE NOT sent ORDER BY id").fetchall():
            self.send(number)
            self.mark(number)

    def send(self, number: int) -> None:
        self.connection.execute("INSERT INTO mailbox VALUES (%s) ON CONFLICT DO NOTHING", (number,))

    def mark(self, number: int) -> None:
        self.connection.execute("UPDATE outbox SET sent = true WHERE id = %s", (number,))

    def take(self) -> None:
        for last in (1, 2):
            self.save(last)
            self.tell(last)

    def save(self, last: int) -> None:
        self.connection.execute("UPDATE numbers SET last = %s", (last,))


if __name__ == "__main__":
    getattr(Worker(), sys.argv[1])()
