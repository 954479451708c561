"""How are the drawn trials told to a viewer of traces, such as Perfetto?

Chrome's trace event format, JSON object form: a trial is a process, a client a thread; a transaction is a slice with
its COMMIT inside, a flush or a checkpoint an asynchronous slice, as they overlap; WAL is a counter.

Choices: a trace has a clock, and a recording has none: one operation is drawn as one millisecond, which the process's
    name says. Set-up and workload begin at 0. Times are whole microseconds, so that a slice ends where those end that
    lie in it. A viewer takes two asynchronous slices of one number for one, whosever they are: no number comes twice.

Source: "Trace Event Format" (Google, 2016): ph X, b, e, i, C, M; ts and dur in microseconds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

import crashlab
from crashlab.chronicle import Chronicle, Transaction
from crashlab.oracle.wal import lsn
from crashlab.report.lanes import SAYS, redo_says
from crashlab.report.story import printable
from crashlab.results import RunResult, Told

Event = dict[str, Any]
_SERVER_THREAD = 1_000_000


def report_bytes(run: RunResult, code: int) -> bytes:
    """Return the trace of all trials that were told, UTF-8."""
    events = [event for number, told in enumerate(run.told, 1) for event in _events(told, number)]
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"crashlab": crashlab.__version__, "command": run.command, "exit_code": code, "begun": run.begun},
    }
    return msgspec.json.encode(document) + b"\n"


def _events(told: Told, pid: int) -> Iterator[Event]:
    chronicle = told.chronicle
    if chronicle is None:
        yield _name("process_name", pid, 0, printable(f"{told.profile}, trial {told.trial}: {told.problem}"))
        return
    unit = "1 ms is 1 ms" if chronicle.axis == "ms" else "1 ms is 1 operation"
    yield _name("process_name", pid, 0, printable(f"{told.profile}, trial {told.trial} ({unit})"))
    for client in chronicle.clients:
        yield _name("thread_name", pid, client, f"client {client}" if client else "set-up")
    yield _name("thread_name", pid, _SERVER_THREAD, "server")
    clock, ends = _Clock(chronicle), chronicle.ends()
    for one in chronicle.transactions:
        yield from _transaction(one, ends, clock, pid)
    yield from _wal(chronicle, clock, pid)
    yield from _happenings(chronicle, clock, pid)


class _Clock:
    """Turns places into microseconds."""

    def __init__(self, told: Chronicle) -> None:
        self._origin = min([told.first, *(one.begin for one in told.transactions)])

    def __call__(self, at: float) -> int:
        return round((at - self._origin) * 1000)


def _name(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _transaction(one: Transaction, ends: Mapping[int, float], clock: _Clock, pid: int) -> Iterator[Event]:
    end = ends[one.tx]
    place = {"pid": pid, "tid": one.client, "cat": "transaction", "ph": "X"}
    facts = {
        "fate": f"{one.fate}: {SAYS[one.fate]}",
        "synchronous_commit": one.sync,
        "xid": one.xid,
        "answer": one.answer,
        "wrote": printable(one.wrote),
        "commit record": f"{lsn(one.record_end)} {one.record_fate}" if one.record_end else one.record_fate,
        "ledger lines": f"{one.begin_line}, {one.sent_line}, {one.told_line}",
    }
    begin = clock(one.begin)
    name = f"transaction {one.tx}: {one.fate}"
    yield place | {"name": name, "ts": begin, "dur": max(0, clock(end) - begin), "args": facts}
    if one.sent is not None:
        sent = clock(one.sent)
        yield place | {"name": "COMMIT", "ts": sent, "dur": max(0, clock(end) - sent), "args": {}}


def _wal(told: Chronicle, clock: _Clock, pid: int) -> Iterator[Event]:
    curves = {
        "inserted": [(one.at, one.inserted) for one in told.levels],
        "written": told.written or [(one.at, one.written) for one in told.levels],
        "durable": told.durable if told.written else [(one.at, one.durable) for one in told.levels],
    }
    base = min((value for curve in curves.values() for _, value in curve if value), default=0)
    for name, curve in curves.items():
        for at, value in curve:
            if value:
                counter = {"ph": "C", "pid": pid, "ts": clock(at), "name": f"WAL {name}, bytes from {lsn(base)}"}
                yield counter | {"args": {name: value - base}}


def _happenings(told: Chronicle, clock: _Clock, pid: int) -> Iterator[Event]:
    for number, one in enumerate(told.happenings):
        event = {"pid": pid, "tid": _SERVER_THREAD, "cat": "server", "name": one.kind, "ts": clock(one.at)}
        args = {"says": printable(one.says)}
        if one.kind in ("fault", "WAL switch"):
            yield event | {"ph": "i", "s": "p" if one.kind == "fault" else "t", "args": args}
            continue
        until = told.cut if one.until is None else one.until
        own = pid * _SERVER_THREAD + number
        yield event | {"ph": "b", "id": own, "args": args}
        yield event | {"ph": "e", "id": own, "ts": clock(max(one.at, until)), "args": {}}
    if told.recovery.ran:
        args = {"says": printable(redo_says(told))}
        event = {
            "pid": pid,
            "tid": _SERVER_THREAD,
            "cat": "server",
            "name": "redo",
            "ts": clock(told.cut),
            "args": args,
        }
        if told.axis == "ms":
            yield event | {"ph": "X", "dur": round(told.recovery.seconds * 1e6)}
        else:
            yield event | {"ph": "i", "s": "p"}
