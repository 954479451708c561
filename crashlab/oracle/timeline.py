"""What happened, in order, to the first witness of a finding?

One line each, and nothing that is not in the evidence. A transaction: what its client sent and was told, its record,
the fault, the recovery, what is there. A row: the versions of its key around the damage, and who made them. Anything
else: the fault, the recovery, which check met it and what the server said.

Choices: times count back from the fault. Where a recording was cut, no clock ran: they count from the last answer
    that a client had before the cut, which the line of the fault says.

Source: design.md "The oracle" (every loss is explained).
"""

import math
import re
from collections.abc import Iterable

from crashlab.history import ACKED, REFUSED, STATES, UNSENT
from crashlab.ledger import Write
from crashlab.model import Injection, LostRecord, WalAtCut, WalFacts, WalRecord
from crashlab.oracle.case import Case
from crashlab.oracle.findings import Witness
from crashlab.oracle.order import FORCED, last_survivor
from crashlab.oracle.survivors import Presence
from crashlab.oracle.versions import Step, collect_steps, shortened
from crashlab.oracle.wal import Wal, flushed_when, how_far, lsn

WRITES_TOLD_MAX = 5
VERSIONS_BESIDE = 2
"""So many versions of a key are told before and after the damaged ones."""
_NEVER_ANSWERED = "no answer arrived"


