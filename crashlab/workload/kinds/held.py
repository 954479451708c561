"""Do prepared transactions outlive checkpoints and restarts, with the locks that they hold?

What is prepared also holds a lock on a whole table, and locks on rows that it did not change. With the profile's
`two_phase_held` it stays so for long, so that checkpoints move its state into a file.

Source: sql-prepare-transaction.html, whose locks are held "as though" by a session; view-pg-locks.html.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.relations import InvariantQuery
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor

LOCK_COUNT = 16


class Held(Slots):
    """Fill, change or empty a set of rows; what may stay prepared locks more than it changes."""

    name = "held"
    record_types = ("Transaction/PREPARE", "Transaction/COMMIT_PREPARED", "Transaction/ABORT_PREPARED")
    rows_sql = """
        CREATE TABLE {table} (slot integer NOT NULL, n integer NOT NULL, v text NOT NULL, PRIMARY KEY (slot, n));
        CREATE TABLE {table}_row (n integer PRIMARY KEY);
        INSERT INTO {table}_row SELECT generate_series(0, 160);
    """ + "".join(f"CREATE TABLE {{table}}_lock_{number} (n integer);" for number in range(LOCK_COUNT))

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        what = "fill" if empty else rng.choice(("fill", "empty", "change"))
        if private:  # conflicts with writers; who reads the recovered server is not kept from it
            own = slot % LOCK_COUNT
            self.run(cursor, f"LOCK TABLE {{table}}_lock_{own} IN SHARE ROW EXCLUSIVE MODE")
            self.run(cursor, "SELECT FROM {table}_row WHERE n / 10 = %s FOR UPDATE SKIP LOCKED", (own,))
        if what == "fill":
            self.run(
                cursor,
                "INSERT INTO {table} SELECT %s, coalesce((SELECT max(n) FROM {table} WHERE slot = %s), 0) + n,"
                " md5((n * %s)::text) FROM generate_series(1, %s) n",
                (slot, slot, rng.randrange(1 << 20), rng.randint(1, 30)),
            )
        elif what == "empty":
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
        else:
            self.run(cursor, "UPDATE {table} SET v = md5(v) WHERE slot = %s", (slot,))
        return what, False

    def invariants(self) -> list[InvariantQuery]:
        """Whatever wrote a row has a lock on its table until it is decided, by no process of the server."""
        return [
            *super().invariants(),
            InvariantQuery(
                "prepared transactions that hold no lock on a table",
                "SELECT count(*)::text FROM pg_prepared_xacts p WHERE NOT EXISTS (SELECT FROM pg_locks o"
                " JOIN pg_locks l USING (virtualtransaction) WHERE o.transactionid = p.transaction"
                " AND o.pid IS NULL AND l.pid IS NULL AND l.locktype = 'relation')",
                "0",
            ),
        ]


KINDS = (Held,)
