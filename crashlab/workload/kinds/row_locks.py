"""Do rows survive that several transactions locked at once?

Such a row carries a multixact, whose members are in pg_multixact. All locks are taken in key order, and at most one of
them excludes others, so sessions never deadlock.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

KEY_COUNT = 12  # few, so that they meet
SHARED_FIRST = 100  # rows that nobody changes, and many lock
PRIVATE_FIRST = 1000
PRIVATE_COUNT = 64
EXCLUSIVE = ("FOR UPDATE", "FOR NO KEY UPDATE")

TABLE = f"{SCHEMA_NAME}.lockable"


class RowLocks:
    """Lock some rows together with others, change one."""

    name = "locks"
    relations = (Relation("lockable", TABLE, "key::text, version, writer, value"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              value text NOT NULL);
    """

    def initial(self) -> list[Write]:
        """All rows."""
        keys = [*range(KEY_COUNT), *range(SHARED_FIRST, SHARED_FIRST + KEY_COUNT)]
        keys += range(PRIVATE_FIRST, PRIVATE_FIRST + PRIVATE_COUNT)
        return [Write("lockable", str(key), 1, "initial") for key in keys]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the rows in one statement."""
        keys = [write.key for write in writes]
        cursor.execute(f"INSERT INTO {TABLE} SELECT k::integer, 1, %s, 'initial' FROM unnest(%s::text[]) k", (tx, keys))

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Lock three rows, change one of them."""
        if private_key is None:
            keys = sorted(rng.sample(range(KEY_COUNT), 3))
            changed = rng.choice(keys)
            for key in keys:
                self._lock(cursor, key, rng.choice(EXCLUSIVE) if key == changed else "FOR KEY SHARE")
            for key in sorted(rng.sample(range(SHARED_FIRST, SHARED_FIRST + KEY_COUNT), 2)):
                self._lock(cursor, key, rng.choice(("FOR SHARE", "FOR KEY SHARE")))
        else:
            changed = PRIVATE_FIRST + private_key % PRIVATE_COUNT
        value = f"{rng.getrandbits(32):08x}"
        cursor.execute(
            f"UPDATE {TABLE} SET version = version + 1, writer = %s, value = %s WHERE key = %s RETURNING version",
            (tx, value, changed),
        )
        (version,) = cursor.fetchone()  # type: ignore[misc]
        return Change([Write("lockable", str(changed), version, value)])

    def _lock(self, cursor: "Cursor[Any]", key: int, strength: str) -> None:
        cursor.execute(f"SELECT FROM {TABLE} WHERE key = %s {strength}", (key,))

    def invariants(self) -> list[InvariantQuery]:
        """Nothing holds between these rows but what the ledger says."""
        return []


KINDS = (RowLocks,)
