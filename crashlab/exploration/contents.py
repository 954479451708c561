"""How do the bytes of a crash state's file get onto the disk, and no more of them than differ?

A file is rewritten in place. Its bytes come from the base image, from the log of operations, or are zeros.
"""

import os
from collections.abc import Iterable
from functools import lru_cache

from crashlab.disk.content import BASE, ZERO, FileImage, Piece
from crashlab.errors import RecordingError
from crashlab.recording.base import BaseImage, open_file
from crashlab.recording.logbytes import LogBytes

STAMP_NS = 946_684_800 * 10**9
"""The modification time of every file written here: the year 2000."""

_WRITE_BYTES = 1 << 20
_BUFFERS_MAX = 512
_LONG_BYTES = 1 << 18
_COMPARE_BYTES = 1 << 16
_MARGIN_BYTES = 1 << 18
"""Zeros that are written behind a long file's data: who reads the WAL up to its end would meet a hole, and the kernel
fill megabytes of it ahead."""
_ZEROS = bytes(_WRITE_BYTES)
_SMALL_BYTES = 1 << 13
_SMALL_KEPT, _BLOCKS_KEPT = 4096, 512
"""So many pieces are kept in memory, 32 MB of each sort at most: one state after the other is made of the same ones."""


class Contents:
    """Writes the contents of files, in one process at a time."""

    def __init__(self, base: BaseImage, log: LogBytes) -> None:
        """Open nothing yet."""
        self._log = log
        self._base = base
        self._base_paths = {entry.file: entry.path for entry in base.files if entry.kind == "file"}
        self._base_data_ends: dict[int, int] = {}
        self._open_base: tuple[int, int] | None = None  # file, descriptor
        self._small = lru_cache(_SMALL_KEPT)(self._read)
        self._block = lru_cache(_BLOCKS_KEPT)(self._read)

    def write(self, path: str, status: os.stat_result, image: FileImage, held: FileImage | None) -> None:
        """Write what differs of a file.

        Args:
            path: of the file; nothing is followed.
            status: how it is.
            held: what is in it; None: that is not known.
        """
        long = status.st_size >= _LONG_BYTES
        fd = os.open(path, (os.O_RDWR if long else os.O_WRONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
        right_below = 0
        try:
            if held is not None and (held.file, held.unit_bytes) == (image.file, image.unit_bytes):
                pieces = list(image.changes(held))
                kept = min(status.st_size, image.size)
            else:
                pieces = list(image.pieces())
                kept = self._drop_zeros_at_end(image.file, pieces)
                if margin := min(image.size - kept, _MARGIN_BYTES) if kept >= _LONG_BYTES else 0:
                    pieces.append((kept, margin, ZERO, kept))
                    kept += margin
                right_below = min(kept, status.st_size) if long else 0
            # Zeros after the end cost nothing to write.
            if kept < status.st_size:
                os.ftruncate(fd, kept)
            if kept != image.size:
                os.ftruncate(fd, image.size)
            self._write_pieces(fd, image.file, pieces, right_below)
            os.utime(fd, ns=(STAMP_NS, STAMP_NS))
        finally:
            os.close(fd)

    def _drop_zeros_at_end(self, number: int, pieces: list[Piece]) -> int:
        """Take the zeros at a file's end off its pieces; return where they begin."""
        while pieces:
            at, length, source, offset = pieces[-1]
            data = 0 if source == ZERO else length
            if source == BASE and length >= _LONG_BYTES:  # most of a new WAL segment: 16 MB in each state
                data = min(length, max(0, self._base_data_end(number) - offset))
            if data:
                pieces[-1] = at, data, source, offset
                return at + data
            pieces.pop()
        return 0

    def _base_data_end(self, number: int) -> int:
        """Return where the zeros at the end of a file of the base image begin."""
        found = self._base_data_ends.get(number)
        if found is None:
            end = os.fstat(self._open(number)).st_size
            while end:
                begin = max(0, end - _WRITE_BYTES)
                data = self.base_bytes(number, begin, end - begin).rstrip(b"\0")
                end = begin + len(data) if data else begin
                if data:
                    break
            found = self._base_data_ends[number] = end
        return found

    def _write_pieces(self, fd: int, number: int, pieces: Iterable[Piece], right_below: int) -> None:
        """Write pieces, those that touch each other in one call; below an offset, compare long ones before.

        A server writes to the end of a WAL segment, which holds megabytes that stay as they are.
        """
        buffers: list[bytes] = []
        begin = end = 0
        for at, length, source, offset in pieces:
            while length:
                part = min(length, _COMPARE_BYTES if at < right_below else _WRITE_BYTES)
                data = self._bytes(number, source, offset, part)
                if part == _COMPARE_BYTES and at + part <= right_below and os.pread(fd, part, at) == data:
                    at, offset, length = at + part, offset + part, length - part
                    continue
                if at != end or end - begin >= _WRITE_BYTES or len(buffers) == _BUFFERS_MAX:
                    _write_all(fd, buffers, begin)
                    buffers, begin, end = [], at, at
                buffers.append(data)
                at, end, offset, length = at + part, end + part, offset + part, length - part
        _write_all(fd, buffers, begin)

    def _bytes(self, number: int, source: int, offset: int, length: int) -> bytes:
        if source == ZERO:
            return _ZEROS[:length]
        if length <= _SMALL_BYTES:
            return self._small(number, source, offset, length)
        if length == _COMPARE_BYTES:
            return self._block(number, source, offset, length)
        return self._read(number, source, offset, length)

    def _read(self, number: int, source: int, offset: int, length: int) -> bytes:
        if source == BASE:
            return self.base_bytes(number, offset, length)
        return self._log.read(source, offset, length)

    def base_bytes(self, number: int, offset: int, length: int) -> bytes:
        """Return a part of a file of the base image. Raises RecordingError: it is not there."""
        data = os.pread(self._open(number), length, offset)
        if len(data) != length:
            raise RecordingError(f'the base image "{self._base.image / self._base_paths[number]}" has become shorter')
        return data

    def _open(self, number: int) -> int:
        """Return a descriptor of a file of the base image, open until another one is asked for."""
        if self._open_base is None or self._open_base[0] != number:
            self.close()
            path = self._base_paths[number]
            try:
                self._open_base = number, open_file(self._base, path)
            except OSError as error:
                where = self._base.image / path
                raise RecordingError(f'could not read the base image "{where}": {error.strerror}') from error
        return self._open_base[1]

    def close(self) -> None:
        """Close what is open of the base image."""
        if self._open_base is not None:
            os.close(self._open_base[1])
            self._open_base = None


def _write_all(fd: int, buffers: list[bytes], at: int) -> None:
    while buffers:
        done = os.pwritev(fd, buffers, at)
        at += done
        while buffers and done >= len(buffers[0]):
            done -= len(buffers.pop(0))
        if buffers:
            buffers[0] = buffers[0][done:]
