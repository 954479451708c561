"""Random conversations, and whether the observer's account of one is true.

A conversation is drawn as text with holes (values, names of prepared transactions), held once with the server itself
and once through the observer. What the client hears must be the same, byte for byte, and then the account must say

    - the same answers, in the same order, as the client heard;
    - of each transaction with an id what pg_xact_status says of that id;
    - of each row who inserted it, by the id that the row itself holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from hypothesis import strategies as st

from crashlab.observer.account import Asked, Conversation, Transaction
from crashlab.observer.messages import message
from tests.observer import wire
from tests.observer.wire import Client

SETUP = """
    CREATE TABLE t (v int PRIMARY KEY, xid text DEFAULT pg_current_xact_id()::text);
    CREATE TABLE late (v int UNIQUE DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO late VALUES (0);
    CREATE FUNCTION f(v int) RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES ($1) RETURNING v';
    CREATE PROCEDURE p(v int) LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (v); COMMIT; END';
"""
INSERT = "INSERT INTO t VALUES ({v})"
TRANSACTION = ["BEGIN", "START TRANSACTION", "COMMIT", "end", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"]
SAVEPOINTS = ["SAVEPOINT s", "ROLLBACK TO s", "ROLLBACK TO SAVEPOINT s", "RELEASE s"]
TWO_PHASE = ["PREPARE TRANSACTION '{g}'", "COMMIT PREPARED '{g}'", "ROLLBACK PREPARED '{g}'"]
WORK = [
    INSERT,
    INSERT + " -- why",
    "WITH n AS (INSERT INTO t VALUES ({v}) RETURNING v) SELECT * FROM n",
    "SELECT f({v})",
    "SELECT v FROM t ORDER BY v DESC LIMIT 0",
    "SELECT 1",
    "/* BEGIN; */ SELECT ';COMMIT', $$;$$, e'\\';'",
    "SET synchronous_commit = local",
    "SET LOCAL synchronous_commit = off",
    "CREATE TABLE IF NOT EXISTS late (v int)",
    "NOTIFY n",
    "DO $$ BEGIN INSERT INTO t VALUES ({v}); END $$",
    "",
]
ERRORS = ["SELECT 1/0", "SELEC 1", "SELECT (1", "SELECT 'x", "INSERT INTO t VALUES (0)", "INSERT INTO late VALUES (0)"]
ALONE = ["VACUUM late", "CALL p({v})", "DISCARD ALL", "DEALLOCATE ALL", "DISCARD PLANS"]

statement = st.one_of(
    *(st.sampled_from(pool) for pool in (TRANSACTION, TRANSACTION, SAVEPOINTS, TWO_PHASE, WORK, WORK))
)
statement |= st.sampled_from(ERRORS) | st.sampled_from(ALONE)
usual = st.sampled_from([INSERT, "BEGIN", "COMMIT", INSERT])
segment = st.lists(statement | usual, min_size=0, max_size=4)
turn = st.one_of(
    st.tuples(st.just("simple"), st.lists(statement | usual, min_size=1, max_size=3).map("; ".join)),
    st.tuples(st.just("simple"), statement | usual),
    st.tuples(st.just("extended"), st.lists(segment, min_size=1, max_size=3)),
    st.tuples(st.just("extended"), st.lists(st.lists(usual, min_size=1, max_size=3), min_size=1, max_size=3)),
    st.tuples(st.just("named"), st.sampled_from(["COMMIT", "BEGIN", "ROLLBACK"])),
    st.tuples(st.sampled_from(["copy", "copy extended", "copy at once", "copy out"]), st.booleans()),
    st.tuples(st.just("cancel"), st.booleans()),
)
talk = st.tuples(st.lists(st.tuples(st.integers(0, 1), turn), min_size=1, max_size=10), st.booleans())
"""Turns, each with the connection that takes it; and whether the connections are closed politely."""


Control = psycopg.Connection[tuple[object, ...]]
"""A connection of our own, in autocommit mode, to the database that is talked about."""
Talk = tuple[list[tuple[int, tuple[str, object]]], bool]


@dataclass
class Held:
    """A conversation that was held."""

    heard: list[list[tuple[str, bytes]]]  # by connection


class Holder:
    """Holds a conversation with whoever listens at an address."""

    def __init__(
        self, folder: Path, port: int, user: str, database: str, value: int, gid: str, control: Control
    ) -> None:
        self._value, self._gid, self._control = value, gid, control
        self.clients = [Client(folder, port, user, database) for _ in range(2)]

    def hold(self, drawn: Talk) -> Held:
        """Hold it to its end."""
        turns, politely = drawn
        for who, (kind, what) in turns:
            self._turn(self.clients[who], kind, what)
        for client in self.clients:
            client.close(politely=politely)
        # The server's processes have their keys, and report other times.
        return Held([[one for one in client.heard if one[0] not in "KS"] for client in self.clients])

    def _fill(self, sql: str) -> str:
        while "{v}" in sql:
            self._value += 1
            sql = sql.replace("{v}", str(self._value), 1)
        return sql.replace("{g}", self._gid)

    def _turn(self, client: Client, kind: str, what: object) -> None:
        if kind == "simple":
            client.send(wire.query(self._fill(str(what))))
            client.until_ready()
        elif kind == "extended":
            assert isinstance(what, list)
            client.send(b"".join(self._segment(one) for one in what))
            client.until_ready(len(what))
        elif kind == "named":
            client.send(wire.parse(str(what), "mine") + wire.SYNC)
            client.send(wire.bind("mine") + wire.execute() + message(b"C", b"Smine\0") + wire.SYNC)
            client.until_ready(2)
        elif kind == "cancel":
            self._cancel(client, extended=bool(what))
        else:
            self._copy(client, kind, good=bool(what))

    def _segment(self, statements: Sequence[str]) -> bytes:
        return b"".join(wire.whole(self._fill(one)) for one in statements) + wire.SYNC

    def _copy(self, client: Client, kind: str, *, good: bool) -> None:
        rows = wire.copy_data(self._fill("{v}\n" if good else "x\n"))
        if kind == "copy out":
            client.send(wire.query("COPY (SELECT 1) TO STDOUT"))
        elif kind == "copy":
            client.send(wire.query("COPY t (v) FROM STDIN"))
            if client.until("GZ")[-1][0] == "Z":
                return
            client.send(rows + wire.COPY_DONE)
        elif kind == "copy at once":
            client.send(wire.whole("COPY t (v) FROM STDIN") + rows + wire.COPY_DONE + wire.SYNC)
        else:  # as libpq does: a Sync with the statement, which the server ignores, and one behind the rows
            client.send(wire.whole("COPY t (v) FROM STDIN") + wire.SYNC)
            if client.until("GZ")[-1][0] == "Z":
                return
            client.send(rows + wire.COPY_DONE + wire.SYNC)
        client.until_ready()

    def _cancel(self, client: Client, *, extended: bool) -> None:
        sql = self._fill("INSERT INTO t SELECT {v} FROM pg_sleep(10)")
        client.send(self._segment([sql]) if extended else wire.query(sql))
        process = int.from_bytes(client.key[:4], "big")
        while not client.has_heard():  # in a failed transaction it does not even begin
            row = self._control.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", [process]).fetchone()
            if row == ("PgSleep",):
                client.cancel()
                break
        client.until_ready()


def differences(conversation: Conversation, held: Held, control: Control) -> list[str]:
    """Say where the account is wrong."""
    found = []
    for number, heard in zip(sorted(conversation.connections), held.heard, strict=True):
        told = [word for one in conversation.connections[number].steps for word in _told(one)]
        if told != wire.shorts(heard)[1:]:  # without that of the login
            found.append(f"connection {number} heard {wire.shorts(heard)[1:]}, the account has {told}")
    rows: dict[int, int] = {
        int(str(v)): int(str(xid)) for v, xid in control.execute("SELECT v, xid FROM t WHERE v > 0")
    }
    for one in conversation.transactions:
        found += _wrong(one, rows, control)
    known = {value for one in conversation.transactions for value in values_of(one)}
    copied = any("COPY" in step.sql for one in conversation.transactions for step in one.steps)
    if not copied:
        found += [f"row {value} is in no transaction" for value in rows.keys() - known]
    return found


def _told(step: Asked) -> list[str]:
    if step.skipped or step.answered is None or step.message in ("CopyDone", "CopyFail"):
        return []
    failure = [step.failure[1]] if step.failure is not None else []
    return [*step.tags, *failure, *([step.state] if step.state else [])]


def values_of(one: Transaction) -> list[int]:
    """The rows that the statements of a transaction name."""
    words = [word for step in one.steps if step.message in ("Query", "Execute") for word in step.sql.split("(")[1:]]
    numbers = [word.split(")")[0] for word in words]
    return [int(number) for number in numbers if number.isdigit() and int(number) > 1]


def _wrong(one: Transaction, rows: dict[int, int], control: Control) -> list[str]:
    name = f"{one.outcome} {[step.sql for step in one.steps]}"
    found = []
    if one.xid is not None:
        row = control.execute("SELECT pg_xact_status(%s::text::xid8)", [str(one.xid)]).fetchone()
        assert row is not None
        wanted = {"committed": "committed", "rolled back": "aborted", "open": "aborted", "prepared": "in progress"}
        if row[0] != wanted[one.outcome]:
            found.append(f"{name}: xid {one.xid} is {row[0]}")
    lone = len(one.steps) == 1 or not any(";" in step.sql for step in one.steps)
    for value in values_of(one) if lone else []:
        there = rows.get(value)
        if there is not None and one.outcome != "committed" and "CALL" not in name:
            found.append(f"{name}: row {value} is there, of {there}")
        if there is not None and not one.unknown and one.xid != there:
            found.append(f"{name}: row {value} is of {there}, the account says {one.xid}")
        if there is None and one.outcome == "committed" and not _excused(one):
            found.append(f"{name}: row {value} is not there")
    return found


def _excused(one: Transaction) -> bool:
    """A row may have gone with a savepoint, or never have come because a part of the message failed."""
    texts = " ".join(step.sql.upper() for step in one.steps)
    return "SAVEPOINT" in texts or "ROLLBACK TO" in texts or any(step.failure for step in one.steps) or ";" in texts
