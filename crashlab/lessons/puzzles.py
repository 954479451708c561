"""What is a learner asked about their own run, and is the answer right?

The answer stands nowhere: it is drawn and worked out anew from evidence and seed, each time that one is checked. A
puzzle is a function from the traces of a lesson's steps and a random stream to what the text has in braces, and the
answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from crashlab.errors import CrashlabError
from crashlab.history import ACKED, INDETERMINATE, REFUSED, UNSENT
from crashlab.lessons.lesson import Lesson
from crashlab.lessons.readings import read
from crashlab.lessons.traces import Trace, Traces
from crashlab.seeds import stream


class NothingToAsk(CrashlabError):
    """The run has not brought what its exercise is about; another seed may."""

    exit_code = 3

    def __init__(self) -> None:
        super().__init__("this run left nothing to ask about", hint="Begin the lesson anew with --again.")


@dataclass(frozen=True)
class Puzzle:
    """What was drawn for one learner."""

    answer: str
    values: dict[str, Any] = field(default_factory=dict)  # for the text; a path is told as it is typed from here

    def accepts(self, said: str) -> bool:
        """Say whether an answer is right: order, case, blanks, and commas of thousands are nobody's mistake."""
        return _words(self.answer) in (_words(said), _words(said.replace(",", "")))


PUZZLES: dict[str, Callable[..., Puzzle]] = {}


def _puzzle(function: Callable[..., Puzzle]) -> Callable[..., Puzzle]:
    PUZZLES[function.__name__.replace("_", "-")] = function
    return function


def puzzle_of(lesson: Lesson, traces: Traces, seed: int) -> Puzzle:
    """Draw a lesson's exercise from what its steps left."""
    name, *arguments = lesson.exercise.puzzle.split()
    return PUZZLES[name](traces, stream(seed, "exercise"), *arguments)


def _words(answer: str) -> list[str]:
    """Return the words of an answer, sorted: a list is separated by commas or blanks."""
    return sorted(answer.casefold().replace(",", " ").split())


def _trial(trace: Trace, rng: Random) -> dict[str, Any]:
    return rng.choice(trace.trials())


@_puzzle
def reading(traces: Traces, _: Random, step: str, *asked: str) -> Puzzle:
    """What a reading gives that the lesson did not show."""
    return Puzzle(str(read(" ".join(asked), traces[step])), {"folder": traces[step].folder})


@_puzzle
def count_of_a_trial(traces: Traces, rng: Random, step: str, key: str) -> Puzzle:
    """One count of one trial that is drawn."""
    trial = _trial(traces[step], rng)
    return Puzzle(str(trial["counts"][key]), {"trial": trial["trial"], "folder": Path(trial["folder"])})


@_puzzle
def fates(traces: Traces, rng: Random, step: str) -> Puzzle:
    """Of some transactions, of each kind of knowledge one or two: which of them must be there after the crash?"""
    trace = traces[step]
    trial = _trial(trace, rng)
    ledger = trace.ledger(trial)
    kinds: dict[int, list[int]] = {ACKED: [], REFUSED: [], INDETERMINATE: [], UNSENT: []}
    for tx in range(1, ledger.count + 1):
        if ledger.state[tx] in kinds and (ledger.wrote[tx] or ledger.state[tx] != ACKED):
            kinds[ledger.state[tx]].append(tx)
    must = rng.sample(kinds[ACKED], 3)
    rest = rng.sample(kinds[REFUSED], 1) + [tx for state in (INDETERMINATE, UNSENT) for tx in kinds[state][:1]]
    drawn = must + rest
    return Puzzle(
        " ".join(map(str, must)),
        {"transactions": ", ".join(map(str, sorted(drawn))), "folder": Path(trial["folder"])},
    )


@_puzzle
def redo(traces: Traces, rng: Random, step: str) -> Puzzle:
    """Where the recovery of one crash began or ended, as the server's own log has it."""
    trace = traces[step]
    trial = _trial(trace, rng)
    recovery = trace.observation(trial).recovery
    words, answer = rng.choice([("redo starts at", recovery.redo_start), ("redo done at", recovery.redo_end)])
    assert answer is not None
    return Puzzle(answer, {"which": words, "folder": Path(trial["folder"])})


@_puzzle
def witness(traces: Traces, _: Random, step: str, code: str, key: str) -> Puzzle:
    """What the evidence of a finding says of its first witness."""
    for trial in traces[step].trials():
        for finding in trial["findings"]:
            if finding["code"] == code:
                first = finding["evidence"]["witnesses"][0]
                return Puzzle(str(first[key]), {"tx": first["tx"], "folder": Path(trial["folder"])})
    raise NothingToAsk


@_puzzle
def in_flight(traces: Traces, rng: Random, step: str, file_class: str = "") -> Puzzle:
    """How many files, or units of one class of them, were not durable at a point where a trial cut the power."""
    from crashlab.exploration.overview import in_flight as pending_at

    trace = traces[step]
    points = sorted({trial["state"]["position"] for trial in trace.trials()})
    for point in rng.sample(points, len(points)):
        files = pending_at(trace.recording, point).files
        count = sum(file.units for file in files if file.file_class == file_class) if file_class else len(files)
        if count:
            return Puzzle(str(count), {"point": point, "recording": trace.recording.folder})
    raise NothingToAsk


