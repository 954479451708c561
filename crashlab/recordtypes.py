"""Which types of WAL records are there, and which of them can a single server write?

A type is a resource manager and the kind of record that it names, as pg_waldump prints them: "Btree/SPLIT_L". A page
that is made anew is a type of its own ("+INIT"), as there. The table is `recordtypes.toml`.

Does not know: extensions' own resource managers, and releases that are not in the table; their records are told by
    number, and are not counted.

Source: rmgr.h, xlogrecord.h (XLR_INFO_MASK), xact.h (XLOG_XACT_OPMASK); each rm_identify.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_suffix(".toml")
MAJORS = range(14, 19)
_XACT, _GENERIC = 1, 20


class RecordTypes(NamedTuple):
    """The types of one major version."""

    names: dict[tuple[int, int], str]  # by resource manager and info bits
    out_of_reach: dict[str, str]  # type -> why recovery after the crash of a single server never replays it

    @property
    def reachable(self) -> list[str]:
        """The others, in the order of the table."""
        return [name for name in self.names.values() if name not in self.out_of_reach]


def type_bits(manager: int, info: int) -> int:
    """Return which bits of a record's info byte tell its type."""
    if manager == _GENERIC:  # it has one type, and its info tells nothing
        return 0
    return info & (0x70 if manager == _XACT else 0xF0)  # the highest bit of a transaction's says what its data holds


@cache
def record_types(major: int) -> RecordTypes | None:
    """Return the types of a major version; None: the table does not have it."""
    if major not in MAJORS:
        return None
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    names = {(one[0], one[1]): one[2] for one in table["types"] if len(one) < 4 or _has(one[3], major)}
    reasons = {name: why for name, why in table["out_of_reach"].items() if name in names.values()}
    return RecordTypes(names, reasons)


def type_name(major: int, manager: int, bits: int) -> str:
    """Return the name of a type, or its numbers."""
    types = record_types(major)
    name = None if types is None else types.names.get((manager, bits))
    return name or f"manager {manager}/{bits:02X}"


def is_type_name(name: str) -> bool:
    """Say whether any major version of the table has a type of this name."""
    return any(name in types.names.values() for major in MAJORS if (types := record_types(major)) is not None)


def _has(versions: str, major: int) -> bool:
    first, _, last = versions.partition("-")
    return int(first) <= major <= int(last or first)
