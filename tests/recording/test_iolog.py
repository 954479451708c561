"""Does a log read back as it was written, and does damage never pass?"""

import contextlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashlab.disk.operations import BaseFile, Kind, Operation
from crashlab.errors import RecordingError
from crashlab.recording import iolog
from crashlab.recording.decoder import Decoder
from crashlab.recording.iolog import BIND, PAGE_BYTES, START, Record

NUMBER = st.integers(0, 2**64 - 1)
RECORD = st.builds(
    Record,
    kind=st.sampled_from([*map(int, Kind), START, BIND]),
    flags=st.integers(0, 7),
    pid=st.integers(0, 2**32 - 1),
    device=NUMBER,
    inode=NUMBER,
    offset=NUMBER,
    length=NUMBER,
    payload=st.binary(max_size=300),
)
BASE = [
    BaseFile(file=1, path="pgdata", kind="dir"),
    BaseFile(file=2, path="pgdata/old", kind="file", size=11),
    BaseFile(file=3, path="tblspc0", kind="dir"),
]


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("iolog") / "io.log"


def write(log: Path, records: list[Record], *, tail: int | None = None, cut: int | None = None) -> bytes:
    """Write a log whose first page promises `tail` bytes (all), and of which `cut` bytes are there (all)."""
    body = b"".join(map(iolog.encode, records))
    whole = iolog.header(PAGE_BYTES + len(body) if tail is None else tail) + body
    log.write_bytes(whole[:cut])
    return whole


def ends(records: list[Record]) -> list[int]:
    """Return where each record ends."""
    at, found = PAGE_BYTES, []
    for record in records:
        at += len(iolog.encode(record))
        found.append(at)
    return found


def bare(record: Record) -> bytes:
    return iolog.encode(record)


@given(st.lists(RECORD, max_size=8))
def test_round_trip(log: Path, records: list[Record]) -> None:
    """Every record comes back as it was, with its place in the log."""
    write(log, records)
    read = list(iolog.records(log))
    assert list(map(bare, read)) == list(map(bare, records))
    assert [record.end for record in read] == ends(records)
    assert [record.at for record in read] == [PAGE_BYTES, *ends(records)][: len(records)]


@given(st.lists(RECORD, min_size=1, max_size=6), st.data())
def test_torn_tail(log: Path, records: list[Record], data: st.DataObject) -> None:
    """Beyond the tail, what a killed writer left: whole records count, a torn one is ignored."""
    places = [PAGE_BYTES, *ends(records)]
    tail = data.draw(st.sampled_from(places))
    cut = data.draw(st.integers(tail, places[-1]))
    write(log, records, tail=tail, cut=cut)
    assert list(map(bare, iolog.records(log))) == [
        bare(record) for record, end in zip(records, places[1:], strict=True) if end <= cut
    ]


@given(st.lists(RECORD, min_size=1, max_size=6), st.data())
def test_cut_short(log: Path, records: list[Record], data: st.DataObject) -> None:
    """A log that ends before its tail is an error before anything is read from it."""
    whole = write(log, records)
    cut = data.draw(st.integers(PAGE_BYTES, len(whole) - 1))
    log.write_bytes(whole[:cut])
    with pytest.raises(RecordingError, match="cut short"):
        next(iolog.records(log))


