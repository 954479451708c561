"""Can a project test its own durability, and does a lie get found out?"""

import shlex
import sys

import pytest

from crashlab.server.builds import find_build

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


LATE = """
description = "asynchronous commits that nobody writes out"
extends = "async-commit"
[server.settings]
wal_writer_delay = "10s"
"""
ASYNCHRONOUS = (
    APPLICATION
    + """
@pytest.mark.crashlab("late.toml")
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger, "SET synchronous_commit = off")
    crash_ledger.crash()
    assert crash_ledger.check(allow=["LOSS-ASYNC-WINDOW"]).outcome == "loss"
    crash_ledger.check()
"""
)


def test_what_was_acknowledged_and_is_gone_fails_a_test(pytester: pytest.Pytester) -> None:
    """Also where the manual permits it: with the reason, what would accept it, and the command that runs it again."""
    pytester.makefile(".toml", late=LATE)
    pytester.makepyfile(ASYNCHRONOUS)
    result = pytester.runpytest_subprocess("--crashlab-seed=5", "--crashlab-server=local", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "crashlab: loss, promise kept",
            "LOSS-ASYNC-WINDOW: *",
            "*with synchronous_commit = off: the newest commits may be lost*",
            '*to accept it, say so: crash_ledger.check(allow=[[]"LOSS-ASYNC-WINDOW"])',
            "reproduce with: pytest *::test_orders --crashlab-server=local --crashlab-seed=5",
        ]
    )


def test_what_the_test_does_after_the_crash_changes_nothing(pytester: pytest.Pytester) -> None:
    """What came back is read by crash(), not by check()."""
    pytester.makepyfile(
        APPLICATION
        + """
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.crash()
    with crash_server.connect(autocommit=True) as connection:
        connection.execute("UPDATE orders SET item = 'stolen' WHERE id = 7; DELETE FROM orders WHERE id = 8")
    assert crash_ledger.check().outcome == "intact"
"""
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [("power-loss", "it cuts the power of a recorded run*"), ("quick", "it is a tour of other profiles")],
)
def test_a_profile_without_a_live_fault_is_refused(pytester: pytest.Pytester, profile: str, reason: str) -> None:
    """At once, and not only where the test crashes."""
    pytester.makepyfile(f"""
import pytest

@pytest.mark.crashlab("{profile}")
def test_it(crash_server):
    pass
""")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f'cannot use profile "{profile}" in a test: {reason}', "Hint: Choose one *"])


def test_a_ledger_that_nobody_checks_is_no_pass(pytester: pytest.Pytester) -> None:
    """Whether it was crashed or not; one that is checked passes."""
    pytester.makepyfile(
        APPLICATION
        + """
def test_never_crashed(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)

def test_never_checked(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.crash()

def test_checked(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.crash()
    crash_ledger.check()
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*nobody checked what the crash left*"] * 2)


def test_a_test_is_run_again_by_pytest_alone(pytester: pytest.Pytester) -> None:
    """With every option that chose the server; `crashlab replay` says so, for it has no transactions to run."""
    bindir = find_build().bindir  # type: ignore[union-attr]
    pytester.makepyfile(
        APPLICATION
        + """
@pytest.mark.parametrize("word", ["it's so"])
def test_orders(crash_server, crash_ledger, word):
    crash_ledger.crash()
    crash_ledger.check()
"""
    )
    result = pytester.runpytest_subprocess(f"--crashlab-pg-bindir={bindir}", "--crashlab-seed=5")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*INCONCLUSIVE-TOO-FEW-ACKS*", "*Have the test change something in a ledgered *"])
    assert "minimum" not in result.stdout.str()
    (line,) = [line for line in result.outlines if line.startswith("reproduce with: ")]
    node = "test_a_test_is_run_again_by_pytest_alone.py::test_orders[it's so]"
    words = ["pytest", node, f"--crashlab-pg-bindir={bindir}", "--crashlab-seed=5"]
    assert shlex.split(line.removeprefix("reproduce with: ")) == words
    evidence = next(line.split()[1] for line in result.outlines if line.startswith("evidence: "))
    replayed = pytester.run(sys.executable, "-m", "crashlab", "replay", evidence)
    assert replayed.ret == 2
    replayed.stderr.fnmatch_lines(["*cannot replay *: it is a trial of a test*", f"*{shlex.join(words[2:])}"])


def test_workers_have_the_seed_that_was_printed(pytester):
    """A run of pytest-xdist is run again with one seed."""
    pytester.makepyfile("""
        from crashlab.pytest_plugin import SEED
        def test_one(pytestconfig):
            assert pytestconfig.stash[SEED] == int(open("seed").read())
    """)
    pytester.makeconftest("""
        from crashlab.pytest_plugin import SEED
        def pytest_sessionstart(session):
            if not hasattr(session.config, "workerinput"):
                open("seed", "w").write(str(session.config.stash[SEED]))
    """)
    pytester.runpytest_subprocess("-n2").assert_outcomes(passed=1)


WATCHED = """
def order(crash_server, crash_ledger, sold="sold + 1"):
    with crash_server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE item (id integer PRIMARY KEY, sold integer NOT NULL)")
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, item int REFERENCES item ON DELETE CASCADE)")
        connection.execute("INSERT INTO item SELECT n, 0 FROM generate_series(1, 10) n")
        crash_ledger.watch("item")
        crash_ledger.watch("public.orders")
        crash_ledger.invariant(
            "sold is ordered",
            "SELECT id, sold FROM item WHERE sold <> (SELECT count(*) FROM orders WHERE item = item.id)",
        )
        for number in range(40):
            with crash_ledger.transaction(connection):
                connection.execute("INSERT INTO orders VALUES (%s, %s)", (number, number % 10 + 1))
                connection.execute(f"UPDATE item SET sold = {sold} WHERE id = %s", (number % 10 + 1,))
        with crash_ledger.transaction(connection):
            connection.execute("DELETE FROM item WHERE id = 4")
