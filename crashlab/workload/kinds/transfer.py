"""Does money move between accounts all or nothing? Two balances change, their sum never does."""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

ACCOUNT_COUNT = 64
PRIVATE_FIRST = 1000  # accounts of single sessions, in pairs: 1000 + 2n and 1001 + 2n
PRIVATE_COUNT = 64
OPENING_BALANCE = 1000

TABLE = f"{SCHEMA_NAME}.account"


class Transfer:
    """Move an amount from one account to another."""

    name = "transfer"
    relations = (Relation("account", TABLE, "key::text, version, writer, balance::text"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              balance bigint NOT NULL);
        CREATE INDEX account_writer ON {TABLE} (writer, key);
    """

    def initial(self) -> list[Write]:
        """One row an account, all with the same balance."""
        keys = [*range(ACCOUNT_COUNT), *range(PRIVATE_FIRST, PRIVATE_FIRST + PRIVATE_COUNT)]
        return [Write("account", str(key), 1, str(OPENING_BALANCE)) for key in keys]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the accounts in one statement."""
        cursor.execute(
            f"INSERT INTO {TABLE} SELECT k::integer, 1, %s, %s FROM unnest(%s::text[]) k",
            (tx, OPENING_BALANCE, [write.key for write in writes]),
        )

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Debit one account and credit another, in key order so that sessions never deadlock."""
        if private_key is None:
            pair = rng.sample(range(ACCOUNT_COUNT), 2)
        else:
            first = PRIVATE_FIRST + 2 * private_key % PRIVATE_COUNT
            pair = [first, first + 1]
        amount = rng.randint(1, 50)
        change = {pair[0]: -amount, pair[1]: amount}
        writes = []
        for key in sorted(change):
            cursor.execute(
                f"UPDATE {TABLE} SET balance = balance + %s, version = version + 1, writer = %s WHERE key = %s"
                " RETURNING version, balance",
                (change[key], tx, key),
            )
            version, balance = cursor.fetchone()  # type: ignore[misc]
            writes.append(Write("account", str(key), version, str(balance)))
        return Change(writes)

    def invariants(self) -> list[InvariantQuery]:
        """The sum of all balances."""
        total = (ACCOUNT_COUNT + PRIVATE_COUNT) * OPENING_BALANCE
        return [InvariantQuery("sum of balances", f"SELECT sum(balance)::text FROM {TABLE}", str(total))]


KINDS = (Transfer,)
