"""Is an application judged by what its ledger knows, and by nothing else?

Damage is an old copy of a table's file, put back between the kill and the recovery: whole pages with good checksums.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashlab import evidence
from crashlab.errors import UsageProblem
from crashlab.fault import inject
from crashlab.history import State, read_ledger
from crashlab.model import Outcome, Verdict
from crashlab.oracle.outside import CODE, ENDED_INSIDE
from crashlab.profile import load_profile
from crashlab.recovery import recover
from crashlab.server import Server, ServerSpec, create_server
from crashlab.trial.application import ApplicationTrial

pytestmark = pytest.mark.server

Connection = psycopg.Connection[tuple[Any, ...]]


class App:
    """A small application with a table of jobs; a second connection is in no ledger."""

    def __init__(self, server: Server, folder: Path, profile: str, way: str) -> None:
        folder.mkdir()
        self.server = server
        self.other: Connection = server.connect(autocommit=True)
        self.other.execute("CREATE TABLE job (id integer PRIMARY KEY, state text)")
        self.other.execute("INSERT INTO job VALUES (90, 'older than the trial')")
        self.trial = ApplicationTrial(server, load_profile(profile), seed=1, folder=folder, reproduce="pytest x")
        self.own: Connection = server.connect(autocommit=True)
        self.watched = way == "watch"
        if self.watched:
            self.trial.watch("job")

    def put(self, state: str, *ids: int, inside: str = "") -> None:
        """Give jobs a state in one ledgered transaction."""
        with self.trial.transaction(self.own) as transaction:
            for number in ids:
                self.own.execute(
                    "INSERT INTO job VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                    (number, state),
                )
                if not self.watched:
                    transaction.changed("job", id=number)
            if inside:
                self.own.execute(inside)

    def verdict(self) -> Verdict:
        """Crash, and judge."""
        if not self.trial.injections:
            self.trial.crash()
        return self.trial.verdict()

    def close(self) -> None:
        """End both sessions."""
        self.own.close()
        self.other.close()
        self.trial.close()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Makes an application on a server of its own."""
    with contextlib.ExitStack() as stack:

        def start(way: str = "changed", profile: str = "kill9-all") -> App:
            settings = dict(load_profile(profile).server.settings)
            server = stack.enter_context(create_server(ServerSpec(kind="local", settings=settings)))
            server.start()
            app = App(server, tmp_path / "evidence", profile, way)
            stack.callback(app.close)
            return app

        yield start


def codes(verdict: Verdict) -> list[str]:
    """What was found."""
    return [finding.code for finding in verdict.findings]


@pytest.mark.parametrize("way", ["changed", "watch"])
def test_what_others_do_to_a_row_accuses_nobody(started, way: str) -> None:
    """Before the crash it is told, after it nobody looks; and no session is kept from writing."""
    app = started(way)
    app.put("todo", *range(1, 9))
    app.other.execute("UPDATE job SET state = 'doing' WHERE id = 1")
    app.other.execute("DELETE FROM job WHERE id = 2")
    app.other.execute("UPDATE job SET id = 30 WHERE id = 3")
    app.other.execute("INSERT INTO job VALUES (40, 'new')")
    app.put("done", 4, inside="SAVEPOINT s; UPDATE job SET state = 'really done' WHERE id = 4; RELEASE SAVEPOINT s")
    app.trial.crash()
    with contextlib.closing(app.server.connect(autocommit=True)) as later:
        later.execute("UPDATE job SET state = 'stolen' WHERE id = 5; DELETE FROM job WHERE id = 6")
    verdict = app.verdict()
    assert (verdict.outcome, codes(verdict)) == (Outcome.INCONCLUSIVE, [CODE])
    (finding,) = verdict.findings
    assert {witness["key"] for witness in finding.evidence["witnesses"]} == {"[1]", "[2]", "[3]"}


def damaged(app: App, monkeypatch: pytest.MonkeyPatch, between: Any) -> None:
    """Crash; the table's file is then as it was before `between` ran."""
    data = app.server.data_directory
    (file,) = app.other.execute("SELECT pg_relation_filepath('job')").fetchone()  # type: ignore[misc]
    app.other.execute("VACUUM job")
    app.other.execute("CHECKPOINT")
    old = app.trial.folder / "old"
    shutil.copyfile(data / file, old)
    between()
    app.other.execute("SELECT count(*) FROM job")
    app.other.execute("VACUUM job")
    app.other.execute("CHECKPOINT")  # so that no log restores the page

    def recovering(*args: Any, **more: Any) -> Any:
        shutil.copyfile(old, data / file)
        return recover(*args, **more)

    monkeypatch.setattr("crashlab.trial.application.recover", recovering)
    app.trial.crash()


