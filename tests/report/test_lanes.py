"""Does a drawing say what the verdict says: as many transactions of each fate, at the right places?"""

import re
from collections import Counter
from random import Random

import pytest

from crashlab.chronicle import Chronicle, Fate
from crashlab.report.diskview import disk_view
from crashlab.report.html_report import report_bytes
from crashlab.report.lanes import MARKS_MAX, Drawing, drawing, kind_of
from crashlab.report.places import Scale, duration, plural, sizes
from crashlab.results import RunResult
from tests.made_results import broken, result, run
from tests.report.made_chronicles import chronicle, told, transaction
from tests.report.test_same_words import Page

HOSTILE = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}<!-- \x00\x1b[31m"


def drawn_counts(made: Drawing) -> Counter[str]:
    """What the marks of the whole trial come to."""
    counts: Counter[str] = Counter()
    for lane in made.sections[0].lanes:
        for mark in lane.marks:
            if mark.count:
                counts[mark.kind] += mark.count
    return counts


@pytest.mark.parametrize("name", ["recorded", "live"])
def test_the_drawing_counts_as_the_verdict_does(name, request):
    """Acknowledged, lost and lost against the promise: of every stored trial, as the JSON report has them."""
    stored: RunResult = request.getfixturevalue(name)
    trials = {(one.profile.name, trial.trial): trial for one in stored.profiles for trial in one.trials}
    assert len(stored.told) == len(trials) > 0
    lost = 0
    for one in stored.told:
        assert one.chronicle is not None, one.problem
        assert not one.problem
        counts, known = drawn_counts(drawing(one.chronicle)), trials[one.profile, one.trial].verdict.counts
        assert sum(counts.values()) == known.begun
        gone = counts[kind_of(Fate.PERMITTED)] + counts[kind_of(Fate.FORBIDDEN)]
        assert (gone, counts[kind_of(Fate.FORBIDDEN)]) == (known.lost, known.lost_forbidden)
        unknown = counts[kind_of(Fate.UNKNOWN)]
        assert unknown or counts[kind_of(Fate.SURVIVED)] + gone == known.acked
        assert counts[kind_of(Fate.READ_ONLY)] == known.read_only
        lost += gone
    assert lost


def mixed(count: int) -> Chronicle:
    """Many transactions of three clients, with every fate."""
    dice, fates = Random(5), list(Fate)
    return chronicle(
        *(
            transaction(tx, dice.choice(fates), client=dice.randint(0, 2), begin=-count + tx + dice.random())
            for tx in range(1, count + 1)
        )
    )


def test_many_transactions_are_drawn_together_and_none_is_lost():
    """A few marks for 5,000 transactions; nearer to the cut each one has its own."""
    made = drawing(told_chronicle := mixed(5000))
    assert drawn_counts(made) == {kind_of(fate): number for fate, number in told_chronicle.fates.items()}
    assert {kind: count for kind, _, _, count in made.legend} == drawn_counts(made)
    close = made.sections[-1]
    assert max(section.marks for section in made.sections) <= MARKS_MAX
    assert all(mark.count <= 1 for lane in close.lanes for mark in lane.marks)
    for section in made.sections:
        for lane in section.lanes:
            assert all(0 <= mark.x <= 100 and mark.width > 0 and mark.x + mark.width <= 101 for mark in lane.marks)


def test_a_loss_is_in_sight_before_anybody_zooms():
    """The section that is shown at first begins no later than the first loss, if that is near enough."""
    quiet = [transaction(tx, Fate.SURVIVED, begin=tx - 3000.0) for tx in range(1, 2800)]
    lost = [transaction(tx, Fate.FORBIDDEN, begin=tx - 3000.0) for tx in range(2800, 2999)]
    made = drawing(chronicle(*quiet, *lost))
    assert [section.name for section in made.sections] == ["Whole trial", "From the first loss on", "Close to the cut"]
    shown = sum(mark.count for lane in made.sections[1].lanes for mark in lane.marks if "forbidden" in mark.kind)
    assert shown == len(lost)


def test_answers_may_come_until_the_server_is_dead():
    """What was told after the fault was sent is drawn beside it, and WAL goes on, forward only."""
    late = transaction(3, Fate.PERMITTED, begin=4.0)
    made = drawing(chronicle(transaction(1, Fate.SURVIVED, begin=-5.0), transaction(2, Fate.ABSENT, begin=-1.0), late))
    section = made.sections[0]
    (wal,) = [lane for lane in section.lanes if lane.label == "WAL"]
    across = [float(x) for x in re.findall(r"[MH]([\d.]+)", wal.paths["inserted"])]
    assert section.cut < section.over < 100
    assert across == sorted(across)
    assert across[-1] == pytest.approx(10 * section.over)
    assert [mark.x for mark in wal.marks if mark.kind == "redo"] == [pytest.approx(section.over + 0.8)]


@pytest.mark.parametrize("transactions", [[], [transaction(1, Fate.ABSENT)]])
def test_next_to_nothing_can_be_drawn(transactions):
    """No transaction, or one at the very moment of the cut."""
    made = drawing(chronicle(*transactions))
    assert drawn_counts(made).total() == len(transactions)


def test_a_map_counts_every_page():
    """What the legend says is what the files have; a long run is one cell with its number."""
    disk = chronicle().disk
    assert disk is not None
    view = disk_view(disk)
    assert {status: count for status, _, count in view.legend} == {"durable": 20, "kept": 2, "lost": 4, "torn": 1}
    rows = [row for part in view.classes for row in part.rows]
    cells = Counter[str]()
    for row in rows:
        for cell in row.cells:
            cells[cell.status] += int(cell.label or 1)
    assert cells == {"durable": 20, "kept": 2, "lost": 4, "torn": 1}
    assert [cell.label for row in rows for cell in row.cells if cell.label] == ["20"]
    assert "no name leads to it" in next(row.size for row in rows if row.path == "(no name left)")


def test_hostile_words_make_no_markup():
    """The page of a stranger's evidence has exactly the elements that the same evidence with harmless words has."""

    def page(words: str) -> list[str]:
        made = run(result("kill9-all", broken()), command=words)
        made.begun, made.machine = words, words
        made.told = [told(chronicle(transaction(1, Fate.FORBIDDEN, begin=-5.0, wrote=words), words=words))]
        text = report_bytes(made, 1)
        assert b"\x1b" not in text
        return [tag for tag, _ in Page(text).tags]

    assert page(HOSTILE) == page("words")


def test_numbers_are_told_as_people_read_them():
    """Round ticks, and units."""
    assert Scale(-312.0, 18.0).ticks() == [-300.0, -200.0, -100.0, 0.0]
    assert [sizes(8192), sizes(1_500_000), sizes(7)] == ["8.0 kB", "1.4 MB", "7 B"]
    assert [duration(0.42), duration(59), duration(192), duration(7500)] == ["0.4 s", "59 s", "3 min 12 s", "2 h 5 min"]
    assert [plural(1, "flush"), plural(2, "flush"), plural(1200, "crash")] == ["1 flush", "2 flushes", "1,200 crashes"]
