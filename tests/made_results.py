"""Results made by hand, for tests of what is told about them."""

from dataclasses import replace
from pathlib import Path

from crashlab.contract import contract_for
from crashlab.errors import CrashlabError
from crashlab.evidence import RecoveredWith, ServerFacts
from crashlab.model import (
    AsyncWindow,
    Counts,
    CrashClass,
    Family,
    Finding,
    Injection,
    Outcome,
    PromiseStatus,
    Verdict,
)
from crashlab.profile import load_profile
from crashlab.results import ProfileFacts, ProfileResult, RunResult, TrialResult, trial_name

FACTS = ServerFacts(
    kind="local",
    version="18.6",
    version_num=180006,
    source="/opt/postgres/bin",
    initdb=[],
    requested={"fsync": "off"},
    settings={"fsync": "off"},
)
LOSS = Finding(
    code="LOSS-ASYNC-WINDOW",
    family=Family.LOSS,
    permitted=True,
    summary="17 asynchronous commits are missing",
    explanation="They were acknowledged before the walwriter wrote them; nothing newer survived.",
    timeline=["-187.6 ms  client 1 was told that 801 is committed", "0 ms  kill -9 of all", "801 is not there"],
    count=17,
    evidence={"first": 801},
)
HOLE = Finding(
    code="CORRUPT-HOLE",
    family=Family.CORRUPTION,
    permitted=False,
    summary='transaction 7 is missing, 9 is there: "\x00[bold]"',
    explanation="Transaction 9 committed after 7: <b>&amp; \x1b[31mred",
    timeline=["7 was acknowledged", "9 was acknowledged <later>"],
    count=1,
    evidence={"place": "transactions"},
)
KILL = Injection(
    kind="kill",
    target="all",
    pid=123,
    pids=[123, 124],
    confirmed=True,
    proof=["pid 123 ended by signal 9"],
    crashes_server=True,
    bounds_window=True,
    acked_before=812,
    ledger_position=2000,
    at_ns=1,
)


def trial(
    number: int,
    outcome: Outcome,
    promise: PromiseStatus | None,
    *findings: Finding,
    lost: int = 0,
    error: str | None = None,
    window: AsyncWindow | None = None,
) -> TrialResult:
    """A trial with the given judgement, 812 acknowledged transactions and a kill of everything."""
    folder = Path("out/profile") / trial_name(number)
    return TrialResult(
        trial=number,
        seed=1000 + number,
        verdict=Verdict(
            outcome=outcome,
            promise=promise,
            findings=list(findings),
            counts=Counts(acked=812, lost=lost, indeterminate=4),
            window=window,
        ),
        injections=[KILL],
        seconds={"total": 0.7},
        folder=folder,
        kept_data=None,
        server=FACTS,
        contract=contract_for(FACTS.settings, CrashClass.PROCESS_CRASH),
        error=error,
    )


def intact(number: int = 0) -> TrialResult:
    """Everything is there."""
    return trial(number, Outcome.INTACT, PromiseStatus.KEPT)


def shut_down(made: TrialResult) -> TrialResult:
    """The trial as one whose server had shut down before it was killed."""
    return replace(made, nothing_due=True)


def recovered_by(made: TrialResult, version: str = "18.9", source: str = "/opt/newer/bin") -> TrialResult:
    """The trial as one whose crash another server recovered."""
    return replace(made, recovered_with=RecoveredWith(version=version, source=source))


def permitted_loss(number: int = 0, *, oldest_ms: float = 187.6, bound_ms: float | None = 600.0) -> TrialResult:
    """A loss that the manual allows."""
    window = AsyncWindow(lost=17, oldest_ms=oldest_ms, bound_ms=bound_ms)
    return trial(number, Outcome.LOSS, PromiseStatus.KEPT, LOSS, lost=17, window=window)


def broken(number: int = 0) -> TrialResult:
    """A hole in the commit order."""
    return trial(number, Outcome.CORRUPTION, PromiseStatus.BROKEN, HOLE, lost=1)


def void(number: int = 0) -> TrialResult:
    """Corruption where nothing was promised."""
    return trial(number, Outcome.CORRUPTION, PromiseStatus.VOID, HOLE)


def inconclusive(number: int = 0) -> TrialResult:
    """Nobody could look."""
    return trial(number, Outcome.INCONCLUSIVE, None, error="the workload acknowledged nothing")


def result(
    profile: str, *trials: TrialResult, interrupted: bool = False, stopped_by: str | None = None
) -> ProfileResult:
    """The trials of a shipped profile."""
    return ProfileResult(
        profile=ProfileFacts.of(load_profile(profile)),
        seed=42,
        server=FACTS if trials else None,
        crash_class=CrashClass.PROCESS_CRASH,
        trials=list(trials),
        interrupted=interrupted,
        stopped_by=stopped_by,
    )


def run(*profiles: ProfileResult, command: str | None = None, error: CrashlabError | None = None) -> RunResult:
    """The results of one command."""
    return RunResult(profiles=list(profiles), command=command, error=error)
