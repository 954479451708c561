"""What was asked and answered on all connections, in which order, and what became of each transaction?

Pure but for reading the file. The number of a record is the order in which the observer saw things, over all
connections; its time is CLOCK_MONOTONIC, which all processes of a machine share. While the observer follows a server's
I/O log, it has the log's length right before that time and right after it, too. A last line without its end was being
written when the observer was killed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from crashlab.errors import LedgerError
from crashlab.observer.account import Asked, Connection, Conversation
from crashlab.observer.moment import PHASES, Moment, Unit
from crashlab.observer.statements import Statement
from crashlab.observer.transactions import Accounts

Kind = Literal["commits", "statements", "all"]
"""Of a sweep."""
WORDS_CHARACTERS_MAX = 60


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a conversation's lines. Raises LedgerError: one is damaged."""
    records = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(msgspec.json.decode(line, type=dict[str, Any]))
        except (msgspec.DecodeError, RecursionError) as error:
            raise LedgerError(f'could not read "{path}", line {number}: {error}') from error
    return records


def read_conversation(path: Path) -> Conversation:
    """Read what an observer wrote. Raises LedgerError: a line is damaged."""
    return conversation_of(read_records(path))


def conversation_of(records: list[dict[str, Any]]) -> Conversation:
    """Put records together."""
    result = Conversation()
    accounts = Accounts(result)
    for record in records:
        _take(record, result, accounts)
    accounts.end()
    return result


def _take(record: dict[str, Any], result: Conversation, accounts: Accounts) -> None:
    kind, number = record["kind"], record.get("connection", 0)
    connection = result.connections.get(number)
    if kind == "open":
        parameters = record["parameters"]
        user = parameters.get("user", "")
        database = parameters.get("database", user)
        opened = Connection(number, user, database, parameters, record["protocol"], record["blind"])
        result.connections[number] = opened
    elif kind == "cancel":
        result.cancels.append((record["number"], record["process"]))
    elif kind in ("armed", "cut", "resumed", "went on", "follows"):
        result.marks.append((record["number"], kind))
        result.epoch = record.get("epoch", result.epoch)
    elif connection is None:
        return
    elif kind == "asked":
        asked = _asked(record)
        connection.steps.append(asked)
        result.steps.append(asked)
    elif kind == "process":
        connection.process = record["process"]
    elif kind == "closed":
        connection.closed_by = record["by"]
        accounts.close(connection)
    elif kind == "refused":
        connection.refused = True
    elif "step" in record:
        _take_answer(record, connection, result, accounts)


def _take_answer(record: dict[str, Any], connection: Connection, result: Conversation, accounts: Accounts) -> None:
    kind = record["kind"]
    if kind == "reached" and record["phase"] == "before":  # it was not passed on, so it is not there yet
        result.reached.append((record["number"], _asked(record), "before"))
        return
    # The one just asked, nearly always.
    step = next((one for one in reversed(connection.steps) if one.step == record["step"]), None)
    if kind == "probed":
        accounts.probe(connection, record)
    elif step is None:
        return
    elif kind == "skipped":
        step.skipped = True
    elif kind == "answered":
        step.answered, step.answered_ns = record["number"], record["at_ns"]
        step.answered_io = record.get("io_then", 0)
        step.tags, step.state, step.heard = record["tags"], record["state"], record["heard"]
        step.failure = tuple(record["failure"]) if record["failure"] else None
        step.commit_number = record["commit"]
        accounts.answer(connection, step)
    elif kind == "reached":
        result.reached.append((record["number"], step, record["phase"]))


def _asked(record: dict[str, Any]) -> Asked:
    place, message_number, statement_number = record["at"]
    return Asked(
        connection=record["connection"],
        step=record["step"],
        message=record["message"],
        sql=record["sql"],
        statements=tuple(Statement(kind, "", gid, chain) for kind, gid, chain in record["statements"]),
        number=record["number"],
        at_ns=record["at_ns"],
        epoch=record["epoch"],
        place=place,
        message_number=message_number,
        statement_number=statement_number,
        may_commit=record["may_commit"],
        unknown=record["unknown"],
        io=record.get("io", 0),
        io_then=record.get("io_then", 0),
    )


def moments(conversation: Conversation, kind: Kind, epoch: int | None = None) -> list[Moment]:
    """Return every moment of a kind in a conversation that was heard to its end, in the order of asking.

    Args:
        epoch: of the steps asked while this was armed, by number; the last one by default.
    """
    return [moment for moment, _ in moments_with_steps(conversation, kind, epoch)]


def moments_with_steps(
    conversation: Conversation, kind: Kind, epoch: int | None = None
) -> Iterator[tuple[Moment, Asked]]:
    """Yield what `moments` returns, each with the message that it is about."""
    wanted = conversation.epoch if epoch is None else epoch
    wrote = {id(one.end) for one in conversation.transactions if one.end is not None and one.xid is not None}
    for step in conversation.steps:
        if step.epoch != wanted or step.skipped or not step.is_answered:
            continue
        named = _named(step, kind, id(step) in wrote)
        if named is not None:
            for phase in PHASES:
                yield Moment(step.place, *named, phase), step


def step_of(conversation: Conversation, moment: Moment, epoch: int | None = None) -> Asked | None:
    """Return the message that a moment names in a conversation; None: there is none."""
    wanted = conversation.epoch if epoch is None else epoch
    for step in conversation.steps:
        numbers = {
            "message": step.message_number,
            "statement": step.statement_number,
            "commit": step.commit_number,
        }
        if (step.epoch, step.place) == (wanted, moment.connection) and numbers[moment.unit] == moment.nth:
            return step
    return None


def in_words(conversation: Conversation, moment: Moment, epoch: int | None = None) -> str:
    """Say where a moment is: "connection 2, COMMIT of transaction 768, done but unheard"."""
    step = step_of(conversation, moment, epoch)
    if step is None:
        return moment.words()
    ended = [one for one in conversation.transactions if one.end is step]
    what = " ".join(step.sql.split()) or step.message
    what = what if len(what) <= WORDS_CHARACTERS_MAX else f"{what[:WORDS_CHARACTERS_MAX]} ..."
    return moment.words(f"{what} of {ended[-1].name}" if ended and ended[-1].xid is not None else what)


def _named(step: Asked, kind: Kind, wrote: bool) -> tuple[Unit, int] | None:
    if kind == "all":
        return "message", step.message_number
    if kind == "statements":
        return ("statement", step.statement_number) if step.statement_number else None
    if step.failure is not None:
        return None
    if step.commit_number:
        return "commit", step.commit_number
    # It did not look like a commit: SELECT of a function that writes.
    return ("statement", step.statement_number) if wrote and step.statement_number else None
