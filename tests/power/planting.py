"""What is damaged, how, and what must be said of it? The vocabulary of the files damage_*.py.

A kind of damage is a function that changes a copy of a data directory and returns what the findings must name: the
file, or what the server calls it. Above it stands where it is planted, with what must be found there. One function may
stand for several: a flipped bit is a wrong value without checksums, and an unreadable page with them.

Source of the layouts: PostgreSQL 14 .. 18, bufpage.h, itemid.h, htup_details.h, clog.c.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from crashlab.model import Family
from tests.power.scene import Facts, Place, Scene, Variant

PAGE = 8192
XIDS_PER_FILE = 1_048_576


class Where(NamedTuple):
    """In which copy."""

    variant: Variant | Literal["evidence", "workload", "afterlife"]
    checksums: bool

    def __str__(self) -> str:
        """As the table has it."""
        return f"{self.variant}, checksums" if self.checksums else self.variant


BEFORE, AFTER = Where("image", False), Where("stopped", False)
"""Before recovery, which may repair it; after recovery and a clean stop."""
BEFORE_SUMS, AFTER_SUMS = Where("image", True), Where("stopped", True)
"""The same with checksums."""


@dataclass(frozen=True)
class Kind:
    """One kind of damage at one place, and what must come of it."""

    group: str
    name: str
    where: Where
    plant: "Plant"
    family: Family | None  # None: nothing may be accused
    codes: tuple[str, ...] = ()  # one of them must be found
    reason: str = ""  # why nothing is found
    damage: bool = True  # False: it is none, PostgreSQL repairs or ignores it


class Copy:
    """A data directory to damage."""

    def __init__(self, scene: Scene, data: Path, variant: Variant, rng: Random) -> None:
        self.scene = scene
        self.data = data
        self.variant = variant
        self.rng = rng

    @property
    def facts(self) -> Facts:
        """What the recovered server said of itself."""
        return self.scene.facts

    def file(self, relation: str, fork: str = "") -> str:
        """Return a relation's path below the data directory."""
        return self.facts.files[relation] + fork

    def rows(self, table: str) -> list[Place]:
        """Return where a table's rows are."""
        return self.facts.rows[table]

    def read(self, file: str) -> bytes:
        """Return a file's content."""
        return (self.data / file).read_bytes()

    def read_old(self, file: str) -> bytes:
        """Return what a file held at the old checkpoint."""
        return (self.scene.folder_of("old") / file).read_bytes()

    def write(self, file: str, offset: int, data: bytes | bytearray) -> None:
        """Overwrite some bytes; a file that ends before grows."""
        with (self.data / file).open("r+b") as opened:
            opened.seek(offset)
            opened.write(data)

    def put(self, file: str, content: bytes) -> None:
        """Replace, or make, a whole file."""
        path = self.data / file
        path.write_bytes(content)
        self.scene.server.own(path)

    def flip(self, file: str, offset: int, mask: int = 1) -> None:
        """Flip bits of one byte."""
        content = self.read(file)
        self.write(file, offset, bytes([content[offset] ^ mask]))

    def remove(self, file: str) -> None:
        """Remove a file."""
        (self.data / file).unlink()

    def page(self, file: str, block: int) -> bytearray:
        """Return one page."""
        return bytearray(self.read(file)[block * PAGE : (block + 1) * PAGE])

    def put_page(self, file: str, block: int, page: bytes | bytearray) -> None:
        """Write one page back."""
        assert len(page) == PAGE
        self.write(file, block * PAGE, page)

    def set_status(self, xid: int, status: int) -> str:
        """Set the two commit bits of a transaction (1: committed, 2: aborted), and return the file."""
        file = f"pg_xact/{xid // XIDS_PER_FILE:04X}"
        offset, shift = (xid % XIDS_PER_FILE) // 4, 2 * (xid % 4)
        byte = self.read(file)[offset]
        assert byte >> shift & 3 == 3 - status, (xid, byte >> shift & 3)
        self.write(file, offset, bytes([byte & ~(3 << shift) | status << shift]))
        return file


Plant = Callable[[Copy], str]
KINDS: list[Kind] = []
"""Everything that is planted, in the order of the table."""


def _note(group: str, where: tuple[Where, ...], **expected: object) -> Callable[[Plant], Plant]:
    def note(plant: Plant) -> Plant:
        name = plant.__name__.replace("_", " ")
        KINDS.extend(Kind(group, name, one, plant, **expected) for one in where)  # type: ignore[arg-type]
        return plant

    return note


