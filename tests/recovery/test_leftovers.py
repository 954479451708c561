"""Is what a crash leaves beside the data told from what it must not leave?"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashlab.model import Finding, Observation
from crashlab.recovery.checksums import add_checksums
from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover
from crashlab.server import ServerSpec
from crashlab.server.builds import Build
from crashlab.server.local import LocalServer
from tests.oracle.story import Story
from tests.recovery.test_physical import builds, rewrite

pytestmark = pytest.mark.server

READING = Reading(relations=[], invariants=[], xids=[], sequences=(), marker_table="marker")
SPEC = ServerSpec(
    kind="local",
    initdb=("--data-checksums",),
    settings={"autovacuum": "off", "max_prepared_transactions": "5", "fsync": "off"},
)
SET_UP = """
CREATE EXTENSION pageinspect; CREATE EXTENSION amcheck;
CREATE TABLE marker (tx bigint PRIMARY KEY, client integer, xid bigint);
CREATE TABLE t (n integer PRIMARY KEY, m integer); INSERT INTO t SELECT n, n / 2 FROM generate_series(1, 5000) n;
CREATE INDEX valid ON t (m);
CREATE UNLOGGED TABLE fleeting (n integer, spot point, tags text[], long text);
CREATE INDEX fleeting_n ON fleeting (n); CREATE INDEX fleeting_hash ON fleeting USING hash (n);
CREATE INDEX fleeting_spot ON fleeting USING gist (spot); CREATE INDEX fleeting_tags ON fleeting USING gin (tags);
CREATE INDEX fleeting_brin ON fleeting USING brin (n);
INSERT INTO fleeting SELECT n, point(n, n), ARRAY['t' || n], repeat('x', 9000) FROM generate_series(1, 50) n;
"""


@pytest.fixture(params=builds(), ids=lambda build: str(build.version))
def server(request: pytest.FixtureRequest) -> Iterator[LocalServer]:
    """A server with a table, and an unlogged one with rows, all of it on disk."""
    build: Build = request.param
    with LocalServer(SPEC, build) as server:
        server.start()
        with session_of(server) as session:
            session.execute(SET_UP)
        server.stop("fast")  # no other checkpoint writes unlogged tables
        server.start()
        yield server


def session_of(server: LocalServer) -> "contextlib.closing[psycopg.Connection[Any]]":
    """Open a session."""
    return contextlib.closing(server.connect(autocommit=True))


def data_of(server: LocalServer) -> Path:
    """Return the data directory."""
    assert server.data_directory is not None
    return server.data_directory


def file_of(server: LocalServer, relation: str) -> str:
    """Return a relation's file."""
    with session_of(server) as session:
        return str(session.execute("SELECT pg_relation_filepath(%s)", (relation,)).fetchall()[0][0])


def look(server: LocalServer) -> Observation:
    """Recover a server and read it."""
    recovery = recover(server, restart=not server.running(), log_position=server.log_position())
    assert recovery.started, recovery
    return observe(lambda name: server.connect(autocommit=True, dbname=name), READING, recovery)


def judged(observation: Observation) -> list[Finding]:
    """Judge what was left of a sound database."""
    story = Story()
    left = story.left(
        leftovers=observation.leftovers,
        unlogged_rows=observation.unlogged_rows,
        complaints=observation.complaints,
        recovery=observation.recovery,
    )
    return story.judge(left).findings


def named(observation: Observation) -> set[tuple[str, str]]:
    """Each finding's code and place."""
    return {(one.code, one.evidence["place"]) for one in judged(observation)}


def test_unlogged_tables_must_be_empty_after_a_crash_and_full_after_a_stop(server: LocalServer) -> None:
    """Without an init fork nothing makes them anew: rows stay, or an index without them."""
    files = {name: file_of(server, name) for name in ("fleeting", "fleeting_spot", "fleeting_hash")}
    server.stop("fast")
    kept = look(server)
    assert not kept.recovery.ran
    assert kept.unlogged_rows["fleeting"] == 50
    assert "CORRUPT-UNLOGGED" not in {code for code, _ in named(kept)}

    server.kill_all()
    emptied = look(server)
    assert emptied.checks["leftovers"].status == "ran"
    assert set(emptied.unlogged_rows.values()) == {0}
    assert len(emptied.unlogged_rows) == 2  # with its TOAST table
    assert named(emptied) == set()

    with session_of(server) as session:
        session.execute("INSERT INTO fleeting SELECT n, point(n, n) FROM generate_series(1, 900) n")
    server.stop("fast")
    server.start()
    server.kill_all()
    for name in files:
        (data_of(server) / f"{files[name]}_init").unlink()
    found = {place for code, place in named(look(server)) if code == "CORRUPT-UNLOGGED"}
    assert found == set(files)


