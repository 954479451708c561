"""psycopg_pool: page views need not be safe, orders do, and both go over the same connection."""

import pytest
from psycopg_pool import ConnectionPool


class Shop:
    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        with pool.connection() as connection:
            connection.execute("CREATE TABLE views (page integer)")
            connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")

    def view(self, page: int) -> None:
        with self.pool.connection() as connection:
            connection.execute("SET LOCAL synchronous_commit = off")
            connection.execute("INSERT INTO views VALUES (%s)", (page,))

    def order(self, number: int) -> int:
        with self.pool.connection() as connection:
            connection.execute("INSERT INTO orders VALUES (%s)", (number,))
        return number


# --- the test
@pytest.mark.crashlab(profile="async-commit", points="commits")
def test_orders_survive(crash):
    with ConnectionPool(crash.url, min_size=1, max_size=1) as pool:
        shop = Shop(pool)
        shop.view(1)
        crash.told(shop.order(1))
        with crash:
            crash.told(shop.order(2))
    crash.check("SELECT id FROM orders")