"""


def test_a_watched_table_needs_no_names(pytester: pytest.Pytester) -> None:
    """Every row is compared, also those that were there before and those that a cascade took; the WAL is read, too."""
    pytester.makepyfile(
        WATCHED
        + """
from crashlab import evidence

def test_orders(crash_server, crash_ledger):
    order(crash_server, crash_ledger)
    crash_ledger.crash()
    verdict = crash_ledger.check()
    assert verdict.outcome == "intact" and verdict.counts.acked == 43
    observation = evidence.load_observation(crash_ledger.trial.folder)
    assert sum(len(read.rows) for read in observation.relations) == 9 + 36
    assert observation.wal.records and observation.invariants[0].observed == "no rows"
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_an_invariant_that_the_test_itself_breaks_accuses_nobody(pytester: pytest.Pytester) -> None:
    """It did not hold right before the crash: inconclusive, with the rows. One that cannot be run fails at once."""
    pytester.makepyfile(
        WATCHED
        + """
import pytest
from crashlab.errors import UsageProblem

def test_orders(crash_server, crash_ledger):
    with pytest.raises(UsageProblem, match='cannot use invariant "x": relation "nowhere" does not exist'):
        crash_ledger.invariant("x", "SELECT FROM nowhere")
    order(crash_server, crash_ledger, sold="sold + 2")
    crash_ledger.crash()
    crash_ledger.check()
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*inconclusive*", "*INCONCLUSIVE-INVARIANT-BEFORE*", '*9 rows, such as {"id": 1, "sold": 8}*']
    )
    assert "CORRUPT" not in result.stdout.str()


@pytest.mark.container
def test_a_profile_for_containers_gets_one(pytester: pytest.Pytester) -> None:
    """Without a word about the server: a local one could not be crashed as this profile asks."""
    pytester.makepyfile(
        APPLICATION
        + """
@pytest.mark.crashlab("kill9-container")
def test_orders(crash_server, crash_ledger):
    assert crash_server.kind == "container"
    fill(crash_server, crash_ledger)
    crash_ledger.crash()
    assert crash_ledger.check().outcome == "intact"
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_a_test_leaves_what_every_trial_leaves_and_keeps_its_server(pytester: pytest.Pytester) -> None:
    """Its kind and the server's log with the recovery; the checksums say why they were not looked at."""
    pytester.makepyfile(
        APPLICATION
        + """
from crashlab import evidence

def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.crash()
    for again in range(2):
        crash_ledger.check()
        folder = crash_ledger.trial.folder
        record = evidence.load_trial(folder)
        assert (record.kind, record.disk) == ("application", "linux")
        assert record.reproduce.startswith("pytest ")
        assert "automatic recovery in progress" in (folder / evidence.SERVER_LOG).read_text()
        run = evidence.load_observation(folder).checks["checksums"]
        assert (run.status, run.detail) == ("skipped", "needs a clean stop, and the server goes on")
        with crash_server.connect(autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (19,)
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
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


@pytest.mark.parametrize(("least", "told"), [(19, "failed"), (0, "passed")])
def test_a_lower_bound_that_a_permitted_loss_breaks_accuses_nobody(
    pytester: pytest.Pytester, least: int, told: str
) -> None:
    """It held before the crash, and does not for every prefix: inconclusive. Another one is judged."""
    pytester.makepyfile(
        APPLICATION
        + f"""
@pytest.mark.crashlab("async-commit")
def test_orders(crash_server, crash_ledger):
    with crash_server.connect(autocommit=True) as connection:  # no race with walwriter
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    fill(crash_server, crash_ledger, "SET synchronous_commit = off")
    crash_ledger.invariant("all are there", "SELECT 1 WHERE (SELECT count(*) FROM orders WHERE id <> 3) < {least}")
    crash_ledger.crash()
    verdict = crash_ledger.trial.verdict()
    assert verdict.counts.lost > 1
    crash_ledger.check(allow=["LOSS-ASYNC-WINDOW"])
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**{told: 1})
    if told == "failed":
        result.stdout.fnmatch_lines(["*inconclusive*", "*INCONCLUSIVE-INVARIANT-PREFIX*"])
    assert "CORRUPT" not in result.stdout.str()


@pytest.mark.parametrize(("statement", "told"), [("UPDATE factor SET n = 2", "failed"), ("SELECT", "passed")])
def test_an_index_that_the_application_broke_accuses_no_crash(
    pytester: pytest.Pytester, statement: str, told: str
) -> None:
    """It was so right before the fault: a function in it is called immutable and is not. A sound one is judged."""
    pytester.makepyfile(
        APPLICATION
        + f"""
def test_orders(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    with crash_server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE factor AS SELECT 1 AS n")
        connection.execute(
            "CREATE FUNCTION scaled(int) RETURNS int IMMUTABLE LANGUAGE plpgsql"
            " AS 'BEGIN RETURN $1 * (SELECT n FROM public.factor); END'"
        )
        connection.execute("CREATE INDEX orders_scaled ON orders (scaled(id))")
        connection.execute("{statement}")
    crash_ledger.crash()
    crash_ledger.check()
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**{told: 1})
    if told == "failed":
        result.stdout.fnmatch_lines(["*INCONCLUSIVE-BROKEN-BEFORE*", "*orders_scaled*"])
    assert "CORRUPT" not in result.stdout.str()


def test_a_code_that_does_not_exist_is_told_before_anything_is_judged(pytester: pytest.Pytester) -> None:
    """In words, with what may be meant, and without a page of source; by both fixtures."""
    pytester.makepyfile(
        APPLICATION
        + """
def test_ledger(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.verdict = None  # nobody judges
    crash_ledger.check(allow=["LOSS-ASYNC-WINDOWS"])

def test_crash(crash):
    crash.check(allow=["LOSS-ASYNC-WINDOWS"])
"""
    )
    result = pytester.runpytest_subprocess("--crashlab-seed=5", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=2)
    said = result.stdout.str()
    assert said.count('cannot allow "LOSS-ASYNC-WINDOWS": there is no such finding') >= 2
    assert said.count('Did you mean "LOSS-ASYNC-WINDOW"? crashlab explain lists all codes.') >= 2
    assert "acceptance.py" not in said
    assert "__tracebackhide__" not in said


def test_a_marker_cannot_set_what_sessions_set(pytester: pytest.Pytester) -> None:
    """And the hint says what a test does instead, which passes."""
    pytester.makepyfile(
        """
import psycopg, pytest

@pytest.mark.crashlab(settings={"synchronous_commit": "off"})
def test_marker(crash):
    pass

def test_session(crash):
    with psycopg.connect(crash.url + "?options=-csynchronous_commit%3Doff", autocommit=True) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
        connection.execute("CREATE TABLE t (n integer)")
        with crash:
            connection.execute("INSERT INTO t VALUES (1)")
    crash.check(allow=["LOSS-ASYNC-WINDOW"])
"""
    )
    result = pytester.runpytest_subprocess("--crashlab-seed=5", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*cannot set synchronous_commit for the server of a test*", "Hint: *crash.url + *"])


STOPPED = """
extends = "docker-stop"
description = "the grace is long"
[[faults]]
kind = "terminate"
grace = ["60s", "60s"]
when = { acks = 0 }
"""


def test_a_server_that_had_shut_down_has_tested_nothing(pytester: pytest.Pytester) -> None:
    """Such a test is skipped, by both fixtures; one whose server is killed is not, and a failure stays one."""
    pytester.makefile(".toml", long=STOPPED)
    pytester.makepyfile(
        APPLICATION
        + """
import psycopg

def go(crash):
    with psycopg.connect(crash.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n integer)")
        with crash:
            connection.execute("INSERT INTO t VALUES (1)")
    crash.check()

@pytest.mark.crashlab("long.toml")
def test_crash(crash):
    go(crash)

@pytest.mark.crashlab("long.toml")
def test_ledger(crash_server, crash_ledger):
    fill(crash_server, crash_ledger)
    crash_ledger.crash()
    crash_ledger.check()

def test_innocent(crash):
    go(crash)

@pytest.mark.crashlab("long.toml")
def test_failing(crash):
    go(crash)
    assert False, "of its own"
"""
    )
    result = pytester.runpytest_subprocess("--crashlab-seed=5", "-p", "no:cacheprovider", "-rs")
    result.assert_outcomes(passed=1, skipped=2, failed=1)
    assert result.stdout.str().count("the server had shut down before it was killed: nothing was to be recovered") == 2
