"""Runs with trials that can be drawn: evidence of earlier releases, so no server is needed."""

import tarfile
from pathlib import Path

import pytest

from crashlab.campaign import chronicles_of, stored_run
from crashlab.results import RunResult
from tests.campaign.test_replay_stored import ARCHIVE as RECORDED
from tests.oracle.test_stored import ARCHIVE as LIVE


def told_run(folder: Path) -> RunResult:
    """A stored run, all of whose trials were told."""
    run = stored_run(folder)
    run.told = chronicles_of((result.profile.name, trial) for result in run.profiles for trial in result.trials)
    return run


def _unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="tar")
    return folder


@pytest.fixture(scope="session")
def recorded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six crash states on a lying disk; two of them do not start."""
    return _unpacked(RECORDED, tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="session")
def recorded(recorded_folder: Path) -> RunResult:
    """... told."""
    return told_run(recorded_folder)


@pytest.fixture(scope="session")
def live_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One trial after a kill -9, with asynchronous commits that are gone."""
    return _unpacked(LIVE, tmp_path_factory.mktemp("live")) / "async-commit"


@pytest.fixture(scope="session")
def live(live_folder: Path) -> RunResult:
    """... told."""
    return told_run(live_folder)
