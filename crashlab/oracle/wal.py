"""Do the survivors agree with the WAL that recovery found, and why is the commit of a missing one not in it?

A transaction survives exactly when its commit record ends at or before the end of the valid WAL.

Checks: a commit record in the valid WAL whose transaction is absent; a transaction that is there without one; a
    PREPARE record without a decision whose transaction is not prepared, and one that is prepared after its decision;
    an acknowledged commit that is absent although it certainly lies before the redo point. Whether redo ended where
    the valid log ends, which is read before with the tests that PostgreSQL's own reader makes.
Does not check: transactions that committed at an unknown place, maybe before the redo point: of their records
    nothing is left to compare with. Aborts. Anything if the WAL was not read before recovery. Transactions by their
    records, if redo ended elsewhere: which of the two is wrong is not known then.
Choices:
    A record is a transaction's only if it begins at or after the insert position that the transaction measured when
    it began: xids are 32 bits in the WAL, and are given out again after a crash.
    What the clients' own order proves is named first (`order`): it needs no reading of WAL to be believed.

Sources: postgres-contract.md 0 (E), 7.2 (O3), 7.4 (WAL/state mismatch).
"""

from typing import Any

from crashlab.history import ACKED, COMMITTING_PREPARED, PREPARED, PREPARING, ROLLING_BACK_PREPARED, STATES, History
from crashlab.model import LostRecord, Observation, WalAtCut, WalDecision, WalFacts, WalFlush, WalRecord
from crashlab.oracle.case import SHOWN_MS, Case
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import MAY_BE_THERE, Presence

CODE = "CORRUPT-WAL-STATE-MISMATCH"
REDO_END = "CORRUPT-REDO-END"
_OTHER_RECOVERY = (
    *("archive recovery", "point-in-time recovery", "backup recovery", "standby mode"),
    *("recovery stopping", "starting backup", "recovery target"),
)
"""Words of the server's log: it did not recover from the checkpoint of its control file to the end of the log."""
_COMMITS: tuple[WalDecision, ...] = ("commit", "commit prepared")
_DECISIONS: tuple[WalDecision, ...] = (*_COMMITS, "rollback prepared")
_MAY_BE_PREPARED = (PREPARING, PREPARED, COMMITTING_PREPARED, ROLLING_BACK_PREPARED)


def lsn(position: int) -> str:
    """Return a WAL position as PostgreSQL prints it (%X/%X)."""
    return f"{position >> 32:X}/{position & 0xFFFF_FFFF:X}"


def certainly_below(history: History, horizon: int) -> bytearray:
    """Mark the transactions whose client later read an insert position at or below the horizon."""
    below = bytearray(history.count + 1)
    next_lsn: dict[int, int] = {}
    for tx in range(history.count, 0, -1):
        client = history.client[tx]
        if 0 < next_lsn.get(client, 0) <= horizon:
            below[tx] = 1
        if history.insert_lsn[tx]:
            next_lsn[client] = history.insert_lsn[tx]
    return below


