"""Do the shipped profiles find bugs that PostgreSQL really had, in the releases that had them and in no later one?

The releases come from the folder that CRASHLAB_TEST_BUILDS names, which holds VERSION/bin for each. Without them the
tests are skipped, unless CRASHLAB_REQUIRE names "builds".
"""

import os
import re
from pathlib import Path

import pytest

from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import ProfileResult
from crashlab.server import ServerChoice
from tests.running import RunRequest, run_profile

pytestmark = pytest.mark.server

STATES = 20
STATES_UNTIL_FOUND = 100
FOLDER = "CRASHLAB_TEST_BUILDS"


def build(version: str) -> Path:
    """Return the bin directory of an exact release; without it the test is skipped, or fails if it must run."""
    folder = os.environ.get(FOLDER)
    bindir = Path(folder or "none") / version / "bin"
    if folder and (bindir / "postgres").exists():
        return bindir
    problem = f"no PostgreSQL {version}: {FOLDER} is {folder or 'not set'}"
    if "builds" in os.environ.get("CRASHLAB_REQUIRE", "").split(","):
        pytest.fail(f"CRASHLAB_REQUIRE names builds, but: {problem}", pytrace=False)
    pytest.skip(problem)


def run(out: Path, profile: str, bindir: Path | None, *overrides: str, until_found: bool = False) -> ProfileResult:
    """Run some crash states of a shipped profile."""
    request = RunRequest(
        profile=load_profile(profile, overrides=list(overrides)),
        seed=31,
        trials=STATES_UNTIL_FOUND if until_found else STATES,
        time_limit_s=None,
        server=ServerChoice(kind="local", pg_bindir=bindir),
        out=out,
        keep="none",
        fail_fast=until_found,
    )
    return run_profile(request)


def findings(result: ProfileResult) -> dict[str, str]:
    """Every code that was found, with its first explanation."""
    found: dict[str, str] = {}
    for trial in result.trials:
        for finding in trial.verdict.findings:
            found.setdefault(finding.code, finding.explanation)
    return found


def test_an_empty_table_that_no_checkpoint_flushed_is_found(tmp_path: Path) -> None:
    """15.3 loses the file of an empty table (fixed in 15.4, commit e24c02e4d)."""
    found = findings(run(tmp_path, "ddl-power-loss", build("15.3"), until_found=True))
    assert "could not open file" in found.get("CORRUPT-UNREADABLE", ""), found


def test_where_it_is_fixed_nothing_is_found(tmp_path: Path) -> None:
    """15.4 is the innocent twin."""
    result = run(tmp_path, "ddl-power-loss", build("15.4"))
    assert [trial.verdict.outcome for trial in result.trials] == [Outcome.INTACT] * STATES, findings(result)


def test_a_database_whose_version_file_was_not_flushed_is_found(tmp_path: Path) -> None:
    """15.4 leaves an empty PG_VERSION after CREATE DATABASE with wal_log (fixed in 15.6), though the disk is ext4's."""
    found = findings(run(tmp_path, "create-database-power-loss", build("15.4"), until_found=True))
    assert "PG_VERSION" in found.get("CORRUPT-UNREADABLE", ""), found


def test_the_newest_release_passes_the_same_profiles(tmp_path: Path) -> None:
    """The server that comes with the tests has none of these bugs."""
    for profile in ("ddl-power-loss", "create-database-power-loss"):
        result = run(tmp_path / profile, profile, None)
        assert [trial.verdict.outcome for trial in result.trials] == [Outcome.INTACT] * STATES, findings(result)


def test_lost_statistics_are_a_note(tmp_path: Path) -> None:
    """17.10 renames its statistics file without a flush: a note, and nothing is wrong with the data."""
    result = run(tmp_path, "clean-stop-power-loss", build("17.10"))
    assert set(findings(result)) == {"NOTE-STATISTICS-LOST"}
    assert {trial.verdict.outcome for trial in result.trials} == {Outcome.INTACT}


def test_after_a_clean_stop_nothing_is_lost(tmp_path: Path) -> None:
    """Asynchronous commits and statistics included, in a release that flushes the statistics file."""
    result = run(tmp_path, "clean-stop-power-loss", None)
    assert {trial.verdict.outcome for trial in result.trials} == {Outcome.INTACT}
    assert findings(result) == {}


def test_a_prepared_transaction_that_a_second_crash_loses_is_found(tmp_path: Path) -> None:
    """17.10 forgets it if the power fails again between its file in pg_twophase and the end of the checkpoint."""
    found = findings(run(tmp_path, "two-phase-crash-during-recovery", build("17.10"), until_found=True))
    assert "Prepared transaction crashlab-" in found.get("CORRUPT-SURVIVORS-CHANGED", ""), found


def test_where_such_a_file_has_its_right_name_nothing_is_found(tmp_path: Path) -> None:
    """15.4 is the innocent twin: the names hold no epoch before 17."""
    result = run(tmp_path, "two-phase-crash-during-recovery", build("15.4"))
    assert {trial.verdict.outcome for trial in result.trials} == {Outcome.INTACT}, findings(result)


def test_the_known_limit_with_unlogged_tables_is_shown(tmp_path: Path) -> None:
    """On a disk that keeps names in no order, recovery finds a file where it wants to make one."""
    result = run(tmp_path, "unsynced-names-power-loss", None, "power_loss.states_per_point=1")
    told = findings(result).get("NO-START", "")
    assert "File exists" in told, findings(result)
    assert "an unlogged table whose transaction did not end can do that" in told
    assert re.search(r"the WAL was valid from \S+ to \S+; when the fault came, it was written up to \S+", told), told
    assert {trial.verdict.outcome for trial in result.trials} == {Outcome.INTACT, Outcome.NO_START}
    assert all(trial.verdict.promise is not PromiseStatus.BROKEN for trial in result.trials)