class Timeline:
    """Tells what the evidence has about one witness."""

    def __init__(self, case: Case, presence: Presence | None, wal: Wal | None) -> None:
        """Without a presence the marker table was not read; without a Wal nobody asked the log."""
        self._case = case
        self._history = case.history
        self._observation = case.observation
        self._presence = presence
        self._wal = wal

    def tell(self, place: str, witness: Witness) -> list[str]:
        """Return the lines about a finding's first witness."""
        tx = witness.get("tx", 0)
        if "key" in witness and self._presence is not None:
            before = self._versions(place, witness)
            after = self._key_now(place, witness)
        elif 0 < tx <= self._history.count:
            before = self._told(tx)
            after = [*self._transaction_now(tx), *self._sequence(place)]
        else:
            before, after = [], self._complaint(place, witness)
        faults = self._faults()
        if "told" in witness:
            after_fault, says = witness.get("told_after_fault", False), f"key {witness['told']} was told"
            told = self._line(witness["told_line"], witness["told_ns"], says, after_fault=after_fault)
            (faults if after_fault else before).append(f"after {told}")
            before.sort(key=_ledger_line)
        record = self._record(tx) if before and "key" not in witness else []
        if (at_cut := self._observation.wal_at_cut) is not None and not self._observation.recovery.started:
            record = [_at_cut(at_cut, self._observation.wal)]
        lines = [*before, *record, *faults, *self._recovery(), *after]
        return [line.replace("\n", " ") for line in lines]  # a message of the server may have several

    # --- before the fault

    def _told(self, tx: int) -> list[str]:
        """What the client sent and was told."""
        h = self._history
        begins = f"transaction {tx} of client {h.client[tx]} begins"
        if h.insert_lsn[tx]:
            begins += f"; it finds the WAL inserted up to {lsn(h.insert_lsn[tx])}"
            begins += f", written up to {lsn(h.written_then[tx])}" if h.written_then[tx] else ""
            begins += f", flushed up to {lsn(h.flushed_then[tx])}" if h.flushed_then[tx] else ""
        lines = [self._line(h.begin_position[tx], h.begin_ns[tx], begins)]
        if tx in h.two_phase:
            lines += [self._line(line, at_ns, step) for line, at_ns, step in h.two_phase[tx]]
            lines[1] += f"; {self._work(tx)}"
        elif h.state[tx] != UNSENT and h.intent_position[tx]:
            sent = f"COMMIT sent with synchronous_commit = {h.sync[tx]}"
            sent += f", for {FORCED}" if tx in h.forced else ""
            lines.append(self._line(h.intent_position[tx], h.intent_ns[tx], f"{sent}; {self._work(tx)}"))
        if h.state[tx] in (ACKED, REFUSED):
            how = "acknowledged" if h.state[tx] == ACKED else "refused, or rolled back by the client"
            if tx in h.two_phase and h.state[tx] == REFUSED:
                how = "answered: rolled back"
            lines.append(self._line(h.end_position[tx], h.end_ns[tx], how))
        elif h.state[tx] == UNSENT:
            lines.append("COMMIT was never sent")
        elif not (tx in h.two_phase and h.two_phase[tx][-1][2].endswith("acknowledged")):
            lines.append(_NEVER_ANSWERED)
        return lines

    def _line(self, position: int, at_ns: int, what: str, *, after_fault: bool = False) -> str:
        age_ms = self._case.age_ms(at_ns, 0 if after_fault else position)
        when = "" if age_ms is None else f", {_ms(age_ms)}"
        return f"ledger line {position}{when}: {what}"

    def _work(self, tx: int) -> str:
        h = self._history
        wrote = [_wrote(write) for write in h.writes[tx][:WRITES_TOLD_MAX]]
        more = len(h.writes[tx]) - len(wrote)
        wrote += [f"{more} more"] if more else []
        xid = f"xid {h.xid[tx]}" if h.xid[tx] else "no xid"
        return f"{xid}, it wrote {', '.join(wrote) or 'no row that is compared'}"

    def _versions(self, relation: str, witness: Witness) -> list[str]:
        """The versions of a key around the damaged ones."""
        h, key = self._history, witness["key"]
        steps = collect_steps(h, {relation: {key}})[relation][key]
        concerned = [found["version"] for found in (witness["expected"], witness["found"]) if found is not None]
        versions = [version for version in concerned if version is not None]
        writers = (witness["tx"], witness["expected"]["writer"])
        near = [step.version for step in steps if step.version in versions or step.tx in writers]
        if not near:
            return [f"the ledger has no write of {relation} key {key}"]
        low, high = min(near) - VERSIONS_BESIDE, max(near) + VERSIONS_BESIDE
        told = [step for step in steps if low <= step.version <= high]
        if len(told) > 4 * VERSIONS_BESIDE:
            told = [*told[: 2 * VERSIONS_BESIDE], *told[-2 * VERSIONS_BESIDE :]]
        return [self._version(relation, key, step) for step in told]

    def _version(self, relation: str, key: str, step: Step) -> str:
        h, tx = self._history, step.tx
        assert self._presence is not None
        there = "is there" if self._presence.visible[tx] else "is not there"
        fate = f"{STATES[h.state[tx] - 1]}, {there}"
        undone = "" if step.kept else ", undone by ROLLBACK TO SAVEPOINT"
        who = f"transaction {tx} of client {h.client[tx]} ({fate})"
        what = f"{relation} key {key} version {step.version}{_value(step.write)}{undone}, by {who}"
        return self._line(step.position or h.begin_position[tx], h.intent_ns[tx] or h.begin_ns[tx], what)

    # --- the log, the fault and the recovery

    def _record(self, tx: int) -> list[str]:
        """Where the transaction's record is, and how far the log was."""
        if self._wal is None or self._wal.facts is None:
            return []
        lines = []
        at_cut = self._wal.at_cut
        for record in self._records(tx):
            fate = "valid" if isinstance(record, WalRecord) else record.fate
            where = f"ends at {lsn(record.end)}, {fate}" if record.end else "was never written"
            lines.append(f"its {record.decision} record {where}")
        if at_cut is not None:
            if at_cut.last_flush is not None:
                flush = at_cut.last_flush
                ignored = "" if flush.kept else ", and this disk ignored it"
                lines.append(
                    f"the last flush of WAL ended {flushed_when(flush)}, by process {flush.pid}, as operation "
                    f"{flush.operation} of the recording{ignored}"
                )
            lines.append(_at_cut(at_cut, self._wal.facts))
        return lines

    def _records(self, tx: int) -> Iterable[WalRecord | LostRecord]:
        assert self._wal is not None
        for decision in ("prepare", "commit", "commit prepared", "rollback prepared"):
            record = self._wal.record_of(tx, decision) or self._wal.lost_record(tx, decision)
            if record is not None:
                yield record

    def _faults(self) -> list[str]:
        return [self._fault(injection) for injection in self._case.injections]

    def _fault(self, injection: Injection) -> str:
        age_ms = self._case.age_ms(injection.at_ns)
        when = "" if age_ms is None else f", {_ms(age_ms)}"
        proof = "; ".join(injection.proof[:2]) if injection.confirmed else "nothing proves it"
        clock = " (times count from the last answer before it)" if self._case.recorded else ""
        return f"fault{when}: {injection.kind} of {injection.target}: {proof or 'confirmed'}{clock}"

    def _recovery(self) -> list[str]:
        recovery = self._observation.recovery
        facts = self._observation.wal if self._wal is None else self._wal.facts
        lines = []
        if facts is not None:
            lines.append(f"before recovery: the WAL is valid from {lsn(facts.redo)} to {lsn(facts.end)}")
        if recovery.ran:
            redo = "redo" if recovery.redo_start or recovery.redo_end else "its log tells of no redo"
            redo += f" from {recovery.redo_start}" if recovery.redo_start else ""
            redo += f" to the record at {recovery.redo_end}" if recovery.redo_end else ""
            why = f", because: {recovery.end_reason}" if recovery.end_reason else ""
            lines.append(f"recovery: {redo}{why}")
        elif recovery.started:
            lines.append("recovery: none, the server started at once")
        lines += [f"the server says: {line}" for line in recovery.fatal[:3]]
        return lines

    # --- after the recovery

    def _transaction_now(self, tx: int) -> list[str]:
        """What is left of a transaction, and who survived."""
        h, found = self._history, []
        if self._observation.marker is not None:
            there = any(row.tx == tx for row in self._observation.marker.rows)
            found.append("its marker row is there" if there else "no marker row")
        status = self._observation.xact_status.get(str(h.xid[tx])) if h.xid[tx] else None
        if status is not None:
            found.append(f'pg_xact_status({h.xid[tx]}) is "{status}"')
        if tx in h.gid:
            listed = "lists it" if h.gid[tx] in self._observation.prepared else "does not list it"
            found.append(f"pg_prepared_xacts {listed}")
        found += [self._now(write.relation, write.key) for write in h.writes[tx][:WRITES_TOLD_MAX]]
        now = "; ".join(part for part in found if part)
        return [*([f"after recovery: {now}"] if now else []), *self._survivors()]

    def _now(self, relation: str, key: str) -> str:
        read = next((one for one in self._observation.relations if one.relation == relation), None)
        if read is None:
            return ""
        rows = [row for row in read.rows if row.key == key]
        if not rows:
            return f"{relation} has no key {key}"
        told = []
        for row in rows:
            version = f"version {row.version} by transaction {row.writer}, " if row.version is not None else ""
            told.append(f"{version}{shortened(row.value)}")
        return f"{relation} key {key} holds {' and '.join(told)}"

    def _survivors(self) -> list[str]:
        if self._presence is None:
            return []
        position, tx = last_survivor(self._case, self._presence)
        if not position:
            return ["survivors: none"]
        h = self._history
        record = None
        if self._wal is not None:
            record = self._wal.record_of(tx, "commit", "commit prepared", "prepare")
        where = f"; its {record.decision} record ends at {lsn(record.end)}" if record is not None else ""
        return [
            f"survivors: the last one to be sent is transaction {tx} of client {h.client[tx]}, line {position}{where}"
        ]

    def _key_now(self, relation: str, witness: Witness) -> list[str]:
        read = next((one for one in self._observation.relations if one.relation == relation), None)
        file = f" ({read.file})" if read is not None and read.file else ""
        expected = witness["expected"]
        must = "no such row"
        if expected["value"] is not None:
            must = f"version {expected['version']} by transaction {expected['writer']}, {shortened(expected['value'])}"
        return [
            f"after recovery, by sequential scan{file}: {self._now(relation, witness['key'])}",
            f"what must be there: {must}",
        ]

    def _sequence(self, place: str) -> list[str]:
        return [
            f"after recovery: {read.name} has last_value {read.last_value}, is_called {str(read.is_called).lower()}"
            for read in self._observation.sequences
            if read.name == place
        ]

    def _complaint(self, place: str, witness: Witness) -> list[str]:
        """What a check met."""
        if "step" in witness:
            said = witness["message"] if "message" in witness else f"{place}: {witness['change']}"
            return [
                "after recovery: everything is read, without a complaint",
                f"step {witness['step']} of its use: {said}",
            ]
        if "message" not in witness:
            return []
        state = f" (SQLSTATE {witness['sqlstate']})" if witness.get("sqlstate") else ""
        return [
            f"after recovery: the check {witness['check']} reads {place}",
            f"the server says: {witness['message']}{state}",
        ]


def _at_cut(at_cut: WalAtCut, facts: WalFacts | None) -> str:
    flushing = "; a flush was in progress" if at_cut.flushing else ""
    return f"WAL at the fault: {how_far(at_cut, facts)}{flushing}"


def _ledger_line(line: str) -> float:
    match = re.match(r"(?:after )?ledger line (\d+)", line)
    return int(match[1]) if match else math.inf


def _ms(age_ms: float) -> str:
    text = f"{-age_ms:+.1f} ms"
    return text[1:] if text[1:] == "0.0 ms" else text


def _wrote(write: Write) -> str:
    return f"{write.relation} key {write.key} version {write.version}"


def _value(write: Write) -> str:
    if write.value is None:
        return " (deleted)"
    return f" with {shortened(write.value)} appended" if write.op == "append" else f", {shortened(write.value)}"
