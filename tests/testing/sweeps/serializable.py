"""Serializable transactions that are tried again: two doctors, of whom one has to stay on call."""

from collections.abc import Callable

import psycopg
import pytest

TABLES = (
    "CREATE TABLE doctors (name text PRIMARY KEY, on_call boolean); INSERT INTO doctors VALUES ('a', true), ('b', true)"
)


class Doctor:
    def __init__(self, url: str, name: str) -> None:
        self.connection = psycopg.connect(url)
        self.connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        self.name = name

    def go_home(self, meanwhile: Callable[[], object] = lambda: None) -> bool:
        while True:
            try:
                row = self.connection.execute("SELECT count(*) FROM doctors WHERE on_call").fetchone()
                meanwhile()
                if row == (2,):
                    self.connection.execute("UPDATE doctors SET on_call = false WHERE name = %s", (self.name,))
                self.connection.commit()
            except psycopg.errors.SerializationFailure:
                self.connection.rollback()
                meanwhile = tuple
            else:
                return row == (2,)


# --- the test
@pytest.mark.crashlab(points="statements")
def test_somebody_is_on_call(crash):
    psycopg.connect(crash.url, autocommit=True).execute(TABLES)
    crash.invariant("somebody is on call", "SELECT FROM doctors HAVING NOT bool_or(on_call)")
    one, other = Doctor(crash.url, "a"), Doctor(crash.url, "b")

    def other_goes():
        if other.go_home():
            crash.told("b")

    with crash:
        if one.go_home(meanwhile=other_goes):
            crash.told("a")
    crash.check("SELECT name FROM doctors WHERE NOT on_call")
