"""Who met a full disk: in which words is it known, and which others only look like it?"""

from pathlib import Path

import pytest

from crashlab.recovery.fulldisk import full_disk

STAMP = "2026-11-26 16:48:42.170 UTC [11481] "
GUILTY = {
    "refused": (f'{STAMP}ERROR:  could not extend file "base/5/16477": No space left on device', ()),
    "panicked": (f'{STAMP}PANIC:  could not write to file "pg_wal/xlogtemp.1": No space left on device', ()),
    "its own log": (f'{STAMP}LOG:  could not write file "pg_stat/pgstat.tmp": No space left on device', ()),
    "told the client alone": ("", ["client 1: DiskFull: Auf dem Gerät ist kein Speicherplatz mehr verfügbar"]),
    "recorder": ("crashlab recorder: could not write the log: errno 28\n", ()),
}
INNOCENT = {
    "nothing": (f"{STAMP}LOG:  database system is ready", ["client 1: LockNotAvailable: canceling statement"]),
    "a statement that says so": (f"{STAMP}LOG:  statement: SELECT 'x: No space left on device'", ()),
    "another errno": ("crashlab recorder: could not write the log: errno 5\n", ()),
}


@pytest.mark.parametrize("case", GUILTY)
def test_a_full_disk_is_known_and_its_place_named(case, tmp_path):
    """The place is where the server's files are, also if they are gone already."""
    log, errors = GUILTY[case]
    said = full_disk(log, errors, tmp_path / "gone/data")
    assert said is not None
    assert str(tmp_path) in said
    assert " MB free now) was full: the " in said
    assert full_disk(log, errors, None).startswith("the server's disk was full: ")  # type: ignore[union-attr]


def test_shared_memory_is_another_place():
    """A segment does not lie with the data."""
    log = f'{STAMP}ERROR:  could not resize shared memory segment "/PostgreSQL.1" to 67 bytes: No space left on device'
    assert '"/dev/shm"' in str(full_disk(log, (), Path("/var/tmp")))


@pytest.mark.parametrize("case", INNOCENT)
def test_what_only_looks_like_it_is_none(case, tmp_path):
    """Else a trial could be talked out of its verdict."""
    assert full_disk(*INNOCENT[case], tmp_path) is None
