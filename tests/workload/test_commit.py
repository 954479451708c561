"""Is a client's transaction noted as what it was told, in each way in which its end can go wrong?

Each guilty end has an innocent twin that goes well.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashlab.history import ACKED, INDETERMINATE, PREPARED, PREPARING, REFUSED, read_ledger
from crashlab.ledger import Action, Intent, LedgerWriter
from crashlab.model import PromiseStatus
from crashlab.profile import load_profile
from crashlab.server import Server, ServerChoice, ServerSpec, create_server
from crashlab.trial.application import ApplicationTrial
from crashlab.workload.commit import decide
from tests.overrides import kill_after
from tests.running import RunRequest, run_profile

pytestmark = pytest.mark.server

Connection = psycopg.Connection[Any]
SCHEMA = """
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE duty (id integer PRIMARY KEY, there boolean NOT NULL);
INSERT INTO parent VALUES (1);
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A server for all tests of this module."""
    with create_server(ServerSpec(kind="local", settings={"max_prepared_transactions": "8"})) as server:
        server.start()
        with server.connect(autocommit=True) as connection:
            connection.execute(SCHEMA)
        yield server


@pytest.fixture
def connection(running: Server) -> Iterator[Connection]:
    """A client's connection; the tables are as they were first."""
    with contextlib.closing(running.connect(autocommit=True)) as connection:
        connection.execute("TRUNCATE child; TRUNCATE duty; INSERT INTO duty VALUES (1, true), (2, true)")
        yield connection


def constraint(connection: Connection, other: Connection, *, guilty: bool) -> None:
    """A child without a parent: nothing is said before the end."""
    connection.execute("BEGIN; INSERT INTO child VALUES (1, %s)" % (2 if guilty else 1))


def serialization(connection: Connection, other: Connection, *, guilty: bool) -> None:
    """Two leave duty, each since the other is there."""
    for one in (connection, other):
        one.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
    connection.execute("SELECT count(*) FROM duty WHERE there AND id <> 1; UPDATE duty SET there = false WHERE id = 1")
    if guilty:
        other.execute("SELECT count(*) FROM duty WHERE there AND id <> 2; UPDATE duty SET there = false WHERE id = 2")
    other.execute("COMMIT")


def death(connection: Connection, other: Connection, *, guilty: bool) -> None:
    """The server ends the session before it hears the COMMIT; no client can know that it did not hear it."""
    connection.execute("BEGIN; UPDATE duty SET there = false WHERE id = 1")
    if guilty:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))


ENDS = {constraint: (REFUSED, "23503"), serialization: (REFUSED, "40001"), death: (INDETERMINATE, None)}


def state_of(ledger: LedgerWriter, tx: int) -> int:
    """What a ledger says in the end about one transaction."""
    ledger.close()
    return read_ledger(ledger.path).state[tx]


@pytest.mark.parametrize("guilty", [True, False])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("action", ["commit", "prepare"])
def test_the_ledger_tells_refused_from_unknown(
    end: Callable[..., None], guilty: bool, action: Action, running: Server, connection: Connection, tmp_path: Path
) -> None:
    """The server's own no is a refusal, whatever its reason; a connection that is gone leaves it open."""
    ledger = LedgerWriter(tmp_path / "ledger", seed=1)
    tx = ledger.begin(1)
    gid = f"test-{end.__name__}" if action == "prepare" else ""
    with contextlib.closing(running.connect(autocommit=True)) as other:
        end(connection, other, guilty=guilty)
    intent = Intent(tx=tx, client=1, at_ns=1, action=action, gid=gid, xid=7)
    state, sqlstate = ENDS[end]
    if not guilty:
        assert decide(connection, ledger, intent)
        assert state_of(ledger, tx) == (ACKED if action == "commit" else PREPARED)
        if gid:
            connection.execute(f"ROLLBACK PREPARED '{gid}'")
        return
    with pytest.raises(psycopg.Error) as caught:
        decide(connection, ledger, intent)
    assert sqlstate in (None, caught.value.sqlstate)
    assert state_of(ledger, tx) == (PREPARING if state == INDETERMINATE and action == "prepare" else state)
    text = ledger.path.read_text()
    assert ('"event":"indeterminate"' in text, '"event":"refused"' in text) == (state != REFUSED, state == REFUSED)
    with contextlib.closing(running.connect(autocommit=True)) as other:
        left = "SELECT (SELECT count(*) FROM child) + (SELECT count(*) FROM duty WHERE id = 1 AND NOT there)"
        (count,) = other.execute(left).fetchone() or (None,)
        assert count == 0


