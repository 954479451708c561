"""Is a sound server borne out by its afterlife, and damage found that comes between its steps?

What each step alone shows is in tests/power/damage_life.py.

A server with two prepared transactions is killed and recovers. Right before a step it is stopped cleanly, damaged in
its files, and started again, so that no redo repairs that and no buffer hides it.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crashlab.errors import ServerTimeout
from crashlab.model import Afterlife
from crashlab.recovery.afterlife import SCHEMA, STEPS, live_on
from crashlab.recovery.restart import copy_settings, safe_settings
from crashlab.recovery.session import Reading
from crashlab.server import Server, ServerSpec, create_server

pytestmark = pytest.mark.server

Plant = Callable[[Server], str]
PAGE = 8192
READING = Reading(relations=[], invariants=[], xids=[], marker_table="a", sequences=())
SET_UP = """
CREATE EXTENSION amcheck;
CREATE TABLE a (n integer PRIMARY KEY, t text);
CREATE TABLE b (n integer PRIMARY KEY, t text);
CREATE TABLE c (n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, t text);
CREATE UNLOGGED TABLE u (n integer);
CREATE SEQUENCE s;
CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM a;
INSERT INTO a SELECT n, 'a' || n FROM generate_series(1, 500) n;
INSERT INTO b SELECT n, 'b' || n FROM generate_series(1, 500) n;
INSERT INTO c (t) SELECT 'c' || n FROM generate_series(1, 500) n;
SELECT nextval('s');
"""
ORDINARY = {"max_prepared_transactions": "5"}


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that has recovered from a kill; two transactions are prepared."""
    spec = ServerSpec(kind="local", settings=ORDINARY, initdb=("--no-data-checksums",) if _knows_the_option() else ())
    with create_server(spec) as server:
        server.start()
        with server.connect(autocommit=True) as connection:
            connection.execute(SET_UP)
            for gid, table in (("one", "a"), ("two", "b")):
                connection.execute(f"BEGIN; UPDATE {table} SET t = 'prepared' WHERE n = 7; PREPARE TRANSACTION '{gid}'")
        server.kill_all()
        server.start(overrides=copy_settings(server.version.major))
        yield server


def _knows_the_option() -> bool:
    from crashlab.server.builds import find_build

    build = find_build()
    return build is not None and build.version.major >= 18


def lived(server: Server, step: str, plant: Plant) -> tuple[Afterlife, str]:
    """Return the afterlife with a damage before a step, and what was damaged."""
    named: list[str] = []
    settings = copy_settings(server.version.major)

    def before_step(name: str) -> None:
        if name == step:
            server.stop("fast")
            named.append(plant(server))
            if step != "restart":  # which does so itself
                server.start(overrides=settings)

    afterlife = live_on(server, READING, overrides=settings, before_step=before_step)
    assert len(named) == 1
    return afterlife, named[0]


def data_of(server: Server) -> Path:
    """Return the data directory."""
    assert server.data_directory is not None
    return server.data_directory


def path_of(server: Server, relation: str) -> Path:
    """Return a relation's file; the server is stopped, and runs for a moment."""
    server.start(overrides=copy_settings(server.version.major))
    with server.connect(autocommit=True) as connection:
        row = connection.execute("SELECT pg_relation_filepath(%s)", (relation,)).fetchone()
    server.stop("fast")
    assert row is not None
    return data_of(server) / str(row[0])


def nothing(server: Server) -> str:
    """Plant no damage: the innocent twin."""
    return ""


def sequence_without_its_magic(server: Server) -> str:
    """A look at it as at a table does not see that; the next value does."""
    path = path_of(server, "s")
    content = bytearray(path.read_bytes())
    assert struct.unpack_from("<I", content, PAGE - 8) == (0x1717,)
    struct.pack_into("<I", content, PAGE - 8, 0x1718)
    path.write_bytes(content)
    return "s"


def value_flipped(server: Server) -> str:
    """As if a page of another state came back with the crash."""
    path = path_of(server, "b")
    content = path.read_bytes()
    assert b"b123" in content
    path.write_bytes(content.replace(b"b123", b"B123"))
    return "b"


def facts(afterlife: Afterlife) -> list[tuple[str, str, str]]:
    """What was found: step, kind, object."""
    found = [(one.check, "error", one.object) for one in afterlife.complaints]
    found += [(one.step, one.kind, one.object) for one in afterlife.changes]
    for name, start in (("restart", afterlife.restart), ("crash", afterlife.second)):
        if start is not None and not start.started:
            found.append((name, "no start", "server"))
    return sorted(found, key=lambda one: list(STEPS).index(one[0]))


def test_a_sound_server_bears_it_and_each_step_does_something(server):
    """The innocent twin; unlogged tables are emptied, half of the prepared transactions committed."""
    afterlife, _ = lived(server, "crash", nothing)
    assert facts(afterlife) == []
    assert afterlife.indexes == []
    assert afterlife.died is None
    assert [step.name for step in afterlife.steps] == list(STEPS)
    assert all(step.count for step in afterlife.steps), afterlife.steps
    assert not any(step.detail for step in afterlife.steps), afterlife.steps
    assert afterlife.restart is not None
    assert not afterlife.restart.ran
    assert afterlife.second is not None
    assert afterlife.second.ran
    with server.connect() as connection:
        row = connection.execute(f"""
            SELECT (SELECT count(*) FROM a WHERE t = 'prepared'), (SELECT count(*) FROM b WHERE t = 'prepared'),
                   (SELECT count(*) FROM {SCHEMA}.kept), (SELECT count(*) FROM pg_prepared_xacts)
        """).fetchone()
    assert row == (1, 0, 50, 0)


