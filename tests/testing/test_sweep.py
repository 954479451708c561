"""Does pytest run a test once a moment, each with its own result, and one of them again by its name?"""

import re
import shlex

import pytest

from tests.documents import PAGES, README, blocks

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.server

SHOP = """
import psycopg, pytest
from tests.testing.shop import Shop

def orders(crash, count=2):
    shop = Shop(crash.url).create_tables()
    with crash:
        for number in range(count):
            crash.told(shop.order(number))
    crash.check("SELECT id FROM orders")

def orders_told_early(crash):
    shop = Shop(crash.url).create_tables()
    with crash:
        for number in range(2):
            crash.told(number)
            shop.order(number)
    crash.check("SELECT id FROM orders")
"""


def run(pytester: pytest.Pytester, tests: str, *options: str) -> pytest.RunResult:
    """Run tests beside the shop."""
    pytester.makepyfile(test_shop=SHOP + tests)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--crashlab-seed=5", "-rs", *options)


def test_each_moment_of_each_commit_has_its_own_result(pytester):
    """Two commits, three moments each, and the run that counted; fresh fixtures, and the moment in words."""
    result = run(
        pytester,
        """
seen = []
@pytest.fixture
def fresh():
    seen.append(1)
    return len(seen)

@pytest.mark.crashlab(points="commits")
def test_orders(crash, fresh):
    assert fresh == len(seen)
    orders(crash)

def test_after():
    assert len(seen) == 7
""",
        "-v",
    )
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(
        ["*test_orders PASSED*", "*test_orders[[]connection 1, commit 2 (COMMIT), done but unheard[]] PASSED*"]
    )


def test_a_guilty_moment_is_found_and_replayed_by_its_line(pytester):
    """Told before COMMIT: found where the crash comes in between, and nowhere else; the line runs it again."""
    result = run(
        pytester,
        """
@pytest.mark.parametrize("what", ["early"])
class TestShop:
    @pytest.mark.crashlab(points="commits")
    def test_orders(self, crash, what):
        assert what == "early" and not hasattr(self, "used")
        self.used = True
        orders_told_early(crash)
""",
    )
    result.assert_outcomes(failed=3, passed=4)
    lines = re.findall(r"reproduce: pytest (.*)", result.stdout.str())
    assert [shlex.split(line)[-1] for line in lines] == [
        "1:commit:1:before",
        "1:commit:1:answered",
        "1:commit:2:before",
    ]
    words = shlex.split(lines[0])
    assert words == [
        "test_shop.py::TestShop::test_orders[early]",
        "--crashlab-seed=5",
        "--crashlab-point",
        "1:commit:1:before",
    ]
    again = pytester.runpytest_subprocess("-p", "no:cacheprovider", *words)
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*TOLD-BEFORE-COMMIT*", "*the server died: connection 1, commit 1 (COMMIT), before*"])


def test_a_limit_draws_spread_moments_and_modules_keep_their_fixtures(pytester):
    """As many as asked for, the same ones for the same seed; what a module shares is made once, and ended once."""
    tests = """
@pytest.fixture(scope="module")
def shared():
    print("BEGINS")
    yield
    print("ENDS")

@pytest.mark.crashlab(points="statements", limit=3)
def test_orders(crash, shared):
    orders(crash)

def test_after(shared):
    pass
"""
    first = run(pytester, tests, "-v", "-s")
    first.assert_outcomes(passed=5)
    assert (first.stdout.str().count("BEGINS"), first.stdout.str().count("ENDS")) == (1, 1)
    second = run(pytester, tests, "-v")
    chosen = [re.findall(r"test_orders\[(.*?)\]", one.stdout.str()) for one in (first, second)]
    assert len(set(chosen[0])) == 3
    assert chosen[0] == chosen[1]


def test_a_moment_that_never_comes_is_no_pass(pytester):
    """An application that asks less the second time: skipped with the reason, and failed where it was asked for."""
    tests = """
counts = []

@pytest.mark.crashlab(points="commits")
def test_orders(crash):
    counts.append(1)
    orders(crash, count=2 if len(counts) == 1 else 1)
"""
    result = run(pytester, tests)
    result.assert_outcomes(passed=4, skipped=3)
    result.stdout.fnmatch_lines(["*this run never came to the moment 1:commit:2:*"])
    asked = run(pytester, tests, "--crashlab-point=1:commit:9:before")
    asked.assert_outcomes(failed=1)


