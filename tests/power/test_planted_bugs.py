"""Are six bugs caught in each of six stacks? See planted_bugs.py, which runs all of them, many times."""

import pytest

from tests.power.planted_bugs import BUGS, CODE, MOST_LINES, STACKS, Result, run_stack, table, test_of

DIAGONAL = dict(zip(STACKS, [*list(BUGS)[2:], *list(BUGS)[:2]], strict=True))
"""Each stack once and each bug once; other pairs than those of the recipes."""
text_of_test = test_of  # pytest would take it for a test
del test_of


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("bug", BUGS)
def test_each_test_is_short(stack: str, bug: str):
    """Beside the application; whatever the stack."""
    assert len(text_of_test(STACKS[stack], BUGS[bug]).splitlines()) <= MOST_LINES


@pytest.mark.server
@pytest.mark.parametrize(("stack", "bug"), DIAGONAL.items())
def test_a_planted_bug(stack: str, bug: str):
    """Caught with the right blame and no other, and nobody else is accused."""
    (result,) = run_stack(stack, 1, [bug])
    assert result.caught, result
    assert result.innocent, result


def test_the_table_counts_what_was_run():
    """Runs in which the bug was caught, in which its mended twin passed, and all."""
    bug, stack = next(iter(BUGS)), next(iter(STACKS))
    ran = [Result(stack, bug, run, "", run > 1, run > 2, [], 1, 4, 1.0) for run in (1, 2, 3)]
    assert "2 / 1, 3" in table(ran)
    assert CODE.findall("crashlab: loss, promise kept\n\nTOLD-BEFORE-COMMIT: the user") == ["TOLD-BEFORE-COMMIT"]
