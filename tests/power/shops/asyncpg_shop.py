"""A shop on asyncpg. Right in all that it does, see `planted_bugs.py`."""

from collections.abc import Callable

import asyncpg

from tests.power.shops import TABLES


class Shop:
    def __init__(self, connection: "asyncpg.Connection") -> None:
        self.connection = connection
        self.last = 0

    @classmethod
    async def open(cls, url: str) -> "Shop":
        connection = await asyncpg.connect(url)
        await connection.execute(TABLES)
        return cls(connection)

    async def order(self, number: int, tell: Callable[[int], object]) -> None:
        async with self.connection.transaction():
            await self.connection.execute("INSERT INTO orders VALUES ($1)", number)
        tell(number)

    async def book(self, number: int, seat: int) -> bool:
        try:
            async with self.connection.transaction():
                await self.connection.execute("INSERT INTO bookings VALUES ($1, $2)", number, seat)
        except asyncpg.UniqueViolationError:
            return False
        return True

    async def view(self, page: int) -> None:
        async with self.connection.transaction():
            await self.connection.execute("SET LOCAL synchronous_commit = off")
            await self.connection.execute("INSERT INTO views VALUES ($1)", page)

    async def transfer(self, amount: int) -> None:
        async with self.connection.transaction():  # both, or none
            await self.connection.execute("UPDATE accounts SET balance = balance - $1 WHERE id = 1", amount)
            await self.connection.execute("UPDATE accounts SET balance = balance + $1 WHERE id = 2", amount)

    async def send_all(self) -> None:
        for row in await self.connection.fetch("SELECT id FROM outbox WHERE NOT sent ORDER BY id"):
            number = row["id"]
            await self.send(number)
            await self.mark(number)

    async def send(self, number: int) -> None:
        await self.connection.execute("INSERT INTO mailbox VALUES ($1) ON CONFLICT DO NOTHING", number)

    async def mark(self, number: int) -> None:
        await self.connection.execute("UPDATE outbox SET sent = true WHERE id = $1", number)

    async def take(self) -> int:
        self.last += 1
        await self.save()
        return self.last

    async def save(self) -> None:
        await self.connection.execute("UPDATE numbers SET last = $1", self.last)