def test_what_is_asked_after_the_block_is_no_moment(pytester):
    """The application goes on, but nothing of that was inside: no moment is chosen that could not come."""
    result = run(
        pytester,
        """
@pytest.mark.crashlab(points="statements")
def test_orders(crash):
    shop = Shop(crash.url).create_tables()
    with crash:
        crash.told(shop.order(1))
    Shop(crash.url).order(2)
    crash.check("SELECT id FROM orders")
""",
    )
    result.assert_outcomes(passed=1 + 3 * len(["BEGIN", "INSERT", "COMMIT"]))


def test_workers_share_the_moments(pytester):
    """Each counts once, and no moment is run twice or by nobody."""
    result = run(
        pytester,
        """
@pytest.mark.crashlab(points="commits")
def test_orders(crash):
    orders(crash)
""",
        "-n2",
        "-v",
    )
    result.assert_outcomes(passed=8)
    moments = re.findall(r"PASSED test_shop.py::test_orders\[share \d of 2\]\[(.*?)\]", result.stdout.str())
    assert len(moments) == len(set(moments)) == 6


@pytest.mark.parametrize(
    ("test", "complaint"),
    [
        ("crash.told(1)\n    with crash: Shop(crash.url).create_tables()", "*1 keys were told, and not checked*"),
        ("with crash: Shop(crash.url).create_tables()", "*nobody checked what came back*"),
        ("crash.url", "*the server was never crashed*"),
    ],
)
def test_a_test_that_asks_for_nothing_fails(pytester, test, complaint):
    """At its end, with what to do."""
    result = run(pytester, f"def test_it(crash):\n    {test}\n")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([complaint])


def test_a_sweep_without_a_moment_fails(pytester):
    """Nothing is committed inside the block: the run that counted says so, and so does the sweep."""
    result = run(
        pytester,
        """
@pytest.mark.crashlab(points="commits")
def test_it(crash):
    Shop(crash.url).create_tables()
    with crash:
        pass
    crash.check(allow=["INCONCLUSIVE-TOO-FEW-ACKS"])
""",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*nothing to sweep*"])


@pytest.mark.parametrize(
    ("marker", "complaint"),
    [
        ('points="comits"', '*cannot crash at the points "comits"*'),
        ("limit=0", "*cannot sweep 0 moments*"),
        ("point=1", "*cannot use the marker crashlab(point)*"),
        ("profile=5", "*cannot use 5 as a profile*"),
        ("settings=5", "*cannot use the settings 5*"),
    ],
)
def test_a_marker_that_means_nothing_fails_its_test_alone(pytester, marker, complaint):
    """Nothing of it runs, its neighbour does, and no way through crashlab is shown."""
    tests = f"@pytest.mark.crashlab({marker})\ndef test_it(crash):\n    pass\n\ndef test_other():\n    pass\n"
    result = run(pytester, tests)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines([complaint, "Hint: *"])
    result.stdout.no_fnmatch_line("*sweep.py*")


@pytest.mark.parametrize("name", ["fsyncc", "fsink"])
def test_a_misspelt_setting_is_named(pytester, name):
    """By the server that does not know it, with the one that was meant."""
    result = run(pytester, f'@pytest.mark.crashlab(settings={{"{name}": 1}})\ndef test_it(crash):\n    pass\n')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f'*unrecognized configuration parameter "{name}"*', 'Hint: Did you mean "fsync"?'])
    result.stdout.no_fnmatch_line("*base.py*")


def test_the_example_of_the_readme_runs(pytester):
    """As it stands there, with a shop of ours."""
    (example,) = blocks(README, "python")
    assert example == blocks(PAGES["pytest"], "python")[0]
    result = run(pytester, example)
    result.assert_outcomes(passed=1)


def test_a_run_without_our_tests_loads_no_driver(pytester):
    """The plugin is there in every run of pytest, whoever's tests they are."""
    pytester.makepyfile(
        """
import sys
def test_it():
    assert not {"psycopg", "pydantic", "crashlab.server", "crashlab.observer"} & set(sys.modules)
"""
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_crash_states_of_a_profile_that_cuts_no_power_are_refused(pytester):
    """Ignored, the test would pass and no power would have been cut."""
    result = run(pytester, '@pytest.mark.crashlab(profile="kill9-all", states=3)\ndef test_it(crash):\n    pass\n')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*cannot look at crash states with profile*kill9-all*"])


def test_a_profile_that_cannot_be_used_fails_its_test(pytester):
    """There is none of that name."""
    result = run(pytester, '@pytest.mark.crashlab(profile="kill9-everything")\ndef test_it(crash):\n    pass\n')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*kill9-everything*"])
