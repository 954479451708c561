"""Does a key hold its last value, or stay deleted? Upserts and deletes, counted in a table of their own.

The counter makes versions survive a deletion, and orders all writers of a key.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

KEY_COUNT = 96
PRIVATE_FIRST = 1000
DELETE_SHARE = 0.25

TABLE = f"{SCHEMA_NAME}.register"
COUNTER = f"{SCHEMA_NAME}.register_counter"


class Register:
    """Put a value under a key, or delete the key."""

    name = "register"
    relations = (
        Relation("register", TABLE, "key::text, version, writer, value"),
        Relation("register_counter", COUNTER, "key::text, version, writer, ''"),
    )
    setup_sql = f"""
        CREATE TABLE {COUNTER} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL);
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL, value text);
        CREATE INDEX register_value ON {TABLE} (value, key);
    """

    def initial(self) -> list[Write]:
        """Every second key is there from the start."""
        return [
            write
            for key in range(0, KEY_COUNT, 2)
            for write in (Write("register_counter", str(key), 1, ""), Write("register", str(key), 1, "initial"))
        ]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert counters and values in two statements."""
        keys = [write.key for write in writes if write.relation == "register"]
        cursor.execute(f"INSERT INTO {COUNTER} SELECT k::integer, 1, %s FROM unnest(%s::text[]) k", (tx, keys))
        cursor.execute(f"INSERT INTO {TABLE} SELECT k::integer, 1, %s, 'initial' FROM unnest(%s::text[]) k", (tx, keys))

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change one to three keys, in key order so that sessions never deadlock."""
        if private_key is None:
            keys = sorted(rng.sample(range(KEY_COUNT), rng.randint(1, 3)))
        else:
            keys = [PRIVATE_FIRST + private_key]
        return Change([write for key in keys for write in self._change(cursor, rng, tx, key)])

    def _change(self, cursor: "Cursor[Any]", rng: Random, tx: int, key: int) -> list[Write]:
        cursor.execute(
            f"INSERT INTO {COUNTER} AS c VALUES (%s, 1, %s) ON CONFLICT (key)"
            " DO UPDATE SET version = c.version + 1, writer = excluded.writer RETURNING version",
            (key, tx),
        )
        (version,) = cursor.fetchone()  # type: ignore[misc]
        value = None if rng.random() < DELETE_SHARE else f"{rng.getrandbits(32):08x}" * rng.randint(1, 8)
        if value is None:
            cursor.execute(f"DELETE FROM {TABLE} WHERE key = %s", (key,))
        else:
            cursor.execute(
                f"INSERT INTO {TABLE} VALUES (%s, %s, %s, %s) ON CONFLICT (key)"
                " DO UPDATE SET version = excluded.version, writer = excluded.writer, value = excluded.value",
                (key, version, tx, value),
            )
        return [Write("register_counter", str(key), version, ""), Write("register", str(key), version, value)]

    def invariants(self) -> list[InvariantQuery]:
        """No value without its counter at the same version."""
        return [
            InvariantQuery(
                "register values without a counter of their version",
                f"SELECT count(*)::text FROM {TABLE} r LEFT JOIN {COUNTER} c USING (key)"
                " WHERE c.version IS DISTINCT FROM r.version",
                "0",
            )
        ]


KINDS = (Register,)
