"""How is a result told to GitHub Actions? One annotation for each distinct finding that makes a run fail.

Source: GitHub's "Workflow commands for GitHub Actions": one line, %, CR and LF escaped, in properties : and , too.
"""

from collections.abc import Iterator

from crashlab.model import Family
from crashlab.report.story import story
from crashlab.report.summary import counted, distinct_findings
from crashlab.results import RunResult


def annotations(run: RunResult) -> Iterator[str]:
    """Yield an ::error line for each broken promise, and a ::warning line for what could not be judged."""
    for found in distinct_findings(run.profiles):
        if found.finding.permitted and found.finding.family is not Family.INCONCLUSIVE:
            continue
        level = "warning" if found.finding.family is Family.INCONCLUSIVE else "error"
        told = story(found.finding)
        where = f"{found.result.profile.name}, {found.trials} of {counted(len(found.result.trials))}"
        yield f"::{level} title={_property(told.code)}::{_data(f'{told.line} ({where})')}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
