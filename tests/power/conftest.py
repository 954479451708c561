"""Run one whole trial with the server in a test's hands between crash and recovery."""

from collections.abc import Callable
from pathlib import Path

import pytest

from crashlab.profile import load_profile
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.trial.live import BeforeRecovery, run_trial
from tests.overrides import kill_after
from tests.running import RunRequest, plan_of

RunOne = Callable[..., TrialResult]
ACKS = 250
"""So many that each table has more than one page."""


@pytest.fixture
def run_one(tmp_path: Path) -> RunOne:
    """Run trial 0 of a shipped profile on a local server, killed after enough work, and return its result."""

    def run(
        profile: str, *overrides: str, before_recovery: BeforeRecovery | None = None, seed: int = 20, trial: int = 0
    ) -> TrialResult:
        request = RunRequest(
            profile=load_profile(profile, overrides=[kill_after(ACKS), *overrides]),
            seed=seed,
            trials=1,
            time_limit_s=None,
            server=ServerChoice(kind="local"),
            out=tmp_path,
            keep="none",
        )
        folder = tmp_path / f"{profile}-{trial}"
        folder.mkdir()
        return run_trial(plan_of(request), trial, folder, before_recovery=before_recovery)

    return run
