"""Tables: pages, tuples and files; TOAST values, large objects, sequences, catalogs; visibility and free space maps."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from crashlab.history import ACKED, REFUSED
from tests.power.planting import (
    AFTER,
    AFTER_SUMS,
    BEFORE,
    BEFORE_SUMS,
    ITEMS_AT,
    LOWER_AT,
    LP_DEAD,
    LP_NORMAL,
    PAGE,
    XMAX_COMMITTED,
    XMAX_INVALID,
    XMAX_IS_MULTI,
    XMAX_LOCK_ONLY,
    XMIN_COMMITTED,
    XMIN_INVALID,
    Copy,
    Header,
    Item,
    corrupts,
    header,
    is_harmless,
    items,
    lsn_of,
    pages_of,
    put_infomask,
    put_item,
    with_checksum,
)

MARKER, ACCOUNT, REGISTER = "crashlab.marker", "crashlab.account", "crashlab.register"
BOTH = (AFTER, AFTER_SUMS)
BOTH_BEFORE = (BEFORE, BEFORE_SUMS)
PG_ATTRIBUTE = 1249  # its file has the number of the catalog as long as nothing rewrites it
MAP_AT = 24  # the map begins behind the page header


def live(copy: Copy, table: str) -> tuple[str, int, bytearray, Item]:
    """Return file, block, page and line pointer of a row that is there."""
    place = copy.rng.choice(copy.rows(table))
    file = copy.file(table)
    page = copy.page(file, place.block)
    return file, place.block, page, items(page)[place.item - 1]


def tuples(copy: Copy, table: str) -> Iterator[tuple[int, bytearray, Item, Header]]:
    """Yield block, page, line pointer and header of all tuples of a table, dead ones as well."""
    for block, content in enumerate(pages_of(copy.read(copy.file(table)))):
        page = bytearray(content)
        for item in items(page):
            if item.state == LP_NORMAL:
                yield block, page, item, header(page, item)


def new_page() -> bytearray:
    """Return an empty page as the server makes it."""
    page = bytearray(PAGE)
    struct.pack_into("<HHHH", page, LOWER_AT, ITEMS_AT, PAGE, PAGE, PAGE | 4)
    return page


def page_with_one_row(value: int) -> bytes:
    """Return a page of a table of one integer, with a row that is frozen."""
    row = struct.pack("<IIIHHHHHBxi", 2, 0, 0, 0, 0, 1, 1, XMIN_COMMITTED | XMAX_INVALID, 24, value)
    page = new_page()
    put_item(page, 1, PAGE - 32, LP_NORMAL, len(row))
    struct.pack_into("<HH", page, LOWER_AT, ITEMS_AT + 4, PAGE - 32)
    page[PAGE - 32 : PAGE - 32 + len(row)] = row
    return bytes(page)


def fullest_block(copy: Copy, table: str) -> int:
    """Return the block that holds most of a table's rows."""
    blocks = [place.block for place in copy.rows(table)]
    return max(blocks, key=blocks.count)


# --- whole pages


@corrupts("heap", "MISSING-ROW", where=BOTH)
def page_zeroed(copy: Copy) -> str:
    """An empty page passes checksums and amcheck."""
    file = copy.file(ACCOUNT)
    copy.put_page(file, fullest_block(copy, ACCOUNT), bytes(PAGE))
    return file


@corrupts("heap", "PARTIAL-TRANSACTION", "HOLE", where=BOTH)
def page_of_markers_zeroed(copy: Copy) -> str:
    """The transactions are told by their rows."""
    file = copy.file(MARKER)
    copy.put_page(file, copy.rng.choice(copy.rows(MARKER)).block, bytes(PAGE))
    return file


@corrupts("heap", "STALE-VERSION", "MISSING-ROW", "RESURRECTED", "DUPLICATE-KEY", where=BOTH)
def page_stale(copy: Copy) -> str:
    """A page as it was at an earlier checkpoint: a lost write."""
    file = copy.file(ACCOUNT)
    block = fullest_block(copy, ACCOUNT)
    old = pages_of(copy.read_old(file))[block]
    assert old != copy.page(file, block)
    copy.put_page(file, block, old)
    return file


