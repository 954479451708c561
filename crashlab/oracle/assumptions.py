"""May this trial be judged at all?

Checks: that a fault was injected and proved, that the server crashed if it should have, that enough was acknowledged
    before, that the workload itself was sound, and that every required check looked at something.
Does not check: whether the receipts are true; that is the injectors' burden.
Choices: a check that failed because the data is damaged has witnessed that damage; it is not counted as not run.

Sources: house-rules.md 2, 3; postgres-contract.md 7.5.
"""

from collections.abc import Sequence

from crashlab.history import ACKED, History
from crashlab.ledger import SETUP_CLIENT
from crashlab.model import REQUIRED_CHECKS, Injection, Observation
from crashlab.oracle.findings import Findings
from crashlab.oracle.physical import witnesses_damage

_LOOK_AT_SOMETHING = (
    *("heap_read", "index_read", "amcheck_index", "amcheck_heap", "full_read"),
    *("visibility_map", "page_lsn", "checksums"),
)
_NEVER_RUN = "Run the trial again: evidence of another release may lack this check."
_NOTHING_THERE = "Give it something to look at: what it reads is made by the workload (workload.kinds)."
_IN_THE_LOG = "It names no reason: look into server.log, then run the trial again."
_NOTHING_ACKED = {
    "application": (
        "The test had no ledgered transaction acknowledged, so nothing could be lost.",
        "Have the test change something in a ledgered transaction (crash_ledger.transaction) before it crashes.",
    ),
    "observed": (
        "Inside the block no commit of a change was answered, so nothing of it could be lost.",
        "Have the application change something inside the block, through crash.url and not past it.",
    ),
}
"""What is told of a test instead, and advised, by its kind of trial."""


def check_run(
    findings: Findings,
    history: History,
    injections: Sequence[Injection],
    acked_min: int,
    workload_errors: Sequence[str],
    *,
    kind: str,
) -> None:
    """Say what makes the run itself worth nothing, whatever the recovered server holds."""
    if not injections:
        findings.add("INCONCLUSIVE-NO-INJECTION", "injection", "No fault was injected.")
    for injection in injections:
        if not injection.confirmed:
            says = f"The {injection.kind} of {injection.target} was sent, but nothing proves that it happened."
            findings.add(
                "INCONCLUSIVE-INJECTION-UNCONFIRMED", injection.target, says, kind=injection.kind, pid=injection.pid
            )
    acked = sum(
        state == ACKED and wrote and client != SETUP_CLIENT
        for state, wrote, client in zip(history.state, history.wrote, history.client, strict=True)
    )
    if acked < acked_min:
        workload = f"The workload was to have {acked_min} writing transactions acknowledged, and has {acked}."
        says, remedy = _NOTHING_ACKED.get(kind, (workload, ""))
        findings.add("INCONCLUSIVE-TOO-FEW-ACKS", "workload", says, remedy=remedy, acked=acked, acked_min=acked_min)
    for error in workload_errors:
        findings.add("INCONCLUSIVE-WORKLOAD-ERROR", "workload", f"A client met this error: {error}.", error=error)
    if history.truncated is not None:
        says = f"After line {history.lines} the ledger ends with {history.truncated[:80]!r}."
        findings.add("NOTE-LEDGER-TRUNCATED", "ledger", says, lines=history.lines, rest=history.truncated[:200])


def check_crash(findings: Findings, injections: Sequence[Injection], observation: Observation) -> None:
    """Hold the receipts against the server's own log."""
    should_crash = any(injection.crashes_server for injection in injections)
    if should_crash and not observation.recovery.ran:
        says = "The fault should have made the server recover, but its log shows no crash recovery."
        findings.add("INCONCLUSIVE-NO-CRASH", "server", says, targets=[injection.target for injection in injections])
    if injections and not should_crash and observation.recovery.ran:
        says = f"Only {injections[0].target} was hit, yet the whole server went through crash recovery."
        findings.add("NOTE-UNEXPECTED-RECOVERY", "server", says, targets=[i.target for i in injections])


def check_looked(findings: Findings, observation: Observation) -> None:
    """Report every check that did not look."""
    damaged = {complaint.check for complaint in observation.complaints if witnesses_damage(complaint)}
    for name in dict.fromkeys((*REQUIRED_CHECKS, *observation.checks)):
        run = observation.checks.get(name)
        if name in damaged or (observation.died is not None and run is None):
            continue  # damage kept it from its end: that is a finding of its own
        remedy = ""
        if run is None:
            reason, remedy = "was never run", _NEVER_RUN
        elif run.status == "failed":
            reason = f"failed: {run.detail}" if run.detail else "failed"
        elif run.status == "skipped" and name in REQUIRED_CHECKS:
            reason = f"was skipped: {run.detail}" if run.detail else "was skipped"
        elif run.count + run.unchanged == 0 and run.status == "ran" and name in _LOOK_AT_SOMETHING:
            reason, remedy = "looked at nothing", _NOTHING_THERE
        else:
            continue
        if run is not None and run.status != "ran" and not run.detail:
            remedy = _IN_THE_LOG
        says = f"The check {name} {reason}."
        findings.add("INCONCLUSIVE-CHECK-NOT-RUN", name, says, remedy=remedy, check=name, reason=reason)
