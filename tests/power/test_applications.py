"""Is a right server accused for what a small random application does to it? See applications.py, which runs many."""

from pathlib import Path

import pytest

from tests.power.applications import run_all

pytestmark = pytest.mark.server

RUNS = 6


def test_random_applications_accuse_no_right_server(tmp_path: Path) -> None:
    """A few under kill -9; something was acknowledged in them, so that something could have been lost."""
    counts, wrong = run_all(RUNS, 7, tmp_path / "accused")
    assert not wrong
    assert counts["runs"] == RUNS
    assert counts["acked"] >= RUNS
