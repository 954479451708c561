"""Which pages of tables and indexes did a power cut leave half old and half new?

Asked only where full_page_writes is off: with it on, recovery writes each such page anew.

Choices:
    A page is torn if one part of it holds a later write than another part does, and the bytes of that other part are
    not those that the later moment had. Parts that were written again with the same bytes do not count.
    Pages of 8192 bytes, PostgreSQL's default; files below the data directory, no tablespaces.

Source: design.md "The disk model"; postgres-contract.md 1.3 (full_page_writes).
"""

from collections.abc import Callable, Iterator
from itertools import islice

from crashlab.disk.content import BASE, Content
from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.filehistory import DURABLE, FileHistory
from crashlab.disk.model import CrashState, DiskModel, FileChoice
from crashlab.disk.operations import root_label
from crashlab.model import TornPage

PAGE_BYTES = 8192
PAGES_MAX = 100

ReadBytes = Callable[[int, int, int], bytes]
"""file of the base image, or operation; offset; length -> the bytes."""


def torn_pages(model: DiskModel, state: CrashState, base: ReadBytes, logged: ReadBytes) -> list[TornPage]:
    """Return the torn pages of a state at the model's position, at most PAGES_MAX of them.

    Args:
        base: reads the files of the base image.
        logged: reads what the operations wrote.
    """
    root = f"{root_label(0)}/"
    choices = {choice.file: choice for choice in state.files}
    found = (
        TornPage(path.removeprefix(root), page)
        for path, number in model.paths(state.names).items()
        if number in choices and path.startswith(root) and classify(path) is FileClass.RELATION
        for page in _torn(model.files[number], choices[number], base, logged)
    )
    return list(islice(found, PAGES_MAX))


def _torn(file: FileHistory, choice: FileChoice, base: ReadBytes, logged: ReadBytes) -> Iterator[int]:
    per_page = PAGE_BYTES // file.unit_bytes
    chosen = dict(choice.versions)
    for page in sorted({unit // per_page for unit in chosen}):
        units = range(page * per_page, (page + 1) * per_page)
        if units.stop * file.unit_bytes > choice.size:
            continue
        latest = max(chosen.get(unit, DURABLE) for unit in units)
        for unit in units:
            held = chosen.get(unit, DURABLE)
            then = max((at for at, _ in file.versions.get(unit, ()) if at <= latest), default=DURABLE)
            if held == then:
                continue
            old, new = (file.version(unit, position, choice.cuts) for position in (held, then))
            if bytes_of(file, old, base, logged) != bytes_of(file, new, base, logged):
                yield page
                break


def bytes_of(file: FileHistory, content: Content, base: ReadBytes, logged: ReadBytes) -> bytes:
    """Return the bytes of a unit's content."""
    found = bytearray(file.unit_bytes)
    for start, end, source, offset, _ in content.extents:
        length = end - start
        part = base(file.number, offset, length) if source == BASE else logged(source, offset, length)
        found[start : start + len(part)] = part
    return bytes(found)
