"""What is told of the matrix, from results made by hand."""

import json
from dataclasses import replace

from crashlab.contract import contract_for
from crashlab.matrix import Cell, cells, profile_of
from crashlab.model import CrashClass
from crashlab.report import html_report, json_report
from crashlab.report.matrix import cell_results, matrix_line
from crashlab.report.story import Length
from crashlab.results import ProfileFacts, ProfileResult, TrialResult
from tests.made_results import broken, inconclusive, intact, permitted_loss, result, run, void
from tests.report.test_same_words import Page, on_the_console, plain

ONLY = ["wal_sync_method=fdatasync", "data_checksums=on", "full_page_writes=on"]


def made(cell: Cell, *trials: TrialResult) -> ProfileResult:
    """The result of a cell's profile; its trials' contract is that of the settings which the cell asks for."""
    contract = contract_for({"fsync": cell.fsync}, CrashClass(cell.crash_class))
    return ProfileResult(
        profile=ProfileFacts.of(profile_of(cell)),
        seed=42,
        server=None,
        crash_class=CrashClass(cell.crash_class),
        trials=[replace(one, contract=contract) for one in trials],
    )


CELLS = {(one.fsync, one.synchronous_commit, one.crash_class): one for one in cells(ONLY)}
GUILTY = made(CELLS["off", "on", "power_loss"], void(), void(1), intact(2))
TWIN = made(CELLS["on", "on", "power_loss"], intact(), intact(1))
PERMITTED = made(CELLS["on", "off", "power_loss"], permitted_loss(), intact(1))
LIAR = made(CELLS["on", "on", "process_crash"], broken(), intact(1), inconclusive(2))
UNSEEN = made(CELLS["off", "on", "process_crash"])
RUN = run(GUILTY, TWIN, PERMITTED, LIAR, UNSEEN, result("kill9-all", intact()))


def test_promised_stands_beside_observed():
    """Void is no contradiction, nor is a permitted loss; a broken promise is, and says so in words."""
    told = cell_results(RUN.profiles)
    assert [(one.promised.word, one.observed, one.promise, one.contradicts) for one in told] == [
        ("nothing", "1 intact, 2 corruption (2 void)", "void", False),
        ("intact", "2 intact", "kept", False),
        ("intact or loss", "1 intact, 1 loss", "kept", False),
        ("intact", "CONTRADICTS in 1: 1 intact, 1 corruption, 1 inconclusive", "broken", True),
        ("intact", "not run", "inconclusive", False),
    ]
    assert matrix_line(told) == (
        "5 cells, 10 crash states; 1 CONTRADICT what is promised; 1 could not be judged, or not fully"
    )
    assert matrix_line(told[:3]) == "3 cells, 7 crash states; no cell contradicts its promise"


def test_what_is_promised_is_that_of_the_settings_that_were_read_back():
    """A cell whose server ran with other settings than asked for is held against those."""
    contract = contract_for({"fsync": "off"}, CrashClass.POWER_LOSS)
    (told,) = cell_results([replace(TWIN, trials=[replace(one, contract=contract) for one in TWIN.trials])])
    assert told.promised.word == "nothing"


def test_the_console_shows_a_row_a_cell_and_explains_what_contradicts():
    """Permitted findings of cells are told only at full length; other profiles have their usual table."""
    usual, verbose = on_the_console(RUN, Length.PARAGRAPH, 160), on_the_console(RUN, Length.TIMELINE, 160)
    rows = [line.split() for line in usual.splitlines() if " fdatasync " in line]
    assert [row[:6] for row in rows[:2]] == [
        ["off", "on", "on", "fdatasync", "on", "power"],
        ["on", "on", "on", "fdatasync", "on", "power"],
    ]
    assert "CONTRADICTS in 1: 1 intact" in rows_text(usual)
    assert "CORRUPT-HOLE (corruption, forbidden)  " + LIAR.profile.name in usual
    assert ["LOSS-ASYNC-WINDOW" in text for text in (usual, verbose)] == [False, True]
    assert any(line.startswith("kill9-all") for line in usual.splitlines())
    assert "promised nothing: nothing is promised" in usual


def rows_text(text: str) -> str:
    """A text with single spaces."""
    return plain(text)


def test_the_page_and_the_json_report_hold_the_same():
    """Each row leads to its profile; JSON has a key a cell, and null for other profiles."""
    page = Page(html_report.report_bytes(RUN, 1))
    text = plain(" ".join(page.text))
    for one in cell_results(RUN.profiles):
        assert plain(" ".join(one.row)) in text
    assert ("h2", {"id": "matrix"}) in page.tags
    assert ("h2", {"id": "matrix"}) not in Page(html_report.report_bytes(run(result("kill9-all", intact())), 0)).tags
    reports = json.loads(json_report.report_bytes(RUN))
    assert reports[-1]["matrix"] is None
    assert reports[0]["matrix"] == {
        "cell": {
            "fsync": "off",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "wal_sync_method": "fdatasync",
            "data_checksums": "on",
            "crash_class": "power_loss",
        },
        "promised": "nothing",
        "promised_outcomes": ["intact", "loss", "corruption", "no_start"],
        "observed": "1 intact, 2 corruption (2 void)",
        "states": 3,
        "distinct_states": None,
        "contradicts": False,
    }
