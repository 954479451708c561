"""What held right after the recovery does not hold now: was something done twice because its answer was lost?

Checks: each invariant of the test, as it was when the test asked, or as its next block began, against how the recovery
    had left it.
Does not check: what the parameters of a repeated statement were, for the observer keeps none; the invariant says that
    once would have been right. Keys that a query finds twice, which may be right: that is for an invariant, too.
Choices: a repetition is a later transaction of any connection with the same statements in the same order, whatever
    values stand in them, for a key may have been drawn anew. Blamed is the
    first that is there and was never answered; without one it is said that nobody was seen to repeat anything.

Source: design.md "Applications".
"""

from typing import Any

from crashlab.model import Invariant, Told
from crashlab.oracle.case import Case
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import Presence


def check_twice(findings: Findings, case: Case, told: Told, presence: Presence | None) -> None:
    """Report every invariant that the application broke after the recovery."""
    observation = case.observation
    held = {one.name for one in observation.invariants if one.observed == one.expected}
    doubtful = {one.name for one in observation.invariants_before}
    for invariant in told.broken_since:
        if invariant.name in held - doubtful:
            _report(findings, case, told, presence, invariant)


def _report(findings: Findings, case: Case, told: Told, presence: Presence | None, invariant: Invariant) -> None:
    says = (
        f'Invariant "{invariant.name}" held after the recovery, and does not hold now: expected {invariant.expected}, '
        f"found {invariant.observed}."
    )
    facts: dict[str, Any] = {"expected": invariant.expected, "observed": invariant.observed}
    h = case.history
    there = [int(tx) for tx in told.repeats if presence is not None and presence.visible[int(tx)]]
    if not there:
        findings.add("APPLICATION-AFTERWARDS", invariant.name, says, **facts)
        return
    tx = min(there)
    xid = f", xid {h.xid[tx]}" if h.xid[tx] else ""
    says += (
        f" Transaction (number {tx} of the ledger{xid}) on connection {h.client[tx]} is there, and its client never "
        f"heard so; {told.repeats[str(tx)]} asked for the same later, its values aside."
    )
    findings.add("APPLICATION-DONE-TWICE", invariant.name, says, tx=tx, client=h.client[tx], xid=h.xid[tx], **facts)
