"""Does the server die exactly where it was asked to, and is there afterwards what the account says?"""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from crashlab.errors import ServerError, UsageProblem
from crashlab.observer import Moment, Observer, in_words, moments, read_conversation
from crashlab.server import Server
from tests.observer import scene, wire
from tests.observer.wire import Client

WAIT_S = 20.0


def test_a_moment_is_read_as_it_is_written():
    """Printed, and given again; what is no moment is refused with the form of one."""
    moment = Moment(2, "commit", 17, "unheard")
    assert str(moment) == "2:commit:17:unheard"
    assert Moment.parse(str(moment)) == moment
    assert moment.words("COMMIT of transaction 17") == "connection 2, COMMIT of transaction 17, done but unheard"
    for bad in ("2:commit:17", "0:commit:1:before", "1:commit:1:later", "1:row:1:before"):
        with pytest.raises(UsageProblem, match="as a moment"):
            Moment.parse(bad)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with scene.started() as started:
        with started.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE t (v int PRIMARY KEY)")
            connection.execute(
                "CREATE FUNCTION f(v int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES ($1) RETURNING v'"
            )
            connection.execute(
                "CREATE PROCEDURE p(v int) LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (v); COMMIT; END'"
            )
        yield started


@pytest.fixture
def observer(server: Server, tmp_path: Path) -> Iterator[Observer]:
    with Observer(scene.upstream_of(server), tmp_path / "conversation.jsonl", folder=tmp_path) as observer:
        yield observer


def client_of(server: Server, observer: Observer) -> Client:
    with server.connect() as connection:
        user, database = connection.info.user, connection.info.dbname
    return Client(observer.address.sockets, observer.address.port, user, database)


INSERT = "INSERT INTO t VALUES (1)"
COMMITS: dict[str, list[bytes]] = {
    "simple COMMIT": [wire.query("BEGIN"), wire.query(INSERT), wire.query("COMMIT")],
    "simple implicit": [wire.query(INSERT)],
    "extended COMMIT": [
        wire.whole("BEGIN") + wire.SYNC,
        wire.whole(INSERT) + wire.SYNC,
        wire.whole("COMMIT") + wire.SYNC,
    ],
    "extended implicit": [wire.whole(INSERT) + wire.SYNC],
    "pipeline": [b"".join(wire.whole(sql) for sql in ("BEGIN", INSERT, "COMMIT", "SELECT 1")) + wire.SYNC],
    "prepared COMMIT": [
        wire.parse("COMMIT", "c") + wire.SYNC,
        wire.query("BEGIN"),
        wire.query(INSERT),
        wire.bind("c") + wire.execute() + wire.SYNC,
    ],
    "procedure": [wire.whole("CALL p(1)") + wire.SYNC],
    "simple procedure": [wire.query("CALL p(1)")],
    "function": [wire.query("SELECT f(1)")],
    "everything in one message": [wire.query(f"BEGIN; {INSERT}; COMMIT")],
    "copy": [wire.query("COPY t FROM STDIN") + wire.copy_data("1\n") + wire.COPY_DONE],
    "copy as libpq does": [
        wire.whole("COPY t FROM STDIN") + wire.SYNC + wire.copy_data("1\n") + wire.COPY_DONE + wire.SYNC
    ],
}


def say(client: Client, messages: list[bytes]) -> bool:
    """Say one after the other; True: the last was answered to its end."""
    try:
        for one in messages:
            client.send(one)
            client.until_ready()
    except (EOFError, ConnectionError):
        return False
    return True


@pytest.mark.server
@pytest.mark.parametrize("how", COMMITS)
def test_each_phase_of_a_commit(server: Server, observer: Observer, tmp_path: Path, how: str):
    """before: it is never there. unheard: it is there, and no answer came. answered: it is there. Whatever the form."""
    path = tmp_path / "conversation.jsonl"
    with server.connect(autocommit=True) as control:
        control.execute("TRUNCATE t")
    observer.arm(None)
    client = client_of(server, observer)
    assert say(client, COMMITS[how])
    client.close()
    swept = moments(read_conversation(path), "commits")
    assert [one.phase for one in swept] == ["before", "unheard", "answered"], swept
    if how == "simple COMMIT":
        xid = read_conversation(path).transactions[-1].xid
        words = in_words(read_conversation(path), swept[1])
        assert words == f"connection 1, COMMIT of transaction {xid}, done but unheard"

    for moment in swept:
        with server.connect(autocommit=True) as control:
            control.execute("TRUNCATE t")
        observer.arm(moment)
        client = client_of(server, observer)
        for one in COMMITS[how]:
            client.send(one)
            if one is not COMMITS[how][-1]:
                client.until_ready()
        reached = observer.wait_reached(WAIT_S)
        assert reached is not None
        assert reached.moment == moment
        server.kill_all()
        observer.cut()
        heard = wire.shorts(everything(client))
        server.start()
        observer.resume(scene.upstream_of(server))
        with server.connect(autocommit=True) as control:
            there = control.execute("SELECT count(*) FROM t").fetchone() == (1,)
            told = _told_of_commit(heard, how)
            assert (there, told) == {
                "before": (False, False),
                "unheard": (True, False),
                "answered": (True, True),
            }[moment.phase], (moment, heard)
            account = read_conversation(path)
            ended = [one for one in account.transactions if one.connection == reached.connection]
            assert account.reached[-1][2] == moment.phase
            if moment.phase == "before":
                assert [one.outcome for one in ended] in ([], ["open"])
                continue
            if how == "procedure":  # it has committed, and nobody has asked for the end of what is behind it
                assert [(one.outcome, bool(one.unknown)) for one in ended] == [("unanswered", True)]
                continue
            done = next(one for one in ended if "SELECT 1" not in one.steps[0].sql)
            assert done.outcome == {"unheard": "unheard", "answered": "committed"}[moment.phase]
            if done.xid is not None:
                status = control.execute("SELECT pg_xact_status(%s::text::xid8)", [str(done.xid)]).fetchone()
                assert status == ("committed",)


