"""Does a materialized view show what it showed when it was last refreshed?

All writers of the stock hold one lock, so what a refresh sees is known. A refresh replaces the view's file, and the
commit that removes the old one is flushed, whatever synchronous_commit says.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

STOCK_COUNT = 32
PRIVATE_FIRST = 1000  # not in the view: a prepared transaction must not keep others from refreshing it
PRIVATE_COUNT = 64
ADVISORY = 1905

TABLE = f"{SCHEMA_NAME}.stock"
CLOCK = f"{SCHEMA_NAME}.stock_clock"
VIEW = f"{SCHEMA_NAME}.stock_total"


class MaterializedView:
    """Change the stock and refresh its total."""

    name = "matview"
    relations = (
        Relation("stock", TABLE, "key::text, version, writer, amount::text"),
        Relation("stock_total", VIEW, "key, version, writer, value"),
    )
    setup_sql = f"""
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              amount bigint NOT NULL);
        CREATE TABLE {CLOCK} (version bigint NOT NULL, writer bigint NOT NULL);
        CREATE MATERIALIZED VIEW {VIEW} AS
          SELECT 'all'::text AS key, c.version, c.writer,
                 (SELECT sum(amount)::text FROM {TABLE} WHERE key < {PRIVATE_FIRST}) AS value FROM {CLOCK} c;
        CREATE UNIQUE INDEX stock_total_key ON {VIEW} (key);
    """

    def initial(self) -> list[Write]:
        """Everything in stock once; the total is refreshed with it."""
        keys = [*range(STOCK_COUNT), *range(PRIVATE_FIRST, PRIVATE_FIRST + PRIVATE_COUNT)]
        return [
            *(Write("stock", str(key), 1, "1") for key in keys),
            Write("stock_total", "all", 1, str(STOCK_COUNT)),
        ]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert the stock, refresh the total."""
        keys = [write.key for write in writes if write.relation == "stock"]
        cursor.execute(f"INSERT INTO {TABLE} SELECT k::integer, 1, %s, 1 FROM unnest(%s::text[]) k", (tx, keys))
        cursor.execute(f"INSERT INTO {CLOCK} VALUES (1, %s)", (tx,))
        cursor.execute(f"REFRESH MATERIALIZED VIEW {VIEW}")

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change one amount; in every third transaction refresh the total."""
        key = rng.randrange(STOCK_COUNT) if private_key is None else PRIVATE_FIRST + private_key % PRIVATE_COUNT
        if private_key is None:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY,))
        cursor.execute(
            f"UPDATE {TABLE} SET version = version + 1, writer = %s, amount = amount + %s WHERE key = %s"
            " RETURNING version, amount::text",
            (tx, rng.randint(1, 9), key),
        )
        version, amount = cursor.fetchone()  # type: ignore[misc]
        writes = [Write("stock", str(key), version, amount)]
        if private_key is not None or rng.random() > 0.3:
            return Change(writes)
        cursor.execute(f"UPDATE {CLOCK} SET version = version + 1, writer = %s", (tx,))
        cursor.execute(f"REFRESH MATERIALIZED VIEW {VIEW}")
        cursor.execute(f"SELECT version, value FROM {VIEW}")
        version, value = cursor.fetchone()  # type: ignore[misc]
        return Change([*writes, Write("stock_total", "all", version, value)], forced=True)

    def invariants(self) -> list[InvariantQuery]:
        """What the view shows is compared with the ledger."""
        return []


KINDS = (MaterializedView,)