def corrupts(group: str, *codes: str, where: tuple[Where, ...] = (AFTER,)) -> Callable[[Plant], Plant]:
    """It is corruption, and one of these codes says what kind."""
    return _note(group, where, family=Family.CORRUPTION, codes=tuple(f"CORRUPT-{code}" for code in codes))


def loses(group: str, *codes: str, where: tuple[Where, ...] = (BEFORE,)) -> Callable[[Plant], Plant]:
    """It is a loss that nothing permits."""
    return _note(group, where, family=Family.LOSS, codes=tuple(f"LOSS-{code}" for code in codes))


def stops(group: str, where: tuple[Where, ...] = (AFTER,)) -> Callable[[Plant], Plant]:
    """The server does not start."""
    return _note(group, where, family=Family.NO_START, codes=("NO-START",))


def is_harmless(group: str, reason: str, where: tuple[Where, ...] = (AFTER,)) -> Callable[[Plant], Plant]:
    """It is no damage: PostgreSQL repairs or ignores it."""
    return _note(group, where, family=None, reason=reason, damage=False)


def tells_nothing(group: str, *codes: str, where: tuple[Where, ...] = (AFTER,)) -> Callable[[Plant], Plant]:
    """It keeps crashlab from looking, and is nobody's fault."""
    codes = tuple(f"INCONCLUSIVE-{code}" for code in codes)
    return _note(group, where, family=Family.INCONCLUSIVE, codes=codes, damage=False)


# --- pages

LP_NORMAL, LP_DEAD = 1, 3
XMIN_COMMITTED, XMIN_INVALID, XMAX_COMMITTED, XMAX_INVALID = 0x100, 0x200, 0x400, 0x800
XMAX_LOCK_ONLY, XMAX_IS_MULTI = 0x80, 0x1000
LOWER_AT, ITEMS_AT = 12, 24


class Item(NamedTuple):
    """A line pointer."""

    number: int  # from 1
    offset: int  # of the tuple in the page
    state: int
    length: int


class Header(NamedTuple):
    """A heap tuple's header, as far as it is changed here."""

    xmin: int
    xmax: int
    infomask: int
    start: int  # of the data, from the tuple's begin


def items(page: bytes | bytearray) -> list[Item]:
    """Return the line pointers of a page."""
    (lower,) = struct.unpack_from("<H", page, LOWER_AT)
    found = []
    for number in range(1, (lower - ITEMS_AT) // 4 + 1):
        (word,) = struct.unpack_from("<I", page, ITEMS_AT + 4 * (number - 1))
        found.append(Item(number, word & 0x7FFF, word >> 15 & 3, word >> 17))
    return found


def put_item(page: bytearray, number: int, offset: int, state: int, length: int) -> None:
    """Set a line pointer."""
    struct.pack_into("<I", page, ITEMS_AT + 4 * (number - 1), offset | state << 15 | length << 17)


def header(page: bytes | bytearray, item: Item) -> Header:
    """Return the header of a heap tuple."""
    xmin, xmax = struct.unpack_from("<II", page, item.offset)
    infomask, start = struct.unpack_from("<HB", page, item.offset + 20)
    return Header(xmin, xmax, infomask, start)


def put_infomask(page: bytearray, item: Item, infomask: int) -> None:
    """Set the flags of a heap tuple."""
    struct.pack_into("<H", page, item.offset + 20, infomask)


def lsn_of(page: bytes) -> int:
    """Return the position of the record that changed a page last."""
    high, low = struct.unpack_from("<II", page)
    return high << 32 | low


def pages_of(content: bytes) -> list[bytes]:
    """Return the pages of a file."""
    return [content[at : at + PAGE] for at in range(0, len(content), PAGE)]


# --- checksums

_LANES = (
    *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C),
    *(0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB),
    *(0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4),
    *(0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
)
_PRIME = 16777619
_CHECKSUM_AT = 8


def checksum(page: bytes | bytearray, block: int) -> int:
    """Return what pd_checksum of a page must be: FNV-1a in 32 lanes, as checksum_impl.h has it."""
    words = struct.unpack(f"<{PAGE // 4}I", page[:_CHECKSUM_AT] + bytes(2) + page[_CHECKSUM_AT + 2 :])
    result = 0
    for lane, start in enumerate(_LANES):
        value = start
        for word in (*words[lane::32], 0, 0):
            mixed = value ^ word
            value = (mixed * _PRIME ^ mixed >> 17) & 0xFFFF_FFFF
        result ^= value
    return (result ^ block) % 65535 + 1


def with_checksum(page: bytearray, block: int) -> bytes:
    """Return the page with the right checksum: as if the server itself had written this."""
    struct.pack_into("<H", page, _CHECKSUM_AT, checksum(page, block))
    return bytes(page)
