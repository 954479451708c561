"""Is a row that others may have changed let pass, and no other?"""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from crashlab.model import MarkerRow, Observation, Outcome, Outside, Row, WalFacts, WalRecord
from crashlab.oracle.outside import CODE, ENDED_INSIDE
from tests.oracle.story import Story, codes

REGISTER = "register"


def told() -> Story:
    """Transaction 2 wrote a, 3 wrote b, and 4 changed a again, asynchronously."""
    story = Story()
    story.commit(1, "a", 1)
    story.commit(1, "b", 1)
    story.commit(1, "a", 2, sync="off")
    return story


def rows(observation: Observation) -> dict[str, Row]:
    """The rows of the only relation."""
    return {row.key: row for row in observation.relations[0].rows}


def holding(observation: Observation, changed: Mapping[str, str | None]) -> Observation:
    """The same with other values; None takes the row away."""
    now = {**rows(observation), **{key: Row(key, None, None, value) for key, value in changed.items()}}
    (read,) = observation.relations
    left = [row for row in now.values() if row.value is not None]
    return replace(observation, relations=[replace(read, rows=left)])


def outside(then: Observation, **known) -> Outside:
    """What was there before, and what others did: nothing, unless it is said."""
    assert then.marker is not None
    facts = Outside(
        markers=[marker.tx for marker in then.marker.rows],
        relations=then.relations,
        before=0,
        since=0,
        rows_before=[],
        rows_since=[],
    )
    return replace(facts, **known)


Input = dict[str, str | None]
INNOCENT: dict[str, tuple[Input, Input, dict[str, object]]] = {
    "changed before the fault": ({"a": "others"}, {"a": "others"}, {}),
    "deleted before the fault": ({"a": None}, {"a": None}, {}),
    "written by a transaction that is not in the ledger": ({}, {"a": "others"}, {"rows_since": [(REGISTER, "a")]}),
    "deleted around the fault": ({}, {"a": None}, {"since": 1}),
    "not readable before the fault": ({}, {"a": "others"}, {"relations": []}),
}
GUILTY: dict[str, tuple[Input, Input, dict[str, object], str]] = {
    "changed after the last look, by nobody": ({}, {"a": "others"}, {"since": 1}, "CORRUPT-WRONG-VALUE"),
    "gone after the last look, by nobody": ({}, {"a": None}, {"before": 5}, "CORRUPT-MISSING-ROW"),
    "others changed another row": (
        {"b": "others"},
        {"a": "rot", "b": "others"},
        {"rows_since": [(REGISTER, "b")]},
        "CORRUPT-WRONG-VALUE",
    ),
    "back to what others wrote long before the newest change, which is there": (
        {},
        {"a": "others"},
        {"before": 1, "rows_before": [(REGISTER, "a")]},
        "CORRUPT-WRONG-VALUE",
    ),
    "others changed it, and it is as it was long ago": ({"a": "others"}, {}, {}, ""),
}


@pytest.mark.parametrize("how", INNOCENT)
def test_a_row_that_others_changed_accuses_nobody(how: str) -> None:
    """It is named, inconclusive, and the rest is judged: a row that is damaged as well is corruption."""
    before, after, known = INNOCENT[how]
    story = told()
    sound = story.left(2, 3, 4)
    facts = outside(holding(sound, before), **known)
    verdict = story.judge(replace(holding(sound, after), outside=facts))
    assert (verdict.outcome, codes(verdict)) == (Outcome.INCONCLUSIVE, [CODE])
    assert "register key a" in verdict.findings[0].summary
    if how != "not readable before the fault":
        verdict = story.judge(replace(holding(sound, {**after, "b": "rot"}), outside=facts))
        assert codes(verdict) == ["CORRUPT-WRONG-VALUE", CODE]


@pytest.mark.parametrize("how", GUILTY)
def test_others_excuse_no_damage(how: str) -> None:
    """What they did to one row says nothing of another, nor of one that is as the ledger has it."""
    before, after, known, code = GUILTY[how]
    story = told()
    sound = story.left(2, 3, 4)
    verdict = story.judge(replace(holding(sound, after), outside=outside(holding(sound, before), **known)))
    assert [one for one in codes(verdict) if one != CODE] == ([code] if code else [])


@pytest.mark.parametrize(
    ("now", "others", "found"),
    [
        (None, {"before": 1}, [CODE, "LOSS-ASYNC-WINDOW"]),
        (None, {}, ["CORRUPT-MISSING-ROW"]),
        ("by others", {"rows_before": [(REGISTER, "a")]}, [CODE, "LOSS-ASYNC-WINDOW"]),
        ("by others", {"before": 1}, ["CORRUPT-WRONG-VALUE"]),
    ],
)
def test_what_a_lost_change_was_built_upon(now: str | None, others: dict[str, object], found: list[str]) -> None:
    """The newest ledgered change is lost; what was there before it was the work of others, or was not."""
    story = told()
    left = holding(story.left(2, 3), {"a": now})
    verdict = story.judge(replace(left, outside=outside(story.left(2, 3, 4), **others)))
    assert codes(verdict)[: len(found)] == found


def test_a_row_whose_only_ledgered_change_is_lost_is_nobodys() -> None:
    """It was there before the ledger first knew of it, and is again: as if no transaction had named it."""
    story = Story()
    story.commit(1, "b", 1)
    story.commit(1, "a", 1, sync="off")
    left = holding(story.left(2), {"a": "others"})
    theirs = outside(story.left(2, 3), rows_before=[(REGISTER, "a")])
    assert codes(story.judge(replace(left, outside=theirs))) == ["LOSS-ASYNC-WINDOW"]
    assert "CORRUPT-PHANTOM" in codes(story.judge(replace(left, outside=outside(story.left(2, 3)))))


def test_a_commit_inside_its_block_is_seen_before_the_fault() -> None:
    """A marker without an intent is legal if it was there before; afterwards the same marker is a phantom."""
    story = told()
    tx = story.begin(1)
    left = story.left(2, 3, 4)
    assert left.marker is not None
    there = replace(left.marker, rows=[*left.marker.rows, MarkerRow(tx, 1, 700 + tx)])
    ended = replace(left, marker=there)
    verdict = story.judge(replace(ended, outside=outside(ended)))
    assert (verdict.outcome, codes(verdict)) == (Outcome.INTACT, [ENDED_INSIDE])
    assert codes(story.judge(replace(left, outside=outside(ended)))) == [ENDED_INSIDE]  # nobody knows what was promised
    assert codes(story.judge(replace(ended, outside=outside(left)))) == ["CORRUPT-PHANTOM"]
    record = WalRecord("commit", 700 + tx, 0x1F00, 0x2000, False)
    wal = WalFacts(redo=0x1000, end=0x2000, last=0xABC, records=[record])
    assert codes(story.judge(replace(ended, outside=outside(left), wal=wal))) == [ENDED_INSIDE]
