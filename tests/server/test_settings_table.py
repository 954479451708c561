"""Is the shipped table of settings what servers say themselves, and is a value judged by it as a server would?"""

import msgspec
import pytest

from crashlab.server.asksettings import refusal
from crashlab.server.builds import find_build
from crashlab.server.settingstable import table, wrong_with
from tests.server.settings_table import rows_of

GUILTY = [
    ("fsync", "perhaps"),
    ("fsync", "o"),  # on, or off
    ("fsync", ""),
    ("full_page_writes", "2"),
    ("wal_level", "high"),
    ("wal_compression", "gzip"),
    ("max_wal_size", "1 parsec"),
    ("max_wal_size", "10ms"),
    ("max_wal_size", "1mb"),
    ("max_connections", "ten"),
    ("max_connections", "0"),
    ("max_connections", "10MB"),
    ("checkpoint_timeout", "1s"),
    ("checkpoint_timeout", "2d"),
    ("checkpoint_completion_target", "1.5"),
    ("data_checksums", "on"),
    ("shared_buffers", "64kB"),
    ("commit_delay", "0.1ms"),  # microseconds, without a unit
]
INNOCENT = [
    ("fsync", "off"),
    ("fsync", "TRUE"),
    ("fsync", "of"),
    ("fsync", "y"),
    ("full_page_writes", "0"),
    ("wal_level", "Replica"),
    ("wal_level", "hot_standby"),
    ("wal_compression", "on"),
    ("wal_compression", "pglz"),
    ("log_min_messages", "debug"),
    ("max_wal_size", "1GB"),
    ("max_wal_size", "0x40"),
    ("max_wal_size", " 64 MB "),
    ("max_connections", "10.4"),
    ("checkpoint_timeout", "0.5h"),
    ("checkpoint_completion_target", "1e-1"),
    ("wal_writer_delay", "10s"),
    ("bgwriter_delay", "0.05s"),
    ("log_line_prefix", "anything"),
]


@pytest.mark.parametrize(("name", "value"), GUILTY)
def test_what_no_server_takes_is_named(name, value):
    """Without a server."""
    assert wrong_with(name, value) is not None


@pytest.mark.parametrize(("name", "value"), [*INNOCENT, ("mine.own", "x"), ("of_postgresql_25", "x")])
def test_what_a_server_takes_is_let_pass(name, value):
    """So is what nobody knows."""
    assert wrong_with(name, value) is None


def test_versions_differ():
    """Without a version what one of them takes is good."""
    assert wrong_with("wal_compression", "lz4", 14) == 'must be on or off, not "lz4"'
    assert [wrong_with("wal_compression", "lz4", major) for major in (15, 18, None)] == [None] * 3


@pytest.mark.server
@pytest.mark.parametrize("cases", [GUILTY, INNOCENT], ids=["guilty", "innocent"])
def test_the_server_that_is_here_agrees(cases):
    """Every value of the lists above, asked of a build."""
    build = find_build()
    assert build is not None
    said = {(name, value): refusal(build, name, value) for name, value in cases}
    wrong = {case for case, why in said.items() if (why is None) == (cases is GUILTY)}
    assert wrong == set(), said


@pytest.mark.server
def test_the_table_is_what_the_server_that_is_here_says():
    """Name for name; of words of an enumeration a build may lack some."""
    major, rows = rows_of(None)
    if not any(major in row.majors for known in table().values() for row in known):
        pytest.skip(f"the table does not have PostgreSQL {major}")
    known = {name: row for name, some in table().items() for row in some if major in row.majors}
    assert known.keys() == rows.keys()
    for name, row in rows.items():
        assert set(row.words) <= set(known[name].words)
        assert msgspec.structs.replace(row, words=[]) == msgspec.structs.replace(known[name], majors=[major], words=[])
