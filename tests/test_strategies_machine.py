"""Does a state machine whose server dies catch what is broken, shrink it to its rules, and leave nothing behind?"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from crashlab.errors import UsageProblem
from crashlab.strategies import PROFILE, CrashStateMachine
from tests.test_strategies import each_build, examples_of_the_page, run_text


class Orders(CrashStateMachine):
    """An innocent shop: it tells its user after COMMIT was answered."""

    there = "SELECT id FROM orders"

    @classmethod
    def prepare(cls, url: str) -> None:
        """Make the table."""
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, item text)")

    def __init__(self) -> None:
        super().__init__()
        assert psycopg.connect(self.url).execute("SELECT count(*) FROM orders").fetchone() == (0,)
        self.count = 0

    def order(self, item: str) -> None:
        """Insert, commit, tell."""
        self.count += 1
        with psycopg.connect(self.url) as connection:
            connection.execute("INSERT INTO orders VALUES (%s, %s)", [self.count, item])
        self.told(self.count)

    @rule(item=st.sampled_from(["book", "chair"]))
    def place(self, item: str) -> None:
        """An order that nothing disturbs."""
        self.order(item)


class Interrupted(Orders):
    """The same shop, whose server dies inside of commits, too."""

    @rule(done=st.booleans())
    def place_and_crash(self, done: bool) -> None:
        """An order in whose commit the server dies."""
        with self.inside_commit(done=done):
            self.order("book")


class TellsEarly(Interrupted):
    """Guilty: the user is told before COMMIT is sent."""

    def order(self, item: str) -> None:
        """Insert, tell, commit."""
        self.count += 1
        with psycopg.connect(self.url) as connection:
            connection.execute("INSERT INTO orders VALUES (%s, %s)", [self.count, item])
            self.told(self.count)


class Asynchronous(Orders):
    """Guilty: chairs are committed asynchronously, by accident."""

    def order(self, item: str) -> None:
        """Insert, commit, tell; the setting came along with a chair."""
        self.count += 1
        with psycopg.connect(self.url) as connection:
            if item == "chair":
                connection.execute("SET synchronous_commit = off")
            connection.execute("INSERT INTO orders VALUES (%s, %s)", [self.count, item])
        self.told(self.count)


FEW = settings(settings.get_profile(PROFILE), derandomize=True, database=None, max_examples=40, stateful_step_count=6)


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A temporary folder that the server's user can reach."""
    with tempfile.TemporaryDirectory(prefix="strategies-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def steps_of(error: BaseException) -> list[str]:
    """The rules of a failure as Hypothesis reports it."""
    notes = "\n".join(getattr(error, "__notes__", []))
    return [step for step in re.findall(r"^state\.(.*)$", notes, re.MULTILINE) if step != "teardown()"]


@pytest.mark.server
@pytest.mark.parametrize(
    ("guilty", "steps"),
    [
        (TellsEarly, ["place_and_crash(done=False)"]),
        (Asynchronous, ["place(item='chair')", "crash()"]),
    ],
)
def test_a_planted_bug_shrinks_to_its_rules(guilty, steps):
    """Told before COMMIT, and an asynchronous commit by accident; both found, with nothing beside."""
    with pytest.raises(AssertionError, match="told, but not there: 1; 0 others are there") as raised:
        run_state_machine_as_test(guilty, settings=FEW)
    assert steps_of(raised.value) == steps


@pytest.mark.server
def test_the_innocent_twin_passes():
    """The same rules, the same crashes, and whoever is told what has been committed has nothing to fear."""
    run_state_machine_as_test(Interrupted, settings=settings(FEW, max_examples=8))


@pytest.mark.server
@each_build
@pytest.mark.parametrize("done", [False, True])
def test_a_server_dies_inside_a_commit(build, done):
    """Before it is done nothing is there, after it everything; the client has no answer, and life goes on."""

    class Here(Orders):
        pg_bindir = build.bindir

    shop, errors = Here(), []
    with shop.inside_commit(done=done):
        if not done:  # a flush, which saves what was made to hold commits, too
            with contextlib.closing(shop.connect()) as connection:
                connection.execute("SELECT pg_logical_emit_message(true, 'flush', '')")
        try:
            shop.order("book")
        except psycopg.OperationalError as error:
            errors.append(str(error))
            raise
    assert len(errors) == 1
    with contextlib.closing(shop.connect()) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (int(done),)
        triggers = connection.execute("SELECT count(*) FROM pg_trigger WHERE tgname = 'crashlab_hold'").fetchone()
        assert (triggers, connection.execute("SHOW synchronous_standby_names").fetchone()) == ((0,), ("",))
    shop.order("lamp")
    shop.crash()


@pytest.mark.server
@each_build
def test_an_asynchronous_commit_is_lost_however_long_it_waits(build):
    """A walwriter that goes on has 300 turns meanwhile; one that stands still has none."""

    class Still(Asynchronous):
        pg_bindir = build.bindir
        server_settings = {"wal_writer_delay": "1ms"}

    class Goes(Still):
        walwriter = True

    for kind, lost in ((Still, True), (Goes, False)):
        shop = kind()
        shop.order("chair")
        time.sleep(0.3)
        expected = pytest.raises(AssertionError, match="told, but not there: 1") if lost else contextlib.nullcontext()
        with expected:
            shop.crash()


@pytest.mark.server
def test_what_the_crash_did_not_cause_is_passed_on():
    """An assertion in the block, and an error before any commit."""
    shop = Orders()
    with pytest.raises(AssertionError, match="wrong sum"), shop.inside_commit():
        raise AssertionError("wrong sum")
    with pytest.raises(LookupError, match="no such item"), shop.inside_commit(done=True):
        raise LookupError("no such item")
    shop.order("book")
    shop.check()


@pytest.mark.server
def test_what_was_told_needs_a_place_to_be_looked_for():
    """Told without a query and without verify(): nobody would look."""

    class Nowhere(CrashStateMachine):
        pass

    shop = Nowhere()
    shop.check()
    shop.told(1)
    with pytest.raises(UsageProblem, match="nothing says where"):
        shop.check()


ENDING = """
import os, signal
from crashlab.strategies import CrashStateMachine, machine
from hypothesis.stateful import rule

class Ends(CrashStateMachine):
    @rule()
    def end(self):
        print("begun", flush=True)
        {how}

TestEnds = Ends.TestCase

def test_its_server_went_with_it():
    assert not machine._spares
"""


@pytest.mark.server
@pytest.mark.parametrize(
    ("how", "status"),
    [("assert False", 1), ("os.kill(os.getpid(), signal.SIGINT)", 2), ("self.die(); os._exit(3)", 3)],
    ids=["failure", "ctrl-c", "exit"],
)
def test_nothing_outlives_the_test(how, status, tmp_path, reachable):
    """After a failure and after Ctrl-C no process and no folder is left; a process that just ends leaves folders."""
    (tmp_path / "test_ends.py").write_text(ENDING.format(how=how))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "test_ends.py"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(reachable)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "begun" in done.stdout, done.stdout + done.stderr
    assert done.returncode == status
    assert ("1 failed, 1 passed" in done.stdout) == (status == 1), done.stdout
    left = [path.name for path in reachable.iterdir() if path.name.startswith("crashlab-")]
    assert bool(left) == (status == 3)
    assert not working_below(reachable)


def working_below(folder: Path) -> list[str]:
    """Processes whose working directory is in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if link.readlink().is_relative_to(folder):
                found.append(link.parent.name)
    return found


def test_the_profile_has_no_deadline():
    """It is registered by the import, and machines have it without being told."""
    registered = settings.get_profile(PROFILE)
    assert registered.deadline is None
    assert HealthCheck.too_slow in registered.suppress_health_check
    assert Orders.TestCase.settings == registered


@pytest.mark.server
def test_the_shop_of_the_page_is_innocent_unless_it_tells_early():
    """As it stands it passes; with one line moved it shrinks to what the page says."""
    shop = examples_of_the_page()[0]
    early = shop.replace("        self.told(key)", "            self.told(key)")
    run_state_machine_as_test(run_text(shop)["Orders"], settings=settings(FEW, max_examples=5))
    with pytest.raises(AssertionError, match="told, but not there") as raised:
        run_state_machine_as_test(run_text(early)["Orders"], settings=FEW)
    assert steps_of(raised.value) == ["place_and_crash(done=False)"]