@corrupts("heap", "STALE-VERSION", "MISSING-ROW", "RESURRECTED", "DUPLICATE-KEY", where=BOTH)
def file_stale(copy: Copy) -> str:
    """All pages as they were."""
    file = copy.file(REGISTER)
    copy.put(file, copy.read_old(file))
    return file


@corrupts("heap", "INDEX-MISMATCH", "INDEX-AMCHECK")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def pages_swapped(copy: Copy) -> str:
    """Each row is there, at another place; a checksum knows its block."""
    file = copy.file(ACCOUNT)
    first, second = copy.page(file, 0), copy.page(file, 1)
    copy.put_page(file, 0, second)
    copy.put_page(file, 1, first)
    return ACCOUNT


@corrupts("heap", "MISSING-ROW", where=BOTH)
def page_of_another_table(copy: Copy) -> str:
    """A write that landed elsewhere; its checksum holds, since it is the same block."""
    file = copy.file(ACCOUNT)
    copy.put_page(file, 0, copy.page(copy.file(REGISTER), 0))
    return file


@corrupts("heap", "STALE-VERSION", "MISSING-ROW", "WRONG-VALUE", "DUPLICATE-KEY", "HEAP-AMCHECK", "UNREADABLE")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def page_torn(copy: Copy) -> str:
    """The first half is new, the second old."""
    file = copy.file(ACCOUNT)
    block = fullest_block(copy, ACCOUNT)
    new, old = copy.page(file, block), pages_of(copy.read_old(file))[block]
    torn = new[: PAGE // 2] + old[PAGE // 2 :]
    assert torn not in (new, old)
    copy.put_page(file, block, torn)
    return file


@corrupts("heap", "FUTURE-LSN", where=BOTH)
def page_from_the_future(copy: Copy) -> str:
    """Its LSN is far behind the end of the log."""
    file, block, page, _ = live(copy, ACCOUNT)
    struct.pack_into("<II", page, 0, 0x7000, 0)
    copy.put_page(file, block, with_checksum(page, block))
    return file


@corrupts("heap", "UNREADABLE", where=BOTH)
def garbage_block_appended(copy: Copy) -> str:
    """Random bytes behind the last page."""
    file = copy.file(ACCOUNT)
    copy.write(file, len(copy.read(file)), copy.rng.randbytes(PAGE))
    return file


@is_harmless("heap", "a crash may leave a table longer than its last row; zero pages are skipped", where=BOTH)
def zero_block_appended(copy: Copy) -> str:
    """As an extension that was not used yet."""
    file = copy.file(ACCOUNT)
    copy.write(file, len(copy.read(file)), bytes(PAGE))
    return ""


# --- files


def lost_if_truncated(copy: Copy) -> str:
    """Return a table of the ledger of which redo does not bring back every page: some were not changed since."""

    assert copy.scene.wal is not None
    redo = copy.scene.wal.redo

    def untouched(table: str) -> int:
        content = (copy.scene.folder_of("stopped") / copy.file(table)).read_bytes()
        return sum(0 < lsn_of(page) < redo for page in pages_of(content))

    table = max(("crashlab.toast", "crashlab.indexed", "crashlab.copied", "crashlab.list", ACCOUNT), key=untouched)
    assert untouched(table)
    return table


@corrupts("heap", "MISSING-ROW", where=BOTH_BEFORE)
def file_emptied_before_recovery(copy: Copy) -> str:
    """Recovery begins with an empty file: a clean start, a clean log, and amcheck passes."""
    file = copy.file(lost_if_truncated(copy))
    copy.put(file, b"")
    return file


@corrupts("heap", "PARTIAL-TRANSACTION", "HOLE", "WAL-STATE-MISMATCH", where=BOTH_BEFORE)
def markers_emptied_before_recovery(copy: Copy) -> str:
    """The same with the table of markers."""
    file = copy.file(MARKER)
    copy.put(file, b"")
    return file


@corrupts("heap", "MISSING-ROW", where=(BEFORE,))
def file_removed_before_recovery(copy: Copy) -> str:
    """Recovery makes it again for the pages that the log has."""
    file = copy.file(lost_if_truncated(copy))
    copy.remove(file)
    return file


@corrupts("heap", "MISSING-ROW", where=BOTH)
def file_emptied(copy: Copy) -> str:
    """After a clean stop."""
    file = copy.file(ACCOUNT)
    copy.put(file, b"")
    return file


@corrupts("heap", "PARTIAL-TRANSACTION", "HOLE", "MISSING-ROW", where=BOTH)
def last_page_cut_off(copy: Copy) -> str:
    """The newest rows."""
    file = copy.file(MARKER)
    copy.put(file, copy.read(file)[: copy.rows(MARKER)[-1].block * PAGE])
    return file


@corrupts("heap", "UNREADABLE", where=BOTH)
def half_a_page_cut_off(copy: Copy) -> str:
    """The file ends inside a page, which PostgreSQL takes for the end of the file before."""
    file = copy.file(ACCOUNT)
    copy.put(file, copy.read(file)[: copy.rows(ACCOUNT)[-1].block * PAGE + PAGE // 2])
    return file


@corrupts("heap", "UNREADABLE", where=BOTH)
def file_removed(copy: Copy) -> str:
    """After a clean stop."""
    file = copy.file(ACCOUNT)
    copy.remove(file)
    return file


@corrupts("heap", "MISSING-ROW", where=BOTH)
def file_of_another_table(copy: Copy) -> str:
    """All pages are those of another table."""
    file = copy.file(ACCOUNT)
    copy.put(file, copy.read(copy.file(REGISTER)))
    return file


@is_harmless("heap", "a table that shrank leaves its further segments, empty")
def empty_second_segment(copy: Copy) -> str:
    """PostgreSQL truncates and never removes them while the table lives."""
    copy.put(f"{copy.file(ACCOUNT)}.1", b"")
    return ""


# --- bits


@corrupts("heap", "UNREADABLE", where=BOTH)
def page_header_flipped(copy: Copy) -> str:
    """The end of the line pointers lies behind the page."""
    file, block, page, _ = live(copy, ACCOUNT)
    page[LOWER_AT + 1] ^= 0x40
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "HEAP-AMCHECK", "MISSING-ROW", "WRONG-VALUE", "UNREADABLE", "DIED-ON-READ")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def line_pointer_flipped(copy: Copy) -> str:
    """It points eight bytes beside its tuple."""
    file, block, page, item = live(copy, ACCOUNT)
    put_item(page, item.number, item.offset ^ 8, item.state, item.length)
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "HEAP-AMCHECK", "COMMIT-STATUS")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def xmin_flipped(copy: Copy) -> str:
    """The row's maker is a transaction of the future."""
    file, block, page, item = live(copy, ACCOUNT)
    struct.pack_into("<I", page, item.offset, header(page, item).xmin ^ 1 << 28)
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "MISSING-ROW")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def xmax_set(copy: Copy) -> str:
    """A transaction that committed is said to have deleted the row."""
    file, block, page, item = live(copy, ACCOUNT)
    struct.pack_into("<I", page, item.offset + 4, copy.rows(MARKER)[0].row[2])
    put_infomask(page, item, header(page, item).infomask & ~(XMAX_INVALID | XMAX_LOCK_ONLY | XMAX_IS_MULTI))
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "MISSING-ROW")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def hint_says_aborted(copy: Copy) -> str:
    """Of a row that is there."""
    file, block, page, item = live(copy, ACCOUNT)
    put_infomask(page, item, header(page, item).infomask & ~XMIN_COMMITTED | XMIN_INVALID)
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "PHANTOM")
def hint_says_committed(copy: Copy) -> str:
    """Of the marker of a transaction that rolled back."""
    h = copy.scene.history
    refused = {h.xid[tx] for tx in range(1, h.count + 1) if h.state[tx] == REFUSED and h.xid[tx]}
    found = [one for one in tuples(copy, MARKER) if one[3].xmin in refused]
    block, page, item, tuple_header = copy.rng.choice(found)
    put_infomask(page, item, tuple_header.infomask & ~XMIN_INVALID | XMIN_COMMITTED)
    copy.put_page(copy.file(MARKER), block, page)
    return copy.file(MARKER)


