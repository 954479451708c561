"""Is a loss that only the power's shows found, and blamed on the setting, at crash states of a test's own block?"""

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator

import psycopg
import pytest

from crashlab.campaign.replay import replay
from crashlab.errors import ProfileError, UsageProblem
from crashlab.model import Verdict
from crashlab.server import ServerChoice
from crashlab.testing import Crash, CrashFailure
from crashlab.testing.crash import STATES_FAILED_MAX
from crashlab.trial.judged import verdict_of
from tests.testing.shop import Shop

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.server
ORDERS = "SELECT id FROM orders"
STATES = 16  # the first rounds: two, four ... points, over the whole block


@pytest.fixture
def cut(request, tmp_path) -> Iterator[Callable[..., Crash]]:
    """Makes a Crash as the test's marker asks for it, and leaves the check to the test."""
    with contextlib.ExitStack() as stack:

        def make(**more) -> Crash:
            asked = {"states": STATES, **request.node.get_closest_marker("crashlab").kwargs, **more}
            return stack.enter_context(contextlib.closing(Crash(folder=tmp_path, seed=7, **asked))).start()

        yield make


def sell(crash: Crash, numbers=range(12)) -> Shop:
    """Orders, each told once it is answered."""
    shop = Shop(crash.url)
    with crash:
        for number in numbers:
            crash.told(shop.order(number))
    return shop


def counts(verdicts: list[Verdict]) -> set[int]:
    """How many commits had been answered at the states of one block; the first verdict is that of the kill."""
    return {verdict.counts.acked for verdict in verdicts[1:]}


@pytest.mark.crashlab(profile="power-loss")
def test_what_was_answered_is_there_at_each_state(cut):
    """Defaults, on a disk that keeps its word: no state loses anything, early and late ones; two blocks."""
    crash = cut()
    Shop(crash.url).create_tables()
    sell(crash, range(12))
    sell(crash, range(12, 20))
    verdicts = crash.check(ORDERS)
    assert len(verdicts) == 2 + 2 * STATES
    assert {verdict.outcome for verdict in verdicts} == {"intact"}
    first, second = (counts([verdicts[0], *part]) for part in (verdicts[2 : 2 + STATES], verdicts[2 + STATES :]))
    assert len(first) > 2
    assert max(first) <= 13
    assert min(second) >= 13  # what the block before had answered stays answered
    assert max(second) <= 21


@pytest.mark.crashlab(profile="power-loss")
@pytest.mark.parametrize("at_once", [True, False])
def test_an_invariant_is_asked_at_each_state(cut, at_once):
    """Though its tables are younger than the recording's base image; guilty if both rows come in two transactions."""
    crash = cut()
    shop = Shop(crash.url).create_tables()
    shop.connection.execute("CREATE TABLE bills (id integer PRIMARY KEY)")
    shop.connection.commit()
    crash.invariant("every order has a bill", "SELECT id FROM orders EXCEPT SELECT id FROM bills")
    with crash:
        for number in range(6):
            shop.insert(number)
            if not at_once:
                shop.connection.commit()
            shop.connection.execute("INSERT INTO bills VALUES (%s)", (number,))
            shop.connection.commit()
            crash.told(number)
    if at_once:
        assert len(crash.check(ORDERS)) == 1 + STATES
        return
    with pytest.raises(CrashFailure, match=r"APPLICATION-INVARIANT: .*every order has a bill"):
        crash.check(ORDERS)


@pytest.mark.crashlab(profile="power-loss")
def test_what_a_login_fires_is_no_commit_of_the_application(cut):
    """A session of ours would take the number of a transaction that is gone, and commit it."""
    crash = cut(states=12)
    with psycopg.connect(crash.direct_url, autocommit=True) as owner:
        if owner.info.server_version < 170000:
            pytest.skip("no event trigger on login before PostgreSQL 17")
        owner.execute("""
            CREATE TABLE logins (id serial PRIMARY KEY, who text);
            CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS
                'BEGIN INSERT INTO logins (who) VALUES (session_user); END';
            CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note();
        """)
    Shop(crash.url).create_tables()
    sell(crash, range(40))
    assert {verdict.outcome for verdict in crash.check(ORDERS)} == {"intact"}


