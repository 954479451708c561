"""Is a batch of rows that came by COPY there as a whole, or not at all?"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

ROWS_MAX = 40

TABLE = f"{SCHEMA_NAME}.copied"


class CopyIn:
    """Bring a batch of new rows by COPY."""

    name = "copy"
    relations = (Relation("copied", TABLE, "key, version, writer, value"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key text PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL, value text);
    """

    def initial(self) -> list[Write]:
        """No rows."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Copy a batch whose keys hold the transaction's number."""
        writes = [
            Write("copied", f"{tx}.{number}", 1, f"{rng.getrandbits(64):016x}")
            for number in range(rng.randint(1, ROWS_MAX))
        ]
        with cursor.copy(f"COPY {TABLE} FROM STDIN") as copy:
            for write in writes:
                copy.write_row((write.key, 1, tx, write.value))
        return Change(writes)

    def invariants(self) -> list[InvariantQuery]:
        """Nothing holds between these rows but what the ledger says."""
        return []


KINDS = (CopyIn,)
