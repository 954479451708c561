"""Does a table that was created stay, empty or not, and does a dropped one stay away?

Each of a number of slots holds one table or none. A table's name holds the slot's version, so no name comes twice; the
slot's row, locked for the transaction, keeps sessions off each other's tables.

What is there is read from the catalog by a view, which counts the rows of every table, so that a table whose file is
gone cannot be passed over.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

SLOT_COUNT = 24
PRIVATE_FIRST = 1000  # slots of single sessions

SHAPES = (
    "(n integer, tx bigint)",
    "(n integer, tx bigint, note text)",  # has a TOAST table, which stays empty
    "(n integer PRIMARY KEY, tx bigint)",
    "(n integer, tx bigint, span int4range GENERATED ALWAYS AS (int4range(n, n + 9)) STORED)",
)


class Ddl:
    """Create a table, fill, index, truncate or drop it."""

    name = "ddl"
    persistence = ""
    content = "count(*) || ' rows by ' || coalesce(max(tx)::text, 'nobody')"

    def __init__(self) -> None:
        """Name everything after the kind."""
        self.schema = f"{SCHEMA_NAME}_{self.name}"
        self.slots = f"{SCHEMA_NAME}.{self.name}_slot"
        self.view = f"{SCHEMA_NAME}.{self.name}_table"

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The slots, and the tables that the catalog knows of."""
        return (
            Relation(f"{self.name}_slot", self.slots, "slot::text, version, writer, name"),
            Relation(f"{self.name}_table", self.view, "key, version, writer, value"),
        )

    @property
    def setup_sql(self) -> str:
        """See Kind.setup_sql."""
        return f"""
            CREATE SCHEMA {self.schema};
            CREATE TABLE {self.slots} (slot integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                                       name text NOT NULL);
            CREATE FUNCTION {self.view}_content(described regclass) RETURNS text LANGUAGE plpgsql AS $$
            DECLARE content text;
            BEGIN
              EXECUTE format($q$SELECT {self.content} FROM ONLY %s$q$, described) INTO content;
              RETURN content;
            END $$;
            CREATE VIEW {self.view} AS
              SELECT relname::text AS key, NULL::bigint AS version, NULL::bigint AS writer,
                     {self.view}_content(oid) AS value
              FROM pg_class WHERE relnamespace = '{self.schema}'::regnamespace AND relkind = 'r';
        """

    def initial(self) -> list[Write]:
        """Every slot is empty."""
        return [Write(f"{self.name}_slot", str(slot), 1, "") for slot in range(SLOT_COUNT)]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the slots in one statement."""
        slots = [write.key for write in writes]
        cursor.execute(f"INSERT INTO {self.slots} SELECT s::integer, 1, %s, '' FROM unnest(%s::text[]) s", (tx, slots))

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change the table of one slot that no other session has locked; none if there is no such slot."""
        if private_key is None:
            cursor.execute(
                f"SELECT slot, version + 1, name FROM {self.slots} WHERE slot < {PRIVATE_FIRST}"
                f" ORDER BY mod(slot + %s, {SLOT_COUNT}) LIMIT 1 FOR UPDATE SKIP LOCKED",
                (rng.randrange(SLOT_COUNT),),
            )
            found = cursor.fetchone()
            if found is None:
                return Change([])
        else:  # always a new table: nobody else can see it while it is prepared, and wait for its lock
            cursor.execute(
                f"INSERT INTO {self.slots} VALUES (%s, 0, 0, '') ON CONFLICT (slot) DO UPDATE SET name = ''"
                " RETURNING slot, version + 1, name",
                (PRIVATE_FIRST + private_key,),
            )
            found = cursor.fetchone()
            assert found is not None
        slot, version, name = found
        return self._change(cursor, rng, tx, slot, version, name)

    def _change(self, cursor: "Cursor[Any]", rng: Random, tx: int, slot: int, version: int, name: str) -> Change:
        dropped = bool(name) and rng.random() < 0.4
        table = name or f"s{slot}_{version}"
        forced = dropped  # a file that goes at commit is a reason to flush; a file that comes is none
        if dropped:
            cursor.execute(f"DROP TABLE {self.schema}.{table}")
        elif name:
            forced = self._alter(cursor, rng, tx, table)
        else:
            self._create(cursor, rng, tx, table)
        value = None
        if not dropped:
            cursor.execute(f"SELECT {self.view}_content(%s::regclass)", (f"{self.schema}.{table}",))
            (value,) = cursor.fetchone()  # type: ignore[misc]
        kept = "" if dropped else table
        cursor.execute(
            f"UPDATE {self.slots} SET version = %s, writer = %s, name = %s WHERE slot = %s", (version, tx, kept, slot)
        )
        slots, tables = (relation.name for relation in self.relations)
        return Change([Write(slots, str(slot), version, kept), Write(tables, table, version, value)], forced)

    def _create(self, cursor: "Cursor[Any]", rng: Random, tx: int, table: str) -> None:
        shape = rng.choice(SHAPES)
        cursor.execute(f"CREATE {self.persistence} TABLE {self.schema}.{table} {shape}")
        if "int4range" in shape:  # filled by this transaction, too
            cursor.execute(f"CREATE INDEX ON {self.schema}.{table} USING gist (span)")
        if rng.random() < 0.4:
            self._fill(cursor, rng, tx, table)

    def _alter(self, cursor: "Cursor[Any]", rng: Random, tx: int, table: str) -> bool:
        """Index, truncate or refill a table; return whether its old file goes."""
        action = rng.choice(("truncate", "fill anew", "index"))
        if action == "index":
            cursor.execute(f"CREATE INDEX ON {self.schema}.{table} (tx)")
            return False
        cursor.execute(f"TRUNCATE {self.schema}.{table}")
        if action == "fill anew":
            self._fill(cursor, rng, tx, table)
        return True

    def invariants(self) -> list[InvariantQuery]:
        """The tables that the slots name are those that there are."""
        return [
            InvariantQuery(
                f"slots of {self.name} whose table is not in the catalog, and tables without a slot",
                "SELECT count(*)::text FROM"
                f" (SELECT name FROM {self.slots} WHERE slot < {PRIVATE_FIRST} AND name <> '') s"
                f" FULL JOIN (SELECT relname::text FROM pg_class WHERE relnamespace = '{self.schema}'::regnamespace"
                f" AND relkind = 'r' AND relname !~ '^s[0-9]{{4,}}_') c ON relname = name"
                " WHERE name IS NULL OR relname IS NULL",
                "0",
            )
        ]

    def _fill(self, cursor: "Cursor[Any]", rng: Random, tx: int, table: str) -> None:
        """Fill a table that this transaction made or emptied, so that its rows may come frozen."""
        rows = rng.randint(1, 400)
        if rng.random() < 0.3 and _may_freeze(cursor):
            with cursor.copy(f"COPY {self.schema}.{table} (n, tx) FROM STDIN (FREEZE)") as copy:
                for n in range(1, rows + 1):
                    copy.write_row((n, tx))
            return
        cursor.execute(
            f"INSERT INTO {self.schema}.{table} (n, tx) SELECT n, %s FROM generate_series(1, %s) n", (tx, rows)
        )


def _may_freeze(cursor: "Cursor[Any]") -> bool:
    """Whether no snapshot of the transaction is older than a COPY, which would refuse to freeze."""
    row = cursor.execute("SELECT current_setting('transaction_isolation') = 'read committed'").fetchone()
    return bool(row and row[0])


class UnloggedDdl(Ddl):
    """The same with unlogged tables, which recovery empties: that they are there is all that can be said."""

    name = "ddl_unlogged"
    persistence = "UNLOGGED"
    content = "CASE WHEN count(*) >= 0 THEN 'readable' END"


KINDS = (Ddl, UnloggedDdl)
