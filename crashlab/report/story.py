"""How is one finding told, in three lengths and with the same words everywhere?

One line says what is wrong. A paragraph says why it is, and what was promised. A timeline says what happened, in
order, to the first witness. Console, JUnit and HTML take all of it from here; the JSON report has the finding itself.
"""

import re
from dataclasses import dataclass
from enum import IntEnum

from crashlab.model import Family, Finding
from crashlab.results import TrialResult

_NOT_TEXT = re.compile("[^\t\n\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Length(IntEnum):
    """How much is told of a finding."""

    LINE = 0
    PARAGRAPH = 1
    TIMELINE = 2


@dataclass(frozen=True, kw_only=True)
class Story:
    """One finding in words; every text is printable."""

    code: str
    grade: str  # "loss, permitted"; a note or something inconclusive is neither permitted nor forbidden
    line: str
    paragraph: str
    timeline: tuple[str, ...]


def story(finding: Finding) -> Story:
    """Return what is told of a finding."""
    graded = finding.family not in (Family.NOTE, Family.INCONCLUSIVE)
    grade = f", {'permitted' if finding.permitted else 'forbidden'}" if graded else ""
    return Story(
        code=finding.code,
        grade=f"{finding.family}{grade}",
        line=" ".join(printable(finding.summary).split()),
        paragraph=printable(finding.explanation),
        timeline=tuple(printable(line) for line in finding.timeline),
    )


def follow_up(trial: TrialResult) -> list[tuple[str, str]]:
    """Return where to go on with a trial, as (label, text)."""
    steps = [("reproduce", trial.reproduce)]
    if trial.state:
        steps.insert(0, ("cut at", str(trial.state)))
    if trial.kept_data:
        steps.append(("data kept in", str(trial.kept_data)))
    return [(label, printable(text)) for label, text in steps]


def printable(text: str) -> str:
    """Replace what XML cannot carry and what a terminal would obey: a server's message may quote a damaged page."""
    return _NOT_TEXT.sub("\ufffd", text)
