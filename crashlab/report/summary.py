"""What do many trials come to: counts, one sentence, one exit code?

Choices:
    A promise is broken > inconclusive > void > kept, for a profile as for a run: not looked at is not kept, nor is one
    that no trial put to the test.
    An outcome that the profile did not expect changes the sentence, never the exit code: promises do that.
    An interrupt wins over everything, as the caller asked for it; then a broken promise over an error of the
    environment, for it is a fact about the server. Judged again, a run that was cut short is judged by what it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from crashlab.model import Finding, Outcome, PromiseStatus
from crashlab.oracle.codes import CODES
from crashlab.results import ProfileResult, RunResult, TrialResult

EVERY_PROMISE_KEPT = "every promise kept"
NOTHING_DUE = "the server had shut down before it could crash: nothing was to be recovered"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Trials by outcome and promise, transactions by fate."""

    trials: int
    intact: int
    loss: int
    corruption: int
    no_start: int
    inconclusive: int
    broken: int
    void: int
    unexpected: int  # judged, with an outcome that the profile does not expect
    acked: int
    lost: int


@dataclass(frozen=True)
class DistinctFinding:
    """One code of one profile, with the first trial that shows it."""

    result: ProfileResult
    finding: Finding
    first: TrialResult
    trials: int
    witnesses: int
    places: list[str]  # what is concerned: tables, indexes; in the order in which they were met


def tally(result: ProfileResult) -> Tally:
    """Count a profile's trials."""
    verdicts = [trial.verdict for trial in result.trials]
    outcomes = [verdict.outcome for verdict in verdicts]
    promises = [verdict.promise for verdict in verdicts]
    return Tally(
        trials=len(verdicts),
        **{outcome.value: outcomes.count(outcome) for outcome in Outcome},
        broken=promises.count(PromiseStatus.BROKEN),
        void=promises.count(PromiseStatus.VOID),
        unexpected=len(unexpected(result)),
        acked=sum(verdict.counts.acked for verdict in verdicts),
        lost=sum(verdict.counts.lost for verdict in verdicts),
    )


def unexpected(result: ProfileResult) -> list[Outcome]:
    """Return the outcomes of judged trials that the profile does not expect, one a trial."""
    expected: set[str] = {*result.profile.expect.outcomes, Outcome.INCONCLUSIVE}
    return [trial.verdict.outcome for trial in result.trials if trial.verdict.outcome not in expected]


def promise(result: ProfileResult) -> str:
    """Return broken, inconclusive, void or kept, for all trials of a profile together."""
    counts = tally(result)
    if counts.broken:
        return "broken"
    if counts.inconclusive or _untested(result) == counts.trials:
        return "inconclusive"
    return "void" if counts.void else "kept"


def _untested(result: ProfileResult) -> int:
    return sum(trial.proves_nothing for trial in result.trials)


def sentence(result: ProfileResult) -> str:
    """Say in one line what a profile's trials show."""
    counts = tally(result)
    of_trials = f"of {counted(counts.trials)}"
    untested = _untested(result)
    if not counts.trials:
        parts = ["nothing ran"]
    elif counts.broken:
        parts = [f"promise broken in {counts.broken} {of_trials}"]
    elif counts.inconclusive == counts.trials:
        parts = ["no trial could be judged"]
    elif counts.void:
        parts = [f"nothing was promised in {counts.void} {of_trials}"]
    elif counts.inconclusive:
        parts = [f"promise kept in {counts.trials - counts.inconclusive} {of_trials}"]
    elif untested == counts.trials:
        parts = ["no promise was put to the test"]
    else:
        parts = [EVERY_PROMISE_KEPT]
    if untested:
        parts.append(f"in {untested} {of_trials} {NOTHING_DUE}")
    if 0 < counts.inconclusive < counts.trials:
        parts.append(f"{counts.inconclusive} {of_trials} inconclusive")
    if seen := unexpected(result):
        wanted = " or ".join(result.profile.expect.outcomes)
        parts.append(f"unexpected: expected {wanted}; saw {', '.join(sorted(set(seen)))} in {len(seen)} {of_trials}")
    if result.stopped_by:
        parts.append(f"stopped by {result.stopped_by}")
    return "; ".join(parts)


def counted(trials: int) -> str:
    """Return "1 trial" or "2 trials"."""
    return f"{trials} trial{'s' if trials != 1 else ''}"


def distinct_findings(results: Sequence[ProfileResult]) -> list[DistinctFinding]:
    """Return each code of each profile once, forbidden before permitted, then worst first."""
    distinct = [found for result in results for found in _distinct(result)]
    return sorted(distinct, key=lambda one: (one.finding.permitted, CODES[one.finding.code].rank))


def _distinct(result: ProfileResult) -> list[DistinctFinding]:
    groups: dict[tuple[str, bool], list[tuple[TrialResult, Finding]]] = {}
    for trial in result.trials:
        for finding in trial.verdict.findings:
            groups.setdefault((finding.code, finding.permitted), []).append((trial, finding))
    return [
        DistinctFinding(
            result=result,
            finding=group[0][1],
            first=group[0][0],
            trials=len({trial.trial for trial, _ in group}),
            witnesses=sum(finding.count for _, finding in group),
            places=list(dict.fromkeys(str(finding.evidence.get("place", "")) for _, finding in group)),
        )
        for group in groups.values()
    ]


def exit_code(run: RunResult) -> int:
    """Return 0, 1, 3, the error's own code, or 130; see `crashlab --help`."""
    code = evidence_code(run)
    if any(result.interrupted for result in run.profiles):
        return 130
    return code if code == 1 or run.error is None else run.error.exit_code


def evidence_code(run: RunResult) -> int:
    """Return 0, 1 or 3: what the trials say, whoever or whatever ended the run; 4: some are damaged."""
    promises = [promise(result) for result in run.profiles]
    if "broken" in promises:
        return 1
    if run.damaged:
        return run.damaged[0].exit_code
    return 3 if "inconclusive" in promises or not promises or run.error is not None else 0


CLOSING = {
    0: "No promise was broken.",
    1: "A promise was broken.",
    3: "Inconclusive: something could not be judged, or nothing ran.",
    130: "Interrupted: this is what was finished.",
}


def closing(run: RunResult, code: int) -> str:
    """Say in one sentence what a run came to, and with which exit code."""
    return f"{verdict(run, code)} (exit code {code})"


def verdict(run: RunResult, code: int) -> str:
    """Say in one sentence what a run came to."""
    said = CLOSING.get(code, "The run could not be finished.")
    if run.damaged:
        damaged = f"The evidence of {counted(len(run.damaged))} cannot be judged."
        said = f"{said} {damaged}" if code in CLOSING else damaged
    return said


def how_to_go_on(run: RunResult) -> str | None:
    """Say how much is there of a run that has not come to its end, and how to go on; None: nothing is missing."""
    missing = run.unfinished
    if missing is None:
        return None
    there = counted(missing.there) if missing.asked is None else f"{missing.there} of {counted(missing.asked)}"
    return f"Not finished, {there} so far. Go on: {missing.resume}"


def circumstances(trial: TrialResult) -> list[str]:
    """Say what of a trial was drawn for it: its settings, and how long processes were held, if they might be."""
    said = [f"{name}={value}" for name, value in trial.drawn.items()]
    if trial.held:
        times = sum(one.held for one in trial.held)
        said.append(f"held {times} times for {sum(one.milliseconds for one in trial.held):.0f} ms")
    return said
