"""How does a kind of transaction keep whole sets of rows under one line of the ledger each?

Each of a number of slots holds one set of rows, or none. A transaction fills, changes or empties the set of one slot
that it has locked. The ledger has what a view says of the set, as the transaction itself saw it: how many rows, and the
sum of their hashes. So a row that is missing, another one or one too many is seen, and a set of hundreds costs two
lines.
"""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change, Chore
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

PRIVATE_FIRST = 1000  # slots of single sessions


class Slots:
    """A kind whose transactions change sets of rows. A table of the kind's name has the rows, and a column `slot`."""

    name: str
    slot_count = 12
    compared = "r::text"  # SQL: what of a row `r` counts
    urgent = "value IS NULL"  # SQL: which slots are changed before any other; none is NULL
    rows_sql: str  # creates the table `{table}` and its indexes
    upkeep: tuple[Chore, ...] = ()
    record_types: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The rows."""
        return f"{SCHEMA_NAME}.{self.name}"

    @property
    def slots(self) -> str:
        """The table of the slots."""
        return f"{self.table}_slot"

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The slots, and the sets of rows."""
        return (
            Relation(f"{self.name}_slot", self.slots, "slot::text, version, writer, value"),
            Relation(self.name, f"{self.table}_set", "key, version, writer, value", heap=self.table),
        )

    @property
    def setup_sql(self) -> str:
        """See Kind.setup_sql."""
        return f"""
            CREATE TABLE {self.slots} (slot integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                                       value text NOT NULL);
            {self.rows_sql.format(table=self.table, name=self.name)}
            CREATE VIEW {self.table}_set AS
              SELECT slot::text AS key, NULL::bigint AS version, NULL::bigint AS writer,
                     count(*) || ' rows, ' || sum(hashtextextended({self.compared}, 0)) AS value
              FROM {self.table} r GROUP BY slot;
        """

    def initial(self) -> list[Write]:
        """Every slot is empty."""
        return [Write(f"{self.name}_slot", str(slot), 1, "empty") for slot in range(self.slot_count)]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the slots in one statement."""
        keys = [write.key for write in writes]
        cursor.execute(
            f"INSERT INTO {self.slots} SELECT s::integer, 1, %s, 'empty' FROM unnest(%s::text[]) s", (tx, keys)
        )

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change the set of one slot that no other session has locked; none if there is no such slot."""
        if private_key is None:
            cursor.execute(
                f"SELECT slot, version + 1, value FROM {self.slots} WHERE slot < {PRIVATE_FIRST}"
                f" ORDER BY ({self.urgent}) DESC, mod(slot + %s, {self.slot_count}) LIMIT 1 FOR UPDATE SKIP LOCKED",
                (rng.randrange(self.slot_count),),
            )
        else:
            cursor.execute(
                f"INSERT INTO {self.slots} VALUES (%s, 0, 0, 'empty') ON CONFLICT (slot) DO UPDATE SET writer = 0"
                " RETURNING slot, version + 1, value",
                (PRIVATE_FIRST + private_key,),
            )
        found = cursor.fetchone()
        if found is None:
            return Change([])
        slot, version, was = found
        did, forced = self.change(cursor, rng, slot, empty=was.startswith("empty"), private=private_key is not None)
        cursor.execute(f"SELECT value FROM {self.table}_set WHERE key = %s", (str(slot),))
        row = cursor.fetchone()
        value = None if row is None else row[0]
        state = f"empty, {did}" if value is None else did
        cursor.execute(
            f"UPDATE {self.slots} SET version = %s, writer = %s, value = %s WHERE slot = %s", (version, tx, state, slot)
        )
        return Change(
            [Write(f"{self.name}_slot", str(slot), version, state), Write(self.name, str(slot), version, value)], forced
        )

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """Change the rows of a slot; return what was done, and whether its commit is flushed in any case.

        Args:
            empty: it has no row.
            private: the transaction may stay prepared: take no lock on a whole table.
        """
        raise NotImplementedError

    def run(self, cursor: "Cursor[Any]", statement: str, arguments: Sequence[Any] | dict[str, Any] = ()) -> None:
        """Run a statement about the table."""
        cursor.execute(statement.format(table=self.table, name=self.name), arguments)

    def invariants(self) -> list[InvariantQuery]:
        """A slot has rows if and only if it says so."""
        return [
            InvariantQuery(
                f"slots of {self.name} that say empty and have rows, or the other way round",
                f"SELECT count(*)::text FROM {self.slots} s WHERE (value LIKE 'empty%') ="
                f" EXISTS (SELECT FROM {self.table} r WHERE r.slot = s.slot)",
                "0",
            )
        ]
