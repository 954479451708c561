"""Is a finding of the same code the same only if it has the same cause, whatever relation or number it names?"""

from typing import Any

import pytest

from crashlab.campaign.same import same_as
from crashlab.model import Counts, Family, Finding, Outcome, Verdict


def finding(code: str, *witnesses: dict[str, Any], family: Family = Family.CORRUPTION, file: str = "") -> Finding:
    """Return a finding with these witnesses."""
    evidence = {"place": "somewhere", "witnesses": list(witnesses), "files": [file] if file else []}
    return Finding(
        code=code, family=family, permitted=False, summary="", explanation="", count=len(witnesses), evidence=evidence
    )


def verdict(*findings: Finding) -> Verdict:
    """Return a verdict with these findings."""
    return Verdict(outcome=Outcome.CORRUPTION, promise=None, findings=list(findings), counts=Counts())


def lost(fate: str, *, flushed: bool = True) -> dict[str, Any]:
    """Return a witness of a lost commit."""
    return {"tx": 7, "fate": fate, "flushed": flushed}


def message(text: str) -> dict[str, Any]:
    """Return a witness of what a server said."""
    return {"message": text, "sqlstate": "XX001"}


TORN = message('invalid page in block 7 of relation "base/5/16394"')
LSN = "block {} has LSN {}, and the log ends at {}"
MISSING = message('could not open file "base/5/16394": No such file or directory')


@pytest.mark.parametrize(
    ("first", "again", "same"),
    [
        (lost("not durable"), lost("not durable"), True),
        (lost("not durable"), lost("behind a hole"), True),
        (lost("not durable"), lost("not written"), False),
        (lost("not durable"), lost("not durable", flushed=False), False),
        (MISSING, message('could not open file "base/16385/24577": No such file or directory'), True),
        (MISSING, message('could not open file "pg_xact/0000": No such file or directory'), False),
        (MISSING, TORN, False),
        (TORN, message('invalid page in block 81 of relation "base/5/16401"'), True),
        (message(LSN.format(0, "0/A78CF0", "0/A77440")), message(LSN.format(31, "2/1", "0/0")), True),
        ({"fatal": ["PANIC:  could not locate a valid checkpoint record at 0/AA"]},
         {"fatal": ["PANIC:  could not locate a valid checkpoint record at 0/BB28"]}, True),
        ({"fatal": ["FATAL:  invalid page in block 1 CONTEXT:  WAL redo at 0/AA for Btree/INSERT_LEAF: off: 5"]},
         {"fatal": ["FATAL:  invalid page in block 7 CONTEXT:  WAL redo at 0/BB for Heap/INSERT: off: 1"]}, True),
        ({"fatal": ["PANIC:  could not locate a valid checkpoint record"]}, {"fatal": ["FATAL:  no such file"]}, False),
        ({"key": "1"}, {"key": "2"}, True),
    ],
)  # fmt: skip
def test_the_cause_decides(first: dict[str, Any], again: dict[str, Any], same: bool) -> None:
    """Not the number, the page or the relation; but what became of a record, and what was said of what kind of file."""
    family = Family.LOSS if "fate" in first else Family.CORRUPTION
    wanted = same_as(finding("CODE", first, family=family))
    found = verdict(finding("OTHER", first, family=family), finding("CODE", again, family=family))
    assert wanted.found_in(found) is same
    assert wanted.other_cause_in(found) is not same


def test_another_witness_or_another_place_may_have_it() -> None:
    """The first one was told; where several are lost, another one is told first."""
    wanted = same_as(finding("CODE", lost("not durable"), lost("not written"), family=Family.LOSS))
    assert wanted.found_in(verdict(finding("CODE", lost("not written"), lost("not durable"), family=Family.LOSS)))
    two = same_as(finding("CODE", MISSING))
    assert two.found_in(verdict(finding("CODE", message("invalid page")), finding("CODE", MISSING)))


def test_without_a_message_the_kind_of_file_decides() -> None:
    """A row that is missing from a table, or from the commit log."""
    wanted = same_as(finding("CODE", {"key": "1"}, file="base/5/16394"))
    assert wanted.found_in(verdict(finding("CODE", {"key": "8"}, file="base/5/24577")))
    assert not wanted.found_in(verdict(finding("CODE", {"key": "1"}, file="pg_xact/0000")))


def test_another_code_is_never_the_same() -> None:
    """Nor is it one that was passed over."""
    wanted = same_as(finding("CODE", MISSING))
    assert not wanted.found_in(verdict(finding("OTHER", MISSING)))
    assert not wanted.other_cause_in(verdict(finding("OTHER", MISSING)))
