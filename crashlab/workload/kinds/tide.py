"""Do indexes survive that lose all their entries and get others?

Few sets of rows, so that again and again the whole table is empty when VACUUM comes: then trees are left tall and
thin, pages of every method are given back, and the next rows find old ones to use again. Keys of the B-tree are so wide
that a handful of rows makes another level; those of the radix tree have long prefixes in common, and sometimes do not.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.kind import Chore
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor

WIDE = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, {parts}) i) || md5((n * {seed})::text)"
"""Equal at first, so that no key on an inner page can be cut short."""
PATHS = (
    "repeat('x', 40) || md5((n * {seed})::text) || repeat('y', 200)",
    "repeat('x', n %% 40) || chr(97 + n %% 26) || md5((n * {seed})::text)",
    "chr(33 + n * {seed} %% 90) || chr(33 + n %% 90) || repeat(md5(n::text), 12)",
)


class Tide(Slots):
    """Fill a set of rows, or empty it; look rows up, so that dead entries are known as such."""

    name = "tide"
    slot_count = 2
    record_types = (
        *("Btree/INSERT_META", "Btree/UNLINK_PAGE_META", "Btree/UNLINK_PAGE", "Btree/REUSE_PAGE"),
        *("Gist/PAGE_DELETE", "Gist/PAGE_REUSE", "Gist/DELETE", "Gin/DELETE_PAGE", "Hash/VACUUM_ONE_PAGE"),
        *("SPGist/MOVE_LEAFS", "SPGist/ADD_NODE", "SPGist/SPLIT_TUPLE", "BRIN/UPDATE", "Storage/TRUNCATE"),
    )
    rows_sql = """
        CREATE TABLE {table} (slot integer NOT NULL, n integer NOT NULL, wide text NOT NULL, path text NOT NULL,
                              place point NOT NULL, hashed integer NOT NULL, number integer NOT NULL,
                              words integer[] NOT NULL);
        ALTER TABLE {table} ALTER wide SET STORAGE MAIN;
        CREATE INDEX {name}_wide ON {table} (wide);
        CREATE INDEX {name}_path ON {table} USING spgist (path);
        CREATE INDEX {name}_kd ON {table} USING spgist (place);
        CREATE INDEX {name}_gist ON {table} USING gist (place);
        CREATE INDEX {name}_hash ON {table} USING hash (hashed);
        CREATE INDEX {name}_gin ON {table} USING gin (words) WITH (fastupdate = off);
        CREATE INDEX {name}_brin ON {table} USING brin (number int4_minmax_multi_ops, wide)
          WITH (pages_per_range = 1, autosummarize = off);
    """
    upkeep = (
        Chore(
            (
                "VACUUM (INDEX_CLEANUP ON, TRUNCATE OFF) crashlab.tide",
                "SELECT brin_summarize_new_values('crashlab.tide_brin')",
            ),
            15,
        ),
    )

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        if not empty and rng.random() < 0.9:
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
            return "empty", False
        rows = rng.choices((8, 40, 150, 3000), (4, 4, 2, 0 if private else 1))[0]
        self._look_up(cursor)
        seed = rng.randrange(1, 1000)
        wide = WIDE.format(seed=seed, parts=rng.choice((2, 30, 60)) if rows < 1000 else 1)
        self.run(
            cursor,
            "INSERT INTO {table} SELECT %s, n + %s, "
            + wide
            + ", "
            + (rng.choice(PATHS).format(seed=seed) if rows < 1000 else "'p' || n %% 50")
            + f", point(n * {seed} %% 997, n * 31 %% 911), CASE WHEN n %% 2 = 0 THEN 7 ELSE n END, n * {seed} %% 9999,"
            " ARRAY[1, n %% 3] FROM generate_series(1, %s) n",
            (slot, 10_000 * rng.randrange(100), rows),
        )
        return f"fill with {rows}", False

    def _look_up(self, cursor: "Cursor[Any]") -> None:
        """Read through indexes one entry after the other: that marks what is dead, and nothing else does."""
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        self.run(cursor, "SELECT count(*) FROM {table} WHERE hashed = 7")
        self.run(cursor, "SELECT count(*) FROM {table} WHERE place <@ box '((0,0),(999,999))'")
        cursor.execute("SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on")


KINDS = (Tide,)
