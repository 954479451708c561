"""What does PostgreSQL's documentation promise for these settings and this kind of crash?

A pure function from settings, as SHOW prints them, to a `Contract` whose every clause cites the manual.

Choices:
    The promise for one transaction also needs the synchronous_commit in force at its own commit, which the ledger
    has: `commit_clause`. The contract itself quotes the server's setting.
    full_page_writes=off under a process crash: the manual promises nothing either way, and a kill between the two
    halves of a page write is possible though rare. So corruption is not excluded, and losses still are.
    3 x wal_writer_delay is a soft bound: flush time and scheduling come on top of it.
    PostgreSQL relies on a disk that flushes when it says so, and on a file system whose fsync of a file also keeps the
    file's new name. Where a recorded run is cut on a weaker disk, nothing is promised.

    Corruption is excluded by more than page images: each kind of thing has a clause of its own (`sound_clause`).

Sources: postgres-contract.md 1.2, 1.3, 1.3b, 1.4, 4; the manual's pages as cited.
"""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from crashlab.errors import UsageProblem
from crashlab.model import Clause, Contract, CrashClass

GUC = "Write Ahead Log: Settings, runtime-config-wal.html#GUC-"
ASYNC = "Asynchronous Commit, wal-async-commit.html"

RELIABILITY = "Reliability, wal-reliability.html"

WEAK_DISKS = {
    "strict": "beyond PostgreSQL's contract: it relies on the file system to keep a new file's name with its fsync",
    "unordered": "beyond PostgreSQL's contract: it relies on the file system to keep names in the order they were made",
    "lying": "nothing is promised: PostgreSQL relies on a disk that has flushed what it says it has",
}
"""The disk contracts of recorded runs under which nothing is promised, and why."""

Ground = Literal["pages", "redo", "indexes", "order", "isolation", "prepared", "status", "files", "unlogged"]
"""What corruption is excluded by: each kind of thing that a crash may damage has its own protection."""
_SOUND: dict[Ground, tuple[str, str]] = {
    "unlogged": (
        "an unlogged table is emptied by a recovery, and its indexes with it",
        "CREATE TABLE, sql-createtable.html#SQL-CREATETABLE-UNLOGGED",
    ),
    "redo": (
        "a change is in the log before it is in its file, and recovery makes it again from there",
        "Write-Ahead Logging, wal-intro.html",
    ),
    "indexes": (
        "the changes of an index are in the log like those of its table, and recovery makes both again from there",
        "Write-Ahead Logging, wal-intro.html",
    ),
    "order": (
        "recovery replays the log in its order, so whole transactions survive, and no later one without the earlier",
        ASYNC,
    ),
    "isolation": (
        "only what was committed is seen, and of each transaction all or nothing",
        "Transactions, tutorial-transactions.html",
    ),
    "prepared": (
        "the state of a prepared transaction is stored on disk, and survives a crash, until it is decided",
        "PREPARE TRANSACTION, sql-prepare-transaction.html",
    ),
    "status": (
        "pg_xact and pg_multixact have no page images, but their changes are in the log, and recovery makes them again",
        RELIABILITY,
    ),
}

DEFAULTS = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "wal_writer_delay": "200ms"}
SyncMode = Literal["on", "off", "local", "remote_write", "remote_apply"]
SYNC_MODES = get_args(SyncMode)

_BOOLEANS = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
_UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1_000.0, "min": 60_000.0, "h": 3_600_000.0, "d": 86_400_000.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


def contract_for(
    settings: Mapping[str, str],
    crash_class: CrashClass,
    *,
    version_num: int = 180000,
    bounded_window: bool = True,
    disk: str = "linux",
) -> Contract:
    """Return what the documentation promises.

    Args:
        settings: as SHOW prints them: "on", "200ms", "1min". One that is not given has PostgreSQL's own default.
        version_num: server_version_num, such as 180006; it changes the wording, never the promise.
        bounded_window: False if the fault voids the 3 x wal_writer_delay bound (walwriter stopped, postmaster killed).
        disk: the disk contract of a recorded run; those of WEAK_DISKS are weaker than what PostgreSQL relies on.

    Raises:
        UsageProblem: fsync, full_page_writes, synchronous_commit or wal_writer_delay has a value without a meaning.
    """
    settings = DEFAULTS | dict(settings)
    power_loss = crash_class is CrashClass.POWER_LOSS
    fsync = _switch(settings, "fsync")
    full_page_writes = _switch(settings, "full_page_writes")
    weak_disk = power_loss and disk in WEAK_DISKS
    anything_goes = power_loss and (not fsync or weak_disk)
    window_ms = 3 * time_ms(settings["wal_writer_delay"], "wal_writer_delay", unit="ms")
    bounded = bounded_window and not anything_goes
    clauses = [
        _fsync(fsync, power_loss),
        *([Clause(setting="disk", value=disk, says=WEAK_DISKS[disk], manual=RELIABILITY)] if weak_disk else []),
        _full_page_writes(full_page_writes, power_loss, anything_goes),
        commit_clause(settings["synchronous_commit"], survives=not anything_goes),
        _window(settings["wal_writer_delay"], window_ms, bounded, version_num),
        *_side_clauses(settings, version_num, power_loss),
    ]
    return Contract(
        crash_class=crash_class,
        sync_commits_survive=not anything_goes,
        async_window_ms=window_ms if bounded else None,
        corruption_excluded=full_page_writes and not anything_goes,
        clauses=clauses,
    )


