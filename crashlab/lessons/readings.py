"""What can be read from the evidence of a lesson's step?

A reading is named in a lesson with its arguments ("outcome loss", "counts acked"). Each is a function here, from the
traces of one step to a number or a word, and declares itself. Nothing is judged here: what is expected stands in the
lesson.
"""

import statistics
from collections.abc import Callable
from typing import Any

from crashlab.errors import UsageProblem, did_you_mean
from crashlab.lessons.expectation import Value
from crashlab.lessons.traces import Trace

READINGS: dict[str, Callable[..., Value]] = {}
NOTHING = "-"
"""Where there was nothing to read: no expectation of a number holds for it."""


def _reading(function: Callable[..., Value]) -> Callable[..., Value]:
    READINGS[function.__name__.replace("_", "-")] = function
    return function


def read(asked: str, trace: Trace) -> Value:
    """Read something. Raises UsageProblem: there is no such reading; EvidenceError: the evidence is damaged."""
    name, *arguments = asked.split()
    if name not in READINGS:
        near = did_you_mean(name, READINGS)
        raise UsageProblem(f'unknown reading "{name}"', hint=near or None)
    return READINGS[name](trace, *arguments)


@_reading
def trials(trace: Trace, profile: str = "") -> int:
    """How many crashes there were."""
    return len(trace.trials(profile))


@_reading
def outcome(trace: Trace, wanted: str, profile: str = "") -> int:
    """How many trials came to an outcome."""
    return sum(trial["outcome"] == wanted for trial in trace.trials(profile))


@_reading
def promise(trace: Trace, profile: str = "") -> str:
    """What became of the promise, over all profiles: the worst of it."""
    found = {one["promise"] for one in trace.profiles if profile in ("", one["profile"])}
    return next((str(one) for one in ("broken", None, "void", "kept") if one in found), NOTHING)


@_reading
def counts(trace: Trace, key: str, profile: str = "") -> int:
    """Sum up one of the counts of transactions: acked, lost, indeterminate, refused, unsent ..."""
    return sum(trial["counts"][key] for trial in trace.trials(profile))


@_reading
def found(trace: Trace, code: str, profile: str = "") -> int:
    """In how many trials there was a finding of a code, or of a family such as CORRUPT-*."""
    return sum(any(_is(one["code"], code) for one in trial["findings"]) for trial in trace.trials(profile))


def _is(code: str, wanted: str) -> bool:
    return code.startswith(wanted[:-1]) if wanted.endswith("*") else code == wanted


@_reading
def silent(trace: Trace) -> int:
    """In how many trials there was damage of which no error told."""
    from crashlab.oracle.code import SILENT
    from crashlab.oracle.codes import CODES

    return sum(any(CODES[one["code"]].rank == SILENT for one in trial["findings"]) for trial in trace.trials())


@_reading
def oldest_lost_ms(trace: Trace) -> Value:
    """How long before the crash the oldest lost commit was acknowledged."""
    ages = [one["async_window"]["max_ms"] for one in trace.profiles if one["async_window"]]
    return float(max(ages)) if ages else NOTHING


@_reading
def killed(trace: Trace, profile: str = "") -> int:
    """How many processes ended by the faults."""
    return sum(len(one["pids"]) for trial in trace.trials(profile) for one in trial["injections"])


@_reading
def redo_bytes(trace: Trace, profile: str = "") -> Value:
    """How much WAL recovery had to replay: median over the trials."""
    return _median([_distance(trace, trial) for trial in trace.trials(profile)])


@_reading
def recovery_ms(trace: Trace, profile: str = "") -> Value:
    """How long recovery took, from the start of the server to the first connection: median over the trials."""
    return _median([trace.observation(trial).recovery.seconds * 1000 for trial in trace.trials(profile)])


@_reading
def wal_per_commit(trace: Trace, profile: str = "") -> Value:
    """Bytes of WAL for each acknowledged transaction, over the time of the workload: median over the trials."""
    sizes: list[float | None] = []
    for trial in trace.trials(profile):
        ledger, wal = trace.ledger(trial), trace.observation(trial).wal
        begins = [lsn for lsn in ledger.insert_lsn if lsn]
        sizes.append((wal.end - min(begins)) / trial["acked"] if wal and begins and trial["acked"] else None)
    return _median(sizes)


def _distance(trace: Trace, trial: dict[str, Any]) -> float | None:
    wal = trace.observation(trial).wal
    return None if wal is None else float(wal.end - wal.redo)


def _median(values: list[float | None]) -> Value:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else NOTHING


@_reading
def operations(trace: Trace, kind: str, file_class: str) -> int:
    """How often files of a class were written, flushed or changed otherwise in a recording: writes, flushes, others."""
    from crashlab.disk.fileclass import FileClass
    from crashlab.exploration.overview import ClassTotal

    total = trace.overview.classes.get(FileClass(file_class), ClassTotal())
    return int(getattr(total, kind))


@_reading
def acks(trace: Trace) -> int:
    """How many writes were acknowledged while a run was recorded."""
    from crashlab.history import ACKED, read_ledger
    from crashlab.ledger import SETUP_CLIENT

    ledger = read_ledger(trace.recording.ledger)
    told = zip(ledger.state, ledger.wrote, ledger.client, strict=True)
    return sum(state == ACKED and wrote and client != SETUP_CLIENT for state, wrote, client in told)


@_reading
def acks_per_flush(trace: Trace) -> Value:
    """Acknowledged writes for each flush of WAL in a recording."""
    flushes = operations(trace, "flushes", "wal")
    return float(acks(trace)) / float(flushes) if flushes else NOTHING


@_reading
def fact(trace: Trace, name: str) -> Value:
    """What a program of the lesson itself wrote down, in facts.json."""
    value = trace.facts("facts.json").get(name, NOTHING)
    return value if isinstance(value, int | float | str) else NOTHING


@_reading
def torn_pages(trace: Trace) -> int:
    """How many pages of tables and indexes were torn, over all crash states."""
    return sum(len(trace.observation(trial).torn_pages) for trial in trace.trials())


@_reading
def recovered(trace: Trace, profile: str = "") -> int:
    """After how many of the faults the server's log says that crash recovery took place."""
    return sum(trace.observation(trial).recovery.ran for trial in trace.trials(profile))


@_reading
def ran(trace: Trace) -> int:
    """How many tests pytest ran."""
    return len(trace.tests)


@_reading
def failed(trace: Trace, code: str = "") -> int:
    """How many of them failed, all together or with a finding."""
    return sum(not code or f"{code}:" in said for said in trace.failures)
