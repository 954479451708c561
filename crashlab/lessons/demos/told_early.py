"""A shop that tells its customer before the order is committed; and its test, with crashlab's fixture `crash`."""

from collections.abc import Callable

import psycopg
import pytest

from crashlab.testing import Crash


class Shop:
    def __init__(self, url: str, tell: Callable[[int], object]) -> None:
        self.connection = psycopg.connect(url)
        self.tell = tell

    def create_tables(self) -> None:
        self.connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")
        self.connection.commit()

    def order(self, number: int) -> None:
        self.connection.execute("INSERT INTO orders VALUES (%s)", [number])
        self.tell(number)  # "thank you for your order"
        self.connection.commit()


@pytest.mark.crashlab(points="commits")
def test_every_order_that_was_told_is_there(crash: Crash) -> None:
    shop = Shop(crash.url, crash.told)
    shop.create_tables()
    with crash:  # somewhere in here the server dies
        for number in (1, 2):
            shop.order(number)
    crash.check("SELECT id FROM orders")