@given(st.lists(RECORD, min_size=1, max_size=6), st.data())
def test_flipped_bit(log: Path, records: list[Record], data: st.DataObject) -> None:
    """Any flipped bit up to the tail is an error that names the record's place; the records before it are right."""
    whole = bytearray(write(log, records))
    at = data.draw(st.integers(PAGE_BYTES, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    log.write_bytes(whole)
    begin = max(place for place in [PAGE_BYTES, *ends(records)] if place <= at)
    sound = sum(end <= begin for end in ends(records))
    reader = iolog.records(log)
    assert list(map(bare, itertools.islice(reader, sound))) == list(map(bare, records[:sound]))
    with pytest.raises(RecordingError, match=f"damaged at byte {begin}\n"):
        next(reader)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda page: b"CRASHLAB" + page[8:], "is not an I/O log"),
        (lambda page: page[:100], "is not an I/O log"),
        (lambda page: page[:8] + b"\x09" + page[9:], "version 9 is not 1"),
        (lambda page: iolog.header(PAGE_BYTES, 28, "could not write the log") + page[PAGE_BYTES:], "is void"),
        (lambda page: iolog.header(PAGE_BYTES + 20) + page[PAGE_BYTES:], "damaged at byte 4096"),
    ],
)
def test_first_page(log: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    """A first page that is not that of a sound log is an error with its reason."""
    log.write_bytes(damage(write(log, [Record(kind=START, payload=b"/bin/postgres")])))
    with pytest.raises(RecordingError, match=message):
        list(iolog.records(log))


def named(kind: int, inode: int, path: bytes, **fields: int) -> Record:
    return Record(kind=kind, device=8, inode=inode, payload=path, **fields)


def decode(log: Path, *records: Record) -> list[Operation]:
    write(log, [Record(kind=START, payload=b"/bin/postgres"), *records])
    return list(Decoder(log, BASE))


def test_an_inode_used_twice_is_two_files(log: Path) -> None:
    """File numbers follow creations, not inodes; a base file is found by its path, whatever its inode."""
    operations = decode(
        log,
        named(Kind.CREATE, 50, b"0/first", offset=0o600),
        named(Kind.WRITE, 50, b"one", length=5),
        named(Kind.RENAME, 50, b"0/first\x000/renamed"),
        named(Kind.UNLINK, 50, b"0/renamed"),
        named(Kind.CREATE, 50, b"1/second", offset=0o640),
        named(Kind.WRITE, 50, b"two", length=3),
        named(BIND, 51, b"0/old"),
        named(Kind.WRITE, 51, b"three", length=5, flags=iolog.DURABLE),
        named(Kind.FSYNC_BEGIN, 51, b"", flags=iolog.DATASYNC),
    )
    assert [
        (operation.kind.name, operation.file, operation.path or bytes(operation.data)) for operation in operations
    ] == [
        ("CREATE", 4, "pgdata/first"),
        ("WRITE", 4, b"one\0\0"),
        ("RENAME", 0, "pgdata/first"),
        ("UNLINK", 0, "pgdata/renamed"),
        ("CREATE", 5, "tblspc0/second"),
        ("WRITE", 5, b"two"),
        ("WRITE", 2, b"three"),
        ("FSYNC_BEGIN", 2, b""),
    ]
    assert [operation.position for operation in operations] == list(range(8))
    assert operations[6].durable
    assert operations[7].datasync
    assert operations[2].target == "pgdata/renamed"


def test_names_below_a_moved_directory(log: Path) -> None:
    """A directory takes its files along; a begin is joined with its end by the token."""
    before = [
        Record(kind=START, payload=b"/bin/postgres"),
        named(Kind.MKDIR, 60, b"0/d"),
        named(Kind.CREATE, 61, b"0/d/f"),
        named(Kind.RENAME, 60, b"0/d\x000/e"),
        named(Kind.EXCHANGE, 60, b"0/e\x000/old"),
        named(BIND, 61, b"0/old/f"),
    ]
    begin = named(Kind.FSYNC_BEGIN, 61, b"")
    end = named(Kind.FSYNC_END, 61, b"", offset=ends(before)[-1])
    operations = decode(log, *before[1:], begin, end, named(Kind.UNLINK, 61, b"0/old/f"))
    assert [operation.kind for operation in operations[-3:]] == [Kind.FSYNC_BEGIN, Kind.FSYNC_END, Kind.UNLINK]
    assert operations[-3].token == operations[-2].token


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (named(BIND, 70, b"0/unknown"), "does not belong to the base image"),
        (named(Kind.UNLINK, 70, b"0/unknown"), "does not belong to the base image"),
        (named(Kind.CREATE, 70, b"0/old"), "does not belong to the base image"),
        (named(Kind.WRITE, 70, b"x", length=1), "uses an unknown file"),
        (named(Kind.CREATE, 70, b"no number"), "impossible path"),
    ],
)
def test_another_base_image(log: Path, record: Record, message: str) -> None:
    """A log is never applied to an image that it did not begin with."""
    with pytest.raises(RecordingError, match=message):
        decode(log, record)


def test_nothing_recorded(log: Path) -> None:
    """A log that no program started to write is an error, not an empty recording."""
    log.unlink(missing_ok=True)
    iolog.create(log)
    assert log.stat().st_mode & 0o777 == 0o600
    with pytest.raises(RecordingError, match="nothing was recorded"):
        list(Decoder(log, BASE))
    with pytest.raises(RecordingError, match="could not create"):
        iolog.create(log)


@pytest.mark.parametrize(("lengths", "seen"), [([1, 2, 3, 3, 4], 4), (itertools.count(), 41)])
def test_the_wait_for_quiet_ends_at_the_first_standstill_or_gives_up(
    lengths: Iterable[int], seen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four looks until two agree; of a log that grows for ever as many as fit into the time, by a clock of our own."""
    now = 0
    asked = []
    following = iter(lengths)

    def sleep(seconds: float) -> None:
        nonlocal now
        now += round(seconds * 1000)

    def length(_: iolog.LogPosition) -> int:
        asked.append(next(following))
        return asked[-1]

    iolog.create(tmp_path / "io.log")
    monkeypatch.setattr(iolog, "time", SimpleNamespace(monotonic=lambda: now / 1000, sleep=sleep))
    monkeypatch.setattr(iolog.LogPosition, "bytes", length)
    with contextlib.closing(iolog.LogPosition(tmp_path / "io.log")) as position:
        position.wait_until_quiet()
    assert len(asked) == seen
