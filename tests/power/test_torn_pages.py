"""Are pages torn without a page image noticed? Silent without checksums, loud with them, harmless with images.

All three profiles cut the power at the same points and tear the same pages.
"""

from pathlib import Path

import pytest

from crashlab.model import Outcome, PromiseStatus
from crashlab.oracle.code import SILENT
from crashlab.oracle.codes import CODES
from crashlab.profile import load_profile
from crashlab.results import ProfileResult
from crashlab.server import ServerChoice
from tests.running import RunRequest, run_profile

pytestmark = pytest.mark.server

SEEDS = (1, 2, 3)
STATES = 24
"""In ten seeds the first silent corruption was at most the sixth state."""


def explored(profile: str, seed: int, out: Path) -> ProfileResult:
    """Some crash states of one recording."""
    request = RunRequest(
        profile=load_profile(profile),
        seed=seed,
        trials=STATES,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=out / f"{profile}-{seed}",
        keep="none",
    )
    result = run_profile(request)
    assert len(result.trials) == STATES
    return result


def silent(result: ProfileResult) -> set[str]:
    """The codes of damage that no error told of."""
    codes = {finding.code for trial in result.trials for finding in trial.verdict.findings}
    return {code for code in codes if CODES[code].rank == SILENT}


def outcomes(result: ProfileResult) -> set[Outcome]:
    """What the states came to."""
    return {trial.verdict.outcome for trial in result.trials}


def test_without_images_and_checksums_pages_rot_silently(tmp_path: Path) -> None:
    """Found with at least two of three seeds, and called nothing that was promised."""
    results = [explored("full-page-writes-off-no-checksums", seed, tmp_path) for seed in SEEDS]
    assert sum(bool(silent(result)) for result in results) >= 2
    promises = {trial.verdict.promise for result in results for trial in result.trials}
    assert PromiseStatus.VOID in promises
    assert PromiseStatus.BROKEN not in promises


def test_without_images_checksums_are_loud(tmp_path: Path) -> None:
    """Recovery refuses a torn page; nothing goes wrong silently."""
    result = explored("full-page-writes-off", SEEDS[0], tmp_path)
    assert outcomes(result) & {Outcome.NO_START, Outcome.CORRUPTION}
    assert not silent(result)


def test_with_images_the_same_tears_do_nothing(tmp_path: Path) -> None:
    """The innocent twin."""
    assert outcomes(explored("full-page-writes-on", SEEDS[0], tmp_path)) == {Outcome.INTACT}