def everything(client: Client) -> list[tuple[str, bytes]]:
    """All that a client hears until its connection ends."""
    begin = len(client.heard)
    try:
        while True:
            client.next()
    except (EOFError, ConnectionError):
        return client.heard[begin:]


def _told_of_commit(heard: list[str], how: str) -> bool:
    if how == "procedure":
        return "CALL" in heard  # and its Sync has not been served
    explicit = how in ("simple COMMIT", "extended COMMIT", "pipeline", "prepared COMMIT")
    return "COMMIT" in heard if explicit else "I" in heard


@pytest.mark.server
def test_nothing_moves_on_any_connection_until_it_may_go_on(server: Server, observer: Observer):
    """At the moment everything is held, of connections that come meanwhile too; `go` lets it on as if nothing was."""
    with server.connect(autocommit=True) as control:
        control.execute("TRUNCATE t")
        observer.arm(None)
        first, second = client_of(server, observer), client_of(server, observer)
        observer.arm(Moment(1, "commit", 2, "before"))
        first.ask("INSERT INTO t VALUES (1)")
        second.ask("INSERT INTO t VALUES (2)")
        assert observer.wait_reached(0) is None
        first.send(wire.query("INSERT INTO t VALUES (3)"))
        assert observer.wait_reached(WAIT_S) is not None
        second.send(wire.query("INSERT INTO t VALUES (4)"))
        second._socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            second.until_ready()
        assert scene.rows(control) == [1, 2]
        observer.go()
        second._socket.settimeout(WAIT_S)
        assert wire.shorts(first.until_ready()) == wire.shorts(second.until_ready()) == ["INSERT 0 1", "I"]
        assert scene.rows(control) == [1, 2, 3, 4]
        first.close()
        second.close()


@pytest.mark.server
def test_every_message_has_its_moments(server: Server, observer: Observer, tmp_path: Path):
    """A sweep of all messages of a pipeline with COPY stops at each of them, as named by the run that counted."""
    with server.connect(autocommit=True) as control:
        control.execute("TRUNCATE t")
    talk = [
        wire.whole("BEGIN") + wire.whole("SAVEPOINT s") + wire.SYNC,
        wire.whole("COPY t FROM STDIN") + wire.SYNC + wire.copy_data("1\n") + wire.COPY_DONE + wire.SYNC,
        wire.query("ROLLBACK"),
    ]
    observer.arm(None)
    client = client_of(server, observer)
    assert say(client, talk)
    client.close()
    swept = moments(read_conversation(tmp_path / "conversation.jsonl"), "all")
    assert len(swept) == 3 * (4 + 4 + 1 + 4 + 1 + 1 + 1)
    for moment in swept:
        observer.arm(moment)
        client = client_of(server, observer)
        for one in talk:
            client.send(one)
        assert observer.wait_reached(WAIT_S) is not None, moment
        observer.go()
        client.until_ready(3)
        assert wire.shorts(client.heard)[-2:] == ["ROLLBACK", "I"]
        client.close()


@pytest.mark.server
def test_a_server_that_is_down_lets_nobody_in_and_is_back_at_the_same_address(server: Server, observer: Observer):
    """Between cut and resume clients are told what a server in recovery tells them; so they are if it is gone."""
    url = observer.url("postgres", "postgres")
    with server.connect() as connection:
        url = observer.url(connection.info.user, connection.info.dbname)
    with psycopg.connect(url) as connection:
        observer.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="the database system is starting up"):
        psycopg.connect(url)
    observer.resume(scene.upstream_of(server))
    psycopg.connect(url).close()
    server.kill_all()
    with pytest.raises(psycopg.OperationalError, match="the database system is starting up"):
        psycopg.connect(url)
    server.start()
    psycopg.connect(url).close()


@pytest.mark.server
def test_an_observer_that_was_killed_is_missed(server: Server, observer: Observer):
    """Whoever waits for it hears that it has ended."""
    assert observer._process is not None
    observer._process.kill()
    with pytest.raises(ServerError, match="the observer has ended"):
        observer.wait_reached(WAIT_S)
