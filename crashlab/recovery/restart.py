"""Does the crashed server come back, and what does its log say about it?

Assumes: the fault's receipt is there, so everything that was to die is dead.
Choices: a start that fails with the server gone is `started=False` with its FATAL and PANIC lines. So is one that does
    not end in time because the startup process stands still (`server.standstill`), with what that does. A start that
    fails for a reason outside the database, or that does not end in time while the server still works on it, names
    a tool fault: nothing can be said about the database.

Source: postgres-contract.md sections 4 and 8; the safe settings change no verdict (section 8).
"""

import re
import time

import msgspec

from crashlab.errors import ServerError, ServerTimeout, SessionRefused
from crashlab.model import Recovery
from crashlab.server import Restartable

SAFE_SETTINGS = {
    "fsync": "off",  # the page cache is all that a process crash needs; skips a sync of the whole directory
    "full_page_writes": "off",
    "wal_init_zero": "off",
    "wal_recycle": "off",
    "autovacuum": "off",
    "archive_mode": "off",
    "restart_after_crash": "off",  # a crash while reading is a finding, not to be papered over
    "bgwriter_lru_maxpages": "0",
    "checkpoint_timeout": "1d",
}
SMALL_SETTINGS = {
    "shared_buffers": "4MB",
    "wal_buffers": "64kB",
    "max_connections": "10",
    "superuser_reserved_connections": "1",
    "max_wal_senders": "0",
    "autovacuum_max_workers": "1",
    "max_worker_processes": "0",
    "max_parallel_workers_per_gather": "0",
    # In the data directory, so that nothing is left outside of it: a segment that no process maps cannot be found.
    "dynamic_shared_memory_type": "mmap",
    "min_dynamic_shared_memory": "2MB",  # from 15 on each server needs 1 MB, which would be written to a file there
    "max_files_per_process": "128",  # the postmaster tries out at each start how many it may open
    "huge_pages": "off",
    "jit": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "synchronous_commit": "off",
    # A segment that was removed would have to be written again for the next state.
    "wal_keep_size": "16GB",
}
"""For a copy that is only looked at; safe in crash recovery, where limits are not checked.

Not here, because recovery may need them as they are: max_prepared_transactions, max_locks_per_transaction,
max_replication_slots, wal_level, shared_preload_libraries.
"""
_ABOUT_DURABILITY = ("fsync", "full_page_writes", "wal_init_zero", "wal_recycle", "synchronous_commit")
LOG_LINES_MAX = 200
FATAL_MAX = 20
RECOVERY_RAN = ("automatic recovery in progress", "all server processes terminated; reinitializing")
TOOL_FAULTS = (
    "already exists",  # lock file
    "could not bind",
    "could not create any",  # sockets
    "is still in use",  # shared memory
    "No space left on device",
    "Permission denied",
    "has invalid permissions",  # the data directory
    "could not create shared memory",
    "could not map anonymous shared memory",
    "could not create semaphores",
    "Cannot allocate memory",
    "unrecognized configuration parameter",
    "invalid value for parameter",
)
REFUSALS = ("the database system is", "terminating connection", "terminating background worker")
"""FATAL messages to a client, not about the data: every attempt to connect during recovery logs one."""
_FATAL = re.compile(r"\b(FATAL|PANIC):")
_DETAIL = re.compile(r"\b(DETAIL|CONTEXT):")
_REDO_START = re.compile(r"redo starts at ([0-9A-F]+/[0-9A-F]+)")
_REDO_END = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_NO_CONTROL_FILE = "could not find the database system"
"""Said before there is a log, so without FATAL; the third line names the file and the reason."""
_LOG_MESSAGE = re.compile(r"LOG:\s+(.*)")
_STARTUP_DIED = re.compile(r"(startup process) \(PID \d+\) (was terminated by signal (\d+).*)")
"""Told without the number, which is another one in each replay."""
_OWN_SIGNALS = (4, 6, 8, 11)
"""SIGILL, SIGABRT, SIGFPE and SIGSEGV come of what a process does itself. The others are sent by somebody: the kernel
sends SIGKILL where memory runs out, and SIGBUS where a file in memory cannot grow."""


def safe_settings(major: int) -> dict[str, str]:
    """Return the settings that change no verdict on a server that goes on in its own directory."""
    return SAFE_SETTINGS | ({"io_method": "sync"} if major >= 18 else {}) | still_settings(major)


def still_settings(major: int) -> dict[str, str]:
    """Return the settings with which our own sessions write nothing: from 17 on a login can fire a trigger."""
    return {"event_triggers": "off"} if major >= 17 else {}


def copy_settings(major: int) -> dict[str, str]:
    """Return the settings that recover and read a disposable copy fast, and change no verdict."""
    settings = SAFE_SETTINGS | SMALL_SETTINGS | still_settings(major)
    if major >= 15:
        settings["recovery_prefetch"] = "off"
    if major >= 16:
        settings["reserved_connections"] = "0"
    if major >= 18:
        settings["io_method"] = "sync"
    return settings


