"""Indexes: every access method, each damaged in the same ways."""

import struct
from collections.abc import Callable, Iterable

from tests.power.planting import (
    AFTER,
    AFTER_SUMS,
    ITEMS_AT,
    LP_NORMAL,
    PAGE,
    Copy,
    Plant,
    Where,
    corrupts,
    items,
    pages_of,
)

TABLE = "crashlab.indexed"
INDEXES = {
    "btree": "crashlab.indexed_pkey",
    "hash": "crashlab.indexed_hash",
    "gin": "crashlab.indexed_gin",
    "gist": "crashlab.indexed_gist",
    "spgist": "crashlab.indexed_spgist",
    "brin": "crashlab.indexed_brin",
    "bloom": "crashlab.indexed_bloom",
}
DIFFERS = ("INDEX-MISMATCH", "INDEX-AMCHECK")
FAILS = (*DIFFERS, "UNREADABLE")
BOTH = (AFTER, AFTER_SUMS)
FLIPPED = 0x40
BRIN_REGULAR, BRIN_DATA_OFFSET = 0xF093, 0x1F  # its last word, if it holds ranges; where in one values begin
SPGIST, SPGIST_LEAF, SPGIST_LIVE = 0xFF82, 4, 0  # its last word, a bit of its flags, the state of a tuple
BLOOM, BLOOM_TUPLE = 0xFF83, 16
"""Source: brin_page.h, spgist_private.h, bloom.h of 14 to 18."""
ITEMS_MAX = 500  # more line pointers are none: the page has another layout


def stale(copy: Copy, index: str) -> None:
    """It does not know the rows since the old checkpoint."""
    file = copy.file(index)
    old = copy.read_old(file)
    assert old != copy.read(file)
    copy.put(file, old)


def page_zeroed(copy: Copy, index: str) -> None:
    """The page with most entries of rows that are there."""
    file = copy.file(index)
    block = max(range(len(copy.read(file)) // PAGE), key=lambda n: len(entries(copy, copy.page(file, n))))
    copy.put_page(file, block, bytes(PAGE))


def first_page_zeroed(copy: Copy, index: str) -> None:
    """The page that leads to all others: meta page, or root."""
    copy.put_page(copy.file(index), 0, bytes(PAGE))


def file_removed(copy: Copy, index: str) -> None:
    """Nothing is left."""
    copy.remove(copy.file(index))


def file_emptied(copy: Copy, index: str) -> None:
    """No page is left."""
    copy.put(copy.file(index), b"")


def entry_flipped(copy: Copy, index: str) -> None:
    """One bit of the place of a row."""
    file = copy.file(index)
    found = [(n, at) for n, page in enumerate(pages_of(copy.read(file))) for at in entries(copy, page)]
    assert found, f"{index} has no entry that can be recognized"
    block, at = copy.rng.choice(found)
    copy.flip(file, block * PAGE + at + 4, FLIPPED)  # in the number of the line pointer


def entry_leads_nowhere(copy: Copy, index: str) -> None:
    """A place whose line pointer has the number 0, which none has."""
    file = copy.file(index)
    found = [(n, at) for n, page in enumerate(pages_of(copy.read(file))) for at in entries(copy, page)]
    block, at = copy.rng.choice(found)
    copy.write(file, block * PAGE + at + 4, bytes(2))


def entries(copy: Copy, page: bytes | bytearray) -> list[int]:
    """Return where in a page of an index stands the place of a row that is there.

    In most indexes a tuple begins with it; in SP-GiST, in live tuples of leaf pages, six bytes further on.
    GIN and bloom have no line pointer for it; tuples of bloom are of one size.
    """
    # Item 64 would become item 0, which is none, rather than another
    rows = [place for place in copy.rows(TABLE) if place.block and place.item != FLIPPED]
    wanted = {struct.pack("<HHH", 0, place.block, place.item) for place in rows}
    tuples = [item.offset for item in items(page) if item.state == LP_NORMAL] if len(items(page)) < ITEMS_MAX else []
    method = int.from_bytes(page[-2:], "little")
    anywhere: Iterable[int] = range(ITEMS_AT, PAGE - 6, 2)  # lists of places, as GIN has
    if method == SPGIST:
        leaf = page[-8] & SPGIST_LEAF
        tuples = [start + 6 for start in tuples if leaf and page[start] & 3 == SPGIST_LIVE]
        anywhere = ()
    elif method == BLOOM:
        tuples = []
        anywhere = range(ITEMS_AT, PAGE - BLOOM_TUPLE, BLOOM_TUPLE)
    found = [at for at in tuples if bytes(page[at : at + 6]) in wanted]
    return found or [at for at in anywhere if bytes(page[at : at + 6]) in wanted]


def range_flipped(copy: Copy, index: str) -> None:
    """The greatest value of a block range, the last one, which becomes smaller than all its rows'."""
    file = copy.file(index)
    ranges = []
    for block, content in enumerate(pages_of(copy.read(file))):
        if int.from_bytes(content[-2:], "little") == BRIN_REGULAR:
            for item in items(content):
                of_block, info = struct.unpack_from("<IB", content, item.offset)
                ranges.append((of_block, block, item.offset + (info & BRIN_DATA_OFFSET) + 4))
    rows = copy.rows(TABLE)
    ranges = [one for one in ranges if any(place.block == one[0] for place in rows)]
    of_block, block, greatest_at = max(ranges)
    page = copy.page(file, block)
    struct.pack_into("<i", page, greatest_at, min(place.row[1] for place in rows if place.block == of_block) - 1)
    copy.put_page(file, block, page)


def _register(damage: Callable[[Copy, str], None], method: str, where: tuple[Where, ...], *codes: str) -> None:
    def plant(copy: Copy) -> str:
        damage(copy, INDEXES[method])
        return INDEXES[method] if codes == LOOPS else copy.file(INDEXES[method])

    plant.__name__ = f"{method} {damage.__name__}"
    plant.__doc__ = damage.__doc__
    noted: Plant = plant
    corrupts("index", *codes, where=where)(noted)


LOOPS = ("DIED-ON-READ",)
"""GIN takes the zeros for a list of pending entries, which leads back to itself: the backend is in a circle."""

for _method in INDEXES:
    _flipped = range_flipped if _method == "brin" else entry_flipped
    _register(stale, _method, BOTH, *FAILS)
    _register(file_removed, _method, (AFTER,), "UNREADABLE")
    _register(file_emptied, _method, (AFTER,), *FAILS)
    _register(_flipped, _method, (AFTER,), *FAILS)
    _register(_flipped, _method, (AFTER_SUMS,), "UNREADABLE")
    if _method != "brin":  # its entries are of ranges
        _register(entry_leads_nowhere, _method, (AFTER,), *FAILS)
        _register(page_zeroed, _method, BOTH, *FAILS)
    if _method == "gin":
        _register(first_page_zeroed, _method, (AFTER,), *LOOPS)
    else:
        _register(first_page_zeroed, _method, BOTH, *FAILS)
