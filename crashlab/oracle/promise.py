"""What do the settings promise about a finding, and what would have saved what is gone?

Choices: only the clauses that decide are told. If something makes every promise void, that alone is told; a commit is
    told by the synchronous_commit in force at its own commit, never by the server's default. Damage is told by what
    excludes it: a page by its image in the log, everything else by a clause of its own.
    After a process crash the kernel lives and has every completed write, and the disk of a recorded run is crashlab's
    own model: neither text sends a reader to look for a broken disk first.

Source: postgres-contract.md 1.1, 1.3.
"""

from collections.abc import Iterable

from crashlab.contract import Ground, commit_clause, sound_clause
from crashlab.model import Clause, CrashClass, Family
from crashlab.oracle.case import Case
from crashlab.oracle.code import FORBIDDEN_LOSS, PERMITTED_LOSS, Code

Commit = tuple[str, bool]
"""synchronous_commit at the commit; whether it was flushed before the answer."""


def is_permitted(case: Case, entry: Code) -> bool:
    """Whether the contract allows what a code says."""
    if entry.application:
        return True
    if entry.family is Family.LOSS:
        return entry.rank == PERMITTED_LOSS or not case.contract.sync_commits_survive
    if entry.family in (Family.CORRUPTION, Family.NO_START):
        return not case.contract.corruption_excluded
    return True


def promised(case: Case, entry: Code, commits: Iterable[Commit], ground: Ground) -> str:
    """Say what the manual promises about this kind of finding, a sentence a clause; nothing for a note."""
    told, last = [], ""
    for clause in _deciding(case, entry, commits, ground):
        where = f"a {clause.value} disk" if clause.setting == "disk" else f"{clause.setting} = {clause.value}"
        if clause.setting == "full_page_writes" and case.contract.crash_class is CrashClass.POWER_LOSS:
            where = f"fsync = on and {where}"
        manual = "" if clause.manual == last else f" [{clause.manual}]"
        told.append(f"{f' with {where}' if clause.setting else ''}: {clause.says}{manual}.")
        last = clause.manual
    return f"Promised for a {case.crash}{' And'.join(told)}" if told else ""


def _deciding(case: Case, entry: Code, commits: Iterable[Commit], ground: Ground) -> list[Clause]:
    if entry.application or entry.family not in (Family.LOSS, Family.CORRUPTION, Family.NO_START):
        return []
    if case.weak_spot is not None:
        return [case.weak_spot]
    if entry.family is Family.LOSS and ground != "prepared":
        clauses = [commit_clause(mode, survives=True, forced=forced) for mode, forced in commits]
        window = case.clause("wal_writer_delay") if entry.rank == PERMITTED_LOSS else None
        return [*clauses, window] if window is not None else clauses
    allowed = entry.family is not Family.LOSS and not case.contract.corruption_excluded
    clause = sound_clause("pages" if allowed else ground, case.contract)
    return [clause] if clause is not None else []


def remedy(case: Case, entry: Code, commits: Iterable[Commit]) -> str:
    """Say what would have saved what is gone, or prevented or detected what is wrong, under these settings."""
    if entry.application:
        return entry.remedy
    if entry.family is Family.LOSS and case.weak_spot is not None:
        return _saved_from(case.weak_spot, commits)
    if entry.family is Family.LOSS:
        return f"No setting does more for it, so {_suspects(case)}" if entry.rank == FORBIDDEN_LOSS else entry.remedy
    if entry.family not in (Family.CORRUPTION, Family.NO_START):
        return entry.remedy
    return f"{_prevention(case)} {entry.detection}"


def _saved_from(weak: Clause, commits: Iterable[Commit]) -> str:
    asynchronous = any(not flushed for _, flushed in commits)
    also = " together with synchronous_commit = on" if asynchronous else ""
    if weak.setting == "fsync":
        return f"fsync = on{also} would have saved it: its log would have been on disk before the client was told."
    if weak.value == "lying":
        return f"Only a disk that has flushed what it says it has{also} would have saved it; no other setting helps."
    return f"A file system that keeps names as PostgreSQL needs it, such as ext4 or xfs,{also} would have saved it."


def _prevention(case: Case) -> str:
    if case.contract.corruption_excluded:
        return f"The settings exclude it, so {_suspects(case)}"
    weak = case.weak_spot
    if weak is None:
        return "full_page_writes = on excludes it: a page that is torn is then restored from its image in the log."
    if weak.setting == "fsync":
        return "fsync = on excludes it, with full_page_writes = on."
    if weak.value == "lying":
        return "Only a disk that has flushed what it says it has excludes it; no setting does."
    return "A file system that keeps names as PostgreSQL needs it, such as ext4 or xfs, excludes it."


def _suspects(case: Case) -> str:
    """Say where to look for the fault, the likeliest place first."""
    if case.recorded:
        return (
            "look for a fault of PostgreSQL first; the disk was crashlab's model of one, so that model and the "
            "recording come next."
        )
    if case.contract.crash_class is CrashClass.PROCESS_CRASH:
        return (
            "look for a fault of PostgreSQL or of the memory first; the kernel outlived the processes and has what "
            "they wrote, so file system and disk come last."
        )
    return "look for a fault of the disk, the memory, the file system or PostgreSQL."
