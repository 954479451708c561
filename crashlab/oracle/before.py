"""What had been broken before the fault, and so is no crash's doing?

Checks: that nothing is accused of the crash which the same checks had found before: the same table or index, by name or
    by file, whatever is wrong with it now.
Does not check: what nobody looked at before, see `recovery.before`.
Choices: a file's name changes when it is rewritten, a table's when it is renamed; either is enough.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from crashlab.model import Broken, Observation
from crashlab.oracle.findings import Findings
from crashlab.oracle.physical import mismatch, witnesses_damage

VISIBLE = "public."
"""What a relation's name goes without, where the server itself writes it."""


def tell_broken_before(findings: Findings, before: Broken) -> None:
    """Name each table and index that was broken before the fault, with what was found."""
    for complaint in before.complaints:
        if witnesses_damage(complaint):
            says = f"{complaint.check} said so before the fault: {complaint.message}."
            _add(findings, complaint.object, says, complaint.file)
    for read in before.indexes:
        _add(findings, read.index, f"It was so before the fault: {mismatch(read)}", read.file)


def without_broken_before(observation: Observation) -> Observation:
    """Return an observation that no longer speaks of what was broken before the fault."""
    known = frozenset(_names(observation.broken_before))
    if not known:
        return observation
    return replace(
        observation,
        complaints=[one for one in observation.complaints if known.isdisjoint(_either(one.object, one.file))],
        indexes=[one for one in observation.indexes if known.isdisjoint(_either(one.index, one.file))],
    )


def _names(before: Broken) -> Iterator[str]:
    for complaint in before.complaints:
        if witnesses_damage(complaint):
            yield from _either(complaint.object, complaint.file)
    for read in before.indexes:
        yield from _either(read.index, read.file)


def _either(name: str, file: str | None) -> list[str]:
    return [name.removeprefix(VISIBLE), *([file] if file is not None else [])]


def _add(findings: Findings, name: str, says: str, file: str | None) -> None:
    findings.add("INCONCLUSIVE-BROKEN-BEFORE", name.removeprefix(VISIBLE), says, files=[file])