@corrupts("heap", "DUPLICATE-KEY", "RESURRECTED")
def hint_undoes_a_deletion(copy: Copy) -> str:
    """An old version of a row is said to be the newest."""
    committed = {place.row[2] for place in copy.rows(MARKER)}
    found = [
        one
        for one in tuples(copy, ACCOUNT)
        if {one[3].xmin, one[3].xmax} <= committed and not one[3].infomask & (XMAX_LOCK_ONLY | XMAX_IS_MULTI)
    ]
    block, page, item, tuple_header = copy.rng.choice(found)
    put_infomask(page, item, tuple_header.infomask & ~XMAX_COMMITTED | XMAX_INVALID)
    copy.put_page(copy.file(ACCOUNT), block, page)
    return copy.file(ACCOUNT)


@corrupts("heap", "WRONG-VALUE")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def value_flipped(copy: Copy) -> str:
    """One bit of a balance."""
    file, block, page, item = live(copy, ACCOUNT)
    at = item.offset + header(page, item).start + 24  # behind key, padding, version and writer
    page[at] ^= 1
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "MISSING-ROW")
@corrupts("heap", "UNREADABLE", where=(AFTER_SUMS,))
def tuple_marked_dead(copy: Copy) -> str:
    """Its line pointer says that nobody needs it."""
    file, block, page, item = live(copy, ACCOUNT)
    put_item(page, item.number, 0, LP_DEAD, 0)
    copy.put_page(file, block, page)
    return file


