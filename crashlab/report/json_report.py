"""How is a result told to programs?

Schema 1: one profile is an object, several are a list of them. Keys are only ever added.
`promise` is null where a trial is inconclusive; `server` is null where none came up; `injection` is the last fault,
the one that crashed the server, and `injections` are all of them. `state` is the crash state of a recorded trial.
A profile that an error of the environment cut short has `error` with primary, detail and hint.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

import crashlab
from crashlab.campaign.results import ProfileResult, TrialResult
from crashlab.report.summary import Failure, promise, sentence, tally

SCHEMA = 1


def report_bytes(results: Sequence[ProfileResult], failure: Failure | None = None) -> bytes:
    """Return the report as one JSON document, with a final newline."""
    reports = [_profile(result) for result in results]
    if failure is not None:
        if not results or results[-1].profile is not failure.profile:
            reports.append(_nothing_ran(failure))
        error = failure.error
        reports[-1]["error"] = {"primary": error.primary, "detail": error.detail, "hint": error.hint}
    whole = reports[0] if len(reports) == 1 else reports
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _profile(result: ProfileResult) -> dict[str, Any]:
    expect = result.profile.expect
    return {
        "schema": SCHEMA,
        "crashlab": crashlab.__version__,
        "profile": result.profile.name,
        "description": result.profile.description,
        "seed": result.seed,
        "crash_class": result.crash_class,
        "server": result.server,
        "expected": {"outcomes": expect.outcomes, "promise": expect.promise, "note": expect.note},
        "promise": promise(result),
        "verdict": sentence(result),
        "interrupted": result.interrupted,
        "stopped_by": result.stopped_by,
        "trials": [_trial(trial) for trial in result.trials],
        "tally": asdict(tally(result)),
    }


def _trial(trial: TrialResult) -> dict[str, Any]:
    verdict = trial.verdict
    return {
        "trial": trial.trial,
        "seed": trial.seed,
        "outcome": verdict.outcome,
        "promise": verdict.promise,
        "acked": verdict.counts.acked,
        "lost": verdict.counts.lost,
        "indeterminate": verdict.counts.indeterminate,
        "counts": verdict.counts,
        "findings": verdict.findings,
        "injection": trial.injections[-1] if trial.injections else None,
        "injections": trial.injections,
        "state": trial.state,
        "seconds": {name: value for name, value in trial.seconds.items() if math.isfinite(value)},
        "folder": str(trial.folder),
        "kept_data": str(trial.kept_data) if trial.kept_data else None,
        "error": trial.error,
        "reproduce": trial.reproduce,
    }


def _nothing_ran(failure: Failure) -> dict[str, Any]:
    """Return the same keys as ever, so that a reader needs no second shape."""
    return _profile(
        ProfileResult(profile=failure.profile, seed=failure.seed, server=None, crash_class=failure.profile.crash_class)
    )
