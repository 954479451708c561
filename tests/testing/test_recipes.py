"""Is each recipe of the page caught where it is guilty, with the right blame, and let pass as it stands there?

A recipe is a file of `recipes/`: an application that is right, and its test. Its guilty twin is the same file with a
few words changed.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.documents import PAGES

pytest_plugins = ["pytester"]
RECIPES = Path(__file__).parent / "recipes"
MOST_LINES = 15
BLAME = re.compile(r"\b(?:TOLD|APPLICATION)-[A-Z-]+\b")


@dataclass(frozen=True)
class Recipe:
    """What is changed to make it guilty, what it is accused of then, and at how many moments each of them is run: at
    none where the run that counts has failed already."""

    right: str
    wrong: str
    code: str
    moments: int
    moments_wrong: int


def swapped(first: str, second: str) -> tuple[str, str]:
    """Return two lines, and the same in the wrong order."""
    return f"{first}\n{second}\n", f"{second}\n{first}\n"


KNOWN = {
    "psycopg_seats": Recipe("return False", "pass", "TOLD-AFTER-FAILURE", 3, 0),
    "psycopg_pool_views": Recipe("SET LOCAL", "SET", "TOLD-ASYNC-COMMIT", 3, 0),
    "sqlalchemy_numbers": Recipe(
        "        self.save()\n", "        if self.last % 2 == 0:\n            self.save()\n", "TOLD-BEFORE-COMMIT", 6, 3
    ),
    "asyncpg_orders": Recipe("        tell(", "            tell(", "TOLD-BEFORE-COMMIT", 3, 3),
    "outbox_worker": Recipe(
        *swapped("        send(connection, number)", "        mark(connection, number)"), "APPLICATION-INVARIANT", 6, 6
    ),
    "django_transfer": Recipe("with transaction.atomic():", "if amount:", "APPLICATION-INVARIANT", 3, 6),
    "node_orders": Recipe(
        *swapped('  await client.query("COMMIT");', '  fs.appendFileSync(process.env.CRASHLAB_TOLD, "1\\\\n");'),
        "TOLD-BEFORE-COMMIT",
        3,
        3,
    ),
}


def source(name: str) -> str:
    return (RECIPES / f"{name}.py").read_text(encoding="utf-8")


def test_every_recipe_is_on_the_page():
    """Its test word for word, short enough; and its bug with the finding."""
    assert {file.stem for file in RECIPES.glob("*.py")} == set(KNOWN)
    for name, recipe in KNOWN.items():
        test = source(name).split("# --- the test\n")[1]
        assert f"```python\n{test}```\n" in PAGES["recipes"], name
        assert len(test.splitlines()) <= MOST_LINES
        (row,) = re.findall(rf"^\|.*/{name}\.py\).*$", PAGES["recipes"], re.MULTILINE)
        assert f"`{recipe.code}`" in row


@pytest.mark.server
@pytest.mark.parametrize("name", KNOWN)
def test_a_recipe(pytester: pytest.Pytester, name: str):
    """At every moment of every commit: as it stands it passes; with the bug it fails, and is accused of just that."""
    if name == "node_orders" and not node_has_pg():
        pytest.skip("needs node and its module pg (npm install pg, NODE_PATH)")
    recipe, text = KNOWN[name], source(name)
    assert text.count(recipe.right) == 1
    pytester.makepyfile(test_right=text, test_wrong=text.replace(recipe.right, recipe.wrong))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--crashlab-seed=5", "-rA", "--show-capture=no")
    said = result.stdout.str()
    failed = re.findall(r"^FAILED test_(\w+)\.py", said, re.MULTILINE)
    assert failed, said
    assert set(failed) == {"wrong"}
    assert set(BLAME.findall(said)) == {recipe.code}
    assert len(re.findall(r"^PASSED test_right", said, re.MULTILINE)) == recipe.moments + 1
    result.assert_outcomes(failed=len(failed), passed=recipe.moments + recipe.moments_wrong + 2 - len(failed))


def node_has_pg() -> bool:
    """Whether a process finds both."""
    if shutil.which("node") is None:
        return False
    return subprocess.run(["node", "-e", 'require("pg")'], capture_output=True, timeout=30).returncode == 0