def durable_settings(major: int) -> dict[str, str]:
    """Return the settings for a recovery that is recorded: like `copy_settings`, but all flushes and images happen."""
    return {name: value for name, value in copy_settings(major).items() if name not in _ABOUT_DURABILITY}


def recover(
    server: Restartable,
    *,
    restart: bool,
    log_position: int,
    timeout_s: float = 60.0,
    overrides: dict[str, str] | None = None,
) -> Recovery:
    """Bring the server back on the same data directory and tell how that went.

    Args:
        restart: start it anew; False: the postmaster lives and restarts by itself, or nothing crashed.
        log_position: where its log stood before the fault.
        overrides: settings of the restart; None: SAFE_SETTINGS.
    """
    begun = time.monotonic()
    tool_fault = hangs = None
    started = True
    try:
        if restart:
            if overrides is None:
                overrides = safe_settings(server.version.major)
            server.start(timeout_s=timeout_s, overrides=overrides)
        else:
            server.wait_ready(timeout_s)
    except SessionRefused:
        started = False  # the log holds the reason
    except ServerTimeout as error:
        started = False
        if error.hangs is None:
            tool_fault = error.primary
        else:
            hangs = f"{error.primary}: {error.hangs}"
    except ServerError as error:
        started = False
        if server.running():
            tool_fault = error.primary
    seconds = time.monotonic() - begun
    text = server.log_since(log_position)
    if hangs is None:
        return read_log(text, started=started, seconds=seconds, tool_fault=tool_fault)
    told = read_log(text, started=True, seconds=seconds, tool_fault=None)  # it left no last words
    return msgspec.structs.replace(told, started=False, fatal=[hangs])


def read_log(text: str, *, started: bool, seconds: float, tool_fault: str | None) -> Recovery:
    """Find the facts about a recovery in the server's log since the fault."""
    lines = text.splitlines()
    fatal = [] if started else _last_words(lines)
    died = None if started else _STARTUP_DIED.search(text)
    death = "" if died is None else f"{died[1]} {died[2].strip()}"
    if died is not None and int(died[3]) in _OWN_SIGNALS:
        fatal.append(death)
        tool_fault = None  # such as that its postmaster hung after that: it can (postgres-contract.md section 3)
    elif died is not None and not fatal and tool_fault is None:
        tool_fault = death
    if not started and tool_fault is None:
        tool_fault = next((line.strip() for line in fatal for fault in TOOL_FAULTS if fault in line), None)
    if not started and not fatal and tool_fault is None:
        tool_fault = "the server ended without a FATAL or PANIC line in its log"
    redo_start, redo_end = _REDO_START.search(text), _REDO_END.search(text)
    return Recovery(
        started=started,
        ran=any(sign in text for sign in RECOVERY_RAN),
        seconds=round(seconds, 4),
        redo_start=redo_start.group(1) if redo_start else None,
        redo_end=redo_end.group(1) if redo_end else None,
        end_reason=_end_reason(lines),
        fatal=fatal,
        tool_fault=tool_fault,
        log_lines=lines[-LOG_LINES_MAX:],
    )


def redone(text: str) -> list[tuple[int, int]]:
    """Return what each recovery of a log replayed: the redo point, and the place of the last record."""
    starts, ends = _REDO_START.findall(text), _REDO_END.findall(text)
    return [(_position(start), _position(end)) for start, end in zip(starts, ends, strict=False)]


def _position(lsn: str) -> int:
    high, _, low = lsn.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def _end_reason(lines: list[str]) -> str | None:
    """Return the message between the start and the end of redo: why the WAL ended where it did."""
    inside = False
    reason = None
    for line in lines:
        if "redo starts at" in line:
            inside = True
        elif "redo done at" in line or "redo is not required" in line:
            return reason
        elif inside and (match := _LOG_MESSAGE.search(line)):
            reason = match.group(1).strip()
    return reason


def _last_words(lines: list[str]) -> list[str]:
    """Return each FATAL or PANIC message about the data, with its DETAIL, which is where the file is named."""
    found: list[str] = []
    detail_follows = False
    for number, line in enumerate(lines):
        if line.endswith(_NO_CONTROL_FILE):
            found.append(" ".join(lines[number : number + 3]))
        elif match := _FATAL.search(line):
            message = line[match.start() :].strip()
            detail_follows = not message.removeprefix("FATAL:").strip().startswith(REFUSALS)
            if detail_follows:
                found.append(message)
        elif detail_follows and (match := _DETAIL.search(line)):
            found[-1] += " " + line[match.start() :].strip()
    return list(dict.fromkeys(found))[:FATAL_MAX]
