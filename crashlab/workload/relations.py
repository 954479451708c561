"""Which tables does a workload write, and how are they read back?

Each ledgered relation shows four columns to its reader: key, version, writer, value. The version counts the
changes of a key and survives its deletion, the writer is the ledger's transaction id, so every row says which
transaction it claims to come from.
"""

from dataclasses import dataclass

SCHEMA_NAME = "crashlab"
NO_ROWS = "no rows"


@dataclass(frozen=True)
class Relation:
    """A ledgered table: `select_list` gives key text, version bigint, writer bigint, value text, in this order."""

    name: str  # in the ledger
    table: str  # schema-qualified, quoted where needed
    select_list: str
    heap: str = ""  # of a view: the table behind it, whose indexes are read

    @property
    def stored(self) -> str:
        """The table that has the rows."""
        return self.heap or self.table


@dataclass(frozen=True)
class InvariantQuery:
    """A query of one text value that must give `expected` after any prefix of the history; a user's gives no rows."""

    name: str
    sql: str
    expected: str | None  # None: a user's own
    needs: str | None = None  # a function of the set-up: the recordings of an older crashlab lack it, and are not asked

    @property
    def wanted(self) -> str:
        """What it must give, in words."""
        return NO_ROWS if self.expected is None else self.expected


TEXT_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
}
"""What a value's text depends on: the same when it is noted and when it is read back."""
MARKER_TABLE = f"{SCHEMA_NAME}.marker"
SEQUENCE = f"{SCHEMA_NAME}.ticket"
UNLOGGED_TABLE = f"{SCHEMA_NAME}.scratch"

PART = Relation("part", f"{SCHEMA_NAME}.part", "key, version, writer, value")
"""Written inside savepoints: a part that was rolled back must never come back."""

EXTENSIONS_SQL = """
CREATE EXTENSION IF NOT EXISTS amcheck;
DO $$
DECLARE extension text;
BEGIN
  FOR extension IN SELECT name FROM pg_available_extensions WHERE name IN ('pageinspect', 'pg_visibility') LOOP
    EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I', extension);
  END LOOP;
END $$;
"""
"""For a superuser."""

COMMON_SQL = f"""
CREATE SCHEMA {SCHEMA_NAME};
CREATE TABLE {MARKER_TABLE} (tx bigint PRIMARY KEY, client integer NOT NULL, xid bigint NOT NULL);
CREATE TABLE {PART.table} (key text PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL, value text);
CREATE SEQUENCE {SEQUENCE};
CREATE UNLOGGED TABLE {UNLOGGED_TABLE} (n integer);
INSERT INTO {UNLOGGED_TABLE} SELECT generate_series(1, 100);
"""
