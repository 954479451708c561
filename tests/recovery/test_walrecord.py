"""Is the WAL record that ends at an LSN found, also across pages, and nothing else taken for one?"""

import struct
from pathlib import Path

import pytest

from crashlab.recovery.wal import directory, read_control
from crashlab.recovery.walpages import Cluster
from crashlab.recovery.walrecord import RecordHead, record_before
from crashlab.server import ServerSpec, create_server

PAGE, SEGMENT = 8192, 1 << 20
CLUSTER = Cluster(17, 7, PAGE, SEGMENT, 1)
NAME = "pg_wal/000000010000000000000003"
FIRST = 3 * SEGMENT


def wal(*lengths: int) -> tuple[bytes, list[tuple[int, int]]]:
    """Return a file with records of these lengths in a row, and (start, end) of each as PostgreSQL gives them."""
    stream, marks, before = b"", [], 0

    def at(offset: int) -> int:
        """Where a byte of the stream of records stands."""
        first = PAGE - 40
        if offset < first:
            return FIRST + 40 + offset
        page, rest = divmod(offset - first, PAGE - 24)
        return FIRST + (page + 1) * PAGE + 24 + rest

    for number, length in enumerate(lengths):
        start = at(len(stream))
        head = struct.pack("<IIQBBxxI", length, 700 + number, before, 0x10, 10, 0)
        stream += (head + b"x" * (length - 24)).ljust(-(-length // 8) * 8, b"\0")
        before = start
        last = at(len(stream) - 1) + 1
        marks.append((start, last))
    file = bytearray(SEGMENT)
    for offset, byte in enumerate(stream):
        file[at(offset) - FIRST] = byte
    return bytes(file), marks


@pytest.mark.parametrize("length", [8136, 8128, 8120, 9000, 30000, 100])
def test_a_record_is_found_by_its_end(length):
    """Within a page, across pages, and where it ends with the page or its successor's header is cut in two."""
    file, marks = wal(40, length, 64, 64)
    part = lambda name, offset, count: file[offset : offset + count] if name == NAME else b""  # noqa: E731
    for number, (start, end) in enumerate(marks[:-1]):
        assert record_before(CLUSTER, part, end) == RecordHead(start, 700 + number, 10, 0x10)


def test_where_no_record_ends_none_is_named():
    """Eight bytes off, beyond the last, and in a file that is not there."""
    file, marks = wal(40, 64, 64)
    part = lambda name, offset, count: file[offset : offset + count] if name == NAME else b""  # noqa: E731
    assert record_before(CLUSTER, part, marks[0][1] + 8) is None
    assert record_before(CLUSTER, part, marks[-1][1]) is None
    assert record_before(CLUSTER, part, FIRST + 40 * SEGMENT + 64) is None


@pytest.mark.server
def test_the_record_of_a_real_server_is_named(tmp_path: Path) -> None:
    """The insert of a row, by the LSN that the server itself gives, is of the heap and of its transaction."""
    with create_server(ServerSpec()) as server:
        server.start()
        with server.connect(autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pageinspect; CREATE TABLE t (n integer); INSERT INTO t VALUES (1)")
            connection.execute("INSERT INTO t VALUES (2)")  # the page is in the log as a whole already
            row = connection.execute(
                "SELECT lsn - '0/0'::pg_lsn, (SELECT xmin::text FROM t WHERE n = 2)"
                " FROM page_header(get_raw_page('t', 0))"
            ).fetchone()
            assert row is not None
            connection.execute("CHECKPOINT")
        server.kill_all()
        with server.files_at_rest(["pg_wal", "global/pg_control", "PG_VERSION"]) as folder:
            part = directory(folder)
            control = read_control(part)
            assert control is not None
            head = record_before(control[0], part, int(row[0]))
    assert head is not None
    assert (head.manager, head.info, str(head.xid)) == (10, 0, row[1])
    assert "of Heap, info 0x00, transaction" in str(head)