@corrupts("heap", "DUPLICATE-KEY")
def tuple_twice(copy: Copy) -> str:
    """A second line pointer leads to it."""
    file, block, page, item = live(copy, REGISTER)
    spare = next((one for one in items(page) if one.state == 0), None)
    number = spare.number if spare else len(items(page)) + 1
    if spare is None:
        struct.pack_into("<H", page, LOWER_AT, struct.unpack_from("<H", page, LOWER_AT)[0] + 4)
    put_item(page, number, item.offset, LP_NORMAL, item.length)
    copy.put_page(file, block, page)
    return file


# --- TOAST, large objects, sequences

TOAST, TOAST_INDEX = "toast of crashlab.toast", "toast index of crashlab.toast"


@corrupts("toast", "UNREADABLE", where=BOTH)
def chunk_page_zeroed(copy: Copy) -> str:
    """Chunks of values are missing."""
    file = copy.file(TOAST)
    used = [block for block, page in enumerate(pages_of(copy.read(file))) if chunks_in_use(copy, page)]
    copy.put_page(file, copy.rng.choice(used), bytes(PAGE))
    return "crashlab.toast"


def chunks_in_use(copy: Copy, page: bytes) -> bool:
    """Whether a piece of a value is in a page, of TOAST or large objects, that committed and that nobody deleted."""
    h = copy.scene.history
    committed = {h.xid[tx] for tx in range(1, h.count + 1) if h.state[tx] == ACKED}
    found = (header(page, item) for item in items(page) if item.state == LP_NORMAL)
    return any(one.xmin in committed and not one.xmax for one in found)


@corrupts("toast", "UNREADABLE", "INDEX-AMCHECK", where=BOTH)
def toast_index_stale(copy: Copy) -> str:
    """It does not know the newest values."""
    file = copy.file(TOAST_INDEX)
    copy.put(file, copy.read_old(file))
    return "toast"


@corrupts("toast", "UNREADABLE", where=BOTH)
def toast_file_stale(copy: Copy) -> str:
    """The newest values are not there."""
    file = copy.file(TOAST)
    copy.put(file, copy.read_old(file))
    return "toast"


@corrupts("toast", "UNREADABLE")
def toast_file_removed(copy: Copy) -> str:
    """No value is there."""
    copy.remove(copy.file(TOAST))
    return copy.file(TOAST)


