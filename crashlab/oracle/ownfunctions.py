"""Which index may differ from its table because of a function that is not PostgreSQL's own?

PostgreSQL takes the word of whoever calls a function IMMUTABLE. One that reads a table, or the time zone of a session,
gives an index entries that no other session finds: without any crash, and to crashlab's sessions first of all.

Checks: that such an index is accused of nothing that a function computes: rows that it lacks, or has too many; and
    their order, where an operator class is somebody's own.
Does not check: whether the function is to blame. What its pages say beside is judged as of any other index.
"""

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from crashlab.model import OPERATOR_CLASS, Complaint, IndexRead, Observation
from crashlab.oracle.before import VISIBLE
from crashlab.oracle.findings import Findings
from crashlab.oracle.physical import LACKS, mismatch

ORDER = ("invariant violated", "uniqueness is violated", "could not find tuple using search from root page")
"""What it says of entries that are not where their order wants them."""

Functions = Mapping[str, list[str]]
"""As Observation.own_functions."""


def tell_own_functions(findings: Findings, observation: Observation) -> None:
    """Name each index that differs from its table and computes with somebody's own functions."""
    for name, says, file, functions in _doubtful(observation):
        says = f"{says.removesuffix('.')}. It computes with {', '.join(functions)}."
        findings.add("INCONCLUSIVE-OWN-FUNCTION", name.removeprefix(VISIBLE), says, files=[file], functions=functions)


def without_own_functions(observation: Observation) -> Observation:
    """Return an observation that no longer speaks of what such functions may have done."""
    own, life = observation.own_functions, observation.afterlife
    if life is not None and life.own_functions:
        complaints, indexes = _others(life.complaints, life.indexes, life.own_functions)
        observation = replace(observation, afterlife=replace(life, complaints=complaints, indexes=indexes))
    if not own:
        return observation
    complaints, indexes = _others(observation.complaints, observation.indexes, own)
    return replace(observation, complaints=complaints, indexes=indexes)


def _others(
    complaints: list[Complaint], indexes: list[IndexRead], own: Functions
) -> tuple[list[Complaint], list[IndexRead]]:
    return [one for one in complaints if not _of(one, own)], [
        one for one in indexes if one.agrees or one.file not in own
    ]


def _of(complaint: Complaint, own: Functions) -> bool:
    if complaint.file is None or complaint.file not in own:
        return False
    ordered = any(one.startswith(OPERATOR_CLASS) for one in own[complaint.file])
    return any(words in complaint.message for words in (LACKS, *(ORDER if ordered else ())))


def _doubtful(observation: Observation) -> Iterator[tuple[str, str, str | None, list[str]]]:
    """Go through them: name, what was found, file, functions."""
    life = observation.afterlife
    seen = [(observation.complaints, observation.indexes, observation.own_functions)]
    seen += [(life.complaints, life.indexes, life.own_functions)] if life is not None else []
    for complaints, indexes, own in seen:
        for complaint in complaints:
            if _of(complaint, own):
                assert complaint.file is not None
                yield complaint.object, complaint.message, complaint.file, own[complaint.file]
        for read in indexes:
            if not read.agrees and read.file is not None and read.file in own:
                yield read.index, mismatch(read), read.file, own[read.file]
