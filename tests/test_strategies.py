"""Do the strategies give what a server takes, and does what is broken shrink to what breaks it?"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from hypothesis.stateful import rule, run_state_machine_as_test

from crashlab.errors import ServerError, UsageProblem
from crashlab.history import ACKED
from crashlab.profile import load_profile, parse_profile
from crashlab.server import ServerChoice, ServerSpec, SpareDirectories, create_server
from crashlab.server.builds import Build, find_builds
from crashlab.strategies import (
    PROFILE,
    CrashStateMachine,
    RecordedState,
    crash_points,
    crash_states,
    machine,
    recorded,
    recovered,
    server_settings,
    workloads,
)
from crashlab.strategies.recorded import states_among
from crashlab.strategies.settings import APART, AXES, NEWEST, OLDEST
from tests.conftest import missing_build
from tests.running import RunRequest, record

BUILDS: list[Build] = [] if missing_build() else list(find_builds())
each_build = pytest.mark.parametrize("build", BUILDS or [None], ids=lambda build: str(build and build.version))
SAME = settings(derandomize=True, database=None)
"""The same examples each time."""

# Without servers


@pytest.mark.parametrize("major", range(OLDEST, NEWEST + 1))
def test_the_simplest_settings_are_the_defaults(major):
    """What is left when nothing matters has each setting of this version, at PostgreSQL's own value."""
    found = find(server_settings(major), lambda _: True, settings=SAME)
    assert found == {name: axis.values[0] for name, axis in AXES.items() if axis.since <= major}
    assert ("summarize_wal" in found) == (major >= 17)
    assert ("io_method" in found) == (major >= 18)


@given(server_settings(18, wal_level="minimal", fsync="off", synchronous_commit=None))
def test_pinned_settings_stay_and_the_others_go_with_them(drawn):
    """A pinned value is in every example, and draws nothing that would keep the server from starting."""
    assert (drawn["wal_level"], drawn["fsync"], drawn["max_wal_senders"]) == ("minimal", "off", "0")
    assert drawn["archive_mode"] == drawn["summarize_wal"] == "off"
    assert "synchronous_commit" not in drawn


@pytest.mark.parametrize(
    ("major", "pinned", "complaint"),
    [
        (18, {"wal_level": "minimal", "archive_mode": "on"}, "do not go together"),
        (15, {"summarize_wal": "on"}, "PostgreSQL 15 has it not"),
        (18, {"fsnyc": "on"}, "fsync"),
        (9, {}, "PostgreSQL 9"),
    ],
)
def test_settings_that_cannot_be_drawn_are_refused(major, pinned, complaint):
    """A contradiction, a setting that comes later, a typing error, an old version."""
    with pytest.raises(UsageProblem, match=complaint):
        server_settings(major, **pinned)


@given(workload=workloads(), server=server_settings(18, synchronous_commit=None))
def test_any_workload_and_any_settings_make_a_profile(workload, server):
    """What is drawn is what a profile's file may say."""
    table = {"name": "drawn", "description": "drawn", "workload": workload, "server": {"settings": server}}
    assert parse_profile(table).workload.clients == workload["clients"]


def test_the_simplest_workload_is_one_client_with_plain_commits():
    """One kind, one client, nothing beside."""
    found = find(workloads(), lambda _: True, settings=SAME)
    assert (found["kinds"], found["clients"], found["synchronous_commit"]) == (["register"], 1, {"on": 1.0})
    assert not any(found[style] for style in ("two_phase", "rollbacks", "savepoints", "errors", "read_only"))
    assert "checkpoint_every" not in found


@pytest.mark.parametrize(
    ("wanted", "position", "number"),
    [
        (lambda state: True, 100, 0),
        (lambda state: state.position > 155, 156, 0),
        (lambda state: state.number >= 3, 100, 3),
        (lambda state: state.number >= 1 and state.position >= 120, 120, 1),
    ],
)
def test_a_state_shrinks_to_the_earliest_and_then_to_nothing_lost(wanted, position, number):
    """First the crash point, then how much is lost there."""
    states = states_among(Path("recorded"), range(100, 200), 5)
    assert find(states, wanted, settings=SAME) == RecordedState(Path("recorded"), position, number)


def test_the_profile_has_no_deadline():
    """It is registered by the import, and machines have it without being told."""
    registered = settings.get_profile(PROFILE)
    assert registered.deadline is None
    assert HealthCheck.too_slow in registered.suppress_health_check
    assert Orders.TestCase.settings == registered


# Settings, on servers


@pytest.mark.server
@each_build
def test_a_server_takes_what_is_drawn(build):
    """Each start is a real one, and each setting is in force."""
    with SpareDirectories() as spares:

        @settings(SAME, max_examples=12, suppress_health_check=list(HealthCheck))
        @given(server_settings(build.version.major))
        def start(drawn):
            spec = ServerSpec(kind="local", pg_bindir=build.bindir, settings=drawn)
            with create_server(spec, spares=spares) as server:
                server.start()
                found = server.read_settings()
                assert found["wal_level"] == drawn["wal_level"]

        start()