@pytest.mark.parametrize(
    ("step", "plant", "kind"),
    [
        ("use", sequence_without_its_magic, "error"),
        ("restart", value_flipped, "content"),
        ("crash", value_flipped, "content"),
    ],
)
def test_damage_between_the_steps_is_found_by_the_next(server, step, plant, kind):
    """It is the first to find it, and says what is damaged."""
    afterlife, named = lived(server, step, plant)
    found = facts(afterlife)
    assert found, afterlife.steps
    assert found[0][:2] == (step, kind)
    assert named in str(afterlife), found


def test_a_server_that_dies_in_the_middle_is_told_with_the_step(server):
    """And nothing hangs or is raised."""
    afterlife = live_on(
        server,
        READING,
        overrides=copy_settings(server.version.major),
        before_step=lambda name: server.kill_all() and None if name == "vacuum" else None,
    )
    assert afterlife.died is not None
    assert afterlife.died.startswith("during vacuum")


@pytest.mark.parametrize("quick", [True, False])
def test_a_stop_that_takes_too_long_accuses_nobody_of_an_unlogged_table(quick, server, monkeypatch):
    """Such a server is killed instead, and then unlogged tables are empty; after a clean stop they are as they were."""
    stop = server.stop

    def slow(mode="fast", timeout_s=30.0):
        raise ServerTimeout("could not stop the server")

    with server.connect(autocommit=True) as connection:
        connection.execute("INSERT INTO u SELECT generate_series(1, 100)")
    monkeypatch.setattr(server, "stop", stop if quick else slow)
    found = live_on(server, READING, overrides=copy_settings(server.version.major))
    assert (found.changes, found.complaints, found.died) == ([], [], None)
    assert found.restart is not None
    assert found.restart.ran is not quick
    (step,) = (step for step in found.steps if step.name == "restart")
    assert ("could not stop the server" in step.detail) is not quick


def test_what_a_healthy_database_refuses_is_left_out_and_said(server):
    """A rule, and a table that somebody has locked."""
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE RULE r AS ON INSERT TO c DO INSTEAD NOTHING")
    afterlife, _ = lived(server, "crash", nothing)
    assert facts(afterlife) == []
    (use,) = [step for step in afterlife.steps if step.name == "use"]
    assert use.detail == "c has code or rules of its own"


def test_a_trigger_of_anybody_accuses_nobody(server):
    """One that always fires may refuse a row, or write elsewhere: what it does is no damage, whoever owns the table."""
    with server.connect(autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE noted (n integer);
            CREATE TABLE followed (n integer);
            CREATE TABLE guarded (n integer);
            INSERT INTO followed VALUES (1);
            INSERT INTO guarded VALUES (1);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO noted VALUES (1); RETURN NULL; END';
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN RAISE EXCEPTION ''not outside of a ledger''; END';
            CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON followed FOR EACH ROW EXECUTE FUNCTION note();
            CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON guarded FOR EACH ROW EXECUTE FUNCTION refuse();
            ALTER TABLE followed ENABLE ALWAYS TRIGGER note;
            ALTER TABLE guarded ENABLE ALWAYS TRIGGER refuse;
        """)
    life = live_on(server, READING, overrides=copy_settings(server.version.major))
    assert not life.complaints
    assert not life.changes
    assert life.died is None


def test_what_a_login_fires_accuses_nobody(server):
    """Who logs in is noted in a table, by whoever owns the database: our own sessions are no change of it."""
    if server.version.major < 17:
        pytest.skip("no event trigger on login before PostgreSQL 17")
    with server.connect(autocommit=True) as connection:
        connection.execute("""
            CREATE TABLE logins (at timestamptz DEFAULT now());
            CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS
                'BEGIN INSERT INTO logins DEFAULT VALUES; END';
            CREATE EVENT TRIGGER note ON login EXECUTE FUNCTION note();
            ALTER EVENT TRIGGER note ENABLE ALWAYS;
        """)
    life = live_on(server, READING, overrides=safe_settings(server.version.major))
    assert facts(life) == []
    assert life.died is None


MISTAKES = {
    "a view whose query has become wrong": """
        CREATE TABLE z (v integer); INSERT INTO z VALUES (1);
        CREATE MATERIALIZED VIEW one AS SELECT (SELECT v FROM z) AS v; INSERT INTO z VALUES (0)""",
    "a view with two rows of one key": """
        CREATE TABLE z (v integer); INSERT INTO z VALUES (1);
        CREATE MATERIALIZED VIEW one AS SELECT v FROM z; CREATE UNIQUE INDEX ON one (v); INSERT INTO z VALUES (1)""",
    "a generated column that reads elsewhere": """
        CREATE TABLE flag (v integer); INSERT INTO flag VALUES (1);
        CREATE FUNCTION fi(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1 + (SELECT max(v) FROM flag)';
        CREATE TABLE w (v integer, g integer GENERATED ALWAYS AS (fi(v)) STORED); INSERT INTO w VALUES (1), (2);
        UPDATE flag SET v = 2""",
    "a function that ends without a result": """
        CREATE FUNCTION nothing() RETURNS integer LANGUAGE plpgsql AS 'BEGIN END';
        CREATE MATERIALIZED VIEW one AS SELECT nothing() AS v WITH NO DATA""",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_applications_own_mistake_accuses_nobody(name, server):
    """A database without any damage says the same, or holds something else after the same statement."""
    with server.connect(autocommit=True) as connection:
        connection.execute(MISTAKES[name])
    life = live_on(server, READING, overrides=copy_settings(server.version.major))
    assert facts(life) == []
    assert life.died is None
