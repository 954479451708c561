"""Do rows survive while their table and its indexes are made anew under them?

Sets of rows come and go; beside them indexes are built, rebuilt and dropped concurrently, the table is clustered,
rewritten and vacuumed in full, as are catalogs whose files only the relation map knows, a materialized view is
refreshed concurrently, and a partition is detached concurrently and attached again.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.kind import Chore
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor


class Rebuilt(Slots):
    """Fill, change or empty a set of rows of a table that is rebuilt all the time."""

    name = "rebuilt"
    compared = "(r.slot, r.n, r.v)::text"  # a column comes and goes, which rewrites the table
    record_types = (
        *("RelMap/UPDATE", "XLOG/FPI", "Storage/CREATE", "Standby/LOCK", "Standby/INVALIDATIONS", "Heap/INPLACE"),
        *("Hash/INIT_META_PAGE", "Hash/INIT_BITMAP_PAGE", "XLOG/NEXTOID"),
        *("BRIN/CREATE_INDEX", "BRIN/REVMAP_EXTEND", "BRIN/INSERT+INIT"),  # which the others write in the set-up only
    )
    rows_sql = """
        CREATE TABLE {table} (slot integer NOT NULL, n integer NOT NULL, v text NOT NULL, PRIMARY KEY (slot, n));
        CREATE INDEX {name}_hash ON {table} USING hash (v);
        CREATE INDEX {name}_brin ON {table} USING brin (n);
        CREATE TABLE {table}_parent (n integer NOT NULL, v text) PARTITION BY RANGE (n);
        CREATE TABLE {table}_low PARTITION OF {table}_parent FOR VALUES FROM (0) TO (1000);
        CREATE TABLE {table}_high PARTITION OF {table}_parent FOR VALUES FROM (1000) TO (2000);
        INSERT INTO {table}_parent SELECT n, 'of the set-up' FROM generate_series(0, 1999, 40) n;
        CREATE MATERIALIZED VIEW {table}_total AS SELECT slot, count(*) AS rows FROM {table} GROUP BY slot;
        CREATE UNIQUE INDEX ON {table}_total (slot);
    """
    upkeep = (
        Chore(
            (
                "CREATE INDEX CONCURRENTLY IF NOT EXISTS rebuilt_extra ON crashlab.rebuilt (v)",
                "REINDEX TABLE CONCURRENTLY crashlab.rebuilt",
                "CLUSTER crashlab.rebuilt USING rebuilt_pkey",
                "DROP INDEX CONCURRENTLY IF EXISTS crashlab.rebuilt_extra",
                "ALTER TABLE crashlab.rebuilt ADD COLUMN IF NOT EXISTS note float DEFAULT random()",
                "VACUUM FULL crashlab.rebuilt",
                "ALTER TABLE crashlab.rebuilt DROP COLUMN IF EXISTS note",
                "REFRESH MATERIALIZED VIEW CONCURRENTLY crashlab.rebuilt_total",
                "ALTER TABLE crashlab.rebuilt_parent DETACH PARTITION crashlab.rebuilt_high CONCURRENTLY",
                "ALTER TABLE crashlab.rebuilt_parent DETACH PARTITION crashlab.rebuilt_high FINALIZE",
                (
                    "ALTER TABLE crashlab.rebuilt_parent ATTACH PARTITION crashlab.rebuilt_high"
                    " FOR VALUES FROM (1000) TO (2000)"
                ),
                "REINDEX INDEX pg_class_oid_index",
                "VACUUM FULL pg_class",
                "VACUUM FULL pg_type",
                "REINDEX INDEX CONCURRENTLY crashlab.rebuilt_hash",
                "VACUUM (FREEZE, ANALYZE) crashlab.rebuilt",
            ),
            20,
        ),
    )

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        what = "fill" if empty else rng.choice(("fill", "empty", "change"))
        if what == "fill":
            self.run(
                cursor,
                "INSERT INTO {table} (slot, n, v) SELECT %s, coalesce((SELECT max(n) FROM {table} WHERE slot = %s), 0)"
                " + n, md5((n * %s)::text) FROM generate_series(1, %s) n",
                (slot, slot, rng.randrange(1 << 20), rng.randint(5, 80)),
            )
        elif what == "empty":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
        else:
            self.run(cursor, "UPDATE {table} SET v = md5(v) WHERE slot = %s AND n %% 2 = 0", (slot,))
        return what, False


KINDS = (Rebuilt,)
