"""Which WAL record ends at this LSN, such as the one that a page bears?

The record behind it knows: it begins there and says where the one before it begins. So nothing has to be read from the
start, and nothing be understood of a record but its header, which is the same in 14 to 19.

Choices: what stands there is held against that: a header whose length does not lead to the LSN is not the record's.

Source: PostgreSQL, xlogrecord.h (XLogRecord), xlog.c (XLogBytePosToEndRecPtr: a record that ends with a page ends at
    the next page's first byte), rmgrlist.h.
"""

import struct
from typing import NamedTuple

from crashlab.recovery.wal import ReadPart, file_of
from crashlab.recovery.walpages import Cluster

MANAGERS = (
    *("XLOG", "Transaction", "Storage", "CLOG", "Database", "Tablespace", "MultiXact", "RelMap", "Standby"),
    *("Heap2", "Heap", "Btree", "Hash", "Gin", "Gist", "Sequence", "SPGist", "BRIN", "CommitTs"),
    *("ReplicationOrigin", "Generic", "LogicalMessage"),
)
"""By number, as pg_waldump names them."""

_HEAD = struct.Struct("<IIQBBxxI")
_PAGE_HEADER_BYTES, _LONG_HEADER_BYTES = 24, 40


class RecordHead(NamedTuple):
    """The header of a WAL record."""

    start: int  # LSN
    xid: int  # 32 bits; 0: of no transaction
    manager: int
    info: int

    def __str__(self) -> str:
        """Say it in words."""
        name = MANAGERS[self.manager] if self.manager < len(MANAGERS) else f"resource manager {self.manager}"
        whose = f", transaction {self.xid}" if self.xid else ""
        return f"record {self.start >> 32:X}/{self.start & 0xFFFFFFFF:X} of {name}, info 0x{self.info:02X}{whose}"


def record_before(cluster: Cluster, part: ReadPart, end: int) -> RecordHead | None:
    """Return the record that ends at an LSN; None: the WAL does not hold it and the one behind it."""
    behind = _read(cluster, part, end, _HEAD.size)
    if len(behind) < _HEAD.size:
        return None
    _, _, start, _, _, _ = _HEAD.unpack(behind)
    head = _read(cluster, part, start, _HEAD.size) if 0 < start < end else b""
    if len(head) < _HEAD.size:
        return None
    length, xid, _, info, manager, _ = _HEAD.unpack(head)
    if _usable(cluster, _after(cluster, start, -(-length // 8) * 8)) != _usable(cluster, end):
        return None
    return RecordHead(start, xid, manager, info)


def _usable(cluster: Cluster, at: int) -> int:
    """Return where the next byte of a record may stand: behind the page's header."""
    if at % cluster.segment_bytes == 0:
        return at + _LONG_HEADER_BYTES
    return at + _PAGE_HEADER_BYTES if at % cluster.page_bytes == 0 else at


def _after(cluster: Cluster, at: int, length: int) -> int:
    """Return the position so many bytes of records further on; headers of pages do not count."""
    at = _usable(cluster, at)
    while length:
        step = min(length, cluster.page_bytes - at % cluster.page_bytes)
        at, length = at + step, length - step
        if length:
            at = _usable(cluster, at)
    return at


def _read(cluster: Cluster, part: ReadPart, at: int, length: int) -> bytes:
    found = b""
    while len(found) < length:
        at = _usable(cluster, at)
        step = min(length - len(found), cluster.page_bytes - at % cluster.page_bytes)
        data = part(file_of(cluster, at), at % cluster.segment_bytes, step)
        if len(data) < step:
            return b""
        found, at = found + data, at + step
    return found
