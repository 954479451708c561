"""Is every page that was flushed still there after a real power cut?

As diskchecker.pl does it, with two machines. On the one whose disk is asked about, a client writes pages over, flushes
each and only then tells the other machine, which keeps the ledger. Somebody pulls the plug. After the restart the disk
is held against the ledger.

Choices:
    One page at a time, and the next is not begun before the ledger has the last one: so the ledger decides for every
    page but one, the one that was under way. That one may hold its old state, its new one, or sectors of both.
    Which page the n-th write goes to follows from the run's seed: the ledger is one number and the seed.
    Each sector of 512 bytes tells by itself of which write it is, and bears a digest.
What it checks: pages that are written over in a file of fixed length, as in a segment of PostgreSQL's WAL.
What it does not: names of new files and growing ones (crash states of a recording have
    those), and a disk that lies only now and then: so many cuts bound it no better than so many trials.

Source: diskchecker.pl (Brad Fitzpatrick, 2005), which PostgreSQL's manual names in "Reliability".
"""

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crashlab.errors import EvidenceError
from crashlab.flush.cost import METHODS
from crashlab.seeds import stream

FILE = "crashlab-power-cut"
"""The file whose pages are written, in the folder that is asked about."""
PAGE_BYTES, SECTOR_BYTES = 4096, 512
SECTORS = PAGE_BYTES // SECTOR_BYTES
DEFAULT_PAGES = 1024
_HEAD = struct.Struct("<8sQQI")  # magic, seed, number of the write, page and sector
_MAGIC = b"crashlab"
_DIGEST_BYTES = 16


def pages_of(seed: int, pages: int) -> Callable[[], int]:
    """Return what draws the page of each write, from the first one on."""
    rng: Random = stream(seed, "power cut")
    return lambda: rng.randrange(pages)


def sector(seed: int, number: int, page: int, index: int) -> bytes:
    """Return what the n-th write leaves in one sector of its page; write 0 is the file as it was made."""
    head = _HEAD.pack(_MAGIC, seed, number, page * SECTORS + index)
    body = hashlib.shake_128(head).digest(SECTOR_BYTES - len(head) - _DIGEST_BYTES)
    return head + body + hashlib.blake2b(head + body, digest_size=_DIGEST_BYTES).digest()


def page_bytes(seed: int, number: int, page: int) -> bytes:
    """Return what the n-th write leaves of a page."""
    return b"".join(sector(seed, number, page, index) for index in range(SECTORS))


def number_of(data: bytes, seed: int, page: int, index: int) -> int | None:
    """Return which write a sector is of; None: it is none of this run, of this place, or damaged."""
    if len(data) != SECTOR_BYTES:
        return None
    number = int(_HEAD.unpack_from(data)[2])
    return number if data == sector(seed, number, page, index) else None


def write_pages(
    folder: Path, seed: int, pages: int, method: str, begin: Callable[[], None], noted: Callable[[int], bool]
) -> int:
    """Write page after page, flush each, and hand its number on; return how many the ledger has.

    Args:
        method: one of METHODS; "none" flushes nothing, to see the ledger catch it.
        begin: called when the file is there, durable as a whole.
        noted: has the ledger note a number, and returns whether to go on.

    Raises:
        EvidenceError: the file exists, or the disk refuses, such as one that went away: the message says when.
    """
    path, done = folder / FILE, 0
    try:
        _make(path, seed, pages)
        begin()
        draw, how = pages_of(seed, pages), METHODS[method]
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | how.flags)
        try:
            while True:
                page = draw()
                os.pwrite(fd, page_bytes(seed, done + 1, page), page * PAGE_BYTES)
                if how.call is not None:
                    how.call(fd)
                if not noted(done + 1):
                    return done + 1
                done += 1
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)
    except FileExistsError as error:
        raise EvidenceError(
            f'cannot write "{path}": it exists',
            hint="Hold it against its ledger first, with --verify; then remove it.",
        ) from error
    except OSError as error:
        raise EvidenceError(
            f'could not write "{path}": {error.strerror}', detail=f"The ledger has {done} flushed pages."
        ) from error


def _make(path: Path, seed: int, pages: int) -> None:
    """Write the file as it is before the first write, and make it and its name durable."""
    with path.open("xb") as file:
        for page in range(pages):
            file.write(page_bytes(seed, 0, page))
        file.flush()
        os.fsync(file.fileno())
    for place in (path.parent, path.parent.resolve().parent):
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A page that is not as the ledger says."""

    page: int
    flushed: int  # the last write of it that the ledger has; 0: the file as it was made
    found: tuple[int | None, ...]  # write of each sector; None: damaged

    @property
    def damaged(self) -> bool:
        """Whether it holds what no write of this run left there, rather than an older state."""
        return any(number is None or number > self.flushed for number in self.found)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The disk, held against the ledger."""

    flushed: int  # writes that the ledger has
    pages: int
    written: int  # pages that any of them went to
    wrong: list[Wrong] = field(default_factory=list)
    under_way: str = ""  # what became of the page that was being written


def expected(seed: int, pages: int, flushed: int) -> tuple[Mapping[int, int], int]:
    """Return the last flushed write of each page that was written, and the page that was under way."""
    draw = pages_of(seed, pages)
    last = {draw(): number for number in range(1, flushed + 1)}
    return last, draw()


def hold_against(folder: Path, seed: int, pages: int, flushed: int) -> Held:
    """Read the file and compare it.

    Raises:
        EvidenceError: it cannot be read. That it is gone is a finding, and no error.
    """
    last, next_page = expected(seed, pages, flushed)
    data = _read(folder / FILE)
    wrong, under_way = [], ""
    for page in range(pages):
        at = page * PAGE_BYTES
        sectors = [data[at + index * SECTOR_BYTES : at + (index + 1) * SECTOR_BYTES] for index in range(SECTORS)]
        found = tuple(number_of(one, seed, page, index) for index, one in enumerate(sectors))
        allowed = {last.get(page, 0)}
        if page == next_page:
            allowed.add(flushed + 1)
            under_way = _became(found, flushed + 1)
        if not set(found) <= allowed:
            wrong.append(Wrong(page=page, flushed=last.get(page, 0), found=found))
    return Held(flushed=flushed, pages=pages, written=len(last), wrong=wrong, under_way=under_way)


def _became(found: tuple[int | None, ...], number: int) -> str:
    new = found.count(number)
    return "new" if new == SECTORS else "old" if not new else f"{new} of {SECTORS} sectors new"


def _read(path: Path) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise EvidenceError(f'could not read "{path}": {error.strerror}') from error
    with os.fdopen(fd, "rb") as file:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what the disk has, not what this kernel remembers
        try:
            return file.read()
        except OSError as error:
            raise EvidenceError(f'could not read "{path}": {error.strerror}') from error