@pytest.mark.crashlab(profile="power-loss", settings={"fsync": False})
def test_fsync_off(cut, tmp_path):
    """Lost with the power: the setting is blamed; stored evidence says the same, and so does a replay of the state."""
    crash = cut(reproduce="pytest here")
    crash.told(Shop(crash.url).create_tables().order(100))  # before the block, so before each of its states
    sell(crash)
    with pytest.raises(CrashFailure, match="TOLD-NOTHING-PROMISED") as caught:
        crash.check(ORDERS)
    said = str(caught.value)
    assert "had been answered, under fsync = off" in said
    assert "the database broke no promise" in said
    assert re.search(r"the power failed: block 1, operation \d+ of its recording", said)
    assert re.search(r"^reproduce: pytest here --crashlab-state=\S+/recording-1:\d+\.\d+$", said, re.MULTILINE)
    others = re.findall(r"^    --crashlab-state=\S+/recording-1:\d+\.\d+: .*[A-Z]+-", said, re.MULTILINE)
    folders = sorted(crash.folder.glob("states-1/*"))
    assert f"{len(others) + 1} of the {len(folders)} crash states looked at fail; this is the first" in said
    assert len(others) + 1 == STATES_FAILED_MAX
    folder = next(one for one in folders if str(one) in said)
    verdict = verdict_of(folder)
    again = replay(folder, out=tmp_path / "again", server=ServerChoice(), trust=True).trials[0].verdict
    assert [one.code for one in again.findings] == [one.code for one in verdict.findings]
    assert "TOLD-NOTHING-PROMISED" in [one.code for one in verdict.findings]
    assert verdict.promise == "void"


@pytest.mark.crashlab(profile="kill9-every-write", settings={"fsync": False})
def test_fsync_off_is_no_matter_while_the_kernel_lives(cut):
    """The innocent twin: the same states, and everything written survives."""
    crash = cut()
    Shop(crash.url).create_tables()
    sell(crash)
    assert {verdict.outcome for verdict in crash.check(ORDERS)} == {"intact"}


@pytest.mark.crashlab(profile="power-loss", disk="lying")
def test_a_disk_that_lies(cut):
    """Not the database, nor a setting of its own."""
    crash = cut(states=60)
    Shop(crash.url).create_tables()
    sell(crash, range(30))
    with pytest.raises(CrashFailure, match="promise void") as caught:
        crash.check(ORDERS)
    assert "with a lying disk" in str(caught.value)


@pytest.mark.crashlab(profile="power-loss")
def test_told_before_its_commit(cut):
    """At states between the two, and at no others; told afterwards nothing is wrong, see above."""
    crash = cut(states=60)
    shop = Shop(crash.url).create_tables()
    with crash:
        for number in range(12):
            shop.insert(number)
            crash.told(number)
            shop.connection.commit()
    with pytest.raises(CrashFailure, match=r"TOLD-BEFORE-COMMIT.*key"):
        crash.check(ORDERS)


@pytest.mark.crashlab(profile="power-loss")
@pytest.mark.parametrize("hurry", [True, False])
def test_asynchronous_by_accident(cut, hurry):
    """Who set it is named; a commit that is synchronous is safe. What is accepted is accepted at the states, too."""
    crash = cut()
    shop = Shop(crash.url).create_tables()
    with crash:
        (shop.hurry if hurry else shop.hurry_once)()
        for number in range(12):
            crash.told(shop.order(number))
    if hurry:
        with pytest.raises(CrashFailure, match="TOLD-ASYNC-COMMIT") as caught:
            crash.check(ORDERS)
        assert "set by connection 1 itself" in str(caught.value)
        accepted = ["LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"]
        assert len(crash.check(ORDERS, allow=accepted)) == 1 + len(list(crash.folder.glob("states-1/*")))
    else:
        crash.check(ORDERS)


