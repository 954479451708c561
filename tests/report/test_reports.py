"""What people, programs and CI are told about results made by hand."""

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from crashlab.errors import ServerError
from crashlab.model import Outcome, PromiseStatus
from crashlab.report import json_report, junit
from crashlab.report.console import PLAIN_WIDTH, print_results
from crashlab.report.story import Length
from crashlab.report.summary import distinct_findings, evidence_code, exit_code, promise, sentence, tally
from tests.made_results import HOLE, LOSS, broken, inconclusive, intact, permitted_loss, result, run, trial, void

NO_BUILD = ServerError("could not find a PostgreSQL build", detail="Looked everywhere.", hint="Install one.")


@pytest.mark.parametrize(
    ("trials", "expected_promise", "code"),
    [
        ([intact(), permitted_loss()], "kept", 0),
        ([intact(), void()], "void", 0),
        ([intact(), inconclusive()], "inconclusive", 3),
        ([inconclusive(), broken()], "broken", 1),
        ([void(), inconclusive()], "inconclusive", 3),
        ([], "inconclusive", 3),
    ],
)
def test_the_worst_trial_decides_and_nothing_is_not_a_pass(trials, expected_promise, code):
    """Broken beats inconclusive beats void beats kept; no trial at all is inconclusive."""
    made = result("async-mixed", *trials)
    assert promise(made) == expected_promise
    assert exit_code(run(made)) == evidence_code(run(made)) == code
    assert exit_code(run(result("async-mixed", intact()), made)) == code


def test_exit_codes_of_a_run_that_was_cut_short():
    """An interrupt is 130; an environment error is its own code, unless a promise was broken before it.

    Judged again, the interrupt and the error are history: what counts is the evidence that there is.
    """
    nothing, good, bad = result("kill9-all"), result("kill9-all", intact()), result("kill9-all", broken())
    cut_short = result("kill9-all", broken(), interrupted=True)
    told = (run(), run(nothing, error=NO_BUILD), run(good, error=NO_BUILD), run(bad, error=NO_BUILD), run(cut_short))
    assert [exit_code(one) for one in told] == [3, 4, 4, 1, 130]
    assert [evidence_code(one) for one in told] == [3, 3, 3, 1, 1]
    assert evidence_code(run(result("kill9-all", intact(), interrupted=True))) == 0


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (result("kill9-all", intact()), "every promise kept"),
        (result("async-commit", permitted_loss()), "every promise kept"),
        (
            result("async-commit", permitted_loss(), intact(1)),
            "every promise kept; unexpected: expected loss; saw intact in 1 of 2 trials",
        ),
        (
            result("kill9-all", broken(), intact(1)),
            "promise broken in 1 of 2 trials; unexpected: expected intact; saw corruption in 1 of 2 trials",
        ),
        (result("kill9-all", inconclusive()), "no trial could be judged"),
        (result("kill9-all", intact(), inconclusive(1)), "promise kept in 1 of 2 trials; 1 of 2 trials inconclusive"),
        (
            result("kill9-all", void()),
            "nothing was promised in 1 of 1 trial; unexpected: expected intact; saw corruption in 1 of 1 trial",
        ),
        (result("kill9-all", stopped_by="time limit"), "nothing ran; stopped by time limit"),
    ],
)
def test_one_sentence_says_what_a_profile_showed(made, expected):
    """The verdict names broken promises, blind spots and surprises, and claims nothing more."""
    assert sentence(made) == expected


def test_the_json_report_has_the_promised_shape():
    """Schema 1, as other tools read it; one profile is an object, several are a list."""
    made = result("async-commit", permitted_loss(), inconclusive(1))
    report = json.loads(json_report.report_bytes(run(made, command="crashlab run async-commit")))
    assert report["schema"] == 1
    assert (report["profile"], report["seed"], report["crash_class"]) == ("async-commit", 42, "process_crash")
    assert report["server"] | {"kind": "local", "version": "18.6", "settings": {"fsync": "off"}} == report["server"]
    first, second = report["trials"]
    expected = {
        "trial": 0,
        "seed": 1000,
        "outcome": "loss",
        "promise": "kept",
        "acked": 812,
        "lost": 17,
        "indeterminate": 4,
        "seconds": {"total": 0.7},
        "folder": str(Path.cwd() / "out/profile/trial-0000"),
        "reproduce": f"crashlab replay {Path.cwd() / 'out/profile/trial-0000'}",
    }
    assert report["command"] == "crashlab run async-commit"
    assert first | expected == first
    assert {"code", "family", "permitted", "summary", "timeline", "evidence"} <= first["findings"][0].keys()
    assert (first["injection"]["kind"], first["injection"]["target"], first["injection"]["pid"]) == ("kill", "all", 123)
    assert (second["outcome"], second["promise"], second["error"]) == (
        "inconclusive",
        None,
        "the workload acknowledged nothing",
    )
    counted = {"trials": 2, "intact": 0, "loss": 1, "corruption": 0, "no_start": 0, "inconclusive": 1, "broken": 0}
    assert report["tally"] | counted == report["tally"]
    several = json.loads(json_report.report_bytes(run(made, result("kill9-all", intact()))))
    assert [one["profile"] for one in several] == ["async-commit", "kill9-all"]


