"""Do large objects survive that are made, overwritten in part, and unlinked?

A slot names its large object, or 0. Whoever reads a slot reads all of its object.
"""

from hashlib import md5
from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

SLOT_COUNT = 24
PRIVATE_FIRST = 1000
BYTES_MAX = 20_000  # ten chunks of 2 kB

TABLE = f"{SCHEMA_NAME}.large_object"
READ = f"{SCHEMA_NAME}.large_object_content"
CONTENT = "length(lo_get(s.oid)) || ' ' || md5(lo_get(s.oid))"


class LargeObject:
    """Create, overwrite or unlink the large object of one slot."""

    name = "large_object"
    relations = (Relation("large_object", READ, "key, version, writer, value"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (slot integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              oid oid NOT NULL);
        CREATE VIEW {READ} AS
          SELECT slot::text AS key, version, writer,
                 CASE WHEN s.oid = 0 THEN '' WHEN m.oid IS NULL THEN 'no large object' ELSE {CONTENT} END
                 AS value
          FROM {TABLE} s LEFT JOIN LATERAL (SELECT m.oid FROM pg_largeobject_metadata m WHERE m.oid = s.oid) m ON true;
    """

    def initial(self) -> list[Write]:
        """Every slot is empty."""
        slots = [*range(SLOT_COUNT), *range(PRIVATE_FIRST, PRIVATE_FIRST + 64)]
        return [Write("large_object", str(slot), 1, "") for slot in slots]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the slots in one statement."""
        slots = [write.key for write in writes]
        cursor.execute(f"INSERT INTO {TABLE} SELECT s::integer, 1, %s, 0 FROM unnest(%s::text[]) s", (tx, slots))

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change the object of one slot."""
        slot = rng.randrange(SLOT_COUNT) if private_key is None else PRIVATE_FIRST + private_key % 64
        cursor.execute(f"SELECT oid::bigint FROM {TABLE} WHERE slot = %s FOR UPDATE", (slot,))
        (oid,) = cursor.fetchone()  # type: ignore[misc]
        data = rng.randbytes(rng.randint(1, BYTES_MAX))
        if not oid:
            cursor.execute("SELECT lo_from_bytea(0, %s)::bigint", (data,))
            (oid,) = cursor.fetchone()  # type: ignore[misc]
        elif rng.random() < 0.3:
            cursor.execute("SELECT lo_unlink(%s::oid)", (oid,))
            oid = 0
        else:
            cursor.execute("SELECT lo_put(%s::oid, %s, %s)", (oid, rng.randint(0, BYTES_MAX // 2), data))
        value = ""
        if oid:
            cursor.execute("SELECT lo_get(%s::oid)", (oid,), binary=True)
            (content,) = cursor.fetchone()  # type: ignore[misc]
            value = f"{len(content)} {md5(content, usedforsecurity=False).hexdigest()}"
        cursor.execute(
            f"UPDATE {TABLE} SET version = version + 1, writer = %s, oid = %s::oid WHERE slot = %s RETURNING version",
            (tx, oid, slot),
        )
        (version,) = cursor.fetchone()  # type: ignore[misc]
        return Change([Write("large_object", str(slot), version, value)])

    def invariants(self) -> list[InvariantQuery]:
        """Each large object has its slot."""
        return [
            InvariantQuery(
                "large objects that no slot names",
                f"SELECT count(*)::text FROM pg_largeobject_metadata m LEFT JOIN {TABLE} s ON s.oid = m.oid"
                " WHERE s.oid IS NULL",
                "0",
            )
        ]


KINDS = (LargeObject,)
