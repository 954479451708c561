"""Do the strategies give what a server takes, and does what is broken shrink to what breaks it?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.errors import NoSuchExample

from crashlab.errors import ServerError, UsageProblem
from crashlab.history import ACKED
from crashlab.profile import load_profile, parse_profile
from crashlab.server import ServerChoice, ServerSpec, SpareDirectories, create_server
from crashlab.server.builds import Build, find_builds
from crashlab.strategies import (
    RecordedState,
    crash_points,
    crash_states,
    recorded,
    recovered,
    server_settings,
    workloads,
)
from crashlab.strategies.recorded import states_among
from crashlab.strategies.settings import APART, AXES, NEWEST, OLDEST
from tests.conftest import missing_build
from tests.documents import PAGES, blocks
from tests.running import RunRequest, record

BUILDS: list[Build] = [] if missing_build() else list(find_builds())
each_build = pytest.mark.parametrize("build", BUILDS or [None], ids=lambda build: str(build and build.version))
SAME = settings(derandomize=True, database=None)
"""The same examples each time."""

# Without servers


@pytest.mark.parametrize("major", [OLDEST, 17, NEWEST])
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


@pytest.fixture(autouse=True)
def _no_spares() -> Iterator[None]:
    yield
    recorded.dispose_spare()


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


# The page


def examples_of_the_page() -> list[str]:
    """The programs on the page about Hypothesis."""
    return blocks(PAGES["hypothesis"], "python")


def run_text(source: str) -> dict[str, Any]:
    """Run a program of the page; return what it defines."""
    quick = settings(SAME, max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    names: dict[str, Any] = {"__name__": "page", "QUICK": quick}
    exec(compile(source, "hypothesis.md", "exec"), names)
    return names


@pytest.mark.server
def test_the_recorded_example_of_the_page_runs(tmp_path, monkeypatch):
    """Money adds up in every state; a sum that does not is found."""
    money = examples_of_the_page()[1].replace('settings.get_profile("crashlab")', "QUICK")
    monkeypatch.chdir(tmp_path)
    make("power-loss", tmp_path / "made").rename(tmp_path / "recorded")
    run_text(money)["test_money_adds_up"]()
    recorded.dispose_spare()
    with pytest.raises(AssertionError):
        run_text(money.replace("1000 *", "999 *"))["test_money_adds_up"]()
