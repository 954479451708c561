"""Do lists only grow, in one order? Each transaction adds its id to the end of a list."""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

LIST_COUNT = 8
TRANSACTIONS_PER_LIST = 512  # then new lists are begun, so that no row grows without bound

TABLE = f"{SCHEMA_NAME}.list"


class Append:
    """Add an element to the end of a list; the list's length is its version."""

    name = "append"
    relations = (Relation("list", TABLE, "key, version, writer, array_to_json(elements)::text"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key text PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              elements text[] NOT NULL);
    """

    def initial(self) -> list[Write]:
        """Lists come into being with their first element."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Append this transaction's id to one list."""
        name = f"list-{rng.randrange(LIST_COUNT)}" if private_key is None else f"private-{private_key}"
        key = f"{name}.{tx // TRANSACTIONS_PER_LIST}"
        cursor.execute(
            f"INSERT INTO {TABLE} AS l VALUES (%s, 1, %s, ARRAY[%s]) ON CONFLICT (key) DO UPDATE SET"
            " version = l.version + 1, writer = excluded.writer, elements = l.elements || excluded.elements"
            " RETURNING version",
            (key, tx, str(tx)),
        )
        (version,) = cursor.fetchone()  # type: ignore[misc]
        return Change([Write("list", key, version, str(tx), "append")])

    def invariants(self) -> list[InvariantQuery]:
        """A list is as long as its version says."""
        return [
            InvariantQuery(
                "lists whose length is not their version",
                f"SELECT count(*)::text FROM {TABLE} WHERE cardinality(elements) <> version",
                "0",
            )
        ]


KINDS = (Append,)