@corrupts("toast", "UNREADABLE", "WRONG-VALUE", "HEAP-AMCHECK")
@corrupts("toast", "UNREADABLE", where=(AFTER_SUMS,))
def chunk_flipped(copy: Copy) -> str:
    """One bit inside a value."""
    file = copy.file(TOAST)
    used = [block for block, page in enumerate(pages_of(copy.read(file))) if chunks_in_use(copy, page)]
    block = copy.rng.choice(used)
    page = copy.page(file, block)
    h = copy.scene.history
    committed = {h.xid[tx] for tx in range(1, h.count + 1) if h.state[tx] == ACKED}
    item = next(i for i in items(page) if i.state == LP_NORMAL and header(page, i).xmin in committed
                and not header(page, i).xmax)  # fmt: skip
    page[item.offset + item.length - 8] ^= 4
    copy.put_page(file, block, page)
    return "toast"


@corrupts("large object", "WRONG-VALUE", "UNREADABLE", where=BOTH)
def large_object_page_zeroed(copy: Copy) -> str:
    """Pieces of objects are missing, and read as zeros or as a shorter object."""
    file = copy.file("pg_largeobject")
    used = [block for block, page in enumerate(pages_of(copy.read(file))) if chunks_in_use(copy, page)]
    copy.put_page(file, copy.rng.choice(used), bytes(PAGE))
    return "large_object"


@corrupts("large object", "WRONG-VALUE", "UNREADABLE", "INDEX-AMCHECK", where=BOTH)
def large_object_index_stale(copy: Copy) -> str:
    """The newest pieces are not found."""
    file = copy.file("pg_largeobject_loid_pn_index")
    copy.put(file, copy.read_old(file))
    return "large"


@corrupts("large object", "WRONG-VALUE", "MISSING-ROW", "UNREADABLE", "INDEX-AMCHECK", where=BOTH)
def large_object_catalog_stale(copy: Copy) -> str:
    """Objects that were made since are not known."""
    file = copy.file("pg_largeobject_metadata")
    old = copy.read_old(file)
    assert old != copy.read(file)
    copy.put(file, old)
    return "large"


@corrupts("matview", "STALE-VERSION", "WRONG-VALUE", "MISSING-ROW", "INVARIANT", "DUPLICATE-KEY")
def materialized_view_emptied(copy: Copy) -> str:
    """It is a table as others."""
    file = copy.file("crashlab.stock_total")
    copy.put(file, b"")
    return file


@corrupts("partition", "MISSING-ROW", where=BOTH)
def partition_emptied(copy: Copy) -> str:
    """One of several tables that are read as one."""
    name = max((name for name in copy.facts.files if re.fullmatch(r"crashlab\.child_\d+", name)),
               key=lambda name: len(copy.read(copy.file(name))))  # fmt: skip
    copy.put(copy.file(name), b"")
    return "child"


@corrupts("sequence", "SEQUENCE-REGRESS", where=BOTH)
def sequence_stale(copy: Copy) -> str:
    """It hands out values again."""
    file = copy.file("crashlab.ticket")
    copy.put(file, copy.read_old(file))
    return file


@corrupts("sequence", "UNREADABLE", where=BOTH)
def sequence_zeroed(copy: Copy) -> str:
    """Its page is empty."""
    copy.put_page(copy.file("crashlab.ticket"), 0, bytes(PAGE))
    return "crashlab.ticket"


# --- catalogs


@corrupts("catalog", "MISSING-RELATION", "UNREADABLE", where=BOTH)
def pg_class_page_zeroed(copy: Copy) -> str:
    """A page that knows tables of the ledger, and none of those that every session needs."""
    file = copy.file("pg_class")
    pages = list(enumerate(pages_of(copy.read(file))))
    block = next(n for n, page in pages if knows(page, copy) and not needed(page))
    copy.put_page(file, block, bytes(PAGE))
    return "crashlab"


def knows(page: bytes, copy: Copy) -> bool:
    """Whether a page of pg_class has a table of the ledger."""
    names = [name.removeprefix("crashlab.") for name in copy.facts.files if name.startswith("crashlab.")]
    return any(b"\0" + name.encode() + bytes(8) in page for name in names)


def needed(page: bytes) -> bool:
    """Whether a page of pg_class has a catalog."""
    return b"\0pg_" in page.replace(b"\0pg_toast_", b"")