@pytest.mark.parametrize("way", ["changed", "watch"])
def test_a_row_that_went_back_is_corruption_beside_one_that_others_changed(started, monkeypatch, way: str) -> None:
    """The rest is judged: an old page is named, and so is an invariant that it breaks."""
    app = started(way)
    app.put("todo", 1, 2, 3)
    app.other.execute("UPDATE job SET state = 'doing' WHERE id = 3")
    app.trial.invariant("nothing is left over", "SELECT id FROM job WHERE id = 1 AND state = 'left over'")
    app.put("left over", 1)
    damaged(app, monkeypatch, lambda: (app.put("done", 1), app.put("done", 90)))
    verdict = app.verdict()
    assert (verdict.outcome, verdict.promise) == (Outcome.CORRUPTION, "broken")
    assert {"CORRUPT-STALE-VERSION", "CORRUPT-INVARIANT", CODE} <= set(codes(verdict)), verdict.findings
    stale = next(finding for finding in verdict.findings if finding.code == "CORRUPT-STALE-VERSION")
    assert stale.evidence["witnesses"][0]["key"] == "[1]"
    # ... also where what is there again was written by somebody without a ledger, long before
    keys = {witness.get("key") for one in verdict.findings if one.code != CODE for witness in one.evidence["witnesses"]}
    assert {"[1]", "[90]"} <= keys
    assert "[3]" not in keys


def test_a_row_that_went_is_corruption(started, monkeypatch) -> None:
    """Gone, and nobody committed since it was seen."""
    app = started()
    app.put("todo", 1)
    damaged(app, monkeypatch, lambda: app.put("todo", 2))
    assert "CORRUPT-MISSING-ROW" in codes(app.verdict())


@pytest.mark.parametrize(
    ("others", "row", "found"),
    [
        ("", 1, ["LOSS-ASYNC-WINDOW"]),
        ("", 90, ["LOSS-ASYNC-WINDOW"]),
        ("UPDATE job SET state = 'doing' WHERE id = 1", 1, [CODE, "LOSS-ASYNC-WINDOW"]),
        ("DELETE FROM job WHERE id = 1", 1, [CODE, "LOSS-ASYNC-WINDOW"]),
    ],
)
def test_a_lost_change_brings_back_what_others_had_made(started, others: str, row: int, found: list[str]) -> None:
    """The ledger knows the version before theirs only."""
    app = started("changed", "async-commit")
    app.put("todo", 1, 2)
    if others:
        app.other.execute(others)
    app.own.execute("SET synchronous_commit = off")

    def injecting(server: Server, fault: Any, *more: Any) -> Any:
        receipt = inject(server, fault, *more)
        if fault.kind == "stop":  # from here on nobody writes the log of asynchronous commits
            app.put("done", row)
            with contextlib.closing(server.connect(autocommit=True)) as connection:
                app.trial.outsiders.look(connection, app.trial.tables.relations)
        return receipt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crashlab.trial.application.inject", injecting)
        app.trial.crash()
    assert codes(app.verdict()) == found


def test_a_worker_that_writes_until_the_kill_accuses_nobody(started) -> None:
    """Its last commits come after the last look at the rows."""
    app = started()
    app.put("todo", *range(50))

    def work() -> None:
        with contextlib.suppress(psycopg.Error):
            for number in range(10**6):
                app.other.execute("UPDATE job SET state = %s WHERE id = %s", (str(number), number % 50))
                app.other.execute("DELETE FROM job WHERE id = %s", ((number + 7) % 50,))
                app.other.execute("INSERT INTO job VALUES (%s, 'again')", ((number + 7) % 50,))

    worker = threading.Thread(target=work)
    worker.start()
    app.trial.crash()
    worker.join(timeout=30)
    assert not worker.is_alive()
    assert set(codes(app.verdict())) <= {CODE}


def test_a_row_that_a_block_named_and_did_not_change_is_not_its_own(started) -> None:
    """Nobody locked it, so whoever changes it at that moment may come before or after; a true deletion is noted."""
    app = started()
    app.put("todo", 1, 2, 3, 4)
    app.own.execute("SET lock_timeout = '5s'")
    slow = app.trial.transaction(app.other)
    transaction = slow.__enter__()
    app.other.execute("UPDATE job SET state = 'slow' WHERE id = 1; INSERT INTO job VALUES (5, 'slow')")
    transaction.changed("job", id=1)
    transaction.changed("job", id=5)
    with app.trial.transaction(app.own) as quick:
        app.own.execute("DELETE FROM job WHERE id = 5")  # sees none
        app.own.execute("DELETE FROM job WHERE id = 2; SAVEPOINT s; DELETE FROM job WHERE id = 3; RELEASE SAVEPOINT s")
        app.own.execute("SAVEPOINT s; DELETE FROM job WHERE id = 4; ROLLBACK TO SAVEPOINT s")
        for number in (1, 2, 3, 4, 5):
            quick.changed("job", id=number)
    slow.__exit__(None, None, None)
    verdict = app.verdict()
    assert (verdict.outcome, codes(verdict)) == (Outcome.INTACT, []), verdict.findings
    *_, slow_one, quick_one = read_ledger(app.trial.ledger.path).transactions.values()
    assert [(write.key, write.value is None) for write in slow_one.writes] == [("[1]", False), ("[5]", False)]
    assert [(write.key, write.value) for write in quick_one.writes] == [("[2]", None), ("[3]", None)]


