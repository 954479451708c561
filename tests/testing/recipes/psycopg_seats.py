"""psycopg: two want the same seat, and a constraint says so at COMMIT."""

import psycopg
import pytest


class Seats:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)

    def create_tables(self) -> None:
        seat = "seat integer UNIQUE DEFERRABLE INITIALLY DEFERRED"
        self.connection.execute(f"CREATE TABLE bookings (id integer PRIMARY KEY, {seat})")
        self.connection.commit()

    def book(self, number: int, seat: int) -> bool:
        self.connection.execute("INSERT INTO bookings VALUES (%s, %s)", (number, seat))
        try:
            self.connection.commit()
        except psycopg.errors.UniqueViolation:
            return False
        return True


# --- the test
@pytest.mark.crashlab(points="commits")
def test_bookings_survive(crash):
    seats = Seats(crash.url)
    seats.create_tables()
    with crash:
        for number, seat in [(1, 1), (2, 1)]:
            if seats.book(number, seat):
                crash.told(number)
    crash.check("SELECT id FROM bookings")
