"""Do indexes keep their structure while their pages split, merge, are deleted and used again?

Sets of rows come, change and go, and VACUUM follows them, so that every access method makes and removes pages of all
its sorts: inner pages, posting lists and trees, overflow pages, pending lists, summaries. Keys are wide, so that a
page holds few; some are NULL, and many are equal.

`structure` has rows of many columns, `posting` many narrow rows with few keys, for posting trees and long chains.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.kind import Chore
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor

BLOOM = """
    DO $$
    BEGIN
      IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'bloom') THEN
        CREATE EXTENSION IF NOT EXISTS bloom;
        CREATE INDEX {name}_bloom ON {table} USING bloom (number, dup);
      END IF;
    END $$;
"""


class Structure(Slots):
    """Fill, thin out, shift or empty a set of rows under an index of every access method."""

    name = "structure"
    record_types = (
        *("Btree/SPLIT_L", "Btree/SPLIT_R", "Btree/INSERT_UPPER", "Btree/NEWROOT", "Btree/DELETE", "Btree/VACUUM"),
        *("Btree/MARK_PAGE_HALFDEAD", "Btree/UNLINK_PAGE", "Btree/REUSE_PAGE", "Btree/META_CLEANUP"),
        *("Gist/PAGE_UPDATE", "Gist/PAGE_SPLIT", "Gist/PAGE_DELETE", "Gist/PAGE_REUSE", "Gist/DELETE"),
        *("SPGist/ADD_LEAF", "SPGist/MOVE_LEAFS", "SPGist/ADD_NODE", "SPGist/SPLIT_TUPLE", "SPGist/PICKSPLIT"),
        *("SPGist/VACUUM_LEAF", "SPGist/VACUUM_REDIRECT", "Gin/INSERT_LISTPAGE", "Gin/DELETE_LISTPAGE"),
        *("BRIN/CREATE_INDEX", "BRIN/INSERT", "BRIN/UPDATE", "BRIN/SAMEPAGE_UPDATE", "BRIN/REVMAP_EXTEND"),
        *("BRIN/DESUMMARIZE", "Generic/Generic", "Gin/UPDATE_META_PAGE", "Gin/SPLIT", "Gin/VACUUM_PAGE"),
    )
    rows_sql = (
        """
        CREATE TABLE {table} (
          slot integer NOT NULL, n integer NOT NULL, wide text NOT NULL, dup integer, hashed integer NOT NULL,
          words integer[] NOT NULL, span int4range NOT NULL, path text NOT NULL, number integer NOT NULL,
          PRIMARY KEY (slot, n)) WITH (fillfactor = 90);
        CREATE INDEX {name}_wide ON {table} (wide);
        CREATE INDEX {name}_dup ON {table} (dup);
        CREATE INDEX {name}_hash ON {table} USING hash (hashed);
        CREATE INDEX {name}_gin ON {table} USING gin (words) WITH (fastupdate = on, gin_pending_list_limit = 64);
        CREATE INDEX {name}_gist ON {table} USING gist (span);
        CREATE INDEX {name}_spgist ON {table} USING spgist (path);
        CREATE INDEX {name}_multi ON {table} USING brin (number int4_minmax_multi_ops)
          WITH (pages_per_range = 1, autosummarize = off);
        CREATE INDEX {name}_inclusion ON {table} USING brin (span range_inclusion_ops)
          WITH (pages_per_range = 1, autosummarize = off);
        CREATE INDEX {name}_brinbloom ON {table} USING brin (number int4_bloom_ops(n_distinct_per_range = 100))
          WITH (pages_per_range = 1, autosummarize = off);
    """
        + BLOOM
    )
    upkeep = (
        Chore(
            (
                "VACUUM (INDEX_CLEANUP ON) crashlab.structure",
                "SELECT brin_summarize_new_values('crashlab.structure_multi')",
                "SELECT brin_summarize_new_values('crashlab.structure_inclusion')",
                "SELECT brin_summarize_new_values('crashlab.structure_brinbloom')",
                "SELECT brin_desummarize_range('crashlab.structure_multi', 1)",
                "SELECT gin_clean_pending_list('crashlab.structure_gin')",
            ),
            40,
        ),
    )

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        what = "fill" if empty else rng.choice(("fill", "empty", "empty", "thin out", "shift", "probe"))
        if what == "fill":
            self._fill(cursor, rng, slot)
        elif what == "empty":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
        elif what == "thin out":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s AND n %% 7 <> %s", (slot, rng.randrange(7)))
        elif what == "shift":  # some to other places in every index, some within their page
            self.run(
                cursor,
                "UPDATE {table} SET wide = md5(wide) || wide, number = number + 1000, span = int4range(n, n + 5),"
                " path = path || '/' || n %% 3, dup = nullif(n %% 5, 0) WHERE slot = %s AND n %% 3 = %s",
                (slot, rng.randrange(3)),
            )
        else:  # dead entries are marked as such by who meets them, and removed by who needs their place
            self.run(cursor, "UPDATE {table} SET dup = dup + 1 WHERE slot = %s", (slot,))
            for name, condition in (("wide", "wide > 'f'"), ("span", "span && int4range(0, 400)"), ("dup", "dup = 3")):
                self.run(cursor, f"SELECT count({name}) FROM {{table}} WHERE {condition}")
        return what, False

    def _fill(self, cursor: "Cursor[Any]", rng: Random, slot: int) -> None:
        """Insert rows whose keys lie everywhere, or at the right end, or beside each other."""
        seed = rng.randrange(1 << 20)
        rows = rng.randint(10, 60)
        order = rng.choice(
            ("md5((n * 7919 + {seed})::text)", "lpad((n + {seed})::text, 20, '0')", "'c' || md5(n::text)")
        )
        width = rng.choice((3, 8, 20))
        self.run(
            cursor,
            f"""
            INSERT INTO {{table}}
            SELECT %(slot)s, coalesce((SELECT max(n) FROM {{table}} WHERE slot = %(slot)s), 0) + n,
              {order.format(seed=seed)} || repeat(md5((n * {seed})::text), {width}),
              CASE WHEN n %% 4 > 0 THEN n %% 3 END, CASE WHEN n %% 2 = 0 THEN 7 ELSE n * {seed} %% 50 END,
              ARRAY[n %% 11, n %% 97, {seed} %% 1000 + n],
              int4range(n * {seed} %% 1000, n * {seed} %% 1000 + n %% 40 + 1),
              repeat(chr(97 + n %% 3), n %% 13) || '/' || n * {seed} %% 977, n * {seed} %% 100000
            FROM generate_series(1, %(rows)s) n
            """,
            {"slot": slot, "rows": rows},
        )


LONG = 16_000
"""So many rows with a key in common have a page in the middle of their posting tree, which goes when they go.

