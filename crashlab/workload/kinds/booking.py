"""Does an exclusion constraint keep what it promises: no two bookings of one time?"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

KEY_COUNT = 96
PRIVATE_FIRST = 1000
SPAN = 100  # each key books within a time of its own

TABLE = f"{SCHEMA_NAME}.booking"


class Booking:
    """Book, move or cancel."""

    name = "booking"
    relations = (Relation("booking", TABLE, "key::text, version, writer, during::text"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              during int4range NOT NULL,
                              CONSTRAINT booking_once EXCLUDE USING gist (during WITH &&));
    """

    def initial(self) -> list[Write]:
        """Nothing is booked."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Book another time under one key; a cancelled booking keeps its row, with an empty time."""
        key = rng.randrange(KEY_COUNT) if private_key is None else PRIVATE_FIRST + private_key
        begin = key * SPAN + rng.randrange(SPAN // 2)
        end = begin + (rng.randint(1, SPAN // 2) if rng.random() < 0.8 else 0)
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", (815, key))  # ON CONFLICT cannot update here
        cursor.execute(
            f"UPDATE {TABLE} SET version = version + 1, writer = %s, during = int4range(%s, %s) WHERE key = %s"
            " RETURNING version, during::text",
            (tx, begin, end, key),
        )
        found = cursor.fetchone()
        if found is None:
            cursor.execute(
                f"INSERT INTO {TABLE} VALUES (%s, 1, %s, int4range(%s, %s)) RETURNING version, during::text",
                (key, tx, begin, end),
            )
            found = cursor.fetchone()
        assert found is not None
        return Change([Write("booking", str(key), found[0], found[1])])

    def invariants(self) -> list[InvariantQuery]:
        """No two bookings overlap."""
        return [
            InvariantQuery(
                "pairs of bookings that overlap",
                f"SELECT count(*)::text FROM {TABLE} a JOIN {TABLE} b ON a.key < b.key AND a.during && b.during",
                "0",
            )
        ]


KINDS = (Booking,)
