"""Does asking for everything at once say what asking one by one says, in few round trips?"""

import contextlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from crashlab.exploration.explorer import Explorer
from crashlab.model import REQUIRED_CHECKS, Observation
from crashlab.recovery import contents
from crashlab.recovery.forced import Forced
from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover
from crashlab.recovery.sweeps import Sweeps
from crashlab.results import make_trial_folder
from crashlab.server import ServerSpec
from crashlab.server.builds import Build
from crashlab.server.local import LocalServer
from crashlab.workload.relations import InvariantQuery, Relation
from tests.benchmarks.bench_state import record
from tests.recovery.test_physical import NAMES, SET_UP, Damage, builds, mark_the_changed_page, move_pages_ahead, nothing
from tests.running import states_of

pytestmark = pytest.mark.server

ROUND_TRIPS_MAX = 25
STATES = 4
TABLES = """
CREATE TABLE good (key text PRIMARY KEY, n bigint); CREATE TABLE bad (key text PRIMARY KEY, n bigint);
INSERT INTO good SELECT n::text, n FROM generate_series(1, 300) n; INSERT INTO bad SELECT * FROM good;
CREATE INDEX bad_n ON bad (n); CREATE INDEX bad_hash ON bad USING hash (n);
"""
MORE_NAMES = ("bad", "bad_pkey", "bad_n", "bad_hash", "pg_largeobject_metadata")
READING = Reading(
    relations=[Relation(name, name, "key, 1::bigint, n, key") for name in ("good", "bad")],
    invariants=[
        InvariantQuery("sum", "SELECT sum(n)::text FROM bad", "45150"),
        InvariantQuery("own", "TABLE bad", None),
    ],
    xids=[3, 700],
    sequences=(),
    marker_table="marker",
)


def fill_with(name: str, byte: int) -> Damage:
    """Overwrite a file."""

    def damage(data: Path, files: dict[str, Path]) -> None:
        path = data / files[name]
        path.write_bytes(bytes([byte]) * max(len(path.read_bytes()), 8192))

    return damage


def without(name: str) -> Damage:
    """Remove a file."""
    return lambda data, files: (data / files[name]).unlink()


DAMAGES = {
    "nothing": nothing,
    "a mark": mark_the_changed_page,
    "an LSN": move_pages_ahead,
    "no table": without("bad"),
    "no primary key": without("bad_pkey"),
    "a page of a table": fill_with("bad", 0x55),
    "a page of an index": fill_with("bad_n", 0x55),
    "a page of a hash index": fill_with("bad_hash", 0x55),
    "a catalog": fill_with("pg_largeobject_metadata", 0x55),
}


def facts(observation: Observation) -> dict[str, Any]:
    """All but the seconds, and where the log ends, which moves on."""
    checks = {name: (run.status, run.count, run.unchanged, run.detail) for name, run in observation.checks.items()}
    complaints = [
        replace(one, message=re.sub(r"log ends at \S+", "log ends", one.message)) for one in observation.complaints
    ]
    found = {name: getattr(observation, name) for name in observation.__struct_fields__}
    return found | {"checks": checks, "complaints": complaints}


def one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Let every question that is asked together with others fail."""
    patch.setattr(Sweeps, "_ask", lambda self: None)
    patch.setattr(Forced, "ask_ahead", lambda self, questions: None)
    patch.setattr(contents, "at_once", lambda *_: None)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_both_ways_say_the_same(build: Build, damage: Damage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sound server and of damaged ones: each complaint, count, row and reason."""
    spec = ServerSpec(kind="local", initdb=("--no-data-checksums",), settings={"autovacuum": "off"})
    with LocalServer(spec, build) as server:
        server.start()
        with contextlib.closing(server.connect(autocommit=True)) as session:
            session.execute(SET_UP + TABLES)
            session.execute("VACUUM (FREEZE) half")
            session.execute("DELETE FROM half WHERE n = 5")
            query = "SELECT pg_relation_filepath(%s)"
            rows = {name: session.execute(query, (name,)).fetchone() for name in (*NAMES, *MORE_NAMES)}
            files = {name: Path(row[0]) for name, row in rows.items() if row is not None}
        server.stop("fast")
        assert server.data_directory is not None
        damage(server.data_directory, files)
        recovery = recover(server, restart=True, log_position=server.log_position())
        same = [str(files[name]) for name in NAMES]

        def look() -> dict[str, Any]:
            return facts(
                observe(lambda name: server.connect(autocommit=True, dbname=name), READING, recovery, unchanged=same)
            )

        together = look()
        one_by_one(monkeypatch)
        assert look() == together
        assert bool(together["complaints"]) == (damage is not nothing)
        assert together["died"] is None


class Trips:
    """Counts the server's answers to the messages of observations, as libpq's trace has them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "trace"
        self.connections = 0

    def watch(self, connection: "psycopg.Connection[Any]") -> "psycopg.Connection[Any]":
        """Count those of a session, too."""
        self.connections += 1
        connection.pgconn.trace(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        return connection

    def taken(self) -> int:
        """Return how many there were, and begin anew."""
        count = len(re.findall(r"\bReadyForQuery\b", self._file.read_text()))
        self._file.write_text("")
        return count


def test_a_recorded_state_takes_few_round_trips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All checks look at each of some states, over one connection each."""
    tmp_path.chmod(0o755)
    trips = Trips(tmp_path)
    counts: list[int] = []
    seen: list[Observation] = []

    def counted(connect: Callable[[str], "psycopg.Connection[Any]"], *args: Any, **options: Any) -> Observation:
        trips.connections = 0
        observation = observe(lambda name: trips.watch(connect(name)), *args, **options)
        assert trips.connections == 1
        counts.append(trips.taken())
        seen.append(observation)
        return observation

    monkeypatch.setattr(sys.modules["crashlab.exploration.explorer"], "observe", counted)
    recording, profile = record(tmp_path)
    with Explorer(recording, profile) as explorer:
        for trial, state in enumerate(states_of(explorer, STATES)):
            explorer.try_state(state, trial, make_trial_folder(tmp_path / "states", trial))
    assert len(counts) == 1 + STATES  # the base image, too
    for count, observation in zip(counts, seen, strict=True):
        assert {observation.checks[name].status for name in REQUIRED_CHECKS} == {"ran"}
        assert observation.complaints == []
        # Nine checks at least ask something of their own: a count below was not taken
        assert 9 <= count <= ROUND_TRIPS_MAX, counts
