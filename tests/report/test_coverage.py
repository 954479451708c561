"""Are record types counted once each, and is the rest told by its name and reason?"""

import json
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from crashlab.model import RecordCount
from crashlab.recordtypes import record_types
from crashlab.report import json_report
from crashlab.report.coverage import coverage_line, coverage_text, redo_coverage
from crashlab.results import Redo, RunResult, TrialResult
from tests.made_results import intact, result, run
from tests.report.test_same_words import on_the_console, on_the_page, plain

SPLIT = RecordCount("Btree/SPLIT_L", 2, 1)
COMMIT = RecordCount("Transaction/COMMIT", 7, 0)
STRANGE = RecordCount("manager 200/00", 1, 0)


def replayed(trial: TrialResult, *kinds: RecordCount, written: tuple[str, ...] = ()) -> TrialResult:
    """The trial as one whose recovery replayed these."""
    return replace(trial, redo=Redo(list(kinds), [*written]))


def made() -> list[TrialResult]:
    """Three trials: two recoveries, and one that did not come to its end."""
    return [
        replayed(intact(), SPLIT, COMMIT),
        replayed(intact(1), COMMIT, STRANGE, written=("Btree/DEDUP",)),
        intact(2),
    ]


def test_a_type_counts_once_and_each_other_type_is_in_one_list() -> None:
    """Replayed, written only, and never written are all that can be reached; a stranger is told beside."""
    (found,) = redo_coverage([result("power-loss", *made())])
    types = record_types(found.major)
    assert types is not None
    assert [(kind.name, kind.trials, kind.plain, kind.imaged) for kind in found.replayed] == [
        ("Transaction/COMMIT", 2, 14, 0),
        ("Btree/SPLIT_L", 1, 2, 1),
    ]
    assert found.written == ["Btree/DEDUP"]
    assert sorted([*(kind.name for kind in found.replayed), *found.written, *found.never]) == sorted(types.reachable)
    assert [kind.name for kind in found.beside] == ["manager 200/00"]
    assert (found.recoveries, found.unknown) == (2, 1)
    assert not set(found.out_of_reach) & set(types.reachable)


def test_versions_are_told_apart() -> None:
    """What one replayed is no coverage of another."""
    trial = replayed(intact(), SPLIT)
    assert trial.server is not None
    older = replace(trial, server=replace_version(trial, 15))
    line = coverage_line([result("power-loss", trial, older)])
    assert line is not None
    assert line.count("1 of ") == 2
    assert "PostgreSQL 15" in line


def replace_version(trial: TrialResult, major: int):
    """The facts of a server of another version."""
    assert trial.server is not None
    return msgspec.structs.replace(trial.server, version_num=major * 10_000 + 4)


def test_nothing_is_said_where_nothing_is_known() -> None:
    """Trials of an older crashlab."""
    assert coverage_line([result("power-loss", intact())]) is None


def test_the_text_names_what_was_not_replayed() -> None:
    """And with every type also the others, with the reason of what is out of reach."""
    (found,) = redo_coverage([result("power-loss", *made())])
    short, long = ("\n".join(coverage_text(found, every=every)) for every in (False, True))
    assert "written but never replayed\n  Btree/DEDUP" in short
    assert "Hash/SQUEEZE_PAGE" in short
    assert "Btree/SPLIT_L" not in short
    assert "Btree/SPLIT_L" in long
    assert "XLOG/NOOP: nothing in PostgreSQL writes it" in long


@pytest.mark.parametrize("tell", [on_the_console, on_the_page])
def test_people_are_told_in_one_line(tell: Callable[[RunResult], str]) -> None:
    """On the console and on the page."""
    told = plain(tell(run(result("power-loss", *made()))))
    assert "2 of 121 record types" in told


def test_programs_are_told_each_type() -> None:
    """In the JSON report of the profile."""
    (redo,) = json.loads(json_report.report_bytes(run(result("power-loss", *made()))))["redo"]
    assert redo["reachable"] == 121
    assert redo["replayed"][1] == {"name": "Btree/SPLIT_L", "trials": 1, "plain": 2, "imaged": 1}
