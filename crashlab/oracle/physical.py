"""Did the server itself complain, and do its files agree with each other?

Checks: errors raised while everything was read, amcheck's rows and errors, index scans held against sequential
    scans, marks of the visibility map, pages from after the end of the log, checksums of a server that was stopped
    cleanly, a server that died while it was read.
Does not check: pages that are empty or stale as a whole; checksums and amcheck accept both, so only `rows` sees them.
    Free space maps; they are hints, and PostgreSQL mends them. Indexes that `index_read` names in its detail.
Choices: an SQLSTATE that speaks of the operator or of resources is no damage: the check has not looked. An internal
    error (XX000) is damage only with a text that PostgreSQL uses for damage.

Sources: postgres-contract.md 4, 6, 7.4 (unreadable page, index-heap disagreement).
"""

import re

from crashlab.model import Complaint, IndexRead, Observation
from crashlab.oracle.findings import Findings
from crashlab.oracle.leftovers import holds_nothing
from crashlab.oracle.signs import Sign, sign_of

XIDS_PER_SEGMENT = 1_048_576  # 32 pages of 8192 bytes, 4 transactions a byte

_DAMAGE_STATES = ("XX001", "XX002", "58P01", "58030", "22P01")  # the last: SIGFPE, as over a zero that cannot be one
_UNDECODABLE_STATES = ("22021", "22P02", "22P03")
_GONE_STATES = ("42P01", "3F000")
_DAMAGE_TEXTS = (
    "cache lookup failed",
    "catalog is missing",
    "could not access status of transaction",
    "could not find",
    "could not open file",
    "could not open relation",
    "could not read block",
    "corrupt",
    "failed to re-find",
    "invalid memory alloc request size",
    "invalid page",
    "is not a bloom index",
    "is not an SP-GiST index",
    "is not satisfied",
    "left-link",
    "missing chunk",
    "tuple offset out of range",
    "unexpected chunk",
    "unexpected zero page",
)
_NO_ENTRY_TEXTS = ("database subdirectory", "is not a valid data directory")
_FILE = re.compile(r"(?:base|global|pg_xact|pg_multixact|pg_tblspc|pg_twophase|pg_wal|pg_subtrans)/[\w./]+\w")
_STATUS = re.compile(r"could not access status of transaction (\d+)")
_MULTIXACT = re.compile(r"MultiXact|multixact")
ZEROED = "zeroing"
_BY_CHECK = {
    "amcheck_index": "CORRUPT-INDEX-AMCHECK",
    "amcheck_gin": "CORRUPT-INDEX-AMCHECK",
    "amcheck_heap": "CORRUPT-HEAP-AMCHECK",
    "visibility_map": "CORRUPT-VISIBILITY-MAP",
    "page_lsn": "CORRUPT-FUTURE-LSN",
    "checksums": "CORRUPT-UNREADABLE",
}
"""What a check itself found: it comes without an SQLSTATE, or as XX002 where amcheck raises it."""
LACKS = "lacks matching index tuple"
"""What amcheck says of a row whose entry, computed anew, is not in the index (verify_nbtree.c)."""
_BY_AMCHECK = {
    LACKS: "CORRUPT-INDEX-AMCHECK",
    "failed to find parent tuple for heap-only tuple": "CORRUPT-HEAP-AMCHECK",
}
"""What amcheck of an index says of damage with XX001, as if it were a page that cannot be read; every page was."""
_BY_MESSAGE = ("CORRUPT-UNREADABLE", *_BY_AMCHECK.values())
"""Codes of which the message knows more than the code does."""


def status_file(xid: int) -> str:
    """Return the file of pg_xact that holds a transaction's commit bits."""
    return f"pg_xact/{(xid & 0xFFFF_FFFF) // XIDS_PER_SEGMENT:04X}"


def files_in(text: str) -> list[str]:
    """Return the data directory's files that a server message names."""
    return list(dict.fromkeys(_FILE.findall(text)))


def witnesses_damage(complaint: Complaint) -> bool:
    """Whether a complaint speaks of the data, and not of the operator or of resources."""
    return code_of(complaint) is not None


def is_hint(message: str) -> bool:
    """Whether a message is about a page of a free space map, which the server does without."""
    return "_fsm" in message