@pytest.mark.crashlab(profile="power-loss")
def test_own_assertions_of_each_state(cut):
    """A server that has recovered, and what had been told by then: never more than is there."""
    crash = cut()
    Shop(crash.url).create_tables()
    sell(crash)
    seen = []
    for state in crash.states:
        with psycopg.connect(state.url) as connection:
            there = [row[0] for row in connection.execute(ORDERS)]
        assert set(state.told) <= set(there)
        seen.append((len(state.told), len(there)))
    assert len(seen) == STATES
    assert len({told for told, _ in seen}) > 2
    assert all(there - told <= 1 for told, there in seen)  # one commit at most that was not answered yet
    crash.check(ORDERS)


SHOP = """
import pytest
from tests.testing.shop import Shop

@pytest.mark.crashlab(profile="power-loss", states=12)
def test_few(crash):
    shop = Shop(crash.url).create_tables()
    with crash:
        for number in range(12):
            crash.told(shop.order(number))
    for state in crash.states:
        with state.connect() as connection:
            (there,) = connection.execute("SELECT count(*) FROM orders").fetchone()
            assert there < 3, f"{there} orders: {state.note}"
    crash.check("SELECT id FROM orders")

@pytest.mark.crashlab(profile="power-loss", states=4)
def test_all(crash):
    shop = Shop(crash.url).create_tables()
    with crash:
        crash.told(shop.order(1))
    crash.check("SELECT id FROM orders")
"""


def test_a_state_is_had_again_by_its_line(pytester: pytest.Pytester):
    """From the recording that the failed test left, the very same one; the one that passed left none."""
    pytester.makepyfile(test_shop=SHOP)
    options = ("-p", "no:cacheprovider", "--basetemp", str(pytester.path / "one"), "--crashlab-seed=5")
    first = pytester.runpytest_subprocess(*options)
    first.assert_outcomes(passed=1, failed=1)
    (line,) = re.findall(r"reproduce with: pytest (.*)", first.stdout.str())
    assert len(list(pytester.path.rglob("io.log"))) == 1
    words = shlex.split(line)
    assert words[-1].startswith("--crashlab-state=")
    again = pytester.runpytest_subprocess("-p", "no:cacheprovider", *words)
    again.assert_outcomes(failed=1)
    said = [re.findall(r"AssertionError: (\d+ orders: .*)", one.stdout.str()) for one in (first, again)]
    assert said[0] == said[1] != []
    assert again.stdout.str().count(line) == 1


@pytest.mark.crashlab(profile="power-loss")
def test_bad_use(cut):
    """What makes no sense is said before it costs anything, and a block that commits nothing is no pass."""
    crash = cut()
    Shop(crash.url).create_tables()
    with pytest.raises(UsageProblem, match="no block has ended"):
        next(crash.states)
    with pytest.raises(UsageProblem, match='cannot kill a process "alone"'):
        crash.process(["true"], kill="alone")
    with crash:
        Shop(crash.url)
    with pytest.raises(CrashFailure, match="Inside the block no commit of a change was answered"):
        crash.check()


def test_what_cannot_be_asked_for(dying):
    """Each with what can be."""
    with pytest.raises(UsageProblem, match="cannot crash at moments"):
        Crash("power-loss", points="commits")
    with pytest.raises(UsageProblem, match="cannot look at 0 crash states"):
        Crash("power-loss", states=0)
    with pytest.raises(UsageProblem, match="cannot read the crash state"):
        Crash("power-loss", state="recording-1")
    with pytest.raises(ProfileError, match="it cuts no power"):
        Crash("kill9-all", disk="strict")
    with pytest.raises(ProfileError, match="cuts recoveries"):
        Crash("crash-during-recovery")
    with pytest.raises(UsageProblem, match="it cuts no power"):
        next(dying().states)
