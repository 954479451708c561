"""Does a row survive whose transaction also used what a crash may take?

That is temporary and unlogged tables, and notifications. Nothing is
promised for these, and they are not compared; they must not harm the rest.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, UNLOGGED_TABLE, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

KEY_COUNT = 48
PRIVATE_FIRST = 1000

TABLE = f"{SCHEMA_NAME}.beside"


class Beside:
    """Change one row, and use temporary and unlogged tables and a notification on the way."""

    name = "beside"
    relations = (Relation("beside", TABLE, "key::text, version, writer, value"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL, value text);
    """

    def initial(self) -> list[Write]:
        """Rows come into being with their first writer."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Take a value through a temporary table into the row; PREPARE TRANSACTION allows neither that nor NOTIFY."""
        key = rng.randrange(KEY_COUNT) if private_key is None else PRIVATE_FIRST + private_key
        value = f"{rng.getrandbits(32):08x}"
        source = "SELECT %s"
        if private_key is None:
            cursor.execute("CREATE TEMPORARY TABLE passing ON COMMIT DROP AS SELECT %s::text AS value", (value,))
            cursor.execute(f"INSERT INTO {UNLOGGED_TABLE} VALUES (%s)", (tx % 1000,))
            cursor.execute("NOTIFY crashlab")
            source = "SELECT coalesce(%s, value) FROM passing"
        cursor.execute(
            f"INSERT INTO {TABLE} AS t SELECT %s, 1, %s, ({source}) ON CONFLICT (key) DO UPDATE SET"
            " version = t.version + 1, writer = excluded.writer, value = excluded.value RETURNING version",
            (key, tx, value if private_key is not None else None),
        )
        (version,) = cursor.fetchone()  # type: ignore[misc]
        return Change([Write("beside", str(key), version, value)])

    def invariants(self) -> list[InvariantQuery]:
        """Nothing holds between these rows but what the ledger says."""
        return []


KINDS = (Beside,)