def check_physical(findings: Findings, observation: Observation) -> None:
    """Report what the server said about its own data."""
    for complaint in observation.complaints:
        if holds_nothing(observation, complaint):
            continue
        code = code_of(complaint)
        if code is None and ZEROED in complaint.message:
            says = f"While it was read, the server warned: {complaint.message}."
            findings.add("NOTE-SERVER-WARNING", "server log", says, files=[complaint.file], warning=complaint.message)
            continue
        if code is None:
            run = observation.checks.get(complaint.check)
            if run is None or run.status != "failed":  # a failed check is reported by `assumptions`
                says = f"While {complaint.check} read {complaint.object}: {complaint.message}"
                findings.add("INCONCLUSIVE-CHECK-NOT-RUN", complaint.check, f"{says}.", object=complaint.object)
            continue
        _add_complaint(findings, code, complaint)
    _check_indexes(findings, observation)
    if observation.died is not None:
        says = f"The server accepted connections after recovery and went away while it was read: {observation.died}."
        findings.add(
            "CORRUPT-DIED-ON-READ", "server", says, files=files_in(observation.died), last_words=observation.died
        )


def _add_complaint(findings: Findings, code: str, complaint: Complaint) -> None:
    files = [complaint.file, *files_in(complaint.message)]
    status = _STATUS.search(complaint.message)
    if code == "CORRUPT-COMMIT-STATUS" and status and not any(file and file.startswith("pg_xact/") for file in files):
        files.append(status_file(int(status[1])))
    if code == "CORRUPT-MULTIXACT" and not any(file and file.startswith("pg_multixact/") for file in files):
        files.append("pg_multixact")
    state = f" (SQLSTATE {complaint.sqlstate})" if complaint.sqlstate else ""
    sign = sign_of(complaint.message, files) if code in _BY_MESSAGE else Sign()
    findings.add(
        code,
        complaint.object,
        f"While {complaint.check} read {complaint.object}, the server said: {complaint.message}{state}.",
        files=files,
        like=sign.like,
        ground=sign.ground,
        check=complaint.check,
        sqlstate=complaint.sqlstate,
        message=complaint.message,
    )


def code_of(complaint: Complaint) -> str | None:
    """Return the code of the damage that a complaint speaks of; None: it speaks of none."""
    state = complaint.sqlstate or ""
    message = complaint.message
    found = _BY_CHECK.get(complaint.check)
    if ZEROED in message:
        return None if is_hint(message) else "CORRUPT-UNREADABLE"
    if _STATUS.search(message):
        return _code_of_status(message)
    if state.startswith("XX") and _MULTIXACT.search(message):
        return "CORRUPT-MULTIXACT"
    if found and (not state or (state == "XX002" and complaint.check.startswith("amcheck"))):
        return found
    if complaint.check in ("amcheck_index", "amcheck_gin"):
        for text, code in _BY_AMCHECK.items():
            if text in message:
                return code
    if state in _DAMAGE_STATES or state in _UNDECODABLE_STATES:
        return "CORRUPT-UNREADABLE"
    if state == "XX000" and any(text in message for text in _DAMAGE_TEXTS):
        return "CORRUPT-UNREADABLE"
    if not state and any(text in message for text in (*_DAMAGE_TEXTS, *_NO_ENTRY_TEXTS)):
        return "CORRUPT-UNREADABLE"  # a session that was refused carries no SQLSTATE
    return "CORRUPT-MISSING-RELATION" if state in _GONE_STATES else None


def _code_of_status(message: str) -> str:
    """Tell by the file that is named which of the logs of transactions it is; all say the same words about it."""
    if "pg_multixact/" in message:
        return "CORRUPT-MULTIXACT"
    named = files_in(message)
    return "CORRUPT-UNREADABLE" if named and "pg_xact/" not in message else "CORRUPT-COMMIT-STATUS"


def _check_indexes(findings: Findings, observation: Observation) -> None:
    for read in observation.indexes:
        if read.agrees:
            continue
        findings.add(
            "CORRUPT-INDEX-MISMATCH",
            read.index,
            mismatch(read),
            files=[read.file, observation.files.get(read.relation)],
            relation=read.relation,
            heap_rows=read.heap_rows,
            index_rows=read.index_rows,
            only_in_heap=read.only_in_heap,
            only_in_index=read.only_in_index,
        )


def mismatch(read: IndexRead) -> str:
    """Say how an index differs from its table."""
    return (
        f"Index {read.index} returns {read.index_rows} rows and a sequential scan of {read.relation} "
        f"{read.heap_rows}; only in the table: {_keys(read.only_in_heap)}; only in the index: "
        f"{_keys(read.only_in_index)}."
    )


def _keys(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (" ..." if len(keys) > 5 else "") if keys else "none"
