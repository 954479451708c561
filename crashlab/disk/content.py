"""What does one unit of a file hold, said without holding its bytes?

A unit (the contract's tear size, 4 kB by default) is described by where its bytes come from: the base image, or the
data of the operation at some position. Whoever has the recording can fetch them. Digests are taken while the bytes
pass by, so two contents can be compared later without reading anything.

Choices:
    Equal digests mean equal bytes. The reverse holds for zeros, for whole units and for parts written alike; not for
    every overlay of partial writes, where a missed equality costs one more recovery and nothing else.
    Digests are the same in every process of one Python version (hashes of integers are not randomised). Python's hash
    of a tuple is nearly linear in its last item, so what is summed goes through `mixed`.

Source: design.md "The disk model".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256

import msgspec

BASE = -1
"""Source of an extent: the same file in the base image; the offset is that in the file."""
ZERO = -2
"""Source of a piece: zeros."""

MASK = (1 << 64) - 1

Extent = tuple[int, int, int, int, int]
"""start and end within the unit, source (BASE or a position), offset in the source, digest; gaps are zeros."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """The content of one unit: ascending extents and their common digest."""

    extents: tuple[Extent, ...]
    digest: int


EMPTY = Content((), 0)


def written(data: bytes, position: int, offset: int) -> Content:
    """Return the content of a unit that is wholly replaced by `data`, found at `offset` of the operation's data."""
    data = data.rstrip(b"\0")
    if not data:
        return EMPTY
    return _content(((0, len(data), position, offset, _digest(data)),))


def original(offset: int, length: int) -> Content:
    """Return the content of a unit that still holds `length` bytes of the base image from `offset` of the file on."""
    return _content(((0, length, BASE, offset, hash((BASE, offset, length))),)) if length > 0 else EMPTY


def overlay(content: Content, start: int, data: bytes, position: int, offset: int) -> Content:
    """Return the content after `data` was written at `start` of the unit."""
    end = start + len(data)
    data = data.rstrip(b"\0")
    before = [_cut(extent, 0, start) for extent in content.extents if extent[0] < start]
    after = [_cut(extent, end, extent[1]) for extent in content.extents if extent[1] > end]
    middle = [(start, start + len(data), position, offset, _digest(data))] if data else []
    return _content((*before, *middle, *after))


def clip(content: Content, end: int) -> Content:
    """Return the content with zeros from `end` on."""
    if not content.extents or content.extents[-1][1] <= end:
        return content
    return _content(tuple(_cut(extent, 0, end) for extent in content.extents if extent[0] < end))


def _cut(extent: Extent, low: int, high: int) -> Extent:
    start, end, source, offset, _ = extent
    if low <= start and end <= high:
        return extent
    new_start, new_end = max(start, low), min(end, high)
    offset += new_start - start
    return new_start, new_end, source, offset, hash((source, offset, new_end - new_start))


def _digest(data: bytes) -> int:
    return int.from_bytes(sha256(data).digest()[:8], "little")


def _content(extents: tuple[Extent, ...]) -> Content:
    if not extents:
        return EMPTY
    return Content(extents, hash(tuple((start, end, digest) for start, end, _, _, digest in extents)))


Piece = tuple[int, int, int, int]
"""offset in the file, length, source (BASE, ZERO or a position), offset in the source."""


class FileImage(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a crash state: a unit not listed holds the base image's bytes below `base_bytes`, then zeros."""

    file: int
    size: int
    base_bytes: int
    unit_bytes: int
    units: Mapping[int, Content]
    fingerprint: int  # equal for two images of a file only if their bytes are equal

    def pieces(self) -> Iterator[Piece]:
        """Yield where the bytes come from, in order, without gaps from 0 to the size, neighbours joined."""
        return _joined(self._raw_pieces())

    def changes(self, held: "FileImage") -> Iterator[Piece]:
        """Yield the pieces that turn another image of this file, cut or extended to this size, into this one."""
        assert (held.file, held.unit_bytes) == (self.file, self.unit_bytes)
        unit_bytes = self.unit_bytes
        low, high = sorted((self.base_bytes, held.base_bytes))
        candidates = set(self.units) | set(held.units) | set(range(low // unit_bytes, -(-high // unit_bytes)))
        grown = range(held.size // unit_bytes, -(-self.size // unit_bytes))
        changed = {unit for unit in candidates if self._digest_of(unit) != held._digest_of(unit)}
        if self.size > held.size:
            changed.update(grown)
        return _joined(piece for unit in sorted(changed) for piece in self._unit_pieces(unit))

    def _digest_of(self, unit: int) -> int:
        content = self.units.get(unit)
        if content is None:
            start = unit * self.unit_bytes
            content = original(start, min(self.base_bytes - start, self.unit_bytes))
        return content.digest

    def _raw_pieces(self) -> Iterator[Piece]:
        at = 0
        for unit in sorted(self.units):
            start = unit * self.unit_bytes
            if start >= self.size:
                break
            yield from self._untouched(at, start)
            yield from self._unit_pieces(unit)
            at = min(start + self.unit_bytes, self.size)
        yield from self._untouched(at, self.size)

    def _unit_pieces(self, unit: int) -> Iterator[Piece]:
        start = unit * self.unit_bytes
        at, end = start, min(start + self.unit_bytes, self.size)
        if unit not in self.units:
            yield from self._untouched(start, end)
            return
        for extent in self.units[unit].extents:
            low, high = start + extent[0], min(start + extent[1], end)
            if low >= high:
                break
            yield from _zeros(at, low)
            yield low, high - low, extent[2], extent[3]
            at = high
        yield from _zeros(at, end)

    def _untouched(self, low: int, high: int) -> Iterator[Piece]:
        middle = min(max(low, self.base_bytes), high)
        if low < middle:
            yield low, middle - low, BASE, low
        yield from _zeros(middle, high)

    def read(self, logged: Callable[[int], bytes], base: Callable[[int, int, int], bytes]) -> bytes:
        """Return the bytes, given `logged(position)` -> the operation's data and `base(file, offset, length)`."""
        return b"".join(read_piece(self.file, piece, logged, base) for piece in self.pieces())


def mixed(*numbers: int) -> int:
    """Return a 64-bit hash that may be summed: splitmix64's finalizer over Python's hash."""
    value = hash(numbers) & MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & MASK
    return value ^ value >> 31


def _joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    pending: Piece | None = None
    for piece in pieces:
        if pending is not None:
            at, length, source, offset = pending
            if (at + length, source, offset + length) == (piece[0], piece[2], piece[3]):
                pending = (at, length + piece[1], source, offset)
                continue
            yield pending
        pending = piece
    if pending is not None:
        yield pending


def _zeros(low: int, high: int) -> Iterator[Piece]:
    # Zeros count their source offset from the file's start, so that neighbours join.
    if low < high:
        yield low, high - low, ZERO, low


def read_piece(
    file: int, piece: Piece, logged: Callable[[int], bytes], base: Callable[[int, int, int], bytes]
) -> bytes:
    """Return the bytes of one piece of a file."""
    _, length, source, offset = piece
    if source == ZERO:
        return bytes(length)
    if source == BASE:
        return base(file, offset, length)
    return logged(source)[offset : offset + length]
