"""Are the facts of a recovery found in a server's log?"""

import pytest

from crashlab.recovery.restart import read_log

CRASH_RECOVERY = """\
2026-11-20 22:00:00.000 UTC [10] LOG:  database system was interrupted; last known up at 2026-11-20 21:59:59 UTC
2026-11-20 22:00:00.010 UTC [10] LOG:  database system was not properly shut down; automatic recovery in progress
2026-11-20 22:00:00.011 UTC [10] LOG:  redo starts at 0/16EF490
2026-11-20 22:00:00.020 UTC [10] LOG:  invalid record length at 0/1807CE0: expected at least 24, got 0
2026-11-20 22:00:00.020 UTC [10] LOG:  redo done at 0/1807CB8 system usage: CPU: user: 0.00 s
2026-11-20 22:00:00.030 UTC [9] LOG:  database system is ready to accept connections
"""
CLEAN_START = """\
2026-11-20 22:00:00.000 UTC [10] LOG:  database system was shut down at 2026-11-20 21:59:59 UTC
2026-11-20 22:00:00.030 UTC [9] LOG:  database system is ready to accept connections
"""
NO_START = """\
2026-11-20 22:00:00.000 UTC [10] LOG:  database system was not properly shut down; automatic recovery in progress
2026-11-20 22:00:00.001 UTC [10] PANIC:  could not locate a valid checkpoint record at 0/16EF490
"""
LOCKED = '2026-11-20 22:00:00.000 UTC [10] FATAL:  lock file "postmaster.pid" already exists\n'


def test_crash_recovery_is_told_with_its_end_and_why() -> None:
    """Start and end of redo, and the message between them."""
    found = read_log(CRASH_RECOVERY, started=True, seconds=0.1, tool_fault=None)
    assert found.ran
    assert (found.redo_start, found.redo_end) == ("0/16EF490", "0/1807CB8")
    assert found.end_reason == "invalid record length at 0/1807CE0: expected at least 24, got 0"
    assert found.fatal == []


def test_a_clean_start_is_no_recovery() -> None:
    """The innocent twin."""
    found = read_log(CLEAN_START, started=True, seconds=0.1, tool_fault=None)
    assert not found.ran
    assert found.redo_start is None


def test_a_panic_is_the_databases_fault_and_a_lock_file_is_not() -> None:
    """PANIC over the data is evidence; a lock file says nothing about the data."""
    panic = read_log(NO_START, started=False, seconds=0.1, tool_fault=None)
    assert panic.tool_fault is None
    assert "checkpoint record" in panic.fatal[0]
    locked = read_log(LOCKED, started=False, seconds=0.1, tool_fault=None)
    assert locked.tool_fault is not None


DIED = """\
2026-11-20 22:00:00.001 UTC [10] LOG:  redo starts at 0/16EF490
2026-11-20 22:00:00.002 UTC [9] LOG:  startup process (PID 10) was terminated by signal {signal}: {name}
2026-11-20 22:00:00.002 UTC [9] LOG:  aborting startup due to startup process failure
"""


@pytest.mark.parametrize(
    ("signal", "name", "its_own"),
    [(11, "Segmentation fault", True), (6, "Aborted", True), (9, "Killed", False), (7, "Bus error", False)],
)
def test_a_startup_process_that_dies_of_itself_is_the_servers_fault(signal: int, name: str, its_own: bool) -> None:
    """One that was killed from outside says nothing about the data: its death is named as the tool's fault."""
    text = DIED.format(signal=signal, name=name)
    for hung in (None, "the server did not become ready within 60 s"):
        found = read_log(text, started=False, seconds=0.1, tool_fault=hung)
        assert (found.tool_fault is None) == its_own
        assert len(found.fatal) == its_own
    found = read_log(text, started=False, seconds=0.1, tool_fault=None)
    assert f"was terminated by signal {signal}: {name}" in (found.fatal[0] if its_own else found.tool_fault or "")


def test_a_full_disk_stays_the_reason_for_an_abort() -> None:
    """PANIC over no space is an abort, too."""
    text = "[10] PANIC:  could not write to file: No space left on device\n" + DIED.format(signal=6, name="Aborted")
    assert "No space left" in (read_log(text, started=False, seconds=0.1, tool_fault=None).tool_fault or "")


def test_silence_is_no_evidence() -> None:
    """A server that ended without a word is not accused."""
    assert read_log("", started=False, seconds=0.1, tool_fault=None).tool_fault is not None


def test_a_lost_control_file_is_told_though_it_is_not_fatal() -> None:
    """The server says so before it has a log; a file that it may not read is no damage."""
    says = 'postgres: could not find the database system\nExpected to find it in the directory "d",\n'
    says += 'but could not open file "d/global/pg_control": '
    lost = read_log(f"{says}No such file or directory\n", started=False, seconds=0.1, tool_fault=None)
    assert lost.tool_fault is None
    assert "global/pg_control" in lost.fatal[0]
    locked = read_log(f"{says}Permission denied\n", started=False, seconds=0.1, tool_fault=None)
    assert "Permission denied" in (locked.tool_fault or "")
