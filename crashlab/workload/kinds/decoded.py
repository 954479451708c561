"""Do rows survive that are also decoded for others, and does a logical slot hand all of them out?

A logical slot is read while the run goes on, replication origins come, advance and go, and messages are logged, with
their transaction and without. A table that decoding treats as a catalog is rewritten. Beside that the log gets what an
administrator does: a restore point, a switch of the WAL file, a base backup.

A slot may hand out a transaction again after a crash, and never skips one. So each row bears its transaction; what was
handed out is noted, and committed, before the slot moves on; and of every row that came back the transaction was handed
out, or will be.

Needs wal_level = logical.

Does not check: what is handed out of a row; transactions of which no row is left; rows older than the slot.

Source: logicaldecoding-explanation.html, "Replication Slots".
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.kind import Chore
from crashlab.workload.relations import InvariantQuery
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor

BACKUP = """
    DO $$
    BEGIN
      IF current_setting('server_version_num')::integer >= 150000 THEN
        PERFORM pg_backup_start('crashlab', true);
        PERFORM pg_backup_stop(false);
      ELSE
        PERFORM pg_start_backup('crashlab', true, false);
        PERFORM pg_stop_backup(false, false);
      END IF;
    END $$
"""
CHANGES = (
    "pg_logical_slot_peek_binary_changes("
    "'crashlab', NULL, {most}, 'proto_version', '1', 'publication_names', 'crashlab')"
)
SKIPPED = "crashlab.decoded_skipped()"


class Decoded(Slots):
    """Fill, change, empty a set of rows that are published; log messages."""

    name = "decoded"
    record_types = (
        *("LogicalMessage/MESSAGE", "ReplicationOrigin/SET", "ReplicationOrigin/DROP", "Heap2/NEW_CID"),
        *("Heap2/REWRITE", "Heap/TRUNCATE", "Transaction/INVALIDATION", "XLOG/RESTORE_POINT", "XLOG/SWITCH"),
        "XLOG/BACKUP_END",
    )
    rows_sql = (
        """
        CREATE TABLE {table} (slot integer NOT NULL, n integer NOT NULL, v text NOT NULL,
                              xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint, PRIMARY KEY (slot, n));
        ALTER TABLE {table} REPLICA IDENTITY FULL;
        CREATE TABLE {table}_catalog (n integer PRIMARY KEY, v text) WITH (user_catalog_table = true);
        CREATE TABLE {table}_emptied (n integer);
        CREATE PUBLICATION crashlab FOR TABLE {table}, {table}_emptied;
        CREATE TABLE {table}_handed_out (xid bigint NOT NULL, lsn pg_lsn);
        CREATE FUNCTION {table}_skipped() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE
          since bigint := (SELECT min(xid) FROM {table}_handed_out);
        BEGIN
          IF since IS NULL THEN
            RETURN '0';
          END IF;
          RETURN (
            WITH known AS MATERIALIZED (
              SELECT xid FROM {table}_handed_out UNION SELECT xid::text::bigint FROM """
        + CHANGES.format(most="NULL")
        + """)
            SELECT count(DISTINCT xid) FROM {table} WHERE xid > since AND xid NOT IN (SELECT xid FROM known));
        END $$;
    """
    )
    upkeep = (
        Chore(
            (
                "SET synchronous_commit = on",
                (
                    "INSERT INTO crashlab.decoded_handed_out SELECT xid::text::bigint, max(lsn)"
                    f" FROM {CHANGES.format(most=50)} GROUP BY xid"
                ),
                "SELECT pg_replication_slot_advance('crashlab', max(lsn)) FROM crashlab.decoded_handed_out",
                "SELECT pg_replication_origin_create('crashlab')",
                BACKUP,
                "DELETE FROM crashlab.decoded_catalog WHERE n > 6",
                "INSERT INTO crashlab.decoded_catalog SELECT coalesce(max(n), 0) + 1 FROM crashlab.decoded_catalog",
                "UPDATE crashlab.decoded_catalog SET v = v || 'er'",
                "SELECT pg_replication_origin_advance('crashlab', pg_current_wal_lsn())",
                "VACUUM FULL crashlab.decoded_catalog",
                "SELECT pg_logical_emit_message(false, 'crashlab', 'without a transaction')",
                "TRUNCATE crashlab.decoded_emptied",
                "SELECT pg_replication_origin_drop('crashlab')",
                "SELECT pg_create_restore_point('crashlab')",
                "SELECT pg_switch_wal()",
            ),
            30,
            first=(
                "SELECT pg_create_logical_replication_slot('crashlab', 'pgoutput')",
                "INSERT INTO crashlab.decoded_handed_out VALUES (pg_current_xact_id()::text::bigint, NULL)",
            ),
        ),
    )

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        what = "fill" if empty else rng.choice(("fill", "empty", "change"))
        cursor.execute("SELECT pg_logical_emit_message(true, 'crashlab', %s)", (f"{what} {slot}",))
        if what == "fill":
            self.run(
                cursor,
                "INSERT INTO {table} SELECT %s, coalesce((SELECT max(n) FROM {table} WHERE slot = %s), 0) + n,"
                " md5((n * %s)::text) FROM generate_series(1, %s) n",
                (slot, slot, rng.randrange(1 << 20), rng.randint(1, 40)),
            )
        elif what == "empty":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
        else:
            self.run(cursor, "UPDATE {table} SET v = md5(v), xid = DEFAULT WHERE slot = %s", (slot,))
        return what, False

    def invariants(self) -> list[InvariantQuery]:
        """Nothing is skipped. It takes more than the right to read to ask, so the server's own function does."""
        return [
            *super().invariants(),
            InvariantQuery(
                "transactions on decoded that the logical slot skips", f"SELECT {SKIPPED}", "0", needs=SKIPPED
            ),
        ]


KINDS = (Decoded,)
