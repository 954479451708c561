"""Do the survivors agree with the WAL that recovery found, and why is the commit of a missing one not in it?

A transaction survives exactly when its commit record ends at or before the end of the valid WAL.

Checks: a commit record in the valid WAL whose transaction is absent; a transaction that is there without one; a
    PREPARE record without a decision whose transaction is not prepared, and one that is prepared after its decision;
    an acknowledged commit that is absent although it certainly lies before the redo point.
Does not check: transactions that committed at an unknown place, maybe before the redo point: of their records
    nothing is left to compare with. Aborts. Anything if the WAL was not read before recovery, or if the server's log
    says that redo ended elsewhere: then the reading is not trusted, and the trial is inconclusive.
Choices:
    A record is a transaction's only if it begins at or after the insert position that the transaction measured when
    it began: xids are 32 bits in the WAL, and are given out again after a crash.
    What the clients' own order proves is named first (`order`): it needs no reading of WAL to be believed.

Sources: postgres-contract.md 0 (E), 7.2 (O3), 7.4 (WAL/state mismatch).
"""

from typing import Any

from crashlab.history import ACKED, COMMITTING_PREPARED, PREPARED, PREPARING, ROLLING_BACK_PREPARED, STATES, History
from crashlab.model import LostRecord, Observation, RecordFate, WalDecision, WalFacts, WalRecord
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import MAY_BE_THERE, Presence

CODE = "CORRUPT-WAL-STATE-MISMATCH"
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

    def __init__(self, findings: Findings, history: History, observation: Observation, presence: Presence) -> None:
        self._findings = findings
        self._history = history
        self._observation = observation
        self._presence = presence
        self._facts = _trusted(findings, observation)
        self._records: dict[int, list[WalRecord]] = {}
        self._below_redo = bytearray(history.count + 1)
        if self._facts is not None:
            self._below_redo = certainly_below(history, self._facts.redo)
            for record in self._facts.records:
                self._records.setdefault(record.xid, []).append(record)
        at_cut = observation.wal_at_cut if self._facts is not None else None
        self._lost = {(record.xid, record.decision): record for record in at_cut.lost} if at_cut else {}

    def record_of(self, tx: int, *decisions: WalDecision) -> WalRecord | None:
        """Return the valid record that decides a transaction in one of these ways."""
        xid = self._history.xid[tx]
        for record in self._records.get(xid & 0xFFFF_FFFF, ()) if xid else ():
            if record.decision in decisions and record.start >= self._history.insert_lsn[tx]:
                return record
        return None

    def check(self) -> None:
        """Report survivors without a commit record, and prepared transactions that are not as the WAL has them."""
        facts, h = self._facts, self._history
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
        facts, h = self._facts, self._history
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
        facts, h = self._facts, self._history
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

    def explain(self, tx: int, *decisions: WalDecision, no_flush: str = "") -> tuple[str, dict[str, Any]]:
        """Say where the WAL ended, where the record of a lost transaction is, and what kept it from surviving.

        Args:
            decisions: the records that would have saved it.
            no_flush: why nothing was ever flushed, if nothing was: "fsync is off".

        Returns:
            sentences, each after a blank; facts for the evidence. Both are empty if the WAL was not read.
        """
        facts = self._facts
        if facts is None:
            return "", {}
        says = f" The valid WAL ended at {lsn(facts.end)}"
        known: dict[str, Any] = {"wal_end": lsn(facts.end)}
        record = self._lost_record(tx, decisions)
        if record is None:
            return f"{says} and holds no commit of it.", known
        place = f"ends at {lsn(record.end)}" if record.end else "lay behind all that was ever written"
        says += f", and the record {place}: {self._fate(record.fate, no_flush)}."
        at_cut = self._observation.wal_at_cut
        assert at_cut is not None
        known |= {"record_end": lsn(record.end) if record.end else None, "fate": record.fate}
        known |= {"wal_written": lsn(at_cut.written), "wal_durable": lsn(at_cut.durable), "flushing": at_cut.flushing}
        return says, known

    def _lost_record(self, tx: int, decisions: tuple[WalDecision, ...]) -> LostRecord | None:
        xid = self._history.xid[tx] & 0xFFFF_FFFF
        found = (self._lost.get((xid, decision)) for decision in decisions)
        return next((record for record in found if record is not None), None)

    def _fate(self, fate: RecordFate, no_flush: str) -> str:
        at_cut = self._observation.wal_at_cut
        assert at_cut is not None
        written, durable = lsn(at_cut.written), lsn(at_cut.durable)
        if fate == "not written":
            return f"not written by then, as the server had written its WAL up to {written}"
        why = no_flush or ("a flush was in progress" if at_cut.flushing else "it had not been flushed yet")
        nothing = self._facts is not None and at_cut.durable <= self._facts.redo
        how_far = f"the WAL was written up to {written} and "
        how_far += f"{f'not durable from {durable} on' if nothing else f'durable up to {durable}'}; {why}"
        if fate == "no file":
            return f"written, but its file's name was lost ({how_far})"
        if fate == "behind a hole":
            return f"written and still there, but out of reach behind WAL that was lost ({how_far})"
        return f"written, not durable ({how_far})"


def _trusted(findings: Findings, observation: Observation) -> WalFacts | None:
    facts, redo_end = observation.wal, observation.recovery.redo_end
    if facts is None or redo_end is None or _parsed(redo_end) == facts.last:
        return facts
    says = f"The WAL was read up to a last record at {lsn(facts.last)}, but redo ended with one at {redo_end}."
    findings.add("INCONCLUSIVE-CHECK-NOT-RUN", "wal", says, last=lsn(facts.last), redo_end=redo_end)
    return None


def _parsed(text: str) -> int:
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)
