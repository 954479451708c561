"""Which records does a page of the WAL hold, and are they whole?

The same tests as PostgreSQL's own reader (xlogreader.c), because the end that they find must be the one at which
recovery stops: page header, record length, link to the record before, CRC-32C. What a record means is read only for
those that decide a transaction: COMMIT, ABORT, PREPARE and the decisions about a prepared one. All are counted by type,
with and without the image of a page.

Does not tell: whether an image is to be restored; with wal_consistency_checking there are others.
Does not check: resource manager numbers; the CRC covers them.

Sources: PostgreSQL 14 .. 19: xlogreader.c (XLogDecodeNextRecord, XLogReaderValidatePageHeader, ValidXLogRecord),
    xlogrecord.h, xlog_internal.h, xact.h (xl_xact_commit, xl_xact_abort), twophase.c.
"""

import struct
from collections import Counter
from functools import cache
from typing import NamedTuple

from google_crc32c import value as crc32c

from crashlab.model import WalDecision, WalRecord
from crashlab.recordtypes import type_bits

PAGE_MAGIC_HIGH = 0xD1  # of every version; the low byte counts the changes of format
_PAGE = struct.Struct("<HHIQI")  # magic, flags, timeline, address, rest of a record from the page before
_LONG_PAGE = struct.Struct("<QII")  # system identifier, segment size, page size
_PAGE_BYTES, _LONG_PAGE_BYTES = 24, 40
_CONTINUED, _LONG = 0x01, 0x02

_RECORD = struct.Struct("<IIQBBxxI")  # length, xid, record before, info, resource manager, CRC
_RECORD_BYTES = 24
_CRC_AT = 20
_RM_XLOG, _RM_XACT = 0, 1
_XLOG_SWITCH = 0x40
_XACT_KINDS: dict[int, WalDecision] = {
    0x00: "commit",
    0x10: "prepare",
    0x20: "abort",
    0x30: "commit prepared",
    0x40: "rollback prepared",
}
_HAS_INFO = 0x80
_BLOCK_ID_MAX = 32
_BLOCK_BYTES, _RELATION_BYTES = 8, 12  # a reference to a page, with its number; the relation, unless it is the same
_HAS_IMAGE, _SAME_RELATION = 0x10, 0x80
_DATA_SHORT, _DATA_LONG, _ORIGIN, _TOPLEVEL_XID = 255, 254, 253, 252
_DATABASE, _SUBTRANSACTIONS, _FILES, _INVALIDATIONS, _TWO_PHASE, _STATISTICS, _FORCED = (
    1 << bit for bit in (0, 1, 2, 3, 4, 8, 31)
)


LSN_MAX = 1 << 64


class Cluster(NamedTuple):
    """What all pages of one cluster have in common."""

    major: int
    system: int  # system identifier
    page_bytes: int
    segment_bytes: int
    timeline: int

    @property
    def overwrites(self) -> int:
        """The page flag XLP_FIRST_IS_OVERWRITE_CONTRECORD; 19 gave it the place of XLP_BKP_REMOVABLE."""
        return 0x04 if self.major >= 19 else 0x08

    @property
    def page_flags(self) -> int:
        """All flags of pages, XLP_ALL_FLAGS."""
        return 0x07 if self.major >= 19 else 0x0F


class Place(NamedTuple):
    """Where a reader stands between two pages."""

    page: int  # LSN of the page to be read next
    at: int  # LSN at which the next record begins, or the one that is held in part
    last: int  # LSN of the last whole record; 0: none was read
    total: int = 0  # length of the record held in part, bytes
    part: bytes = b""


class KindOfRecord(NamedTuple):
    """What records are counted by."""

    manager: int
    bits: int  # see `recordtypes.type_bits`
    image: bool  # of a page


