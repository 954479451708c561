"""What does a lesson consist of?

One TOML file each, `texts/NN-name.toml`. What is said is a `Text`, in every language; all else is there once.
A step's command is what a learner could type; where its output goes is added by `steps.py`. An observation is a reading
(`readings.py`) and what it is expected to be (`expectation.py`); nothing that is observed stands in a lesson's text.
"""

import functools
from pathlib import Path

import msgspec

from crashlab.errors import UsageProblem, did_you_mean
from crashlab.lessons.language import TEXTS, Text


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To be answered before anything is run; nobody is told whether it was right until it was seen."""

    text: Text
    choices: dict[str, Text]  # letter -> answer
    right: str


class Observe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to look at in what a command left."""

    read: str  # a reading, with its arguments
    expect: str  # as `expectation.py` has it
    text: Text
    unless: Text | None = None  # said where it did not come
    name: str = ""  # for a later expectation to compare with


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command, and what is observed in its evidence."""

    name: str  # of its folder
    text: Text
    run: str  # with {here}, its folder, {lesson}, that of all steps, and {seed}
    exit: int = 0  # the code with which it ends if all is as expected
    files: list[str] = []  # of the package's folder `demos`, copied into the step's folder before
    observe: list[Observe] = []


class Exercise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question about the learner's own run, whose answer nobody wrote down."""

    puzzle: str  # of `puzzles.py`, with its arguments
    text: Text  # with what the puzzle drew in braces
    look: str = ""  # a command that shows where to look, likewise
    hint: Text  # for who answered wrong


class Reading(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to read afterwards: of PostgreSQL's manual, or of its source."""

    manual: str = ""  # page of the manual, with its anchor
    source: str = ""  # file of PostgreSQL's source
    text: Text


class Lesson(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lesson."""

    number: int = 0  # from the file's name
    name: str = ""
    title: Text
    minutes: int
    question: Question
    steps: list[Step]
    why: Text
    exercise: Exercise
    teacher: Text
    read: list[Reading]


@functools.cache
def lessons() -> dict[int, Lesson]:
    """Return all lessons by number, ascending."""
    return {lesson.number: lesson for lesson in map(_load, sorted(TEXTS.glob("[0-9][0-9]-*.toml")))}


def find_lesson(asked: str) -> Lesson:
    """Return a lesson by number or name. Raises UsageProblem: there is none."""
    known = lessons()
    if asked.isdecimal() and int(asked) in known:
        return known[int(asked)]
    for lesson in known.values():
        if lesson.name == asked:
            return lesson
    near = did_you_mean(asked, [lesson.name for lesson in known.values()])
    raise UsageProblem(f'unknown lesson "{asked}"', hint=f"{near + ' ' if near else ''}crashlab lesson lists them.")


def _load(path: Path) -> Lesson:
    number, _, name = path.stem.partition("-")
    lesson = msgspec.toml.decode(path.read_bytes(), type=Lesson)
    return msgspec.structs.replace(lesson, number=int(number), name=name)
