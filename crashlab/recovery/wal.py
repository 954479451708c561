"""How far does the WAL of a crashed data directory reach, what does it hold, and which transactions does it decide?

Read before recovery, which overwrites what lies behind the end. A reader of our own, and not pg_waldump: many builds
lack it (those of npm have initdb, pg_ctl and postgres only), and hundreds of crash states of one recording have most
of their pages in common, which are read once.

Assumes: no server runs on the directory; WAL of one timeline.
Choices: None where the control file cannot be understood; such a server does not start either.

Sources: pg_control.h; xlog_internal.h (XLogFileName); postgres-contract.md section 4.
"""

import os
import struct
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from crashlab import files
from crashlab.model import RecordCount, WalFacts
from crashlab.recordtypes import type_name
from crashlab.recovery.walpages import (
    Cluster,
    Found,
    KindOfRecord,
    Place,
    read_page,
    valid_header,
    why_it_ends,
)

ReadPart = Callable[[str, int, int], bytes]
"""path below the data directory, offset, length -> bytes, as many as there are."""

ReadPage = Callable[[int], bytes]
"""LSN of a page -> its bytes, none if it is not there."""

WAL_FILES = ("PG_VERSION", "global/pg_control", "pg_wal")
"""All that is read here."""
CLEAN_STOP = KindOfRecord(0, 0x00, False)
"""The checkpoint of a server that stops."""
KNOWN_PAGES_MAX = 100_000
_AHEAD_BYTES = 64 << 10
_CONTROL_BYTES = 512
_STATE_AT = 16  # ControlFileData.state, the same place in every version since 8.0
_SHUT_DOWN = struct.pack("<I", 1)  # DB_SHUTDOWNED
_FLOAT_FORMAT = struct.pack("<d", 1234567.0)  # stands in front of the block sizes; what is before varies by version


def read_wal(data_directory: Path) -> WalFacts | None:
    """Read the WAL of a directory once; None if its control file cannot be understood."""
    part = directory(data_directory)
    found = read_control(part)
    return None if found is None else WalReader().read(found[0], file_pages(found[0], part), found[1])


def directory(data_directory: Path) -> ReadPart:
    """Return what reads the files of a directory."""

    def read(path: str, offset: int, length: int) -> bytes:
        try:
            with files.opened(data_directory / path, buffering=0) as file:
                return os.pread(file.fileno(), length, offset)
        except OSError:
            return b""

    return read


class WalReader:
    """Reads the WAL of many directories; a page that it has read before, at the same place, costs next to nothing."""

    def __init__(self) -> None:
        self._known: dict[tuple[Cluster, Place, bytes], tuple[Found, Place, bool]] = {}

    def read(self, cluster: Cluster, page: ReadPage, redo: int) -> WalFacts:
        """Read from a redo point to the end of the valid WAL."""
        segment = redo - redo % cluster.segment_bytes
        if not valid_header(cluster, page(segment), segment):  # PostgreSQL looks at the first page of each file
            why = why_it_ends(cluster, page(segment), start_at(cluster, segment))
            return WalFacts(redo=redo, end=redo, last=0, records=[], why=why)
        found, place = self._read_to_the_end(cluster, page, start_at(cluster, redo))
        if found.first == CLEAN_STOP:
            found.kinds[CLEAN_STOP] -= 1  # redo begins behind it
        why = why_it_ends(cluster, page(place.page), place)
        kinds = counted(cluster.major, found.kinds)
        return WalFacts(redo=redo, end=place.at, last=place.last, records=found.records, why=why, kinds=kinds)

    def read_on(self, cluster: Cluster, page: ReadPage, place: Place) -> tuple[Found, Place]:
        """Read from a place to the end; return what was found, and where to go on once more was written."""
        found, place = self._read_to_the_end(cluster, page, place)
        # A record that is not whole may be written again, all of it
        return found, Place(place.at - place.at % cluster.page_bytes, place.at, place.last)

    def _read_to_the_end(self, cluster: Cluster, page: ReadPage, place: Place) -> tuple[Found, Place]:
        found = Found()
        going = True
        while going:
            here, place, going = self._read_page(cluster, page(place.page), place)
            found.add(here)
        return found, place

    def _read_page(self, cluster: Cluster, page: bytes, place: Place) -> tuple[Found, Place, bool]:
        key = (cluster, place, blake2b(page, digest_size=16).digest())
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= KNOWN_PAGES_MAX:
                self._known.clear()
            known = self._known[key] = read_page(cluster, page, place)
        return known


def counted(major: int, kinds: Mapping[KindOfRecord, int]) -> list[RecordCount]:
    """Return the counts of records as evidence, by name."""

    def count(manager: int, bits: int, image: bool) -> int:
        return kinds.get(KindOfRecord(manager, bits, image), 0)

    there = sorted({(kind.manager, kind.bits) for kind, number in kinds.items() if number > 0})
    return [RecordCount(type_name(major, *one), count(*one, False), count(*one, True)) for one in there]


def start_at(cluster: Cluster, redo: int) -> Place:
    """Return the place at which a record begins."""
    return Place(redo - redo % cluster.page_bytes, redo, 0)


def file_of(cluster: Cluster, position: int) -> str:
    """Return the path of the segment file that holds a WAL position."""
    segment = position // cluster.segment_bytes
    per_id = (1 << 32) // cluster.segment_bytes
    return f"pg_wal/{cluster.timeline:08X}{segment // per_id:08X}{segment % per_id:08X}"


def file_pages(cluster: Cluster, part: ReadPart) -> ReadPage:
    """Return what reads pages from the segment files, some at a time."""
    begin, ahead = 0, b""

    def page(at: int) -> bytes:
        nonlocal begin, ahead
        if not begin <= at <= begin + len(ahead) - cluster.page_bytes:
            offset = at % cluster.segment_bytes
            begin, ahead = at, part(file_of(cluster, at), offset, min(_AHEAD_BYTES, cluster.segment_bytes - offset))
        return ahead[at - begin : at - begin + cluster.page_bytes]

    return page


def stopped_cleanly(part: ReadPart) -> bool:
    """Say whether the control file tells of a clean stop, after which a start needs no recovery."""
    return part("global/pg_control", _STATE_AT, 4) == _SHUT_DOWN


def read_control(part: ReadPart) -> tuple[Cluster, int] | None:
    """Return what the control file says of the cluster, and its redo point; None if it cannot be understood."""
    control = part("global/pg_control", 0, _CONTROL_BYTES)
    major = part("PG_VERSION", 0, 16).strip()
    sizes_at = control.find(_FLOAT_FORMAT) + len(_FLOAT_FORMAT)
    if sizes_at < len(_FLOAT_FORMAT) or len(control) < sizes_at + 20 or not major.isdigit():
        return None
    (system,) = struct.unpack_from("<Q", control)
    redo, timeline = struct.unpack_from("<QI", control, 40)  # the copy of the checkpoint begins with them
    # Before them stand the sizes of a page and of a file of a relation, from 19 on slru_pages_per_segment, too
    page_bytes, segment_bytes = struct.unpack_from("<II", control, sizes_at + (12 if int(major) >= 19 else 8))
    if redo % 8 or page_bytes < 1024 or segment_bytes < page_bytes or segment_bytes & (segment_bytes - 1):
        return None
    return Cluster(int(major), system, page_bytes, segment_bytes, timeline), redo