@contextlib.contextmanager
def unfinished(server: LocalServer) -> Iterator[None]:
    """Build an index concurrently, which waits for another session to end, and leave both as they are."""
    errors: list[str] = []

    def build() -> None:
        with session_of(server) as session:
            try:
                session.execute("CREATE INDEX CONCURRENTLY broken ON t (m, n)")
            except psycopg.Error as error:
                errors.append(str(error))

    with session_of(server) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM t")
        thread = threading.Thread(target=build)
        thread.start()
        with session_of(server) as watching:
            waits = (
                "SELECT count(*) FROM pg_stat_progress_create_index p JOIN pg_locks l USING (pid)"
                " WHERE NOT l.granted AND p.phase = 'waiting for old snapshots'"
            )
            for _ in range(2000):
                if watching.execute(waits).fetchall() == [(1,)]:
                    break
                threading.Event().wait(0.01)
            else:
                raise AssertionError("the index was not built up to its last wait")
        yield
        thread.join(20)
    assert errors


def damage(server: LocalServer, file: str) -> None:
    """Give the first page behind the root's an LSN that the log never had, which is against its checksum, too."""
    rewrite(data_of(server) / file, 8192, bytes.fromhex("01000000 00000000".replace(" ", "")))


def test_an_index_left_invalid_is_named_and_never_judged(server: LocalServer) -> None:
    """A page from the future, with a wrong checksum: legal there, and two kinds of damage in an index that is valid."""
    with unfinished(server):
        broken, valid = file_of(server, "broken"), file_of(server, "valid")
        with session_of(server) as session:
            session.execute("CHECKPOINT")
        server.kill_all()
    assert named(look(server)) == {("NOTE-INVALID-INDEX", "broken")}
    server.stop("fast")
    damage(server, broken)
    observation = add_checksums(server, look(server))
    with_checksums = observation.checks["checksums"].status == "ran"
    assert [one.check for one in observation.complaints] == ["checksums"] * with_checksums
    (note,) = [one for one in judged(observation) if one.code != "INCONCLUSIVE-NO-CRASH"]
    assert (note.code, note.family) == ("NOTE-INVALID-INDEX", "note")
    assert broken in note.explanation

    server.stop("fast")
    damage(server, valid)
    assert ("CORRUPT-UNREADABLE", "public.valid") in named(look(server))


def test_files_that_no_catalog_knows_are_named_with_their_size(server: LocalServer) -> None:
    """Of a transaction that made a table and did not end; with other sessions at work nothing is said."""
    with session_of(server) as session:
        session.execute("BEGIN; CREATE TABLE lost AS SELECT n FROM generate_series(1, 5000) n")
        with session_of(server) as other:
            other.execute("CHECKPOINT")
        file = session.execute("SELECT pg_relation_filepath('lost')").fetchall()[0][0]
        busy = look(server)
        assert busy.leftovers == []
        assert busy.checks["leftovers"].status == "skipped"
        assert "1 other session" in busy.checks["leftovers"].detail
        server.signal(session.info.backend_pid, signal.SIGSTOP)  # or it sees the postmaster die, and rolls back
        server.kill_all()
    observation = look(server)
    (note,) = judged(observation)
    assert (note.code, note.family) == ("NOTE-FILES-LEFT", "note")
    assert note.evidence["witnesses"][0]["size_bytes"] == (data_of(server) / file).stat().st_size > 100_000
    assert file in note.explanation


def test_a_two_phase_file_that_the_server_does_not_know_is_found(server: LocalServer) -> None:
    """Of a transaction that is not decided; that of a decided one is only named, that of a prepared one is in order."""
    with session_of(server) as session:
        xids: list[int] = []
        for gid in ("kept", "decided"):
            session.execute(f"BEGIN; INSERT INTO t VALUES ({90_000 + len(xids)}, 1)")
            xids.append(int(session.execute("SELECT pg_current_xact_id()::text").fetchall()[0][0]))
            session.execute(f"PREPARE TRANSACTION '{gid}'")
        session.execute("CHECKPOINT")
    folder = data_of(server) / "pg_twophase"
    kept, decided = (next(path for path in folder.iterdir() if int(path.name, 16) == xid) for xid in xids)
    state = decided.read_bytes()
    with session_of(server) as session:
        session.execute("COMMIT PREPARED 'decided'")
    server.kill_all()
    observation = look(server)
    assert observation.prepared == ["kept"]
    assert named(observation) == set()

    for path in (decided, decided.with_name(f"{xids[-1] + 1000:0{len(kept.name)}X}")):
        path.write_bytes(state)
        server.own(path)
    found = named(look(server)) - {("INCONCLUSIVE-NO-CRASH", "server")}
    assert found == {("NOTE-FILES-LEFT", "files"), ("CORRUPT-TWO-PHASE-FILE", "pg_twophase")}
    server.kill_all()
    (note,) = (one for one in judged(look(server)) if one.code == "NOTE-SERVER-WARNING")
    assert note.count >= 2  # 17 and 18 cannot find the file that they want to remove
    assert "removing stale two-phase state file" in str(note.evidence)
    assert "removing future two-phase state file" in str(note.evidence)
