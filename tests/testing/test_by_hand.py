"""Does a Crash that is nobody's fixture say how it is run again, and is its evidence still there?"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crashlab.errors import UsageProblem
from crashlab.testing import Crash

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.server
SHARED = """
import pytest
from crashlab.testing import Crash
from tests.testing.shop import Shop

def sell(shared, number):
    shop = Shop(shared.url).create_tables()
    with shared:
        shop.insert(number)
        shared.told(number)
        shop.connection.commit()
    shared.check("SELECT id FROM orders")
"""


def test_one_that_is_nobodys_fixture_says_how_to_run_it_again(pytester, monkeypatch):
    """In a test the node, in a script its file, and the arguments; what its evidence lies in stays, whoever sees it."""
    pytester.makepyfile(
        SHARED
        + """
@pytest.fixture(scope="module")
def shared():
    with Crash(seed=3, point="1:commit:1:before") as crash:
        yield crash

def test_orders(shared):
    sell(shared, 1)
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    told = "with Crash(..., seed=3, point='1:commit:1:before')"
    said = result.stdout.str()
    assert re.search(rf"reproduce: pytest \S+::test_orders, {re.escape(told)}$", said, re.MULTILINE)
    evidence = Path(re.findall(r"evidence: (\S+)", said)[0])
    assert evidence.is_dir()
    shutil.rmtree(evidence.parent)

    script = SHARED + "with Crash(seed=3, point='1:commit:1:before') as crash:\n    sell(crash, 1)\n"
    file = pytester.makepyfile(shop_script=script)
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    said = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, timeout=120).stderr
    assert f"reproduce: python {file}, {told}" in said
    shutil.rmtree(Path(re.findall(r"evidence: (\S+)", said)[0]).parent)


def test_the_line_holds_where_pytest_was_started(pytester, monkeypatch):
    """In a folder below the one that pytest calls its root, which its own names of tests begin at."""
    pytester.makeini("[pytest]")
    folder = pytester.mkdir("below")
    (folder / "test_shop.py").write_text(
        SHARED + "\n@pytest.mark.crashlab(points='commits')\ndef test_orders(crash):\n    sell(crash, 1)\n"
    )
    monkeypatch.chdir(folder)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--crashlab-point=1:commit:1:before")
    result.assert_outcomes(failed=1)
    lines = re.findall(r"reproduce: pytest (\S+)", result.stdout.str())
    assert set(lines) == {"test_shop.py::test_orders"}, (
        "the same in pytest's summary, which shows it whole where CI is set"
    )


def test_a_seed_that_is_no_number_is_refused():
    """Before anything is started, and not as damaged evidence afterwards."""
    with pytest.raises(UsageProblem, match="seed is a whole number, not 'x'"):
        Crash(seed="x")  # type: ignore[arg-type]