@_puzzle
def torn(traces: Traces, rng: Random, step: str) -> Puzzle:
    """How many pages were torn in one crash state, of those that have any."""
    trace = traces[step]
    counted = [(trial, len(trace.observation(trial).torn_pages)) for trial in trace.trials()]
    some = [(trial, count) for trial, count in counted if count]
    if not some:
        raise NothingToAsk
    trial, count = rng.choice(some)
    return Puzzle(str(count), {"trial": trial["trial"], "folder": Path(trial["folder"])})


@_puzzle
def forced(traces: Traces, rng: Random, step: str) -> Puzzle:
    """Of some transactions with synchronous_commit off that were answered: which were flushed before that?"""
    trace = traces[step]
    trial = _trial(trace, rng)
    ledger = trace.ledger(trial)
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for tx in range(1, ledger.count + 1):
        if ledger.state[tx] == ACKED and ledger.wrote[tx] and ledger.sync[tx] == "off":
            kinds[bool(ledger.flushed[tx])].append(tx)
    if len(kinds[True]) < 2 or len(kinds[False]) < 3:
        raise NothingToAsk
    flushed, others = rng.sample(kinds[True], 2), rng.sample(kinds[False], 3)
    return Puzzle(
        " ".join(map(str, flushed)),
        {"transactions": ", ".join(map(str, sorted(flushed + others))), "folder": Path(trial["folder"])},
    )


@_puzzle
def killed_pid(traces: Traces, rng: Random, step: str) -> Puzzle:
    """Which process it was that a fault killed."""
    profile = rng.choice(traces[step].profiles)
    injection = profile["trials"][0]["injection"]
    values = {"role": injection["target"], "profile": profile["profile"], "lesson": traces[step].folder.parent}
    return Puzzle(str(injection["pid"]), values)


@_puzzle
def damaged_block(traces: Traces, _: Random, step: str) -> Puzzle:
    """In which block the server met a wrong checksum, as its log says."""
    folder = traces[step].folder
    return _said(folder / "flip.log", r"invalid page in block (\d+)", folder)


@_puzzle
def file_exists(traces: Traces, _: Random, step: str) -> Puzzle:
    """Which file recovery could not make, as the server's log says."""
    for trial in traces[step].trials():
        if trial["outcome"] == "no_start":
            folder = Path(trial["folder"])
            return _said(folder / "server.log", r'could not create file "([^"]+)": File exists', folder)
    raise NothingToAsk


@_puzzle
def checkpoints(traces: Traces, rng: Random, step: str) -> Puzzle:
    """How many checkpoints one server completed, as its log says."""
    folder = Path(_trial(traces[step], rng)["folder"])
    log = (folder / "server.log").read_text(encoding="utf-8")
    return Puzzle(str(log.count("checkpoint complete")), {"folder": folder})


@_puzzle
def wal_flushes(traces: Traces, rng: Random, *steps: str) -> Puzzle:
    """How many flushes of WAL one of several recordings holds."""
    trace = traces[rng.choice(steps)]
    return Puzzle(str(read("operations flushes wal", trace)), {"recording": trace.recording.folder})


@_puzzle
def told_ms(traces: Traces, rng: Random, step: str) -> Puzzle:
    """How long before the fault a user was told what is gone, as a failed test says."""
    told = [match for said in traces[step].failures if (match := re.search(_TOLD, said))]
    if not told:
        raise NothingToAsk
    drawn = rng.choice(told)
    return Puzzle(drawn[2], {"key": drawn[1], "folder": traces[step].folder})


@_puzzle
def names_in_flight(traces: Traces, rng: Random, step: str) -> Puzzle:
    """How many changes of names were not durable at a point where a trial cut the power."""
    from crashlab.exploration.overview import in_flight as pending_at

    trace = traces[step]
    points = sorted({trial["state"]["position"] for trial in trace.trials()})
    for point in rng.sample(points, len(points)):
        if names := len(pending_at(trace.recording, point).names):
            return Puzzle(str(names), {"point": point, "recording": trace.recording.folder})
    raise NothingToAsk


@_puzzle
def last_flush(traces: Traces, rng: Random, step: str) -> Puzzle:
    """With which operation the flush of WAL began that was the last to end by a point."""
    from crashlab.exploration.overview import in_flight as pending_at

    trace = traces[step]
    survey = trace.overview.survey
    point = rng.choice([one for one in survey.flushes[1::2] if one > survey.first])
    ended = [one for one in pending_at(trace.recording, point).flushes if one.end is not None and "pg_wal/" in one.path]
    last = max(ended, key=lambda flush: flush.end or 0)
    return Puzzle(str(last.begin), {"point": point, "recording": trace.recording.folder})


_TOLD = r"Key (\d+) was told ([\d.]+) ms before the fault"


def _said(log: Path, pattern: str, folder: Path) -> Puzzle:
    """Ask for what a log says. Raises NothingToAsk: it does not."""
    match = re.search(pattern, log.read_text(encoding="utf-8"))
    if match is None:
        raise NothingToAsk
    return Puzzle(match[1], {"folder": folder})


@_puzzle
def buffer_turns(traces: Traces, rng: Random, step: str) -> Puzzle:
    """How many times over the WAL buffers were filled, in one of the runs of the lesson's program."""
    sessions, (words, size_bytes) = rng.choice([3, 10]), rng.choice([("512kB", 512 << 10), ("4MB", 4 << 20)])
    inserted = traces[step].facts("facts.json")[f"bytes-{sessions}-{words}"]
    values = {"sessions": sessions, "wal_buffers": words, "bytes": size_bytes}
    return Puzzle(str(int(inserted) // size_bytes), values)
