"""Do rows stay whole when they move between partitions, and children with their parents?

Children are partitioned by region and refer to a parent by a foreign key; each writer may move a child to another
region and to another parent. Who refers to a parent locks it FOR KEY SHARE, several at once, so
parents carry multixacts.
"""

from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

CHILD_COUNT = 96
PARENT_COUNT = 12
PRIVATE_FIRST = 1000
PRIVATE_COUNT = 64
REGIONS = 4

PARENT = f"{SCHEMA_NAME}.parent"
CHILD = f"{SCHEMA_NAME}.child"
READ = f"{SCHEMA_NAME}.child_of_any_region"
ADVISORY = 4711  # class of the locks that keep two writers off one child


class Partitioned:
    """Move a child to another region and another parent, or change a parent."""

    name = "partitioned"
    relations = (
        Relation("parent", PARENT, "key::text, version, writer, name"),
        Relation("child", READ, "key, version, writer, value"),
    )
    setup_sql = f"""
        CREATE TABLE {PARENT} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                               name text NOT NULL) WITH (fillfactor = 50);
        CREATE TABLE {CHILD} (key integer NOT NULL, region integer NOT NULL, version bigint NOT NULL,
                              writer bigint NOT NULL, parent integer NOT NULL REFERENCES {PARENT},
                              PRIMARY KEY (key, region)) PARTITION BY LIST (region);
        CREATE INDEX child_parent ON {CHILD} (parent);
        CREATE VIEW {READ} AS
          SELECT key::text, version, writer, format('region %s, parent %s', region, parent) AS value FROM {CHILD};
    """ + "".join(
        f"CREATE TABLE {CHILD}_{region} PARTITION OF {CHILD} FOR VALUES IN ({region});" for region in range(REGIONS)
    )

    def initial(self) -> list[Write]:
        """All parents and all children, in region 0."""
        children = [*range(CHILD_COUNT), *range(PRIVATE_FIRST, PRIVATE_FIRST + PRIVATE_COUNT)]
        return [
            *(Write("parent", str(key), 1, "initial") for key in range(PARENT_COUNT)),
            *(Write("child", str(key), 1, "region 0, parent 0") for key in children),
        ]

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Insert parents, then children."""
        for relation, table, columns in (
            ("parent", PARENT, "k::integer, 1, %s, 'initial'"),
            ("child", CHILD, "k::integer, 0, 1, %s, 0"),
        ):
            keys = [write.key for write in writes if write.relation == relation]
            cursor.execute(f"INSERT INTO {table} SELECT {columns} FROM unnest(%s::text[]) k", (tx, keys))

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Move one child; now and then change a parent instead."""
        if private_key is None and rng.random() < 0.25:
            name = f"{rng.getrandbits(32):08x}"
            cursor.execute(
                f"UPDATE {PARENT} SET version = version + 1, writer = %s, name = %s WHERE key = %s"
                " RETURNING key, version",
                (tx, name, rng.randrange(PARENT_COUNT)),
            )
            key, version = cursor.fetchone()  # type: ignore[misc]
            return Change([Write("parent", str(key), version, name)])
        child = rng.randrange(CHILD_COUNT) if private_key is None else PRIVATE_FIRST + private_key % PRIVATE_COUNT
        # An update that moves a row cannot be waited for: the one that waited would fail
        cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", (ADVISORY, child))
        cursor.execute(
            f"UPDATE {CHILD} SET version = version + 1, writer = %s, region = %s, parent = %s WHERE key = %s"
            " RETURNING version, format('region %%s, parent %%s', region, parent)",
            (tx, rng.randrange(REGIONS), rng.randrange(PARENT_COUNT), child),
        )
        version, value = cursor.fetchone()  # type: ignore[misc]
        return Change([Write("child", str(child), version, value)])

    def invariants(self) -> list[InvariantQuery]:
        """Each child has one region and a parent that is there, and lies in its region's partition."""
        return [
            InvariantQuery(
                "children without their parent",
                f"SELECT count(*)::text FROM {CHILD} c WHERE parent NOT IN (SELECT key FROM {PARENT})",
                "0",
            ),
            InvariantQuery(
                "children that are in several partitions",
                f"SELECT count(*)::text FROM (SELECT FROM {CHILD} GROUP BY key HAVING count(*) > 1) c",
                "0",
            ),
            InvariantQuery(
                "children in another region's partition",
                f"SELECT count(*)::text FROM {CHILD} WHERE tableoid IS DISTINCT FROM to_regclass('{CHILD}_' || region)",
                "0",
            ),
        ]


KINDS = (Partitioned,)
