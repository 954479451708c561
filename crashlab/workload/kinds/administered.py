"""Do rows survive what an administrator does meanwhile: full-page images switched off and on, and reloads?

Not for a loss of power: while full-page images are off, a torn page may stay torn.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.workload.kind import Chore
from crashlab.workload.slots import Slots

if TYPE_CHECKING:
    from psycopg import Cursor


class Administered(Slots):
    """Fill, change or empty a set of rows."""

    name = "administered"
    record_types = ("XLOG/FPW_CHANGE",)
    rows_sql = "CREATE TABLE {table} (slot integer, n integer, v text NOT NULL, PRIMARY KEY (slot, n));"
    upkeep = (
        Chore(
            (
                "ALTER SYSTEM SET full_page_writes = off",
                "SELECT pg_reload_conf()",
                "ALTER SYSTEM RESET full_page_writes",
                "SELECT pg_reload_conf()",
            ),
            60,
        ),
    )

    def change(self, cursor: "Cursor[Any]", rng: Random, slot: int, *, empty: bool, private: bool) -> tuple[str, bool]:
        """See Slots.change."""
        if empty:
            rows = rng.randint(5, 60)
            self.run(cursor, "INSERT INTO {table} SELECT %s, n, 'new' FROM generate_series(1, %s) n", (slot, rows))
            return "fill", False
        if rng.random() < 0.3:
            self.run(cursor, "DELETE FROM {table} WHERE slot = %s", (slot,))
            return "empty", False
        self.run(cursor, "UPDATE {table} SET v = md5(v) WHERE slot = %s AND n %% 3 = %s", (slot, rng.randrange(3)))
        return "change", False


KINDS = (Administered,)
