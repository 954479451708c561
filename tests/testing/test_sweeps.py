"""Is an application let pass that does what is hard to get right, at each moment of each statement; and is it caught
once it gets it wrong?

Two-phase commit, serializable transactions that are tried again, LISTEN and NOTIFY, and one behind PgBouncer. Each is a
file of `sweeps/`, and its guilty twin the same file with a few words changed.
"""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import required
from tests.testing.test_recipes import BLAME, Recipe, swapped

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.server
SWEEPS = Path(__file__).parent / "sweeps"

KNOWN = {
    "two_phase": Recipe(
        *swapped('        self.log.execute("INSERT INTO decisions VALUES (%s)", (number,))', "        tell(number)"),
        "TOLD-BEFORE-COMMIT", 27, 15,
    ),
    "serializable": Recipe("        meanwhile = tuple", "        return True", "TOLD-AFTER-FAILURE", 33, 0),
    "listen_notify": Recipe("            tell(number)", "                tell(number)", "TOLD-BEFORE-COMMIT", 48, 12),
    "behind_pgbouncer": Recipe("SET LOCAL", "SET", "TOLD-ASYNC-COMMIT", 18, 0),
}  # fmt: skip


def demand_pgbouncer() -> None:
    """Skip where it is not; CRASHLAB_REQUIRE=pgbouncer says that it has to be."""
    if shutil.which("pgbouncer") is None:
        if "pgbouncer" in required():
            pytest.fail("CRASHLAB_REQUIRE names pgbouncer, but there is none (apt install pgbouncer)", pytrace=False)
        pytest.skip("needs pgbouncer (apt install pgbouncer)")


def test_each_of_them_is_run():
    """No file without a row."""
    assert {file.stem for file in SWEEPS.glob("*.py")} == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_sweep(pytester: pytest.Pytester, name: str):
    """As it stands it passes at every moment of every statement; with the bug it is accused of just that, at those of
    its commits alone."""
    if name == "behind_pgbouncer":
        demand_pgbouncer()
    known, text = KNOWN[name], (SWEEPS / f"{name}.py").read_text(encoding="utf-8")
    assert text.count(known.right) == 1
    wrong = text.replace(known.right, known.wrong).replace('points="statements"', 'points="commits"')
    pytester.makepyfile(test_right=text, test_wrong=wrong)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--crashlab-seed=5", "-rA", "--show-capture=no")
    said = result.stdout.str()
    failed = re.findall(r"^FAILED test_(\w+)\.py", said, re.MULTILINE)
    assert failed, said
    assert set(failed) == {"wrong"}, said
    blamed = set(BLAME.findall(said))
    if "after the fault was sent, and is not there" in said:  # on a busy machine a key is told too late to say more
        blamed.discard("TOLD-LOST")
    assert blamed == {known.code}
    assert len(re.findall(r"^PASSED test_right", said, re.MULTILINE)) == known.moments + 1
    result.assert_outcomes(failed=len(failed), passed=known.moments + known.moments_wrong + 2 - len(failed))