@corrupts("catalog", "UNREADABLE")
def pg_attribute_row_lost(copy: Copy) -> str:
    """A column of the table of accounts."""
    file = copy.file("pg_attribute")
    for block, content in enumerate(pages_of(copy.read(file))):
        page = bytearray(content)
        for item in items(page):
            if item.state == LP_NORMAL and b"balance\0" in page[item.offset : item.offset + item.length]:
                put_item(page, item.number, 0, LP_DEAD, 0)
                copy.put_page(file, block, page)
    return "crashlab.account"


@corrupts("catalog", "INDEX-AMCHECK", "UNREADABLE", "INDEX-MISMATCH", where=BOTH)
def pg_index_stale(copy: Copy) -> str:
    """It does not know the indexes that were made since."""
    file = copy.file("pg_index")
    old = copy.read_old(file)
    assert old != copy.read(file)
    copy.put(file, old)
    return "pg_index"


# --- visibility map, free space map, unlogged tables


def blocks_with_dead_rows(copy: Copy, table: str) -> list[int]:
    """Return the blocks in which a row is not there for everybody."""
    committed = {place.row[2] for place in copy.rows(MARKER)}
    found = {block for block, _, _, one in tuples(copy, table) if one.xmax in committed
             and not one.infomask & (XMAX_LOCK_ONLY | XMAX_IS_MULTI)}  # fmt: skip
    return sorted(found)


def set_map(copy: Copy, table: str, block: int, bits: int) -> str:
    """Set the two bits of a page (1: all visible, 2: all frozen); the map itself stays sound."""
    file = copy.file(table, "_vm")
    page = copy.page(file, 0) if (copy.data / file).exists() else new_page()
    page[MAP_AT + block // 4] |= bits << 2 * (block % 4)
    copy.put(file, with_checksum(page, 0))
    return copy.file(table)


@corrupts("visibility map", "VISIBILITY-MAP", where=BOTH)
def all_visible_wrongly(copy: Copy) -> str:
    """A page with dead rows."""
    return set_map(copy, ACCOUNT, blocks_with_dead_rows(copy, ACCOUNT)[0], 1)


@corrupts("visibility map", "VISIBILITY-MAP", where=BOTH)
def all_frozen_wrongly(copy: Copy) -> str:
    """A page whose rows are not frozen."""
    return set_map(copy, MARKER, copy.rows(MARKER)[-1].block, 3)


@is_harmless("visibility map", "without the map pages are read in full")
def map_removed(copy: Copy) -> str:
    """Of a table that was vacuumed."""
    copy.remove(copy.file(MARKER, "_vm"))
    return ""


@is_harmless("visibility map", "a bit that is not set only costs a look at the page", where=BOTH)
def map_zeroed(copy: Copy) -> str:
    """Nothing is marked."""
    file = copy.file(MARKER, "_vm")
    copy.put(file, bytes(len(copy.read(file))))
    return ""


def space_map(copy: Copy) -> str:
    """Return the map of pg_attribute, which initdb made; pg_class was rewritten and has one only after a VACUUM."""
    return str(Path(copy.file("pg_class")).parent / f"{PG_ATTRIBUTE}_fsm")


@is_harmless("free space map", "it is a hint: a page is looked at before it is filled", where=BOTH)
def space_map_garbage(copy: Copy) -> str:
    """Random bytes."""
    file = space_map(copy)
    copy.put(file, copy.rng.randbytes(len(copy.read(file))))
    return ""


@is_harmless("free space map", "it is made again")
def space_map_removed(copy: Copy) -> str:
    """Of a catalog."""
    copy.remove(space_map(copy))
    return ""


@corrupts("visibility map", "UNREADABLE", where=(AFTER, AFTER_SUMS))
def map_garbage(copy: Copy) -> str:
    """Random bytes: the server warns, and takes zeros for them."""
    file = copy.file(MARKER, "_vm")
    copy.put(file, copy.rng.randbytes(len(copy.read(file))))
    return file


@corrupts("unlogged", "UNLOGGED")
def unlogged_row_left(copy: Copy) -> str:
    """A row of a transaction that is long gone, as if recovery had not emptied the table."""
    file = copy.file("crashlab.scratch")
    assert copy.read(file) == b""
    copy.put(file, page_with_one_row(17))
    return "crashlab.scratch"