def test_the_json_report_of_a_run_that_could_not_start_says_why():
    """A reader of the report finds the same keys, no trials, and the error."""
    report = json.loads(json_report.report_bytes(run(result("kill9-all"), error=NO_BUILD)))
    assert (report["server"], report["trials"], report["promise"]) == (None, [], "inconclusive")
    assert report["error"] == {
        "primary": "could not find a PostgreSQL build",
        "detail": "Looked everywhere.",
        "hint": "Install one.",
    }


def test_junit_shows_broken_as_failure_and_inconclusive_as_error():
    """CI must not show a trial as green that nobody could judge."""
    made = result("kill9-all", intact(), broken(1), inconclusive(2), permitted_loss(3))
    (suite,) = ElementTree.fromstring(junit.report_bytes(run(made)))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "1")
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert (properties["seed"], properties["postgresql_version"]) == ("42", "18.6")
    cases = suite.findall("testcase")
    assert {case.get("classname") for case in cases} == {"kill9-all"}
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure"], ["error"], ["system-out"]]
    failure = cases[1].find("failure")
    assert failure is not None
    assert "crashlab replay out/profile/trial-0001" in (failure.text or "")


def test_the_console_tells_each_finding_once_with_its_reproduce_command():
    """The table has a row a profile; a finding of many trials is explained once; texts are taken literally."""
    target = Console(file=io.StringIO(), width=PLAIN_WIDTH, markup=False, highlight=False, emoji=False)
    made = [result("async-commit", permitted_loss(), permitted_loss(1)), result("kill9-all", broken())]
    print_results(target, run(*made), Length.PARAGRAPH)
    assert isinstance(target.file, io.StringIO)
    text = target.file.getvalue()
    assert text.count("LOSS-ASYNC-WINDOW (loss, permitted)  async-commit, 2 of 2 trials") == 1
    assert "CORRUPT-HOLE (corruption, forbidden)  kill9-all, 1 of 1 trial" in text
    assert "[bold]" in text
    assert "reproduce: crashlab replay out/profile/trial-0000" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("async-commit"))
    assert row.split()[:10] == ["async-commit", "kept", "2", "0", "2", "0", "0", "0", "1624", "34"]
    assert "promise broken in 1 of 1 trial" in text


def test_counts_add_up():
    """The tally counts each trial in exactly one outcome, and all witnesses of a finding."""
    made = result("async-commit", intact(), permitted_loss(1), permitted_loss(2), broken(3), inconclusive(4))
    counts = tally(made)
    assert counts.trials == counts.intact + counts.loss + counts.corruption + counts.no_start + counts.inconclusive
    assert (counts.loss, counts.broken, counts.lost, counts.unexpected) == (2, 1, 35, 2)
    found = {one.finding.code: (one.trials, one.witnesses) for one in distinct_findings([made])}
    assert found == {"CORRUPT-HOLE": (1, 1), "LOSS-ASYNC-WINDOW": (2, 34)}


def test_junit_names_the_finding_that_broke_the_promise():
    """Permitted corruption may be the worse sight; the test fails for what was forbidden. An error is a case, too."""
    permitted = msgspec.structs.replace(HOLE, permitted=True)
    forbidden = msgspec.structs.replace(LOSS, permitted=False)
    made = result("kill9-all", trial(0, Outcome.CORRUPTION, PromiseStatus.BROKEN, permitted, forbidden))
    (suite,) = ElementTree.fromstring(junit.report_bytes(run(made, error=NO_BUILD)))
    failure, error = suite.findall("testcase/failure") + suite.findall("testcase/error")
    assert failure.get("message") == f"corruption: {LOSS.summary}"
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    assert error.get("message") == "could not find a PostgreSQL build"


def test_findings_are_told_worst_first_over_all_profiles():
    """What is forbidden comes first, whichever profile shows it."""
    made = [result("async-commit", permitted_loss()), result("kill9-all", broken())]
    assert [one.finding.code for one in distinct_findings(made)] == ["CORRUPT-HOLE", "LOSS-ASYNC-WINDOW"]
