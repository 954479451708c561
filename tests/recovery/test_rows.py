"""Rows of damaged pages: whatever they hold, they are read."""

import dataclasses
from contextlib import closing

import pytest

from crashlab.model import IndexRead, MarkerRow, Row
from crashlab.recovery import indexes
from crashlab.recovery.forced import Forced
from crashlab.recovery.rows import read_markers, read_rows

pytestmark = pytest.mark.server


def test_no_content_of_a_row_stops_the_reading(local_server):
    """NULL where no NULL can be, bytes that are no UTF-8, quotes and backslashes: all torn pages have shown them."""
    with closing(local_server.connect(autocommit=True)) as connection:
        connection.execute("CREATE CAST (bytea AS text) WITHOUT FUNCTION")
        query = """
            VALUES ('1', 1, 2, E'quote " backslash \\\\ line\\n'), (NULL, NULL, NULL, NULL),
                   ('\\x89'::bytea::text, 3, 4, '\\xff41'::bytea::text)
        """
        assert read_rows(connection, query) == [
            Row("1", 1, 2, 'quote " backslash \\ line\n'),
            Row("(null)", None, None, None),
            Row("\ufffd", 3, 4, "\ufffdA"),
        ]
        assert read_markers(connection, "VALUES (1, 2, 3), (4, NULL, NULL)") == [
            MarkerRow(1, 2, 3),
            MarkerRow(4, -1, -1),
        ]


def test_no_key_stops_the_reading_of_an_index(local_server):
    """A key that is NULL or no UTF-8 is named by its bytes."""
    with closing(local_server.connect(autocommit=True)) as connection:
        connection.execute("CREATE CAST (bytea AS text) WITHOUT FUNCTION")
        connection.execute("CREATE TABLE odd (key text)")
        connection.execute("CREATE INDEX odd_key ON odd (key)")
        connection.execute("INSERT INTO odd VALUES (NULL), ('plain'), ('\\x89'::bytea::text)")
        (index,) = indexes.of(connection, ["odd"])
        keyed = dataclasses.replace(index, key="key")
        forced = Forced(connection)
        heap = indexes.read_table(forced, keyed)
        read = indexes.read_in_order(forced, keyed, heap)
        assert isinstance(read, IndexRead)
        assert (read.heap_rows, read.index_rows, read.only_in_heap, read.only_in_index) == (3, 3, [], [])
