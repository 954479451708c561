"""The short form of `interrupts.py`: one moment for each kind of run and blow; the program strikes at twenty."""

import pytest

from crashlab.seeds import stream
from tests.power.interrupts import BLOWS, RUNS, problems_of

pytestmark = pytest.mark.server


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("blow", BLOWS)
def test_a_run_that_is_struck_at_any_moment_leaves_what_it_should(kind, blow, tmp_path):
    """No traceback; evidence that can be judged, a report if there was time for one; and nothing after `clean`."""
    assert list(problems_of(kind, blow, stream(6, "interrupts", kind, blow), tmp_path)) == []
