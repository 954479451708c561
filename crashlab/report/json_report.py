"""How is a result told to programs?

Schema 1: one profile is an object, several are a list of them. Keys are only ever added.
Paths are absolute and without symbolic links, so that a run and each later judgement of it say the same, wherever they
are asked. `command` runs all of it again; null where nobody noted it. `async_window` is null where no asynchronous
commit was lost.
`statistics` are about the profile's trials together; what is not known is null. `matrix` is null unless the profile is
a cell of `crashlab matrix`. `redo` says which types of WAL records were replayed, for each major version.
`begun` (ISO 8601, UTC) and `machine` are about the whole run; null where nobody noted them.
`promise` is null where a trial is inconclusive; `server` is null where none came up; `injection` is the last fault,
the one that crashed the server, and `injections` are all of them. `recovered_with` are the servers that recovered, of
those that are another one than `server`; else empty. `state` is the crash state of a recorded trial.
`unfinished` is about the whole run: how many trials there are, how many were asked for (null: as many as a rule takes),
and the command that goes on; null where going on brings nothing, or where nobody noted what was asked for. Judged
again, the last profile has `damaged` if there are trials that cannot be judged: a list, with primary, detail and hint.
A profile that an error of the environment cut short has `error` with primary, detail and hint.
"""

import math
from dataclasses import asdict
from typing import Any

import msgspec

import crashlab
from crashlab.errors import CrashlabError
from crashlab.report import coverage
from crashlab.report.matrix import as_json
from crashlab.report.statistics import statistics
from crashlab.report.summary import promise, sentence, tally
from crashlab.report.window import summarise, windows
from crashlab.results import ProfileResult, RunResult, TrialResult

SCHEMA = 1


def report_bytes(run: RunResult, code: int = 0) -> bytes:
    """Return the report as one JSON document, with a final newline."""
    reports = [_profile(result, run) for result in run.profiles]
    if (error := run.error) is not None:
        reports[-1]["error"] = _error(error)
    if run.damaged:
        reports[-1]["damaged"] = [_error(one) for one in run.damaged]
    whole = reports[0] if len(reports) == 1 else reports
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _error(error: CrashlabError) -> dict[str, str | None]:
    return {"primary": error.primary, "detail": error.detail, "hint": error.hint}


def _profile(result: ProfileResult, run: RunResult) -> dict[str, Any]:
    expect = result.profile.expect
    window = summarise(windows(result))
    return {
        "schema": SCHEMA,
        "crashlab": crashlab.__version__,
        "profile": result.profile.name,
        "description": result.profile.description,
        "seed": result.seed,
        "command": run.command,
        "begun": run.begun,
        "machine": run.machine,
        "crash_class": result.crash_class,
        "server": result.server,
        "recovered_with": result.recovered_with,
        "expected": {"outcomes": expect.outcomes, "promise": expect.promise, "note": expect.note},
        "promise": promise(result),
        "verdict": sentence(result),
        "interrupted": result.interrupted,
        "stopped_by": result.stopped_by,
        "unfinished": None if run.unfinished is None else asdict(run.unfinished),
        "trials": [_trial(trial) for trial in result.trials],
        "tally": asdict(tally(result)),
        "async_window": None if window is None else asdict(window),
        "statistics": asdict(statistics(result)),
        "matrix": as_json(result),
        "redo": [coverage.as_json(one) for one in coverage.redo_coverage([result]) if one.recoveries],
    }


def _trial(trial: TrialResult) -> dict[str, Any]:
    verdict = trial.verdict
    folder = trial.folder.resolve()
    return {
        "trial": trial.trial,
        "seed": trial.seed,
        "outcome": verdict.outcome,
        "promise": verdict.promise,
        "nothing_due": trial.nothing_due,
        "acked": verdict.counts.acked,
        "lost": verdict.counts.lost,
        "indeterminate": verdict.counts.indeterminate,
        "counts": verdict.counts,
        "findings": verdict.findings,
        "injection": trial.injections[-1] if trial.injections else None,
        "injections": trial.injections,
        "state": trial.state,
        "drawn": trial.drawn,
        "held": trial.held,
        "seconds": {name: value for name, value in trial.seconds.items() if math.isfinite(value)},
        "folder": str(folder),
        "kept_data": str(trial.kept_data.resolve()) if trial.kept_data else None,
        "error": trial.error,
        "reproduce": trial.again or trial.replayed_from(folder),
    }