class Found:
    """What the records that end in a page say."""

    def __init__(self, until: int = LSN_MAX) -> None:
        """Hold nothing yet; what begins behind `until` is not looked at."""
        self.until = until
        self.records: list[WalRecord] = []  # those that decide a transaction
        self.kinds: Counter[KindOfRecord] = Counter()
        self.first: KindOfRecord | None = None

    def add(self, other: "Found") -> None:
        """Take in what another page says."""
        self.records += other.records
        self.first = self.first or other.first
        for kind, count in other.kinds.items():  # Counter.update is slower for few keys
            self.kinds[kind] += count


def valid_header(cluster: Cluster, page: bytes, at: int) -> bool:
    """Whether a page is the one of this LSN, as far as its header says."""
    if len(page) < cluster.page_bytes:
        return False
    magic, flags, timeline, address, _ = _PAGE.unpack_from(page)
    if magic >> 8 != PAGE_MAGIC_HIGH or flags & ~cluster.page_flags or address != at or timeline > cluster.timeline:
        return False
    if flags & _LONG:
        sizes = (cluster.system, cluster.segment_bytes, cluster.page_bytes)
        return bool(_LONG_PAGE.unpack_from(page, _PAGE_BYTES) == sizes)
    return at % cluster.segment_bytes != 0


def read_page(cluster: Cluster, page: bytes, place: Place, until: int = LSN_MAX) -> tuple[Found, Place, bool]:
    """Read one page; return what the records that end in it say, where to go on, and whether to.

    A record that is not whole ends the valid WAL where it begins.

    Args:
        until: LSN; a record that begins behind it is not read.
    """
    found = Found(until)
    if not valid_header(cluster, page, place.page):
        return found, place, False
    _, flags, _, _, rest = _PAGE.unpack_from(page)
    begin = _LONG_PAGE_BYTES if flags & _LONG else _PAGE_BYTES
    if place.part and flags & cluster.overwrites:  # recovery gave the unfinished record up and wrote on from here
        place = Place(place.page, place.page, place.last)
    if place.part:
        if not flags & _CONTINUED or rest != place.total - len(place.part):
            return found, place, False
        part = place.part + page[begin : begin + rest]
        if len(part) < place.total:
            return found, place._replace(page=place.page + cluster.page_bytes, part=part), True
        offset = begin + _aligned(rest)
        going = _take(cluster, part, place.at, place.last, place.page + offset, found)
        if not going:
            return found, place, False
        place = Place(place.page, going, place.at)
    elif place.at - place.page <= begin and flags & _CONTINUED:
        return found, place, False
    return _read_records(cluster, page, place, begin, found)


def why_it_ends(cluster: Cluster, page: bytes, place: Place) -> str:
    """Say what is wrong with the record that should follow where `read_page` went no further.

    Args:
        page: the one of the place.
    """
    if len(page) < cluster.page_bytes:
        return "there is no more of its file"
    if not valid_header(cluster, page, place.page):
        return "the page there is another one"
    _, flags, _, _, rest = _PAGE.unpack_from(page)
    begin = _LONG_PAGE_BYTES if flags & _LONG else _PAGE_BYTES
    if place.part:
        if not flags & _CONTINUED or rest != place.total - len(place.part):
            return "the next page does not continue the record there"
        record = place.part + page[begin : begin + rest]
    else:
        offset = max(place.at - place.page, begin)
        (total,) = struct.unpack_from("<I", page, offset)
        if place.at - place.page <= begin and flags & _CONTINUED:
            return "the page there continues another record"
        if total < _RECORD_BYTES:
            return "no record begins there"
        record = page[offset : offset + total]
    (before,) = struct.unpack_from("<Q", record, 8)
    if before != place.last if place.last else before >= place.at:
        return "the record there does not follow the one before"
    return "the record there has a wrong checksum"


