"""Do statements about the data that always hold still hold, and does it mean anything if one does not?

Checks: each statement after the recovery, against what it must give.
Does not check: whether a user's query is an invariant at all. It is looked at before the crash, again and again.
Choices:
    A user's query that did not hold before the crash is not judged. Nor is one that reads what a crash empties, as
    documented: unlogged tables, the statistics. What is emptied counts only if it fails.
    A loss leaves a prefix of what was acknowledged. A user's query may fail for a prefix for which nobody ever looked
    at it, such as one that asks for a least number of rows; without any other damage nothing tells that from damage.
    Where other damage was seen, what is left is no prefix, and nothing excuses a query. crashlab's own statements hold
    for every prefix, so they are always judged.

Sources: sql-createtable.html (UNLOGGED), monitoring-stats.html; wal-async-commit.html (a prefix survives).
"""

from typing import Any

from crashlab.model import Family, Invariant
from crashlab.oracle.case import Case
from crashlab.oracle.findings import Findings

USERS_OWN = "no rows"
"""What a user's own query must give, and no statement of crashlab's (`model.Invariant`)."""


def check_invariants(findings: Findings, case: Case, *, of_application: bool = False) -> None:
    """Report statements about the data that do not hold; to be called when everything else was checked.

    Args:
        of_application: whoever wrote the data is no workload whose every transaction is known to keep them.
    """
    damaged = findings.has(Family.CORRUPTION)
    observation = case.observation
    before = {invariant.name for invariant in observation.invariants_before}
    for invariant in observation.invariants_before:
        _add(findings, "INCONCLUSIVE-INVARIANT-BEFORE", invariant, "before the crash")
    prefix = findings.has(Family.LOSS) and not damaged
    for invariant in observation.invariants:
        if invariant.observed == invariant.expected or invariant.name in before:
            continue
        if emptied := _emptied(invariant, case.crashed):
            why = f"The query reads {', '.join(emptied)}, which a crash empties, as documented."
            _add(findings, "INCONCLUSIVE-INVARIANT-EMPTIED", invariant, "after the recovery", why, emptied=emptied)
        elif prefix and invariant.expected == USERS_OWN:
            why = "Acknowledged transactions are missing, so it was asked of a prefix of them."
            _add(findings, "INCONCLUSIVE-INVARIANT-PREFIX", invariant, "after the recovery", why)
        elif of_application and not damaged:
            why = "Every commit that was answered is there, so what it sees is a state between two transactions."
            _add(findings, "APPLICATION-INVARIANT", invariant, "after the recovery", why)
        else:
            _add(findings, "CORRUPT-INVARIANT", invariant, "after the recovery")


def _emptied(invariant: Invariant, crashed: bool) -> list[str]:
    """Return what a query reads that is empty now; a clean stop keeps tables, and a power cut soon after no counts."""
    return [one for one in invariant.reads_volatile if crashed or not one.startswith("unlogged ")]


def _add(findings: Findings, code: str, invariant: Invariant, when: str, why: str = "", **more: Any) -> None:
    says = f'Invariant "{invariant.name}": expected {invariant.expected}, found {invariant.observed} {when}. {why}'
    findings.add(code, invariant.name, says.rstrip(), expected=invariant.expected, observed=invariant.observed, **more)
