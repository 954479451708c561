"""SQLAlchemy: numbers of invoices, none of which may be handed out twice."""

import pytest
from sqlalchemy import create_engine, text


class Numbers:
    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        self.last = 0

    def create_tables(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE numbers AS SELECT 0 AS last"))

    def take(self) -> int:
        self.last += 1
        self.save()
        return self.last

    def save(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE numbers SET last = :last"), {"last": self.last})


# --- the test
@pytest.mark.crashlab(points="commits")
def test_no_number_is_handed_out_twice(crash):
    numbers = Numbers(crash.url.replace("postgresql:", "postgresql+psycopg:"))
    numbers.create_tables()
    with crash:
        for _ in range(2):
            crash.told(numbers.take())
    crash.check("SELECT generate_series(1, last) FROM numbers")
