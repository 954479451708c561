"""What does the recorder write down, and how is it read back?

The format, version 1; all numbers little-endian, offsets and lengths in bytes:

    page 0     8s magic "crashlab", u32 version, u32 failed (errno of a process that could not record; 0: none),
               u64 tail (offset of the next record), 64s what failed, u32 lock (a futex), zeros up to 4096
    records    u32 check (Adler-32 of the payload, then of the record from `size` on), u32 size (this head included),
               u16 kind, u16 flags, u32 pid, u64 device, u64 inode, u64 offset, u64 length: 48 bytes; then the payload

    kind           number and names as in operations.Kind; besides 64 START and 65 BIND
    flags          1 durable (O_DSYNC), 2 fdatasync, 4 no name left
    payload        WRITE: bytes, less the zeros at their end, which `length` counts. COPY, CONTENT: bytes. START: the
                   program's path. All others: "path" or "path NUL second name"
    path           number of the root in CRASHLAB_RECORD_ROOTS, then the rest: "0/base/5/1259", "0"
    offset         CREATE, MKDIR: mode bits. BIND: st_mode. FSYNC_END, SYNCFS_END: offset of the begin's record
    second name    RENAME, LINK, EXCHANGE: the new name. SYMLINK: its content. BLIND: why

BIND says which path an inode has; each process logs one when it first uses a descriptor. START opens each program.
Up to the tail every byte must be right: damage there is an error. Beyond it lies at most what a killed process was
writing: a record that is whole counts, the rest is ignored.
"""

import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from crashlab import files
from crashlab.disk.operations import Kind
from crashlab.errors import RecordingError

MAGIC = b"crashlab"
VERSION = 1
PAGE_BYTES = 4096
PAYLOAD_BYTES_MAX = 16 << 20
START = 64
BIND = 65
DURABLE, DATASYNC, NAMELESS = 1, 2, 4

_HEADER = struct.Struct("<8sIIQ64s")
_HEAD = struct.Struct("<IIHHIQQQQ")
TAIL_OFFSET = 16
"""Where the tail stands, a little-endian u64."""
QUIET_S, QUIET_WITHIN_S = 0.05, 2.0
_KINDS = frozenset(Kind) | {START, BIND}
_READ_BYTES = 1 << 20


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record as it stands in the log; `at` and `end` are its place in it."""

    kind: int
    flags: int = 0
    pid: int = 0
    device: int = 0
    inode: int = 0
    offset: int = 0
    length: int = 0
    payload: bytes = b""
    at: int = 0
    end: int = 0


class LogPosition:
    """How many bytes of log there are, asked while the server runs: what a ledger notes at intent and at ack."""

    def __init__(self, log: Path) -> None:
        self._fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)

    def bytes(self) -> int:
        """Return the log's tail; every operation that the server was told of before ends at or below it."""
        return int.from_bytes(os.pread(self._fd, 8, TAIL_OFFSET), "little")

    def wait_until_quiet(self) -> None:
        """Wait until nothing was logged for a moment, or for QUIET_WITHIN_S in vain: the time to kill a server.

        A process that dies between a call and its record leaves an operation unlogged, and the recording is not sound.
        """
        deadline = time.monotonic() + QUIET_WITHIN_S
        before = -1
        while (now := self.bytes()) != before and time.monotonic() < deadline:
            before = now
            time.sleep(QUIET_S)

    def close(self) -> None:
        """Let go of the log."""
        os.close(self._fd)


def create(log: Path) -> None:
    """Make an empty log that nobody but its owner may read or write: give it to the server's user before the start.

    What runs as root first, such as an image's entry point, may write to it all the same.

    Raises:
        RecordingError: it exists already or cannot be written.
    """
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(header(PAGE_BYTES))
    except OSError as error:
        raise RecordingError(f'could not create the log "{log}": {error.strerror}') from error


def header(tail: int, failed: int = 0, reason: str = "") -> bytes:
    """Return a log's first page."""
    return _HEADER.pack(MAGIC, VERSION, failed, tail, reason.encode()).ljust(PAGE_BYTES, b"\0")


def encode(record: Record) -> bytes:
    """Return a record's bytes, as the recorder writes them."""
    size = _HEAD.size + len(record.payload)
    fields = (record.kind, record.flags, record.pid, record.device, record.inode, record.offset, record.length)
    rest = _HEAD.pack(0, size, *fields)[4:]
    check = zlib.adler32(rest, zlib.adler32(record.payload))
    return check.to_bytes(4, "little") + rest + record.payload


def records(log: Path) -> Iterator[Record]:
    """Read a log's records one after the other.

    Raises:
        RecordingError: the log is missing, of another version, cut short or damaged; a process could not record.
    """
    try:
        with files.opened(log, buffering=_READ_BYTES) as file:
            tail = _read_header(log, file)
            yield from _read_records(log, file, tail)
    except OSError as error:
        raise RecordingError(f'could not read the log "{log}": {error.strerror}') from error


def _read_header(log: Path, file: BinaryIO) -> int:
    page = file.read(PAGE_BYTES)
    if len(page) < PAGE_BYTES or not page.startswith(MAGIC):
        raise RecordingError(f'"{log}" is not an I/O log')
    _, version, failed, tail, reason = _HEADER.unpack_from(page)
    if version != VERSION:
        raise RecordingError(f'cannot read the log "{log}": version {version} is not {VERSION}')
    if failed:
        raise RecordingError(
            f'the log "{log}" is void: a process could not record',
            detail=f"{reason.rstrip(bytes(1)).decode(errors='replace')}: {os.strerror(failed)}",
            hint="Free space and permissions for the log, then record again.",
        )
    size = os.fstat(file.fileno()).st_size
    if size < tail:
        raise RecordingError(
            f'the log "{log}" is cut short', detail=f"It has {size} bytes, its first page promises {tail}."
        )
    return int(tail)


def _read_records(log: Path, file: BinaryIO, tail: int) -> Iterator[Record]:
    at = PAGE_BYTES
    unpack, head_bytes, adler32, kinds = _HEAD.unpack, _HEAD.size, zlib.adler32, _KINDS
    while True:
        head = file.read(head_bytes)
        problem = "the head is incomplete"
        if len(head) == head_bytes:
            check, size, kind, flags, pid, device, inode, offset, length = unpack(head)
            problem = "the size is impossible"
            if head_bytes <= size <= head_bytes + PAYLOAD_BYTES_MAX and (at >= tail or at + size <= tail):
                payload = file.read(size - head_bytes)
                problem = "the checksum does not match"
                if adler32(head[4:], adler32(payload)) == check and kind in kinds:
                    yield Record(
                        kind=kind,
                        flags=flags,
                        pid=pid,
                        device=device,
                        inode=inode,
                        offset=offset,
                        length=length,
                        payload=payload,
                        at=at,
                        end=at + size,
                    )
                    at += size
                    continue
        if at >= tail:
            return
        raise RecordingError(
            f'the log "{log}" is damaged at byte {at}', detail=f"In the record that begins there {problem}."
        )
