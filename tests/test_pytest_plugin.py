"""Can a project test its own durability, and does a lie get found out?"""

import pytest

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.server

APPLICATION = """
import pytest

def fill(crash_server, crash_ledger, before=""):
    with crash_server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, item text)")
        if before:
            connection.execute(before)
        for number in range(20):
            with crash_ledger.transaction(connection) as transaction:
                connection.execute("INSERT INTO orders VALUES (%s, %s)", (number, f"book {number}"))
                transaction.changed("orders", id=number)
        with crash_ledger.transaction(connection) as transaction:
            connection.execute("DELETE FROM orders WHERE id = 3")
            transaction.changed("orders", id=3)
        with pytest.raises(ZeroDivisionError), crash_ledger.transaction(connection) as transaction:
            connection.execute("INSERT INTO orders VALUES (99, 'never')")
            transaction.changed("orders", id=99)
            1 / 0
"""


def test_an_honest_application_passes(pytester: pytest.Pytester) -> None:
    """Inserts, deletes and a rollback survive a kill -9 of everything."""
    pytester.makepyfile(
        APPLICATION
        + """
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    (receipt,) = crash_ledger.crash()
    assert receipt.confirmed
    verdict = crash_ledger.check()
    assert verdict.outcome == "intact" and verdict.counts.acked == 21
"""
    )
    result = pytester.runpytest_subprocess("--crashlab-seed=5", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["crashlab: server auto, seed 5"])


def test_a_row_that_changed_behind_the_ledger_is_reported(pytester: pytest.Pytester) -> None:
    """Damage after the recovery fails the test, with the finding and the command that runs it again."""
    pytester.makepyfile(
        APPLICATION
        + """
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.crash()
    with crash_server.connect(autocommit=True) as connection:
        connection.execute("UPDATE orders SET item = 'stolen' WHERE id = 7")
    crash_ledger.check()
"""
    )
    result = pytester.runpytest_subprocess("--crashlab-seed=5", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CORRUPT-WRONG-VALUE*", "*reproduce with: pytest *--crashlab-seed=5*"])


def test_a_marker_chooses_the_profile(pytester: pytest.Pytester) -> None:
    """An asynchronous commit may be lost: the promise is kept, and the test may still insist that it was."""
    pytester.makepyfile(
        APPLICATION
        + """
@pytest.mark.crashlab("async-commit")
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger, "SET synchronous_commit = off")
    crash_ledger.crash()
    verdict = crash_ledger.check()
    assert verdict.promise == "kept" and verdict.counts.acked_async == 21
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers")
    result.assert_outcomes(passed=1)


def test_a_test_that_never_crashed_fails(pytester: pytest.Pytester) -> None:
    """Not run is not passed."""
    pytester.makepyfile(
        APPLICATION
        + """
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.check()
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*INCONCLUSIVE-NO-INJECTION*"])


def test_an_unknown_profile_is_a_clear_error(pytester: pytest.Pytester) -> None:
    """The name, and what it could have been."""
    pytester.makepyfile(
        """
import pytest

@pytest.mark.crashlab("kill9-al")
def test_it(crash_server):
    pass
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*kill9-all*"])
