"""Does an index of every access method agree with its table, and do generated and identity columns?

One table, a column of its own for each access method, so that a planner told to use an index can only mean this one.
Statements are prepared on the server.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

KEY_COUNT = 160
PRIVATE_FIRST = 1000

TABLE = f"{SCHEMA_NAME}.indexed"
COLUMNS = ("hashed", "gin", "gist", "spgist", "brin", "bloom", "folded", "sparse")


class Indexed:
    """Put a row, or move all its values to other places in every index."""

    name = "indexed"
    relations = (
        Relation(
            "indexed",
            TABLE,
            "key::text, version, writer,"
            " concat_ws(' ', hashed, gin, gist, spgist, brin, bloom, folded, coalesce(sparse::text, 'null'), doubled)",
        ),
    )
    setup_sql = f"""
        CREATE TABLE {TABLE} (
          key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
          id bigint GENERATED ALWAYS AS IDENTITY,
          hashed text NOT NULL, gin integer[] NOT NULL, gist int4range NOT NULL, spgist text NOT NULL,
          brin integer NOT NULL, bloom integer NOT NULL, folded text NOT NULL, sparse integer,
          doubled bigint GENERATED ALWAYS AS (brin::bigint * 2) STORED);
        CREATE UNIQUE INDEX indexed_id ON {TABLE} (id);
        CREATE INDEX indexed_hash ON {TABLE} USING hash (hashed);
        CREATE INDEX indexed_gin ON {TABLE} USING gin (gin);
        CREATE INDEX indexed_gist ON {TABLE} USING gist (gist);
        CREATE INDEX indexed_spgist ON {TABLE} USING spgist (spgist);
        CREATE INDEX indexed_brin ON {TABLE} USING brin (brin) WITH (pages_per_range = 1, autosummarize = off);
        CREATE INDEX indexed_expression ON {TABLE} (upper(folded));
        CREATE INDEX indexed_partial ON {TABLE} (sparse) WHERE sparse IS NOT NULL;
        DO $$
        BEGIN
          IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'bloom') THEN
            CREATE EXTENSION IF NOT EXISTS bloom;
            CREATE INDEX indexed_bloom ON {TABLE} USING bloom (bloom);
          END IF;
        END $$;
    """

    def initial(self) -> list[Write]:
        """Rows come into being with their first writer."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Change one row."""
        key = rng.randrange(KEY_COUNT) if private_key is None else PRIVATE_FIRST + private_key
        number = rng.randrange(1 << 20)
        values = (
            f"h{number % 5000}",
            sorted({number % 97, number % 89, number % 1009}),
            number % 10_000,
            number % 10_000 + rng.randint(1, 50),
            f"{number % 7}/{number % 11}/{number:x}",
            number,
            number % 500,
            f"Folded {number % 3000}",
            number % 300 if number % 3 == 0 else None,
        )
        changes = ", ".join(f"{column} = excluded.{column}" for column in COLUMNS)
        cursor.execute(
            f"INSERT INTO {TABLE} AS t (key, version, writer, {', '.join(COLUMNS)})"
            " VALUES (%s, 1, %s, %s, %s::integer[], int4range(%s, %s), %s, %s, %s, %s, %s) ON CONFLICT (key) DO UPDATE"
            f" SET version = t.version + 1, writer = excluded.writer, {changes} RETURNING version, gist::text",
            (key, tx, *values),
            prepare=True,
        )
        version, gist = cursor.fetchone()  # type: ignore[misc]
        hashed, gin, _, _, spgist, brin, bloom, folded, sparse = values
        array = "{" + ",".join(map(str, gin)) + "}"
        shown = "null" if sparse is None else sparse
        value = f"{hashed} {array} {gist} {spgist} {brin} {bloom} {folded} {shown} {2 * number}"
        return Change([Write("indexed", str(key), version, value)])

    def invariants(self) -> list[InvariantQuery]:
        """Generated columns are as their expression says; the identity's sequence is ahead of every row."""
        return [
            InvariantQuery(
                "rows whose generated column is not what it is generated from",
                f"SELECT count(*)::text FROM {TABLE} WHERE doubled <> brin::bigint * 2",
                "0",
            ),
            InvariantQuery(
                "rows with an identity that its sequence has not reached",
                f"SELECT count(*)::text FROM {TABLE} WHERE id > (SELECT last_value FROM {TABLE}_id_seq)",
                "0",
            ),
        ]


KINDS = (Indexed,)