@pytest.mark.server
@each_build
def test_no_server_takes_what_is_kept_apart(build):
    """Each pair is refused by the server itself, and its half alone is not the reason."""
    major = build.version.major
    with SpareDirectories() as spares:
        for pair in APART:
            (other,) = (name for name, _ in pair if name != "wal_level")
            if AXES[other].since > major:
                continue
            sound = find(server_settings(major, wal_level="minimal"), lambda _: True, settings=SAME)
            spec = ServerSpec(kind="local", pg_bindir=build.bindir, settings=sound | dict(pair))
            with create_server(spec, spares=spares) as server, pytest.raises(ServerError, match=r"minimal|replica"):
                server.start()


# The machine


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


@pytest.fixture(autouse=True)
def _no_spares() -> Iterator[None]:
    yield
    machine.dispose_spare()
    recorded.dispose_spare()


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
from crashlab.strategies import CrashStateMachine
from hypothesis.stateful import rule

class Ends(CrashStateMachine):
    @rule()
    def end(self):
        print("begun", flush=True)
        {how}

TestEnds = Ends.TestCase
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


# Recordings


def make(profile: str, out: Path) -> Path:
    """Record a little of a profile's workload; return the recording's folder."""
    small = load_profile(profile, overrides=["power_loss.acks=40", "workload.acked_min=5", "workload.clients=2"])
    choice = ServerChoice(kind="local")
    return record(RunRequest(profile=small, seed=5, trials=1, time_limit_s=None, server=choice, out=out)).folder


def lost(state: RecordedState) -> bool:
    """Say whether something is not there that had been acknowledged by then."""
    with recovered(state) as database, psycopg.connect(database.url) as connection:
        there = {tx for (tx,) in connection.execute("SELECT tx FROM crashlab.marker")}
        told = {tx for tx, how in enumerate(database.history.state) if how == ACKED and database.history.wrote[tx]}
        return not told <= there


@pytest.mark.server
def test_a_lost_commit_shrinks_to_the_earliest_state_in_which_it_is_lost(tmp_path):
    """Asynchronous commits are lost by a mere kill, so the simplest state has lost no write; synchronous ones never."""
    few = settings(SAME, max_examples=25, suppress_health_check=list(HealthCheck))
    guilty = make("power-loss-async", tmp_path / "guilty")
    found = find(crash_states(guilty), lost, settings=few)
    assert found.number == 0
    first = find(crash_points(guilty), lambda _: True, settings=few)
    earlier = RecordedState(found.recording, first, 0)
    assert first <= found.position
    assert found == earlier or not lost(earlier)
    innocent = make("power-loss", tmp_path / "innocent")
    with pytest.raises(NoSuchExample):
        find(crash_states(innocent), lost, settings=settings(few, max_examples=12))


@pytest.mark.server
def test_one_server_serves_all_states(tmp_path):
    """Two states of a point, and one that is asked for beyond the last: the same folder, dead in between."""
    folder = make("power-loss", tmp_path)
    state = find(crash_states(folder), lambda _: True, settings=SAME)
    urls, notes = set(), []
    for number in (0, 1, 1000):
        with recovered(RecordedState(state.recording, state.position, number)) as database:
            urls.add(database.url)
            notes.append(database.note)
            with psycopg.connect(database.url) as connection:
                assert connection.execute("SELECT count(*) > 0 FROM crashlab.marker").fetchone() == (True,)
    assert len(urls) == 1
    assert notes[0] == "everything survived"
    assert notes[1].startswith("nothing that was pending survived")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(urls.pop())


# The README


def readme_examples() -> list[str]:
    """The programs in the section about Hypothesis."""
    text = (Path(__file__).parent.parent / "README.md").read_text()
    section = text.split("\n## With Hypothesis\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def run_text(source: str) -> dict[str, Any]:
    """Run a program of the README; return what it defines."""
    quick = settings(SAME, max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    names: dict[str, Any] = {"__name__": "readme", "QUICK": quick}
    exec(compile(source, "README.md", "exec"), names)
    return names


@pytest.mark.server
def test_the_shop_of_the_readme_is_innocent_unless_it_tells_early():
    """As it stands it passes; with one line moved it shrinks to what the README says."""
    shop = readme_examples()[0]
    early = shop.replace("        self.told(key)", "            self.told(key)")
    run_state_machine_as_test(run_text(shop)["Orders"], settings=settings(FEW, max_examples=5))
    with pytest.raises(AssertionError, match="told, but not there") as raised:
        run_state_machine_as_test(run_text(early)["Orders"], settings=FEW)
    assert steps_of(raised.value) == ["place_and_crash(done=False)"]


@pytest.mark.server
def test_the_recorded_example_of_the_readme_runs(tmp_path, monkeypatch):
    """Money adds up in every state; a sum that does not is found."""
    money = readme_examples()[1].replace('settings.get_profile("crashlab")', "QUICK")
    monkeypatch.chdir(tmp_path)
    make("power-loss", tmp_path / "made").rename(tmp_path / "recorded")
    run_text(money)["test_money_adds_up"]()
    recorded.dispose_spare()
    with pytest.raises(AssertionError):
        run_text(money.replace("1000 *", "999 *"))["test_money_adds_up"]()
