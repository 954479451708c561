"""Would crashlab notice a missing fsync? One class of files at a time loses its flushes; with all of them, nothing."""

from pathlib import Path

import pytest

from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.server import ServerChoice
from tests.running import RunRequest, run_profile

pytestmark = pytest.mark.server

STATES = 40


def outcomes(out: Path, *overrides: str) -> list[Outcome]:
    """The outcomes of some crash states of one recording."""
    request = RunRequest(
        profile=load_profile("power-loss", overrides=list(overrides)),
        seed=21,
        trials=STATES,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=out,
        keep="none",
    )
    result = run_profile(request)
    assert len(result.trials) == STATES
    assert all(trial.verdict.promise is not PromiseStatus.BROKEN for trial in result.trials)
    return [trial.verdict.outcome for trial in result.trials]


@pytest.mark.parametrize("file_class", ["wal", "relation", "xact", "control"])
def test_a_class_of_files_without_fsync_is_found(file_class: str, tmp_path: Path) -> None:
    """Each class that recovery leans on is missed; directories are not among them where a journal keeps order."""
    found = outcomes(tmp_path, f'power_loss.swallow=["{file_class}"]')
    damaged = [outcome for outcome in found if outcome not in (Outcome.INTACT, Outcome.INCONCLUSIVE)]
    assert len(damaged) >= STATES // 10, found


def test_with_every_fsync_nothing_is_found(tmp_path: Path) -> None:
    """The innocent twin."""
    assert outcomes(tmp_path) == [Outcome.INTACT] * STATES
