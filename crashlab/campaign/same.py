"""Is that the same finding again, and for the same cause?

A code alone is not enough: a lost commit may be one that the disk has lost, or one that nobody had written yet, for
which no power cut is needed; a relation may be unreadable because its file is gone, or because a page is torn.

    loss                   whether the commit's record had been written and was lost, or was never written
    what a server says     the message, without its numbers and names
    anything else          the parts of PostgreSQL whose files are named

Choices: which relation, page or transaction it is may change. Of many witnesses the first is the one that was told, so
    its cause has to be there again; another witness may have it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from crashlab.disk.fileclass import classify
from crashlab.model import Family, Finding, Verdict

_PATH = re.compile(r'"([^"]*)"')
_MORE = re.compile(r"\s+(?:DETAIL|HINT|CONTEXT):")
"""What a log adds, such as which record was being replayed."""
_NUMBER = re.compile(r"\b[0-9A-F]*\d[0-9A-F/.]*\b")


@dataclass(frozen=True)
class Same:
    """What is looked for."""

    code: str
    cause: str  # in words; empty: nothing more than the code is known of it

    def found_in(self, verdict: Verdict) -> bool:
        """Whether a verdict has it."""
        found = [one for one in verdict.findings if one.code == self.code]
        return any(not self.cause or self.cause in causes(one) for one in found)

    def other_cause_in(self, verdict: Verdict) -> bool:
        """Whether a verdict has the code, and only for another cause."""
        return any(one.code == self.code for one in verdict.findings) and not self.found_in(verdict)

    def __str__(self) -> str:
        """As a sentence has it."""
        return f"{self.code}: {self.cause}" if self.cause else self.code


def same_as(finding: Finding) -> Same:
    """Return what another finding must have to be the same."""
    return Same(finding.code, next(causes(finding), ""))


def causes(finding: Finding) -> Iterator[str]:
    """Yield the cause of each witness, that of the first one first."""
    classes = sorted({str(classify(file)) for file in finding.evidence.get("files", ())})
    for witness in finding.evidence.get("witnesses", ()):
        if finding.family is Family.LOSS:
            if "fate" in witness:
                flushed = "flushed before its answer" if witness.get("flushed") else "not flushed before its answer"
                record = "never written" if witness["fate"] == "not written" else "written and lost"
                yield f"a commit {flushed}, its record {record}"
        elif said := witness.get("message") or next(iter(witness.get("fatal") or ()), ""):
            yield _shape(said)
        elif classes:
            yield f"files of {', '.join(classes)}"


def _shape(message: str) -> str:
    """Return the first line of a message without numbers and names; of a path, what kind of file it is."""
    said = _MORE.split(message.splitlines()[0])[0]
    line = _PATH.sub(lambda match: f"({classify(match[1])})" if "/" in match[1] else "...", said)
    return _NUMBER.sub("N", line)