def _read_records(cluster: Cluster, page: bytes, place: Place, begin: int, found: Found) -> tuple[Found, Place, bool]:
    """Read the records that begin in a page."""
    at, last, size = place.at, place.last, cluster.page_bytes
    offset = max(at - place.page, begin)
    while offset < size:
        (total,) = struct.unpack_from("<I", page, offset)
        if total < _RECORD_BYTES:
            return found, Place(place.page, at, last), False
        if offset + total > size:
            # The page before may end in the middle of a record's header, so nothing else is known of it yet
            start = place.page + offset
            return found, Place(place.page + size, start, last, total, page[offset:]), True
        start = place.page + offset
        going = _take(cluster, page[offset : offset + total], start, last, start + _aligned(total), found)
        if not going:
            return found, Place(place.page, at, last), False
        at, last = going, start
        offset = at - place.page
    return found, Place(max(place.page + size, at - at % size), at, last), True


def _take(cluster: Cluster, record: bytes, start: int, last: int, end: int, found: Found) -> int:
    """Note what a record is and decides; return where the next one begins, 0 if this one is not valid."""
    _, xid, before, info, manager, crc = _RECORD.unpack_from(record)
    follows = start <= found.until and (before == last if last else before < start)
    if not follows or crc != crc32c(record[_RECORD_BYTES:] + record[:_CRC_AT]):
        return 0
    kind_of_record = _kind_of_record(manager, info, _has_image(record))
    found.first = found.first or kind_of_record
    found.kinds[kind_of_record] += 1
    if manager == _RM_XLOG and info & 0xF0 == _XLOG_SWITCH:
        return -(-end // cluster.segment_bytes) * cluster.segment_bytes
    if manager == _RM_XACT and (kind := _XACT_KINDS.get(info & 0x70)):
        flags, prepared = _decision(cluster.major, _main_data(record), info) if kind != "prepare" else (0, 0)
        flushed = "prepare" in kind or (kind == "commit" and flags & (_FORCED | _FILES) != 0)
        found.records.append(WalRecord(kind, prepared or xid, start, end, flushed))
    return end


@cache
def _kind_of_record(manager: int, info: int, image: bool) -> KindOfRecord:
    return KindOfRecord(manager, type_bits(manager, info), image)


def _has_image(record: bytes) -> bool:
    """Say whether a record holds the image of a page; its headers end where the data begins that they announce."""
    at, end = _RECORD_BYTES, len(record)
    while at < end and record[at] <= _BLOCK_ID_MAX:
        flags = record[at + 1]
        if flags & _HAS_IMAGE:
            return True
        end -= record[at + 2] | record[at + 3] << 8
        at += _BLOCK_BYTES + (0 if flags & _SAME_RELATION else _RELATION_BYTES)
    return False


def _main_data(record: bytes) -> bytes:
    """Return a record's own data; those that decide a transaction refer to no page."""
    at = _RECORD_BYTES
    while True:
        block = record[at]
        if block == _ORIGIN:
            at += 3
        elif block == _TOPLEVEL_XID:
            at += 5
        elif block == _DATA_SHORT:
            return record[at + 2 :]
        else:
            assert block == _DATA_LONG, block
            return record[at + 5 :]


def _decision(major: int, data: bytes, info: int) -> tuple[int, int]:
    """Return the flags of a commit or abort record, and the prepared transaction that it is about (0: none)."""
    if not info & _HAS_INFO:
        return 0, 0
    (flags,) = struct.unpack_from("<I", data, 8)  # after the time
    at = 12
    if flags & _DATABASE:
        at += 8
    statistics_bytes = 16 if major >= 18 else 12
    lists = ((_SUBTRANSACTIONS, 4), (_FILES, 12), (_STATISTICS, statistics_bytes), (_INVALIDATIONS, 16))
    for flag, item_bytes in lists:
        if flags & flag:
            at += 4 + item_bytes * struct.unpack_from("<I", data, at)[0]
    return flags, struct.unpack_from("<I", data, at)[0] if flags & _TWO_PHASE else 0


def _aligned(length: int) -> int:
    return (length + 7) & ~7
