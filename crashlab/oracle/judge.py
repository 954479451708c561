"""What became of the promises? From evidence to one verdict.

Choices:
    Damage that was witnessed stays witnessed, even if another check did not look or the receipt is missing. A clean
    result or a permitted loss counts only if everything was looked at; otherwise the trial is inconclusive.
    A trial that its time limit cut short is inconclusive whatever it left: the tool itself killed the server. So is one
    that met a full disk: what the server, or crashlab, could not write there is no proof of anything.
    Promise: broken by anything not permitted; void if something went wrong that is permitted because nothing was
    promised about it; kept otherwise, which includes the loss that asynchronous commit permits.

Sources: design.md "Words", "Severity"; house-rules.md 2; postgres-contract.md 7.4.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crashlab.history import (
    ACKED,
    COMMITTING_PREPARED,
    INDETERMINATE,
    PREPARED,
    PREPARING,
    REFUSED,
    ROLLING_BACK_PREPARED,
    UNSENT,
    History,
)
from crashlab.model import (
    Contract,
    Counts,
    Family,
    Finding,
    Injection,
    Observation,
    Outcome,
    PromiseStatus,
    Told,
    Verdict,
)
from crashlab.oracle.afterlife import check_afterlife
from crashlab.oracle.assumptions import check_crash, check_looked, check_run
from crashlab.oracle.before import tell_broken_before, without_broken_before
from crashlab.oracle.bystatus import read_statuses
from crashlab.oracle.case import Case
from crashlab.oracle.codes import CODES
from crashlab.oracle.commit_status import CommitLog
from crashlab.oracle.findings import Findings
from crashlab.oracle.firststart import check_first_start
from crashlab.oracle.invariants import check_invariants
from crashlab.oracle.leftovers import check_leftovers
from crashlab.oracle.objects import check_prepared, check_sequences, check_statistics
from crashlab.oracle.order import Losses, check_order
from crashlab.oracle.outside import Outsiders
from crashlab.oracle.ownfunctions import tell_own_functions, without_own_functions
from crashlab.oracle.physical import check_physical
from crashlab.oracle.rows import UNREAD, check_rows
from crashlab.oracle.serverlog import check_server_log
from crashlab.oracle.start import check_start
from crashlab.oracle.survivors import Presence, read_markers
from crashlab.oracle.survivors_again import check_survivors
from crashlab.oracle.timeline import Timeline
from crashlab.oracle.told import check_told
from crashlab.oracle.twice import check_twice
from crashlab.oracle.wal import Wal

_KEPT = (
    *("LOSS-ASYNC-WINDOW", "LOSS-ASYNC-WINDOW-EXCEEDED", "TOLD-ASYNC-COMMIT"),
    *(code for code, entry in CODES.items() if entry.application),
)
"""What breaks no promise of PostgreSQL's."""
_BAD = (Family.LOSS, Family.CORRUPTION, Family.NO_START)


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what it knows of each single transaction."""

    verdict: Verdict
    presence: Presence | None = None  # None: nobody knows who is there
    forbidden: frozenset[int] = frozenset()  # acknowledged transactions that had to be there and are not
    wal: Wal | None = None


def judge(
    history: History, contract: Contract, injections: Sequence[Injection], observation: Observation, **run: Any
) -> Verdict:
    """Return the verdict of `judge_closely`, which says what is to be known of the run."""
    return judge_closely(history, contract, injections, observation, **run).verdict


def judge_closely(
    history: History,
    contract: Contract,
    injections: Sequence[Injection],
    observation: Observation,
    *,
    acked_min: int,
    workload_errors: Sequence[str] = (),
    timed_out: str | None = None,
    kind: str = "live",
    told: Told | None = None,
) -> Judgement:
    """Judge one trial; pure.

    Args:
        history: what the clients were told.
        injections: the receipts, in the order of the faults.
        observation: what the recovered server holds.
        acked_min: fewer acknowledged writes of the workload make the trial inconclusive.
        workload_errors: what the clients met that no fault explains.
        timed_out: the trial's time was up: when, in words.
        kind: of trial (`evidence.TrialKind`): in a test the clients are an application, not a profile's workload.
        told: the application is unchanged, and writes no markers; what it told its users.
    """
    since = without_broken_before(observation)
    observation = without_own_functions(since)
    case = Case(history, contract, injections, observation)
    findings = Findings(case)
    if (early := _early(findings, history, observation, timed_out)) is not None:
        return Judgement(early)
    check_run(findings, history, injections, acked_min, workload_errors, kind=kind)
    _tell_no_crashs_doing(findings, since)
    presence: Presence | None = None
    commit_log: CommitLog | None = None
    wal: Wal | None = None
    losses = Losses()
    if check_start(findings, observation):
        check_crash(findings, injections, observation)
        check_looked(findings, observation)
        check_physical(findings, observation)
        check_leftovers(findings, observation)
        check_server_log(findings, observation)
        check_statistics(findings, observation)
        presence = _presence(findings, case) if told is None else read_statuses(findings, history, observation)
        if presence is not None:
            commit_log = CommitLog(findings, history, observation.xact_status, presence)
            commit_log.check()
            wal = Wal(findings, case, presence)
            wal.check()
        check_prepared(findings, case, presence, wal)
        if presence is not None and commit_log is not None and wal is not None:
            losses = check_order(findings, case, presence, commit_log, wal)
        elif told is None and not findings.has(Family.CORRUPTION):
            says = "The marker table was not read, so nobody knows who survived."
            findings.add("INCONCLUSIVE-CHECK-NOT-RUN", "heap_read", says, remedy=UNREAD)
        check_afterlife(findings, observation)
        check_invariants(findings, case, of_application=told is not None)
        if told is not None:
            check_told(findings, case, told, presence)
            check_twice(findings, case, told, presence)
    found = findings.finish(Timeline(case, presence, wal).tell)
    outcome = _outcome(found)
    verdict = Verdict(
        outcome=outcome,
        promise=_promise(found, outcome),
        findings=found,
        counts=_count(history, observation, presence, len(losses.forbidden)),
        window=losses.window,
    )
    return Judgement(verdict, presence, losses.forbidden, wal)


def _tell_no_crashs_doing(findings: Findings, observation: Observation) -> None:
    tell_broken_before(findings, observation.broken_before)
    tell_own_functions(findings, observation)


def _presence(findings: Findings, case: Case) -> Presence | None:
    """Tell by the marker table who is there, and hold what they wrote against what is; None: it was not read."""
    history, observation = case.history, case.observation
    if observation.marker is None:
        return None
    outsiders = Outsiders(history, observation)
    presence = read_markers(findings, history, observation.marker, outsiders.ended_inside)
    outsiders.note_ended_inside(findings)
    check_rows(findings, case, presence, outsiders)
    check_survivors(findings, history, observation, presence)
    check_sequences(findings, case, presence)
    return presence


def _early(findings: Findings, history: History, observation: Observation, timed_out: str | None) -> Verdict | None:
    """Return the verdict where there is no more to be judged: the trial was cut short, or no server ever came up."""
    if _is_cut_short(findings, observation, timed_out):
        return _untold(findings, history, observation)
    if not check_first_start(findings, observation):
        return _never_up(findings, history, observation)
    return None


def _is_cut_short(findings: Findings, observation: Observation, timed_out: str | None) -> bool:
    """Whether the trial's time was up, or a disk full: the reason is told."""
    if timed_out is not None:
        says = f"The time for this trial was up {timed_out}."
        findings.add("INCONCLUSIVE-TRIAL-TIMEOUT", "trial", says, when=timed_out)
    elif observation.disk_full is not None:
        says = f"{observation.disk_full[:1].upper()}{observation.disk_full[1:]}."
        findings.add("INCONCLUSIVE-DISK-FULL", "disk", says, said=observation.disk_full)
    return timed_out is not None or observation.disk_full is not None


