"""Do values of every size survive, from one byte to a megabyte, in the row, compressed, or out of line?

The ledger holds a value's length and MD5 only; whoever reads it back has to fetch and decompress every chunk of it.
"""

from hashlib import md5
from random import Random
from typing import TYPE_CHECKING, Any

from crashlab.ledger import Write
from crashlab.workload.kind import Change
from crashlab.workload.relations import SCHEMA_NAME, InvariantQuery, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

KEY_COUNT = 48
PRIVATE_FIRST = 1000
BYTES_MAX_LOG2 = 20

TABLE = f"{SCHEMA_NAME}.toast"


class Toast:
    """Put a value of a size drawn so that each order of magnitude comes up, the largest rarely."""

    name = "toast"
    relations = (
        Relation(
            "toast",
            TABLE,
            "key::text, version, writer, concat_ws(' ', length(packed), md5(packed), length(plain), md5(plain))",
        ),
    )
    setup_sql = f"""
        CREATE TABLE {TABLE} (key integer PRIMARY KEY, version bigint NOT NULL, writer bigint NOT NULL,
                              packed text NOT NULL, plain text NOT NULL);
        ALTER TABLE {TABLE} ALTER COLUMN plain SET STORAGE EXTERNAL;
    """

    def initial(self) -> list[Write]:
        """Values come into being with their first writer."""
        return []

    def insert(self, cursor: "Cursor[Any]", writes: list[Write], tx: int) -> None:
        """Nothing to write."""

    def step(self, cursor: "Cursor[Any]", rng: Random, tx: int, private_key: int | None) -> Change:
        """Replace one value, or both of a row."""
        key = rng.randrange(KEY_COUNT) if private_key is None else PRIVATE_FIRST + private_key
        packed, plain = _value(rng), _value(rng)
        cursor.execute(
            f"INSERT INTO {TABLE} AS t VALUES (%s, 1, %s, %s, %s) ON CONFLICT (key) DO UPDATE SET"
            " version = t.version + 1, writer = excluded.writer, packed = excluded.packed, plain = excluded.plain"
            " RETURNING version",
            (key, tx, packed, plain),
        )
        (version,) = cursor.fetchone()  # type: ignore[misc]
        return Change([Write("toast", str(key), version, f"{_described(packed)} {_described(plain)}")])

    def invariants(self) -> list[InvariantQuery]:
        """Nothing holds between these rows."""
        return []


def _value(rng: Random) -> str:
    size = int(2 ** (BYTES_MAX_LOG2 * rng.random() ** 3))
    if rng.random() < 0.5:
        return f"{rng.getrandbits(24):06x}" * (size // 6) + "x"  # compresses well
    return rng.randbytes(size // 2 + 1).hex()


def _described(value: str) -> str:
    return f"{len(value)} {md5(value.encode(), usedforsecurity=False).hexdigest()}"


KINDS = (Toast,)
