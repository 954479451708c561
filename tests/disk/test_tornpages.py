"""Are torn pages those that are half old and half new, and no others?"""

from crashlab.disk.contract import disk_contract
from crashlab.disk.model import CrashState, DiskModel, FileChoice
from crashlab.disk.operations import BaseFile, Kind, Operation
from crashlab.disk.tornpages import torn_pages
from crashlab.model import TornPage

TABLE, LOG = 3, 4
HALF = 4096
BASE = {TABLE: b"a" * 4 * HALF, LOG: bytes(2 * HALF)}
FILES = [
    BaseFile(file=1, path="pgdata", kind="dir"),
    BaseFile(file=2, path="pgdata/base", kind="dir"),
    BaseFile(file=5, path="pgdata/base/5", kind="dir"),
    BaseFile(file=6, path="pgdata/pg_wal", kind="dir"),
    BaseFile(file=TABLE, path="pgdata/base/5/200", kind="file", size=4 * HALF),
    BaseFile(file=LOG, path="pgdata/pg_wal/000000010000000000000001", kind="file", size=2 * HALF),
]


def found(writes: list[tuple[int, int, bytes]], kept: dict[int, dict[int, int]]) -> list[TornPage]:
    """Write (file, offset, data) one after the other, keep unit -> position of some files, and look."""
    model = DiskModel(FILES, disk_contract())
    for position, (file, offset, data) in enumerate(writes):
        model.apply(
            Operation(position=position, kind=Kind.WRITE, file=file, offset=offset, length=len(data), data=data)
        )
    choices = [FileChoice(file, 0, len(BASE[file]), tuple(units.items())) for file, units in kept.items()]
    state: CrashState = model.state((), choices, "chosen")
    return torn_pages(
        model,
        state,
        lambda file, offset, length: BASE[file][offset : offset + length],
        lambda position, offset, length: writes[position][2][offset : offset + length],
    )


def test_one_half_of_a_write_is_torn() -> None:
    """Half of the second page is new, the first page is whole, old or new."""
    page = b"b" * 2 * HALF
    writes = [(TABLE, 0, page), (TABLE, 2 * HALF, page)]
    assert found(writes, {TABLE: {0: 0, 1: 0, 3: 1}}) == [TornPage("base/5/200", 1)]
    assert found(writes, {TABLE: {2: 1}}) == [TornPage("base/5/200", 1)]
    assert found(writes, {TABLE: {0: 0, 1: 0}}) == []
    assert found(writes, {}) == []


def test_an_older_version_beside_a_newer_one_is_torn() -> None:
    """Both halves were written since, one twice."""
    writes = [(TABLE, 0, b"b" * 2 * HALF), (TABLE, 0, b"c" * 2 * HALF)]
    assert found(writes, {TABLE: {0: 0, 1: 1}}) == [TornPage("base/5/200", 0)]
    assert found(writes, {TABLE: {0: 0, 1: 0}}) == []
    assert found(writes, {TABLE: {0: 1, 1: 1}}) == []


def test_a_half_that_did_not_change_tears_nothing() -> None:
    """The half that was lost had the bytes of the base image, or of the write before."""
    same = b"a" * HALF + b"b" * HALF
    assert found([(TABLE, 0, same)], {TABLE: {1: 0}}) == []
    assert found([(TABLE, 0, same)], {TABLE: {0: 0}}) == [TornPage("base/5/200", 0)]
    writes = [(TABLE, 0, b"b" * 2 * HALF), (TABLE, 0, b"b" * HALF + b"c" * HALF)]
    assert found(writes, {TABLE: {0: 0, 1: 1}}) == []


def test_only_pages_of_relations_count() -> None:
    """The log has its own checks."""
    assert found([(LOG, 0, b"b" * 2 * HALF)], {LOG: {0: 0}}) == []
