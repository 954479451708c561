"""What did the crash leave beside the data, and was it allowed to?

Checks: unlogged tables and their indexes after a recovery, which must have made them anew; files in pg_twophase of
    which pg_prepared_xacts knows nothing; indexes that are not valid; relation files that no catalog names.
Does not check: what an index that is not valid holds, and what a file that nobody knows holds: both are legal after a
    crash, whatever is in them. Unlogged tables after a clean stop, which keeps them. Unlogged sequences.
Choices: the two-phase file of a transaction that is decided does no harm, for the next start removes it.

Sources: postgres-contract.md 4 (unlogged relations, orphans, prepared transactions); twophase.c
    (ProcessTwoPhaseBuffer).
"""

import re

from crashlab.model import Complaint, Observation
from crashlab.oracle.findings import WITNESSES_MAX, Findings

_DECIDED = ("committed", "aborted", "too old")
_FORK = re.compile(r"(?:_[a-z]+)?(?:\.\d+)?$")


def holds_nothing(observation: Observation, complaint: Complaint) -> bool:
    """Whether what pg_checksums complains about is a file in which anything may stand."""
    if complaint.check != "checksums":
        return False
    kinds = ("invalid index", "unknown file")
    anything = {_FORK.sub("", one.file) for one in observation.leftovers if one.kind in kinds}
    return _FORK.sub("", complaint.file or "") in anything


def check_leftovers(findings: Findings, observation: Observation) -> None:
    """Report what should not be there, and name what may be."""
    _check_unlogged(findings, observation)
    unknown = []
    for one in observation.leftovers:
        if one.kind == "invalid index":
            says = f"Index {one.name} ({one.file}, {one.size_bytes} bytes) is not valid, so nothing is said of it."
            findings.add("NOTE-INVALID-INDEX", one.name, says, files=[one.file], size_bytes=one.size_bytes)
        elif one.kind == "two-phase file" and one.detail not in _DECIDED:
            says = f'The server knows no prepared transaction of {one.file}; pg_xact says "{one.detail}" of it.'
            findings.add("CORRUPT-TWO-PHASE-FILE", "pg_twophase", says, files=[one.file], fate=one.detail)
        elif one.kind in ("unknown file", "two-phase file"):
            unknown.append(one)
    if unknown:
        size_bytes = sum(one.size_bytes for one in unknown)
        names = [one.file for one in unknown[:WITNESSES_MAX]]
        more = f" and {len(unknown) - len(names)} more" if len(unknown) > len(names) else ""
        says = f"No catalog names {', '.join(names)}{more}: {size_bytes} bytes in all."
        if observation.prepared:
            says += " The transactions that are prepared may have made some of them."
        findings.add("NOTE-FILES-LEFT", "files", says, files=names, number=len(unknown), size_bytes=size_bytes)


def _check_unlogged(findings: Findings, observation: Observation) -> None:
    if not observation.recovery.ran:
        return
    for table, rows in observation.unlogged_rows.items():
        if rows:
            says = f"Recovery empties every unlogged table, yet {table} holds {rows} rows."
            findings.add("CORRUPT-UNLOGGED", table, says, files=[observation.files.get(table)], rows=rows)
    for one in observation.leftovers:
        if one.kind == "unlogged index":
            says = f"Recovery makes the indexes of unlogged tables anew, yet {one.name} cannot be used: {one.detail}."
            findings.add("CORRUPT-UNLOGGED", one.name, says, files=[one.file], size_bytes=one.size_bytes)