@pytest.mark.parametrize("guilty", [True, False])
@pytest.mark.parametrize("end", ENDS)
def test_an_application_is_told_what_the_server_said(
    end: Callable[..., None], guilty: bool, running: Server, connection: Connection, tmp_path: Path
) -> None:
    """The error of COMMIT reaches it, and the ledger holds the same as a session's."""
    with contextlib.closing(running.connect(autocommit=True)) as cleaner:
        cleaner.execute("DROP SCHEMA IF EXISTS crashlab CASCADE")
    trial = ApplicationTrial(running, load_profile("kill9-all"), seed=1, folder=tmp_path, reproduce="pytest x")
    begun: list[int] = []
    with contextlib.closing(running.connect(autocommit=True)) as other:

        def block() -> None:
            with trial.transaction(connection) as transaction:
                begun.append(transaction.tx)
                if end is constraint:
                    connection.execute("INSERT INTO child VALUES (1, %s)", (2 if guilty else 1,))
                elif end is serialization:
                    rival(connection, other, guilty=guilty)
                else:
                    connection.execute("SAVEPOINT a")
                    dying(transaction, other, guilty=guilty)

        if end is serialization:
            connection.execute("SET default_transaction_isolation = serializable")
            other.execute("SET default_transaction_isolation = serializable")
        if guilty:
            with pytest.raises(psycopg.Error):
                block()
        else:
            block()
    assert state_of(trial.ledger, begun[0]) == (ENDS[end][0] if guilty else ACKED)


def rival(connection: Connection, other: Connection, *, guilty: bool) -> None:
    """As `serialization`, inside a transaction that is open already."""
    connection.execute("SELECT count(*) FROM duty WHERE there AND id <> 1; UPDATE duty SET there = false WHERE id = 1")
    other.execute("BEGIN")
    if guilty:
        other.execute("SELECT count(*) FROM duty WHERE there AND id <> 2; UPDATE duty SET there = false WHERE id = 2")
    other.execute("COMMIT")


def dying(transaction: Any, other: Connection, *, guilty: bool) -> None:
    """End the session between the last look at the rows and COMMIT."""
    if not guilty:
        return
    intent = transaction.intent

    def then_gone() -> Intent:
        noted: Intent = intent()
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (transaction._connection.info.backend_pid,))
        return noted

    transaction.intent = then_gone


@pytest.mark.parametrize("isolation", ["serializable", "read committed"])
def test_a_session_whose_commit_is_refused_goes_on(isolation: str, tmp_path: Path) -> None:
    """Sessions that read what others write fail at COMMIT now and then: no error of the workload, nobody is accused.

    A deferred constraint speaks up before.
    """
    setup = (
        "CREATE TABLE n (id int PRIMARY KEY, v int); INSERT INTO n SELECT g, 0 FROM generate_series(1, 20) g; "
        "CREATE TABLE c (id int PRIMARY KEY, n int REFERENCES n DEFERRABLE INITIALLY DEFERRED)"
    )
    sql = "SELECT sum(v) FROM n; UPDATE n SET v = v + 1 WHERE id = :id; INSERT INTO c VALUES (:tx, :parent)"
    overrides = [
        f"workload.sql.setup='{setup}'",
        "workload.sql.tables=['n', 'c']",
        f"workload.sql.transactions=['{sql}']",
        "workload.sql.variables={id = {between = [1, 20]}, parent = {choice = [1, 2, 3, 99]}}",
        f"default_transaction_isolation={isolation}",
        "invariants=[]",
        kill_after(100),
    ]
    profile = load_profile("own-application", overrides=overrides)
    choice = ServerChoice(kind="local")
    request = RunRequest(profile=profile, seed=3, trials=1, time_limit_s=None, server=choice, out=tmp_path)
    (trial,) = run_profile(request).trials
    assert trial.verdict.promise is PromiseStatus.KEPT, trial.verdict.findings
    ledger = (trial.folder / "ledger.jsonl").read_text()
    assert '"sqlstate":"23503"' in ledger
    assert ('"sqlstate":"40001"' in ledger) == (isolation == "serializable")
    for line in ledger.splitlines():
        assert '"sqlstate":"40001"' not in line or '"event":"refused"' in line