class Wal:
    """What the WAL of the image says of each transaction; of none, if it was not read or is not trusted."""

    def __init__(self, findings: Findings, case: Case, presence: Presence) -> None:
        self._findings = findings
        self._case = case
        self._history = history = case.history
        self._observation = case.observation
        self._presence = presence
        self.facts = _trusted(findings, case.observation)
        self.at_cut: WalAtCut | None = case.observation.wal_at_cut if self.facts is not None else None
        self._records: dict[int, list[WalRecord]] = {}
        self._below_redo = bytearray(history.count + 1)
        if self.facts is not None:
            self._below_redo = certainly_below(history, self.facts.redo)
            for record in self.facts.records:
                self._records.setdefault(record.xid, []).append(record)
        self._lost = {(record.xid, record.decision): record for record in self.at_cut.lost} if self.at_cut else {}

    def record_of(self, tx: int, *decisions: WalDecision) -> WalRecord | None:
        """Return the valid record that decides a transaction in one of these ways."""
        xid = self._history.xid[tx]
        for record in self._records.get(xid & 0xFFFF_FFFF, ()) if xid else ():
            if record.decision in decisions and record.start >= self._history.insert_lsn[tx]:
                return record
        return None

    def ends_before_the_decision(self, tx: int) -> bool:
        """Whether what became of a prepared transaction is behind the end of the WAL: then it is prepared as before."""
        return self.facts is not None and not self._below_redo[tx] and self.record_of(tx, *_DECISIONS) is None

    def check(self) -> None:
        """Report survivors without a commit record, and prepared transactions that are not as the WAL has them."""
        facts, h = self.facts, self._history
        if facts is None:
            return
        for tx, (seen, state, start) in enumerate(zip(self._presence.visible, h.state, h.insert_lsn, strict=True)):
            if not seen or state not in MAY_BE_THERE or start < facts.redo or not start or not h.xid[tx]:
                continue
            if tx not in self._presence.explained and not self.record_of(tx, *_COMMITS):
                says = (
                    f"Transaction {tx} of client {h.client[tx]} (xid {h.xid[tx]}) is there, yet no record of its "
                    f"commit is in the WAL: it began at {lsn(start)}, and the WAL was valid from {lsn(facts.redo)} "
                    f"to {lsn(facts.end)}."
                )
                self._add(tx, says, start=lsn(start))
        run = self._observation.checks.get("prepared")
        if run is not None and run.status == "ran":
            self._check_prepared(set(self._observation.prepared))

    def _check_prepared(self, listed: set[str]) -> None:
        h = self._history
        for tx, gid in h.gid.items():
            prepared, decision = self.record_of(tx, "prepare"), self.record_of(tx, *_DECISIONS)
            if h.state[tx] not in _MAY_BE_PREPARED or tx in self._presence.explained:
                continue
            if gid in listed and decision is not None and not self._presence.visible[tx]:
                what = f"is prepared, yet its {decision.decision.upper()} ends at {lsn(decision.end)}"
            elif gid not in listed and prepared is not None and decision is None and not self._presence.visible[tx]:
                what = f"is not prepared, yet its PREPARE ends at {lsn(prepared.end)} and no decision follows"
            else:
                continue
            says = f"Transaction {tx} ({gid}) {what}, in the valid part of the WAL."
            self._add(tx, says, gid=gid, state=STATES[h.state[tx] - 1])

    def report_absent(self, tx: int) -> bool:
        """Report a transaction that is absent, if the WAL or a completed checkpoint has its commit."""
        facts, h = self.facts, self._history
        if facts is None:
            return False
        record = self.record_of(tx, *_COMMITS)
        if record is not None:
            why = f"its commit record ends at {lsn(record.end)}, and the WAL was valid up to {lsn(facts.end)}"
        elif h.state[tx] == ACKED and self._below_redo[tx]:
            why = f"it committed before {lsn(facts.redo)}, where the last completed checkpoint lets recovery begin"
        else:
            return False
        state = STATES[h.state[tx] - 1]
        says = f"Transaction {tx} of client {h.client[tx]} (xid {h.xid[tx]}, {state}) is missing, yet {why}."
        self._add(tx, says, record_end=lsn(record.end) if record else None)
        return True

    def _add(self, tx: int, says: str, **witness: Any) -> None:
        facts, h = self.facts, self._history
        assert facts is not None
        self._presence.explained.add(tx)
        marker = self._observation.marker
        self._findings.add(
            CODE,
            "transactions",
            says,
            files=[marker.file if marker else None],
            tx=tx,
            client=h.client[tx],
            xid=h.xid[tx],
            wal_redo=lsn(facts.redo),
            wal_end=lsn(facts.end),
            **witness,
        )

    # --- why a lost commit is not in it

    def lost_record(self, tx: int, *decisions: WalDecision) -> LostRecord | None:
        """Return what became of the record behind the end of the WAL that would have decided a transaction."""
        xid = self._history.xid[tx] & 0xFFFF_FFFF
        found = (self._lost.get((xid, decision)) for decision in decisions) if xid else ()
        return next((record for record in found if record is not None), None)

    def explain(self, tx: int, *decisions: WalDecision) -> tuple[str, dict[str, Any]]:
        """Say where the record of a lost transaction is, where the WAL ended, and what kept it from surviving.

        Args:
            decisions: the records that would have saved it.

        Returns:
            whole sentences; facts for the evidence. Both are empty if the WAL was not read.
        """
        facts, at_cut = self.facts, self.at_cut
        if facts is None:
            return "", {}
        known: dict[str, Any] = {"wal_end": lsn(facts.end)}
        record = self.lost_record(tx, *decisions)
        if record is None or at_cut is None:
            says = f"Recovery found valid WAL up to {lsn(facts.end)}, and no {decisions[0]} record of it in there"
            return f"{says}{self._walwriter_stopped()}.", known
        known |= {"record_end": lsn(record.end) if record.end else None, "fate": record.fate}
        known |= {"wal_written": lsn(at_cut.written), "wal_durable": lsn(at_cut.durable), "flushing": at_cut.flushing}
        if not record.end:
            place = f"Its {record.decision} record was never written; recovery found valid WAL up to {lsn(facts.end)}."
        else:
            place = f"Its {record.decision} record ends at {lsn(record.end)}, "
            place += f"and recovery found valid WAL up to {lsn(facts.end)} only."
        return f"{place} {self._fate(record)}", known

    def _walwriter_stopped(self) -> str:
        for injection in self._case.injections:
            if (injection.kind, injection.target) == ("stop", "walwriter") and injection.confirmed:
                when = self._case.when(injection.at_ns)
                return f"; walwriter, which writes such log, had been stopped{f' {when}' if when else ''}"
        return ""

    def _fate(self, record: LostRecord) -> str:
        assert self.at_cut is not None
        written = lsn(self.at_cut.written)
        if record.fate == "not written":
            flush = self.at_cut.last_flush
            when = "" if flush is None else f"; the last flush of WAL had ended {flushed_when(flush)}"
            return f"When the fault came, the server had written its WAL up to {written}, which is not that far{when}."
        place = f"the WAL was {how_far(self.at_cut, self.facts)}, because {self.why_not_durable()}"
        if record.fate == "no file":
            return f"The record was written, but the name of its file was lost: {place}."
        if record.fate == "behind a hole":
            return f"The record is still there, but out of reach behind WAL that was lost: {place}."
        return f"The record was written, not durable: {place}."

    def why_not_durable(self) -> str:
        """Say why what was written was not all durable."""
        assert self.at_cut is not None
        flush = self.at_cut.last_flush
        weak = self._case.weak_spot
        if weak is not None and weak.setting == "fsync":
            return "with fsync off the server flushes nothing"
        when = "" if flush is None else f" (the last one that ended did so {flushed_when(flush)})"
        if any(injection.disk == "lying" for injection in self._case.injections):
            return f"this disk ignores flushes{when}"
        if flush is not None and not flush.kept:
            return f"this disk ignored a flush{when}"
        if self.at_cut.flushing:
            return f"a flush was in progress and had not ended{when}"
        return f"nobody had flushed the rest yet{when}"