def time_ms(text: str, setting: str, *, unit: str) -> float:
    """Return the milliseconds of a time as SHOW prints it; `unit` is the setting's own, for a bare number.

    Raises:
        UsageProblem: no time with a unit that PostgreSQL knows.
    """
    match = _TIME.fullmatch(text.strip())
    factor = _UNITS_MS.get(match[2] or unit) if match else None
    if match is None or factor is None:
        raise UsageProblem(
            f'cannot read setting {setting} = "{text}" as a time',
            hint="PostgreSQL's units are us, ms, s, min, h and d.",
        )
    return float(match[1]) * factor


def _switch(settings: Mapping[str, str], name: str) -> bool:
    value = settings[name].lower()
    if value not in _BOOLEANS:
        raise UsageProblem(f'cannot tell what is promised: {name} is "{settings[name]}", neither on nor off')
    return _BOOLEANS[value]


def _fsync(on: bool, power_loss: bool) -> Clause:
    if on and power_loss:
        says = (
            "what was flushed survives the power loss, and the log is flushed before a synchronous commit is answered"
        )
    elif on:
        says = "every completed write survives the death of processes"
    elif power_loss:
        says = "nothing is promised after a power loss: loss, corruption and a failed start are all possible"
    else:
        says = "no difference while the operating system lives: every completed write survives the death of processes"
    return Clause(setting="fsync", value="on" if on else "off", says=says, manual=f"{GUC}FSYNC")


def _full_page_writes(on: bool, power_loss: bool, anything_goes: bool) -> Clause:
    if anything_goes:
        says = "a page image in the log helps only where the log survives, which is not promised here"
    elif on:
        says = "a page torn by the crash is restored from its image in the log: corruption is excluded"
    elif power_loss:
        says = "a page torn by the power loss stays torn: corruption, even silent, is possible; flushed commits survive"
    else:
        says = (
            "the manual promises nothing either way; a kill can tear a page between two 4 kB halves, which is rare; "
            "written commits survive"
        )
    return Clause(setting="full_page_writes", value="on" if on else "off", says=says, manual=f"{GUC}FULL-PAGE-WRITES")


def commit_clause(value: str, *, survives: bool, forced: bool = False) -> Clause:
    """Return what synchronous_commit promises for the commits under one of its values.

    Args:
        survives: False if nothing is promised, even for synchronous commits.
        forced: the command is flushed whatever the value: two-phase commit, DROP TABLE, CREATE DATABASE ...

    Raises:
        UsageProblem: a value without a meaning.
    """
    if value not in SYNC_MODES:
        raise UsageProblem(f'cannot tell what is promised: synchronous_commit is "{value}"')
    if not survives:
        says = "no commit is promised to survive here"
        manual = f"{GUC}SYNCHRONOUS-COMMIT"
    elif forced and value == "off":
        says = "no matter here: this kind of command is always flushed before the client is told, so it survives"
        manual = ASYNC
    elif value == "off":
        says = "the newest commits may be lost, in commit order and without corruption; each earlier one survives"
        manual = ASYNC
    else:
        says = "the log is flushed before the client is told: an acknowledged commit survives"
        manual = f"{GUC}SYNCHRONOUS-COMMIT"
    return Clause(setting="synchronous_commit", value=value, says=says, manual=manual)


def sound_clause(ground: Ground, contract: Contract) -> Clause | None:
    """Return the clause that excludes damage of this kind, where the contract excludes any; None: it says nothing.

    A process crash takes nothing that was written, whatever the settings: then the clause has no setting.
    """
    if ground in _SOUND:
        says, manual = _SOUND[ground]
        on = contract.crash_class is CrashClass.POWER_LOSS
        return Clause(setting="fsync" if on else "", value="on" if on else "", says=says, manual=manual)
    setting = "full_page_writes" if ground == "pages" else "fsync"
    return next((clause for clause in contract.clauses if clause.setting == setting), None)


def _window(value: str, window_ms: float, bounded: bool, version_num: int) -> Clause:
    if not bounded:
        says = "no bound on the age of a lost asynchronous commit"
    else:
        says = f"a lost asynchronous commit is at most three times this old, {window_ms:g} ms, and the flush on top"
        if version_num >= 170000:  # commit 1f395354d8: commits no longer wake walwriter at every full page
            says += "; from 17 on up to the whole delay is usual under load"
    return Clause(setting="wal_writer_delay", value=value, says=says, manual=ASYNC)


def _side_clauses(settings: Mapping[str, str], version_num: int, power_loss: bool) -> list[Clause]:
    """Settings that are often suspected and change nothing about the promise."""
    says = {
        "wal_sync_method": "another way to flush, the same promise",
        "wal_level": "the same promise; minimal flushes the files of new tables instead of logging them",
        "commit_delay": "microseconds that a flush waits for company, the same promise; asynchronous commits ignore it",
        "data_checksums": "damage is detected when a page is read, not prevented; empty and stale pages go unnoticed",
        "wal_log_hints": "the same promise",
        "wal_compression": "the same promise",
    }
    if settings.get("synchronous_standby_names"):
        says["synchronous_standby_names"] = "adds a wait for standbys after the local flush, the same local promise"
    if power_loss and settings.get("wal_sync_method", "").startswith("open_"):
        says["wal_sync_method"] = "every write of the log is durable when it returns, the same promise"
    if version_num >= 190000 and settings.get("data_checksums", "").startswith("inprogress"):
        says["data_checksums"] = "being switched: a crash meanwhile leaves checksums off, nothing else"
    return [
        Clause(setting=name, value=settings[name], says=text, manual=_SIDE_MANUAL.get(name, f"{GUC}{_anchor(name)}"))
        for name, text in says.items()
        if name in settings
    ]


_SIDE_MANUAL = {
    "data_checksums": "Data Checksums, checksums.html",
    "synchronous_standby_names": "Replication, runtime-config-replication.html#GUC-SYNCHRONOUS-STANDBY-NAMES",
}


def _anchor(name: str) -> str:
    return name.upper().replace("_", "-")
