"""Do rows stay what they are while transaction ids are used up, frozen and forgotten?

Some transactions have hundreds of subtransactions, more than a session keeps in shared memory, and so use up ids by the
thousand: new pages of pg_xact, pg_subtrans and pg_commit_ts. Others make row locks of several holders, each of which is
a multixact of its own. Beside them VACUUM FREEZE goes through all databases, so that old pages of all these may go.

`xids_far` begins a million transactions later: only then is there a whole file of pg_xact that may go.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.kind import Chore
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor

BURN = """
    CREATE FUNCTION {table}_burn(many integer) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      FOR n IN 1 .. many LOOP
        BEGIN
          PERFORM pg_logical_emit_message(true, '', '');
        EXCEPTION WHEN division_by_zero THEN
          NULL;
        END;
      END LOOP;
    END $$;
    CREATE FUNCTION {table}_share(many integer, only_slot integer) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
      one record;
    BEGIN
      PERFORM FROM {table} WHERE slot = only_slot ORDER BY n FOR KEY SHARE;
      FOR round IN 1 .. many LOOP
        FOR one IN SELECT n FROM {table} WHERE slot = only_slot ORDER BY n LIMIT 20 LOOP
          BEGIN
            PERFORM FROM {table} WHERE slot = only_slot AND n = one.n FOR NO KEY UPDATE;
            UPDATE {table} SET v = v + 1 WHERE slot = only_slot AND n = one.n;
          EXCEPTION WHEN division_by_zero THEN
            NULL;
          END;
        END LOOP;
      END LOOP;
    END $$;
"""
"""An id for each subtransaction that writes, if only a message; a multixact for each that locks what its parent has."""
BURN_UNTIL = (
    "SET synchronous_commit = off",
    """
    DO $$
    DECLARE
      place pg_lsn;
    BEGIN
      WHILE pg_current_xact_id()::text::bigint < {start} LOOP
        FOR n IN 1 .. 60 LOOP
          BEGIN
            place := pg_logical_emit_message(true, '', '');
          EXCEPTION WHEN division_by_zero THEN
            NULL;
          END;
        END LOOP;
        COMMIT;
      END LOOP;
    END $$
    """,
    "RESET synchronous_commit",
)
"""Few subtransactions at a time, without a flush, and an assignment, which is no query: a third of the time."""
ALLOWED = "ALTER DATABASE template0 ALLOW_CONNECTIONS true"
"""Otherwise nothing but time moves its horizon, and with it that of all."""


OLD_SNAPSHOT = "SELECT pg_sleep(0.2)"
"""Meanwhile nothing may be frozen or forgotten that this statement could still see."""


def _freezing(start: int) -> tuple[Chore, ...]:
    """Begin at a transaction id, near a page's end or behind a file's; then freeze everything everywhere.

    No transaction of the ledger is older: whoever asks for the fate of one whose file is gone may get an error instead
    of no answer, after a crash that came when a checkpoint fell between the removal and the new limit (vacuum.c,
    vac_truncate_clog).
    """
    burn = tuple(one.format(start=start) for one in BURN_UNTIL)
    return (
        Chore(("VACUUM FREEZE",), 40, before=burn, first=(ALLOWED, "CHECKPOINT"), everywhere=True),
        Chore((OLD_SNAPSHOT,), 300),
    )


class Xids(Slots):
    """Change a set of rows, and use up transaction ids or multixacts."""

    name = "xids"
    slot_count = 8
    record_types: tuple[str, ...] = (
        *("CLOG/ZEROPAGE", "CommitTs/ZEROPAGE", "CommitTs/TRUNCATE", "Transaction/ASSIGNMENT", "Heap/LOCK"),
        *("MultiXact/ZERO_OFF_PAGE", "MultiXact/ZERO_MEM_PAGE", "MultiXact/CREATE_ID", "MultiXact/TRUNCATE_ID"),
        *("Heap2/LOCK_UPDATED", "Heap2/FREEZE_PAGE", "Heap2/VISIBLE", "LogicalMessage/MESSAGE"),
    )
    compared = "(r.slot, r.n, r.v)::text"
    rows_sql = "CREATE TABLE {table} (slot integer, n integer, v bigint NOT NULL, PRIMARY KEY (slot, n));"
    upkeep: tuple[Chore, ...] = _freezing(32_000)

    @property
    def setup_sql(self) -> str:
        """See Kind.setup_sql."""
        return super().setup_sql + BURN.replace("{table}", self.table)

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        what = "fill" if empty else rng.choice(("empty", "change", "burn", "burn", "share", "share", "lock"))
        if what == "fill":
            rows = rng.randint(5, 60)
            self.run(cursor, "INSERT INTO {table} SELECT %s, n, n FROM generate_series(1, %s) n", (slot, rows))
        elif what == "empty":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
        elif what == "burn":
            self.run(cursor, "SELECT {table}_burn(%s)", (rng.choice((3, 70, 400, 1500)),))
        elif what == "share":
            self.run(cursor, "SELECT {table}_share(%s, %s)", (rng.randint(1, 6), slot))
        elif what == "lock":
            self.run(cursor, "SELECT FROM {table} WHERE slot = %s AND n %% 2 = 0 FOR UPDATE", (slot,))
            self.run(cursor, "SELECT FROM {table} WHERE n %% 2 = 1 AND slot < 1000 FOR KEY SHARE SKIP LOCKED")
        self.run(cursor, "UPDATE {table} SET v = v + 1 WHERE slot = %s AND n %% 3 = 0", (slot,))
        return what, False


class XidsFar(Xids):
    """The same, a file of pg_xact later."""

    name = "xids_far"
    record_types = (*Xids.record_types, "CLOG/TRUNCATE")
    upkeep = _freezing(1_080_000)


KINDS = (Xids, XidsFar)
