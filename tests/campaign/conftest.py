"""Two short recordings, and what a run in one process makes of them: the measure for all others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from crashlab.cli import invoke
from tests.campaign.command import PROFILES, SEED, TRIALS, Told, temporary_home, told_by


@pytest.fixture
def home() -> Iterator[Path]:
    """A temporary folder for the commands of one test."""
    with temporary_home() as folder:
        yield folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Short recordings of two profiles."""
    out = tmp_path_factory.mktemp("recordings")
    for name in PROFILES:
        args = ["--seed", SEED, "--set", "power_loss.acks=50", "--out", str(out / name)]
        assert invoke(["record", name, *args]) == 0
    return [str(out / name) for name in PROFILES]


@pytest.fixture(scope="session")
def whole(recordings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """What a run in this process comes to, which nobody touches."""
    out = tmp_path_factory.mktemp("whole") / "run"
    invoke(["explore", *recordings, "--trials", str(TRIALS), "-j", "1", "--out", str(out)])
    told = told_by(out)
    assert len(told) == 2 * TRIALS
    assert len({state for state, _ in told.values()}) == 2 * TRIALS
    return told
