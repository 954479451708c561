"""What happened in a stored trial, transaction by transaction? From its folder alone, without its recording's log.

Choices: the clock is that of the clients. Of a cut through a recording no clock ran between two operations: there the
    times count from the last answer before the cut, as in `oracle.timeline`. How far the WAL was comes from what the
    clients asked as their transactions began, so each figure belongs to that moment.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from crashlab import evidence
from crashlab.chronicle import Chronicle, Fate, Happening, Transaction, WalLevel
from crashlab.history import ACKED, COMMITTING_PREPARED, INDETERMINATE, REFUSED, UNSENT, History
from crashlab.model import Injection, Observation
from crashlab.observe import SAMPLES, Samples
from crashlab.observe.samples import slots
from crashlab.oracle import Judgement
from crashlab.trial.judged import judgement_of, read_history, read_observation

WRITES_TOLD_MAX = 3
SLOTS_MAX = 60
WAL_WAITS = ("IO.WalSync", "IO.WalWrite", "LWLock.WALWrite", "LWLock.WALInsert", "LWLock.WALBufMapping")


def chronicle_of(folder: Path) -> Chronicle:
    """Read one trial.

    Raises:
        EvidenceError, LedgerError: the evidence is missing or damaged.
    """
    record = evidence.load_trial(folder)
    history, observation = read_history(folder, record), read_observation(folder, record)
    judgement = judgement_of(folder, record, history, observation)
    clock = _Clock(history, record.injections)
    workload = [tx for tx in range(1, history.count + 1) if history.client[tx]]
    first = min((clock.place(history.begin_ns[tx]) for tx in workload), default=clock.cut)
    return Chronicle(
        axis="ms",
        first=min(first, clock.cut),
        cut=clock.cut,
        transactions=list(_transactions(history, judgement, clock)),
        levels=[
            WalLevel(
                clock.place(history.begin_ns[tx]),
                history.begin_position[tx],
                *(history.insert_lsn[tx], history.written_then[tx], history.flushed_then[tx]),
            )
            for tx in workload
            if history.insert_lsn[tx]
        ],
        happenings=[*(_fault(injection, clock) for injection in record.injections), *_waits(folder, clock)],
        recovery=observation.recovery,
        redo=observation.wal.redo if observation.wal else 0,
        wal_end=observation.wal.end if observation.wal else 0,
        at_cut=observation.wal_at_cut,
        without=_without(observation, record),
    )


class _Clock:
    """Turns moments of the clients' clock into ms before the fault."""

    def __init__(self, history: History, injections: list[Injection]) -> None:
        crashes = [one for one in injections if one.crashes_server] or injections
        self._fault_ns = crashes[-1].at_ns if crashes else max(history.end_ns)
        self.cut = 0.0

    def place(self, at_ns: int) -> float:
        return round((at_ns - self._fault_ns) / 1e6, 3)


def _transactions(history: History, judgement: Judgement, clock: _Clock) -> "list[Transaction]":
    h = history
    found = []
    for tx in range(1, h.count + 1):
        record_end, record_fate = _record(judgement, tx)
        sent = h.intent_ns[tx] if h.intent_position[tx] else 0
        told = h.end_ns[tx] if h.end_position[tx] else 0
        found.append(
            Transaction(
                tx=tx,
                client=h.client[tx],
                fate=_fate(h, judgement, tx),
                sync=h.sync[tx],
                flushed=bool(h.flushed[tx]),
                xid=h.xid[tx],
                wrote=_wrote(h, tx),
                begin_line=h.begin_position[tx],
                sent_line=h.intent_position[tx],
                told_line=h.end_position[tx],
                begin=clock.place(h.begin_ns[tx]),
                sent=clock.place(sent) if sent else None,
                told=clock.place(told) if told else None,
                answer=_ANSWERS.get(h.state[tx], "no answer"),
                record_end=record_end,
                record_fate=record_fate,
            )
        )
    return found


_ANSWERS = {ACKED: "acknowledged", REFUSED: "refused or rolled back", UNSENT: "never sent"}


def _fate(h: History, judgement: Judgement, tx: int) -> Fate:
    state, presence = h.state[tx], judgement.presence
    if state == ACKED and not h.wrote[tx]:
        return Fate.READ_ONLY
    if presence is None:
        return Fate.UNKNOWN
    there = bool(presence.visible[tx])
    if state == ACKED:
        gone = Fate.FORBIDDEN if tx in judgement.forbidden else Fate.PERMITTED
        return Fate.SURVIVED if there else gone
    if state in (INDETERMINATE, COMMITTING_PREPARED):
        return Fate.PRESENT if there else Fate.ABSENT
    if there:
        return Fate.PHANTOM
    return Fate.TRACELESS if state in (REFUSED, UNSENT) else Fate.UNDECIDED


def _record(judgement: Judgement, tx: int) -> tuple[int, str]:
    """Return where a transaction's commit record ends, and what became of it."""
    if judgement.wal is None:
        return 0, ""
    valid = judgement.wal.record_of(tx, "commit", "commit prepared")
    if valid is not None:
        return valid.end, "valid"
    lost = judgement.wal.lost_record(tx, "commit", "commit prepared")
    return (lost.end, lost.fate) if lost is not None else (0, "")


def _wrote(h: History, tx: int) -> str:
    told = [f"{write.relation} key {write.key}" for write in h.writes[tx][:WRITES_TOLD_MAX]]
    more = len(h.writes[tx]) - len(told)
    return ", ".join([*told, *([f"{more} more"] if more else [])])


def _fault(injection: Injection, clock: _Clock) -> Happening:
    proof = injection.proof[0] if injection.proof else "no proof"
    doubt = "" if injection.confirmed else "not confirmed: "
    return Happening(
        kind="fault", at=clock.place(injection.at_ns), says=f"{injection.kind} of {injection.target}: {doubt}{proof}"
    )


def _waits(folder: Path, clock: _Clock) -> Iterator[Happening]:
    """Yield what the clients were doing, where the server was observed (`observe.samples`)."""
    if not os.path.lexists(folder / SAMPLES):
        return
    for slot in slots(evidence.load(folder / SAMPLES, Samples), SLOTS_MAX):
        working = sum(slot.waits.values())
        if not working:
            continue
        waiting = sum(count for name, count in slot.waits.items() if name in WAL_WAITS)
        shown = sorted(slot.waits.items(), key=lambda item: -item[1])
        yield Happening(
            kind="WAL wait" if waiting >= working / 2 else "busy spell",
            at=clock.place(slot.begin_ns),
            until=clock.place(slot.end_ns),
            says=f"of {working:.1f} clients at work: " + ", ".join(f"{count:.1f} {name}" for name, count in shown),
        )


def _without(observation: Observation, record: evidence.TrialRecord) -> str:
    if record.recording is not None:
        return "The recording's log was not read: flushes, checkpoints and the map of the disk are not drawn."
    return "Flushes and checkpoints are known of recorded runs only."