def how_far(at_cut: WalAtCut, facts: WalFacts | None) -> str:
    """Say how far the WAL was written and durable when the power was cut."""
    nothing = facts is not None and at_cut.durable <= facts.redo
    durable = f"not durable from {lsn(at_cut.durable)} on" if nothing else f"durable up to {lsn(at_cut.durable)}"
    return f"written up to {lsn(at_cut.written)} and {durable}"


def flushed_when(flush: WalFlush) -> str:
    """Say when a flush ended, as far as the ledger's clock tells."""
    if flush.most_ms is None and not flush.least_ms:
        return "at an unknown time before the fault"
    if flush.most_ms is None:
        return f"{flush.least_ms:.1f} ms before the fault or earlier"
    if flush.most_ms < SHOWN_MS / 2:
        return "right before the fault, after the last answer"
    if flush.most_ms - flush.least_ms < SHOWN_MS:
        return f"{flush.most_ms:.1f} ms before the fault"
    return f"between {flush.most_ms:.1f} and {flush.least_ms:.1f} ms before the fault"


def _trusted(findings: Findings, observation: Observation) -> WalFacts | None:
    """Return the WAL as it was read, if it is the one that was replayed, up to the end that redo found."""
    facts, recovery = observation.wal, observation.recovery
    if facts is None:
        return None
    redo_end = recovery.redo_end
    if redo_end is None and any("redo is not required" in line for line in recovery.log_lines):
        redo_end = lsn(facts.redo)  # the checkpoint itself is the last record
    if redo_end is None or _parsed(redo_end) == facts.last:
        return facts
    replayed = _parsed(redo_end)
    says = f"The log was valid up to {lsn(facts.end)}, with a last record at {lsn(facts.last)}"
    known: dict[str, Any] = {"last": lsn(facts.last), "end": lsn(facts.end), "redo_end": redo_end, "why": facts.why}
    if any(sign in line for line in recovery.log_lines for sign in _OTHER_RECOVERY) or (
        recovery.redo_start is not None and _parsed(recovery.redo_start) != facts.redo
    ):  # not a recovery from the checkpoint to the end of the log, so the reading is of no use
        says += f", but redo, which was told where to begin or to end, ended with the one at {redo_end}."
        findings.add("INCONCLUSIVE-CHECK-NOT-RUN", "wal", says, **known)
    elif replayed > facts.last:
        says += f"{f', for {facts.why}' if facts.why else ''}. Redo went past it and replayed the record at {redo_end}."
        findings.add(REDO_END, "recovery", says, files=["pg_wal"], **known)
    else:
        why = f" The server says why: {recovery.end_reason}." if recovery.end_reason else ""
        says += f". Redo stopped before it, with the record at {redo_end}.{why}"
        findings.add(REDO_END, "recovery", says, files=["pg_wal"], **known)
    return None


def _parsed(text: str) -> int:
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)