ENDS = {
    "COMMIT": State.UNSENT,
    "COMMIT AND CHAIN": State.UNSENT,
    "COMMIT; BEGIN": State.UNSENT,
    "PREPARE TRANSACTION 'x'": State.UNSENT,
    "ROLLBACK": State.REFUSED,
    "ROLLBACK AND CHAIN": State.REFUSED,
    "ROLLBACK; BEGIN": State.REFUSED,
    "RESET ALL": State.REFUSED,
}


@pytest.mark.parametrize("way", ["changed", "watch"])
def test_a_block_that_ends_its_transaction_is_a_usage_problem(started, way: str) -> None:
    """Said with words, and noted as what the server says it was; nothing is lost or corrupt for it."""
    app = started(way, "two-phase")
    app.put("todo", 0)
    for number, end in enumerate(ENDS, 1):
        with pytest.raises(UsageProblem, match="it ended, or its settings were reset") as raised:
            app.put("todo", number, inside=end)
        notes = "".join(getattr(raised.value, "__notes__", []))
        assert ("ended inside its block" in notes) == (ENDS[end] is State.UNSENT), end
    with contextlib.suppress(psycopg.OperationalError), app.trial.transaction(app.own):
        app.own.execute("UPDATE job SET state = 'mine' WHERE id = 0")
        app.own.execute("COMMIT")
        app.trial.crash()  # inside the block: its end comes too late for the server
    verdict = app.verdict()
    assert set(codes(verdict)) == {ENDED_INSIDE, CODE}, verdict.findings
    assert [one.count for one in verdict.findings] == [1, 4]
    states = [one.state for one in read_ledger(app.trial.ledger.path).transactions.values() if one.client]
    assert states == [State.ACKED, *ENDS.values(), State.UNSENT]


@pytest.mark.parametrize("late", [False, True])
def test_a_swallowed_error_is_a_refusal_with_words(started, late: bool) -> None:
    """PostgreSQL rolls such a transaction back, whatever the block believes."""
    app = started()
    app.put("todo", 1)

    def swallow() -> None:
        with app.trial.transaction(app.own) as transaction:
            app.own.execute("INSERT INTO job VALUES (2, 'todo')")
            transaction.changed("job", id=2)
            with contextlib.suppress(psycopg.errors.UniqueViolation):
                app.own.execute("INSERT INTO job VALUES (1, 'twice')")
            if late:
                transaction.changed("job", id=1)

    with pytest.raises(UsageProblem, match="went on after an error, and PostgreSQL has rolled it back"):
        swallow()
    app.put("todo", 3)
    verdict = app.verdict()
    assert (verdict.outcome, codes(verdict), verdict.counts.refused) == (Outcome.INTACT, [], 1)


def test_a_trial_that_never_crashed_accuses_nobody(started) -> None:
    """Whatever others did, and whoever ended which transaction."""
    app = started()
    app.put("todo", 1, 2)
    app.other.execute("UPDATE job SET state = 'doing' WHERE id = 1")
    with pytest.raises(UsageProblem):
        app.put("done", 2, inside="COMMIT")
    verdict = app.trial.verdict()
    assert (verdict.outcome, verdict.promise) == (Outcome.INCONCLUSIVE, None)
    assert set(codes(verdict)) == {"INCONCLUSIVE-NO-INJECTION", CODE, ENDED_INSIDE}


def test_a_table_that_cannot_be_read_before_the_crash_is_told(started) -> None:
    """An open transaction has it to itself: damage could not be told from what it did. Other tables are read."""
    app = started()
    app.put("todo", 1)
    with contextlib.closing(app.server.connect(autocommit=False)) as owner:
        owner.execute("LOCK TABLE job")
        verdict = app.verdict()
    outside = evidence.load_observation(app.trial.folder).outside
    assert outside is not None
    assert (outside.relations, len(outside.markers)) == ([], 1)
    assert (verdict.outcome, codes(verdict)) == (Outcome.INTACT, [])
