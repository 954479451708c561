"""Is the track record one list: the page says what the file says, and the file can be run?"""

from datetime import date

import pytest

from crashlab.oracle.codes import CODES
from crashlab.profile import load_profile
from tests.documents import PAGES, rows
from tests.power.track_record import Bug, noted, track_record

RECORD = track_record()


def test_the_table_of_the_page_is_that_of_the_file():
    """What, which releases, which command; in the same order."""
    table = rows(PAGES["track-record"], "what goes wrong")
    said = {
        bug.what.strip("`"): [", ".join(bug.guilty), ", ".join(bug.innocent) or "none so far", f"`{bug.command}`"]
        for bug in RECORD
    }
    assert table == said
    assert list(table) == list(said)


@pytest.mark.parametrize("bug", RECORD, ids=lambda bug: bug.name)
def test_each_bug_can_be_run(bug: Bug):
    """Its profile and its code are there, no release is both, and no day lies before it was seen."""
    load_profile(bug.profile, overrides=bug.set)
    assert bug.code in CODES
    assert not set(bug.guilty) & set(bug.innocent)
    assert bug.guilty
    assert set(bug.reproduced) <= {*bug.guilty, *bug.innocent}
    assert all(bug.first_seen <= day <= date.today() for day in bug.reproduced.values())


def test_days_are_noted_beside_those_that_are_known():
    """In the bug's own table, and nowhere else."""
    text = '[[bug]]\nname = "a"\nx = 1\n\n[[bug]]\nname = "b"\nreproduced = { "15.3" = 2026-01-01 }\n'
    day = date(2026, 2, 3)
    text = noted(text, "a", {"14.5": day})
    assert text == '[[bug]]\nname = "a"\nx = 1\nreproduced = { "14.5" = 2026-02-03 }\n\n' + text.partition("\n\n")[2]
    assert noted(text, "b", {"15.4": day}).endswith('reproduced = { "15.3" = 2026-01-01, "15.4" = 2026-02-03 }\n')
