"""asyncpg: an order, and what its user is told of it."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest


class Shop:
    def __init__(self, connection: "asyncpg.Connection") -> None:
        self.connection = connection

    async def create_tables(self) -> None:
        await self.connection.execute("CREATE TABLE orders (id integer PRIMARY KEY)")

    async def order(self, number: int, tell: Callable[[int], object]) -> None:
        async with self.connection.transaction():
            await self.connection.execute("INSERT INTO orders VALUES ($1)", number)
        tell(number)


# --- the test
@pytest.mark.crashlab(points="commits")
def test_orders_survive(crash):
    async def work():
        shop = Shop(await asyncpg.connect(crash.url))
        await shop.create_tables()
        async with crash:
            await shop.order(1, tell=crash.told)

    asyncio.run(work())
    crash.check("SELECT id FROM orders")
