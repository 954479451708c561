"""Does a table keep its rows when it becomes a logged one, and is it emptied, with every index, as long as it is not?

Each slot has one table with an index of every access method. It is filled and emptied, made logged and unlogged again,
which writes all of it anew. What a logged one holds is compared; of an unlogged one recovery must make the table and
each index anew, empty, which the checks of all tables see.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

SLOT_COUNT = 5
SCHEMA = f"{SCHEMA_NAME}_unlogged"
SLOTS = f"{SCHEMA_NAME}.unlogged_slot"
VIEW = f"{SCHEMA_NAME}.unlogged_table"


class Unlogged:
    """Fill or empty a table, or change whether it is logged."""

    name = "unlogged"
    record_types = ("XLOG/FPI", "Hash/INIT_META_PAGE", "Hash/INIT_BITMAP_PAGE", "Storage/CREATE", "BRIN/CREATE_INDEX")
    relations = (
        Relation("unlogged_slot", SLOTS, "slot::text, version, writer, value"),
        Relation("unlogged_table", VIEW, "key, version, writer, value"),
    )
    setup_sql = f"""
        CREATE SCHEMA {SCHEMA};
        CREATE TABLE {SLOTS} (slot integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              value text NOT NULL);
        DO $$
        BEGIN
          IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'bloom') THEN
            CREATE EXTENSION IF NOT EXISTS bloom;
          END IF;
          FOR slot IN 0 .. {SLOT_COUNT - 1} LOOP
            EXECUTE format('
              CREATE UNLOGGED TABLE {SCHEMA}.t%1$s (n integer PRIMARY KEY, words integer[], span int4range, path text);
              CREATE INDEX ON {SCHEMA}.t%1$s USING hash (path);
              CREATE INDEX ON {SCHEMA}.t%1$s USING gin (words);
              CREATE INDEX ON {SCHEMA}.t%1$s USING gist (span);
              CREATE INDEX ON {SCHEMA}.t%1$s USING spgist (path);
              CREATE INDEX ON {SCHEMA}.t%1$s USING brin (n)', slot);
            IF EXISTS (SELECT FROM pg_extension WHERE extname = 'bloom') THEN
              EXECUTE format('CREATE INDEX ON {SCHEMA}.t%1$s USING bloom (n)', slot);
            END IF;
          END LOOP;
        END $$;
        CREATE FUNCTION {VIEW}_content(described regclass) RETURNS text LANGUAGE plpgsql AS $$
        DECLARE content text;
        BEGIN
          EXECUTE format('SELECT count(*) || '' rows, '' || coalesce(sum(hashtextextended(r::text, 0)), 0) FROM %s r',
                         described) INTO content;
          RETURN content;
        END $$;
        CREATE VIEW {VIEW} AS
          SELECT substr(relname::text, 2) AS key, NULL::bigint AS version, NULL::bigint AS writer,
                 CASE relpersistence WHEN 'p' THEN {VIEW}_content(oid) ELSE 'unlogged' END AS value
          FROM pg_class WHERE relnamespace = '{SCHEMA}'::regnamespace AND relkind = 'r';
    """

    def initial(self) -> list[Write]:
        """Every table is unlogged and empty."""
        slots = [Write("unlogged_slot", str(slot), 1, "unlogged") for slot in range(SLOT_COUNT)]
        return slots + [Write("unlogged_table", str(slot), 1, "unlogged") for slot in range(SLOT_COUNT)]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the slots; the tables are there."""
        cursor.execute(
            f"INSERT INTO {SLOTS} SELECT s, 1, %s, 'unlogged' FROM generate_series(0, {SLOT_COUNT - 1}) s", (tx,)
        )

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change the table of one slot that no other session has locked; none if it may stay prepared."""
        if private_key is not None:
            return Change([])
        cursor.execute(
            f"SELECT slot, version + 1, value FROM {SLOTS} ORDER BY mod(slot + %s, {SLOT_COUNT}) LIMIT 1"
            " FOR UPDATE SKIP LOCKED",
            (rng.randrange(SLOT_COUNT),),
        )
        found = cursor.fetchone()
        if found is None:
            return Change([])
        slot, version, value = found
        table, forced = f"{SCHEMA}.t{slot}", False
        what = rng.choices(("fill", "empty", "turn", "truncate"), (5, 2, 2, 1))[0]
        if what == "fill":
            cursor.execute(
                f"INSERT INTO {table} SELECT n, ARRAY[n %% 7, n], int4range(n, n + 9), md5(n::text)"
                " FROM generate_series(%s::integer, %s::integer) n ON CONFLICT (n) DO NOTHING",
                (low := rng.randrange(1000), low + rng.randrange(40)),
            )
        elif what == "empty":
            cursor.execute(f"DELETE FROM {table} WHERE n %% 3 = %s", (rng.randrange(3),))
        elif what == "turn":
            cursor.execute(f"ALTER TABLE {table} SET {'LOGGED' if value == 'unlogged' else 'UNLOGGED'}")
            forced = True
        else:
            cursor.execute(f"TRUNCATE {table}")
            forced = True
        cursor.execute(f"SELECT value FROM {VIEW} WHERE key = %s", (str(slot),))
        (value,) = cursor.fetchone()  # type: ignore[misc]
        cursor.execute(
            f"UPDATE {SLOTS} SET version = %s, writer = %s, value = %s WHERE slot = %s", (version, tx, value, slot)
        )
        writes = [Write(relation, str(slot), version, value) for relation in ("unlogged_slot", "unlogged_table")]
        return Change(writes, forced)

    def invariants(self) -> list[InvariantQuery]:
        """A slot says of its table what is there."""
        return [
            InvariantQuery(
                "slots of unlogged that say something else of their table",
                f"SELECT count(*)::text FROM {SLOTS} s JOIN {VIEW} t ON t.key = s.slot::text WHERE t.value <> s.value",
                "0",
            )
        ]


KINDS = (Unlogged,)
