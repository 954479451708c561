"""What is one kind of finding?"""

from dataclasses import dataclass

from crashlab.contract import Ground
from crashlab.model import Family

SEVERITIES = (
    "the server does not start",
    "silent corruption",
    "loud corruption",
    "forbidden loss",
    "not looked",
    "permitted loss",
    "note",
)
"""What a rank means, worst first."""
NO_START_RANK, SILENT, LOUD, FORBIDDEN_LOSS, NOT_LOOKED, PERMITTED_LOSS, NOTED = range(len(SEVERITIES))

EXCLUDED_BY = "fsync = on and full_page_writes = on exclude it, on a disk that has flushed what it says it has."


@dataclass(frozen=True, kw_only=True)
class Code:
    """One kind of finding; `rank` is smaller for worse."""

    code: str
    family: Family
    rank: int
    title: str
    explanation: str  # one paragraph, for `crashlab explain CODE`
    manual: str  # page of https://www.postgresql.org/docs/current/
    remedy: str  # what would have saved it, or what to do about it: one or two sentences
    like: str = ""  # which fault leaves such a state: one sentence
    detection: str = ""  # corruption: what else sees it, or does not: one or two sentences
    application: bool = False  # the fault is not PostgreSQL's, whatever it promises, but ...
    blamed: str = "the application's"
    ground: Ground = "pages"  # corruption: which promise excludes it, if no more is known of it than its kind

    @property
    def severity(self) -> str:
        """The rank in words."""
        return SEVERITIES[self.rank]

    @property
    def permitted(self) -> str:
        """Under which settings the documentation permits it, in words."""
        if self.application:
            return f"no promise of PostgreSQL's is concerned: the fault is {self.blamed}"
        if self.family is Family.LOSS and self.rank == PERMITTED_LOSS:
            return "permitted"
        if self.family is Family.LOSS:
            return "forbidden wherever anything is promised"
        if self.family in (Family.CORRUPTION, Family.NO_START):
            return (
                "forbidden while full_page_writes is on; permitted with it off, and after a power loss with fsync = "
                "off, or on a disk that is not reliable"
            )
        return "neither permitted nor forbidden: it says nothing against the database"