def _never_up(findings: Findings, history: History, observation: Observation) -> Verdict:
    """Say why there never was a server to crash."""
    found = findings.finish(lambda place, witness: [])
    outcome = _outcome(found)
    counts = _count(history, observation, None, 0)
    return Verdict(outcome=outcome, promise=_promise(found, outcome), findings=found, counts=counts)


def _untold(findings: Findings, history: History, observation: Observation) -> Verdict:
    """Say what has been found, and nothing else: what is missing may have gone for that reason, and is no proof."""
    return Verdict(
        outcome=Outcome.INCONCLUSIVE,
        promise=None,
        findings=findings.finish(lambda place, witness: []),
        counts=_count(history, observation, None, 0),
    )


def _outcome(findings: list[Finding]) -> Outcome:
    families = {finding.family for finding in findings}
    if Family.NO_START in families:
        return Outcome.NO_START
    if Family.CORRUPTION in families:
        return Outcome.CORRUPTION
    if any(finding.family is Family.LOSS and not finding.permitted for finding in findings):
        return Outcome.LOSS
    if Family.INCONCLUSIVE in families:
        return Outcome.INCONCLUSIVE
    return Outcome.LOSS if Family.LOSS in families else Outcome.INTACT


def _promise(findings: list[Finding], outcome: Outcome) -> PromiseStatus | None:
    if outcome is Outcome.INCONCLUSIVE:
        return None
    bad = [finding for finding in findings if finding.family in _BAD]
    if any(not finding.permitted for finding in bad):
        return PromiseStatus.BROKEN
    if any(finding.code not in _KEPT for finding in bad):
        return PromiseStatus.VOID
    return PromiseStatus.KEPT


def _count(history: History, observation: Observation, presence: Presence | None, lost_forbidden: int) -> Counts:
    """Count transactions; without markers nobody knows who is lost, and none is counted as lost."""
    visible = presence.visible if presence is not None else bytes([1]) * len(history.state)
    groups = Counter(zip(history.state, history.wrote, history.flushed, visible, strict=True))

    def total(states: Sequence[int], *, wrote: int = -1, flushed: int = -1, seen: int = -1) -> int:
        wanted = (wrote, flushed, seen)
        return sum(
            number
            for (state, *flags), number in groups.items()
            if state in states and all(want in (-1, flag) for want, flag in zip(wanted, flags, strict=True))
        )

    gids = set(observation.prepared)
    in_doubt_prepared = sum(gid in gids and history.state[tx] == PREPARING for tx, gid in history.gid.items())
    present = 0 if presence is None else total((INDETERMINATE,), wrote=1, seen=1)
    return Counts(
        begun=history.count,
        acked=total((ACKED,), wrote=1),
        acked_sync=total((ACKED,), wrote=1, flushed=1),
        acked_async=total((ACKED,), wrote=1, flushed=0),
        read_only=total((ACKED,), wrote=0),
        refused=total((REFUSED,)),
        unsent=total((UNSENT,)),
        prepared=total((PREPARED, COMMITTING_PREPARED, ROLLING_BACK_PREPARED)),
        indeterminate=total((INDETERMINATE, PREPARING)),
        indeterminate_present=present + in_doubt_prepared,
        lost=total((ACKED,), wrote=1, seen=0),
        lost_forbidden=lost_forbidden,
    )
