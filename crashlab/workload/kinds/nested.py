"""Do the right parts of a transaction survive that has more subtransactions than a backend remembers?

With more than 64 of them (PGPROC_MAX_CACHED_SUBXIDS) readers need pg_subtrans, and the commit record lists them all.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

SUBTRANSACTIONS_MAX = 90

TABLE = f"{SCHEMA_NAME}.nested"


class Nested:
    """Write rows in nested savepoints, roll some of them back."""

    name = "nested"
    relations = (Relation("nested", TABLE, "key, version, writer, value"),)
    setup_sql = f"""
        CREATE TABLE {TABLE} (key text PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL, value text);
    """

    def initial(self) -> list[Write]:
        """No rows."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Write up to two rows a savepoint: one in it, one in a savepoint inside."""
        kept: list[Write] = []
        discarded: list[Write] = []
        script = []
        for number in range(rng.randint(1, SUBTRANSACTIONS_MAX // 2)):
            outer, inner = (Write("nested", f"{tx}.{number}.{depth}", 1, f"depth {depth}") for depth in (1, 2))
            outer_stays, inner_stays = rng.random() < 0.8, rng.random() < 0.7
            script += ["SAVEPOINT a", _insert(outer, tx), "SAVEPOINT b", _insert(inner, tx)]
            script.append("RELEASE SAVEPOINT b" if inner_stays else "ROLLBACK TO SAVEPOINT b")
            script.append("RELEASE SAVEPOINT a" if outer_stays else "ROLLBACK TO SAVEPOINT a")
            (kept if outer_stays else discarded).append(outer)
            (kept if outer_stays and inner_stays else discarded).append(inner)
        cursor.execute("; ".join(script))
        return Change(kept, discarded=tuple(discarded))

    def invariants(self) -> list[InvariantQuery]:
        """No inner row without its outer one."""
        return [
            InvariantQuery(
                "rows of inner savepoints without the outer one's",
                f"SELECT count(*)::text FROM {TABLE} WHERE key LIKE '%.2'"
                f" AND left(key, -1) || '1' NOT IN (SELECT key FROM {TABLE})",
                "0",
            )
        ]


def _insert(write: Write, tx: int) -> str:
    return f"INSERT INTO {TABLE} VALUES ('{write.key}', 1, {tx}, '{write.value}')"


KINDS = (Nested,)
