"""How far does the WAL of a crashed data directory reach, and which transactions does it decide?

Read before recovery, which overwrites what lies behind the end. A reader of our own, and not pg_waldump: many builds
lack it (those of npm have initdb, pg_ctl and postgres only), and hundreds of crash states of one recording have most
of their pages in common, which are read once.

Assumes: no server runs on the directory; WAL of one timeline.
Choices: None where the control file cannot be understood; such a server does not start either.

Sources: pg_control.h; xlog_internal.h (XLogFileName); postgres-contract.md section 4.
"""

import os
import struct
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from crashlab.model import WalFacts, WalRecord
from crashlab.recovery.walpages import Cluster, Place, read_page, valid_header

ReadPart = Callable[[str, int, int], bytes]
"""path below the data directory, offset, length -> bytes, as many as there are."""

KNOWN_PAGES_MAX = 100_000
_AHEAD_BYTES = 64 << 10
_CONTROL_BYTES = 512
_FLOAT_FORMAT = struct.pack("<d", 1234567.0)  # stands in front of the block sizes; what is before varies by version


def read_wal(data_directory: Path) -> WalFacts | None:
    """Read the WAL of a directory once; None if its control file cannot be understood."""
    return WalReader().read(directory(data_directory))


def directory(data_directory: Path) -> ReadPart:
    """Return what reads the files of a directory."""

    def read(path: str, offset: int, length: int) -> bytes:
        try:
            with (data_directory / path).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), length, offset)
        except OSError:
            return b""

    return read


class WalReader:
    """Reads the WAL of many directories; a page that it has read before, at the same place, costs next to nothing."""

    def __init__(self) -> None:
        self._known: dict[tuple[Cluster, Place, bytes], tuple[list[WalRecord], Place, bool]] = {}

    def read(self, part: ReadPart, redo: int | None = None) -> WalFacts | None:
        """Read from the redo point to the end.

        Args:
            redo: LSN at which to begin; the one of the control file by default.

        Returns:
            None if the control file cannot be understood.
        """
        control = _control(part)
        if control is None:
            return None
        cluster, its_redo = control
        redo = its_redo if redo is None else redo
        pages = _Pages(cluster, part)
        place = Place(redo - redo % cluster.page_bytes, redo, 0)
        segment = redo - redo % cluster.segment_bytes
        going = valid_header(cluster, pages.page(segment), segment)  # PostgreSQL looks at the first page of each file
        records: list[WalRecord] = []
        while going:
            found, place, going = self._read_page(cluster, pages.page(place.page), place)
            records += found
        return WalFacts(redo=redo, end=place.at, last=place.last, records=records)

    def _read_page(self, cluster: Cluster, page: bytes, place: Place) -> tuple[list[WalRecord], Place, bool]:
        key = (cluster, place, blake2b(page, digest_size=16).digest())
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KNOWN_PAGES_MAX:
                self._known.clear()
            known = self._known[key] = read_page(cluster, page, place)
        return known


class _Pages:
    """Pages by LSN, read from the files some at a time."""

    def __init__(self, cluster: Cluster, part: ReadPart) -> None:
        self._cluster = cluster
        self._part = part
        self._begin = 0
        self._ahead = b""

    def page(self, at: int) -> bytes:
        size = self._cluster.page_bytes
        if not self._begin <= at <= self._begin + len(self._ahead) - size:
            segment_bytes = self._cluster.segment_bytes
            segment, offset = divmod(at, segment_bytes)
            per_id = (1 << 32) // segment_bytes
            name = f"pg_wal/{self._cluster.timeline:08X}{segment // per_id:08X}{segment % per_id:08X}"
            self._ahead = self._part(name, offset, min(_AHEAD_BYTES, segment_bytes - offset))
            self._begin = at
        start = at - self._begin
        return self._ahead[start : start + size]


def _control(part: ReadPart) -> tuple[Cluster, int] | None:
    """Return what the control file says of the cluster, and its redo point."""
    control = part("global/pg_control", 0, _CONTROL_BYTES)
    major = part("PG_VERSION", 0, 16).strip()
    sizes_at = control.find(_FLOAT_FORMAT) + len(_FLOAT_FORMAT)
    if sizes_at < len(_FLOAT_FORMAT) or len(control) < sizes_at + 16 or not major.isdigit():
        return None
    (system,) = struct.unpack_from("<Q", control)
    redo, timeline = struct.unpack_from("<QI", control, 40)  # the copy of the checkpoint begins with them
    page_bytes, segment_bytes = struct.unpack_from("<II", control, sizes_at + 8)
    if redo % 8 or page_bytes < 1024 or segment_bytes < page_bytes or segment_bytes & (segment_bytes - 1):
        return None
    return Cluster(int(major), system, page_bytes, segment_bytes, timeline), redo