No other index has all of them, or they take seconds.
"""


class Posting(Slots):
    """Many rows with few keys: posting lists and trees, chains of overflow pages, duplicates."""

    name = "posting"
    slot_count = 4
    urgent = "value = 'fill long'"
    record_types = (
        *("Gin/CREATE_PTREE", "Gin/INSERT", "Gin/VACUUM_DATA_LEAF_PAGE", "Gin/DELETE_PAGE"),
        *("Btree/DEDUP", "Btree/INSERT_POST", "Hash/ADD_OVFL_PAGE", "Hash/SPLIT_ALLOCATE_PAGE", "Hash/SPLIT_PAGE"),
        *("Hash/SPLIT_COMPLETE", "Hash/MOVE_PAGE_CONTENTS", "Hash/SQUEEZE_PAGE", "Hash/DELETE", "Hash/SPLIT_CLEANUP"),
        *("Hash/UPDATE_META_PAGE", "Hash/VACUUM_ONE_PAGE", "Hash/INSERT", "Storage/TRUNCATE", "SPGist/VACUUM_ROOT"),
    )
    rows_sql = """
        CREATE TABLE {table} (slot integer NOT NULL, n integer NOT NULL, words integer[] NOT NULL,
                              few integer NOT NULL, hashed integer NOT NULL, tag text);
        CREATE UNIQUE INDEX {name}_key ON {table} (n, slot) WHERE n <= 1200;
        CREATE INDEX {name}_gin ON {table} USING gin (words) WITH (fastupdate = off);
        CREATE INDEX {name}_few ON {table} (few) WHERE n <= 1200;
        CREATE INDEX {name}_hash ON {table} USING hash (hashed) WHERE n <= 1200;
        CREATE INDEX {name}_root ON {table} USING spgist (tag) WHERE tag IS NOT NULL;
    """
    upkeep = (Chore(("VACUUM (INDEX_CLEANUP ON, TRUNCATE ON) crashlab.posting",), 80),)

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        if empty:
            rows = 200 if private else rng.choices((200, 500, 1200, LONG), (8, 6, 3, 2))[0]
            self.run(
                cursor,
                "INSERT INTO {table} SELECT %s, n, CASE WHEN n %% 3 > 0 THEN ARRAY[1, 2 + n %% 2] ELSE ARRAY[1] END,"
                " n %% 4, CASE WHEN n %% 2 = 0 THEN %s ELSE n END, CASE WHEN n %% 400 = 0 THEN md5(n::text) END"
                " FROM generate_series(1, %s) n",
                (slot, rng.choice((5, 6)), rows),
            )
            return "fill long" if rows == LONG else "fill", False
        self.run(cursor, "SELECT count(*) >= %s FROM {table} WHERE slot = %s", (LONG, slot))
        what = "empty" if cursor.fetchone() == (True,) else rng.choice(("empty", "empty", "thin out", "touch"))
        if what == "empty":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
        elif what == "thin out":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s AND n %% 16 > %s", (slot, rng.randrange(1, 14)))
        else:
            self.run(cursor, "UPDATE {table} SET few = few + 1 WHERE slot = %s AND n %% 50 = 0", (slot,))
            self.run(cursor, "SELECT count(*) FROM {table} WHERE hashed = 5 AND n <= 1200")
        return what, False


KINDS = (Structure, Posting)
