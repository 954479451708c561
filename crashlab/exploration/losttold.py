"""How are the lost writes of a crash state named: which file and page, which LSN, and which WAL record wrote it?

Choices:
    A page's LSN is that in the lost write itself. The record is the one that ends there in the state's own WAL, in the
    words of pg_waldump where this machine has one of that major release (many builds have none), else by its header.
    A lost write to a WAL file is told by its LSN, without the records in it.

Source: PostgreSQL, src/include/storage/bufpage.h (pd_lsn: "LSN: next byte after last byte of xlog record for last
change to this page"), src/bin/pg_waldump.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from crashlab.disk.fileclass import FileClass
from crashlab.disk.lost import LostWrite, lost_changes, lost_writes, page_header
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.operations import root_label
from crashlab.disk.tornpages import PAGE_BYTES, ReadBytes
from crashlab.recovery.wal import directory, read_control
from crashlab.recovery.walrecord import RecordHead, record_before
from crashlab.server.builds import Build, find_builds
from crashlab.server.privileges import server_environment

_WITH_PAGES = (FileClass.RELATION, FileClass.FSM, FileClass.VM, FileClass.INIT)
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_WALDUMP_TIMEOUT_S = 60.0
LINES_MAX = 200


class LostTold:
    """Names what the states of one recording have lost."""

    def __init__(self, wal: "WalText", base: ReadBytes, logged: ReadBytes) -> None:
        """Take the WAL in which records are looked up; for `base` and `logged` see `tornpages.torn_pages`."""
        self._wal = wal
        self._base = base
        self._logged = logged

    def lines(self, model: DiskModel, state: CrashState) -> list[str]:
        """Return a line for each lost change and write of a state of the model's position, at most LINES_MAX."""
        found = []
        for change in lost_changes(model, state):
            where = "" if change.position is None else f", operation {change.position}"
            found.append(f"lost: the {_short(change.what)}{where}")
        found += [self._line(model, write) for write in lost_writes(model, state)]
        more = len(found) - LINES_MAX
        return [*found[:LINES_MAX], *([f"... and {more} more"] if more > 0 else [])]

    def _line(self, model: DiskModel, write: LostWrite) -> str:
        what = "torn" if write.torn else "lost"
        text = f"{what}: {_short(write.path) or 'a file without a name'}, "
        operation = f"operation {write.position}"
        if write.file_class is FileClass.WAL:
            return f"{text}{write.length} bytes at {_wal_place(write, self._wal.segment_bytes)}, {operation}"
        if write.file_class not in _WITH_PAGES:
            return f"{text}{write.length} bytes at offset {write.offset}, {operation}"
        page = write.offset // PAGE_BYTES
        text += f"page {page} (bytes {write.offset} to {write.offset + write.length}), {operation}"
        header = page_header(model, write, page, 8, self._base, self._logged)
        if header is None:
            return text
        lsn = int.from_bytes(header[:4], "little") << 32 | int.from_bytes(header[4:], "little")
        if lsn == 0:
            return f"{text}; the page has no LSN: no WAL record wrote it (a new page, or one of a map)"
        return f"{text}; LSN {lsn_text(lsn)}, {self._wal.record_ending_at(lsn)}"


def _wal_place(write: LostWrite, segment_bytes: int) -> str:
    name = write.path.rpartition("/")[2]
    if not _SEGMENT.fullmatch(name):
        return f"offset {write.offset}"
    number = int(name[8:16], 16) * ((1 << 32) // segment_bytes) + int(name[16:], 16)
    return f"LSN {lsn_text(number * segment_bytes + write.offset)}"


def _short(path: str) -> str:
    return path.replace(f"{root_label(0)}/", "")


def lsn_text(lsn: int) -> str:
    """Return an LSN as PostgreSQL prints it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


class WalText:
    """The WAL of a data directory, whose records are named."""

    def __init__(self, data_directory: Path) -> None:
        self._folder = data_directory
        self._part = directory(data_directory)
        control = read_control(self._part)
        self._cluster = None if control is None else control[0]

    @property
    def segment_bytes(self) -> int:
        """Size of a WAL file."""
        return 1 << 24 if self._cluster is None else self._cluster.segment_bytes

    def record_ending_at(self, lsn: int) -> str:
        """Say which record ends at an LSN, or that this WAL does not hold it."""
        head = None if self._cluster is None else record_before(self._cluster, self._part, lsn)
        if head is None:
            return "of a record that the WAL of this state does not hold (any more)"
        return self._printed(head) or str(head)

    def _printed(self, head: RecordHead) -> str:
        """Return what pg_waldump says of a record; nothing if this machine has none of that major release."""
        assert self._cluster is not None
        programs = (build.bindir / "pg_waldump" for build in self._builds())
        program = next((one for one in programs if one.is_file()), None)
        if program is None:
            return ""
        words: list[str | Path] = [program, "-p", self._folder / "pg_wal", "-t", str(self._cluster.timeline)]
        try:
            done = subprocess.run(
                [*words, "-s", lsn_text(head.start), "-n", "1"],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_WALDUMP_TIMEOUT_S,
                env=server_environment(),
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        line = next((line for line in done.stdout.splitlines() if line.startswith("rmgr:")), "")
        return f"record {' '.join(line.split())}" if line else ""

    def _builds(self) -> Iterator[Build]:
        assert self._cluster is not None
        return (build for build in find_builds() if build.version.major == self._cluster.major)
