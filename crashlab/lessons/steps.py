"""How is a step of a lesson run, and what is seen in what it left?

A command is run as a learner would type it, in a process of its own, with its output where theirs is. `crashlab run`
and its like are given the attempt's seed and a folder for their evidence, so that a lesson begun by ten students is
ten different runs.
"""

import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from crashlab.errors import CrashlabError, EvidenceError
from crashlab.lessons.expectation import Value, came
from crashlab.lessons.lesson import Lesson, Observe, Step
from crashlab.lessons.readings import read
from crashlab.lessons.traces import Trace, Traces

DEMOS = Path(__file__).parent / "demos"
EXIT = "exit"
"""File of a step's folder: the code that its command ended with; written last: without it the step is not done."""
SEEDED = ("run", "record", "matrix", "explore")
INTERRUPTED = 130
ITS_OWN_INTERRUPT_S = 2.0
UNUSABLE = (2, 4)
"""Exit codes that say that nothing was looked at: wrong usage, or no server."""


class StepFailed(CrashlabError):
    """A step's command did not come to an end that anything could be read from."""


@dataclass(frozen=True)
class Seen:
    """One observation: what was read, and whether it came as expected; None: nothing was expected of it."""

    observe: Observe
    value: Value
    came: bool | None


def command_of(step: Step, folder: Path, seed: int) -> list[str]:
    """Return the words of a step's command.

    Args:
        folder: the attempt's; earlier steps are named `{name}` in the command, and lie in it.
        seed: the attempt's.
    """
    words = [word.format(lesson=folder, here=folder / step.name, seed=seed) for word in shlex.split(step.run)]
    if words[0] == "crashlab" and words[1] in SEEDED:
        words += ["--seed", str(seed)] if "--seed" not in words else []
        words += ["--out", str(folder / step.name)]
    return words


def run_step(step: Step, folder: Path, seed: int, *, output: IO[str] | None = None) -> int:
    """Run a step's command from its beginning, and return its exit code. What an earlier try left goes.

    Args:
        output: takes what the command says; None: our own stdout and stderr.

    Raises:
        StepFailed: it ended without anything to look at.
        EvidenceError: its folder cannot be made.
    """
    words = command_of(step, folder, seed)
    here = folder / step.name
    try:
        if here.exists():
            shutil.rmtree(here)
        here.mkdir(parents=True)
        for name in step.files:
            shutil.copyfile(DEMOS / name, here / name)
    except OSError as error:
        raise EvidenceError(f'could not make "{here}": {error.strerror}') from error
    code = _run(_program(words), output)
    if code == INTERRUPTED or code < 0:
        raise KeyboardInterrupt
    if code in UNUSABLE and code != step.exit:
        raise StepFailed(
            f'could not run the step "{step.name}": its command ended with exit code {code}',
            detail=shlex.join(words),
            hint="What it said stands above; crashlab doctor says what this machine can run.",
        )
    (here / EXIT).write_text(f"{code}\n", encoding="utf-8")
    return code


def is_run(step: Step, folder: Path) -> bool:
    """Say whether the evidence of a step is there."""
    return (folder / step.name / EXIT).is_file()


def traces_of(lesson: Lesson, folder: Path) -> Traces:
    """Return what the steps of a lesson left."""
    return {step.name: Trace(folder / step.name) for step in lesson.steps if is_run(step, folder)}


def observe(lesson: Lesson, folder: Path, steps: Sequence[Step] | None = None) -> Iterator[tuple[Step, list[Seen]]]:
    """Yield each step that was run with what is seen in its evidence, in order.

    Args:
        steps: only these; a later observation may compare with one of an earlier step.
    """
    known: dict[str, Value] = {}
    for step in lesson.steps:
        if not is_run(step, folder):
            return
        trace = Trace(folder / step.name)
        seen = []
        for one in step.observe:
            value = read(one.read, trace)
            seen.append(Seen(one, value, came(value, one.expect, known)))
            if one.name:
                known[one.name] = value
        if steps is None or step in steps:
            yield step, seen


def _run(command: Sequence[str], output: IO[str] | None) -> int:
    """Run a command to its end, also when interrupted: it has servers to remove, so it is asked and not killed."""
    with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT if output else None) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            try:
                process.wait(ITS_OWN_INTERRUPT_S)
            except subprocess.TimeoutExpired:  # it did not come from the terminal, which tells both
                process.send_signal(signal.SIGINT)
                process.wait()
            raise


def _program(words: Sequence[str]) -> list[str]:
    """Return what is started for a command: programs of this environment by their modules, for there may be no PATH."""
    first, *others = words
    if first in ("crashlab", "pytest"):
        return [sys.executable, "-m", first, *others]
    return [sys.executable if first == "python" else first, *others]
