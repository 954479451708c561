"""Small applications, guilty and innocent, that know nothing of crashlab."""

import contextlib

import psycopg


class Shop:
    """Takes orders, one transaction each."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)

    def create_tables(self) -> "Shop":
        self.connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        self.connection.execute("CREATE TABLE lines (id integer PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
        self.connection.execute("INSERT INTO lines VALUES (1)")
        self.connection.commit()
        return self

    def insert(self, number: int) -> None:
        self.connection.execute("INSERT INTO orders VALUES (%s)", (number,))

    def order(self, number: int) -> int:
        self.insert(number)
        self.connection.commit()
        return number

    def order_and_fail(self, number: int) -> int:
        """COMMIT fails: a deferred constraint."""
        self.insert(number)
        self.connection.execute("INSERT INTO lines VALUES (1)")
        self.connection.commit()
        return number

    def order_carelessly(self, number: int) -> int:
        """The error of COMMIT is swallowed."""
        with contextlib.suppress(psycopg.errors.UniqueViolation):
            self.order_and_fail(number)
        return number

    def order_after_an_error(self, number: int) -> int:
        """COMMIT is answered ROLLBACK, which psycopg calls no error."""
        self.insert(number)
        with contextlib.suppress(psycopg.Error):
            self.connection.execute("SELECT 1 / 0")
        self.connection.commit()
        return number

    def hurry(self) -> None:
        """A page counter that need not be safe; the setting stays in the session."""
        self.connection.execute("SET synchronous_commit = off")
        self.connection.commit()

    def hurry_once(self) -> None:
        """The same, for one transaction."""
        self.connection.execute("SET LOCAL synchronous_commit = off")
        self.connection.commit()


WORKER = """
import os, sys, time, psycopg
told = open(os.environ["CRASHLAB_TOLD"], "a", buffering=1)
connection = psycopg.connect("")            # PGHOST and its like
first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM orders").fetchone()[0]
for number in range(first, 10_000):
    connection.execute("INSERT INTO orders VALUES (%s)", (number,))
    connection.commit()
    print(number, file=told)
    time.sleep(0.002)
"""
"""Orders until it is killed; goes on where it was."""
