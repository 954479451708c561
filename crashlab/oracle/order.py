"""Is what is missing a tail that was allowed to go?

Checks: every acknowledged transaction that is absent. Survivors of a crash are a prefix in commit order, so one that
    precedes a survivor is a hole. Otherwise it is lost: forbidden if its acknowledgement promised durability or if
    something proves that its record had been flushed, permitted if not.
Does not check: by clocks, xids, or the order of two acknowledgements. The ledger's positions (O1), version chains (O2)
    and the commit records of the WAL, where it was read (`wal`), are all the order that is known.
Choices:
    Order O1: A was acknowledged on a line above B's intent. O2: B made a later version of a key that A changed.
    Required: acknowledged and flushed, or acknowledged with a later position of the same client at or below the WAL
    that was certainly written (process crash) or flushed (power loss); and everything before these, by O1, by O2, and
    by the places of the records in the WAL of a recorded run.
    A commit whose record in the WAL of the run says that it was flushed (DROP, TRUNCATE ... of the user's own) is
    required like a synchronous one, although the client asked for no flush.
    An unanswered transaction is asked only about holes: a survivor that built on its version proves its commit.
    Of many that are missing the oldest is told: by the records in the WAL if those of all are known, else by the lines
    of their acknowledgements, which agree with O1. One without an answer comes last.
    The age of a lost commit is told, and compared with the documented window softly.

Sources: postgres-contract.md 7.2, 7.3, 7.4, 1.4.
"""

from dataclasses import dataclass
from operator import mul
from typing import Any

from crashlab.history import ACKED, PREPARED, PREPARING
from crashlab.model import AsyncWindow, CrashClass
from crashlab.oracle.case import Case
from crashlab.oracle.commit_status import CommitLog
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import MAY_BE_THERE, Presence
from crashlab.oracle.versions import Step, Wanted, collect_steps
from crashlab.oracle.wal import CODE as WAL_MISMATCH
from crashlab.oracle.wal import Wal, certainly_below, lsn

WINDOW_SLACK_MS = 100.0
"""Flush time and scheduling come on top of three cycles of walwriter; the bound is soft anyway."""

FORCED = "a command that is flushed all the same (DROP, TRUNCATE, two-phase commit and their like)"


@dataclass(frozen=True)
class Losses:
    """What is missing in all."""

    forbidden: frozenset[int] = frozenset()  # acknowledged transactions that are missing against the contract
    window: AsyncWindow | None = None


def check_order(findings: Findings, case: Case, presence: Presence, commit_log: CommitLog, wal: Wal) -> Losses:
    """Report holes and losses."""
    h = case.history
    absent = [
        tx
        for tx, (seen, state, wrote) in enumerate(zip(presence.visible, h.state, h.wrote, strict=True))
        if wrote and not seen and state in MAY_BE_THERE
    ]
    if not absent:
        return Losses()
    missing = _Missing(findings, case, presence, commit_log, wal, absent)
    return Losses(missing.report(), missing.window())


def last_survivor(case: Case, presence: Presence) -> tuple[int, int]:
    """Return the highest intent position of a survivor, and whose it is; 0 and 0 if there is none."""
    h = case.history
    position = max(map(mul, h.intent_position, presence.survivors(h)))
    best = (position, h.intent_position.index(position))
    gids = set(case.observation.prepared)
    for tx, gid in h.gid.items():  # a PREPARE is in the log like a commit
        if gid in gids and h.state[tx] in (PREPARING, PREPARED):
            best = max(best, (h.intent_position[tx], tx))
    return best


class _Missing:
    def __init__(
        self, findings: Findings, case: Case, presence: Presence, commit_log: CommitLog, wal: Wal, absent: list[int]
    ) -> None:
        self.findings = findings
        self.case = case
        self.history = case.history
        self.presence = presence
        self.commit_log = commit_log
        self.wal = wal
        self.absent = self._oldest_first(absent)
        self.steps = self._steps_of_absent()
        self.unversioned = {
            read.relation
            for read in case.observation.relations
            if any(row.version is None for row in read.rows[:1])
        }  # fmt: skip
        self.flushed = bytearray(self.history.flushed)
        for tx in absent:
            record = wal.lost_record(tx, "commit", "commit prepared")
            if record is not None and record.flushed:
                self.flushed[tx] = 1
        bounded = all(injection.bounds_window for injection in case.injections)
        timed = any(injection.crashes_server for injection in case.injections)
        self.bound_ms = case.contract.async_window_ms if bounded and timed else None
        self.async_ages_ms: list[float] = []

    def _oldest_first(self, absent: list[int]) -> list[int]:
        """Order them as they committed, so that a finding names its oldest."""
        h = self.history
        acked = [tx for tx in absent if h.state[tx] == ACKED]
        records = {tx: self.wal.lost_record(tx, "commit", "commit prepared") for tx in acked}
        ends = {tx: record.end for tx, record in records.items() if record is not None and record.end}
        if len(ends) < len(acked):
            ends = {tx: h.end_position[tx] for tx in acked}
        return sorted(absent, key=lambda tx: (tx not in ends, ends.get(tx, h.intent_position[tx])))

    def window(self) -> AsyncWindow | None:
        """Return how old the lost asynchronous commits were; None if none is lost that had a window."""
        if not self.async_ages_ms:
            return None
        oldest_ms = max(0.0, max(self.async_ages_ms))
        return AsyncWindow(lost=len(self.async_ages_ms), oldest_ms=oldest_ms, bound_ms=self.bound_ms)

    def report(self) -> frozenset[int]:
        """Report each absent transaction; return the acknowledged ones that had to be there."""
        h = self.history
        survivor_position, survivor = last_survivor(self.case, self.presence)
        required = self._required()
        forbidden = set()
        for tx in self.absent:
            acked = h.state[tx] == ACKED
            if tx in self.presence.explained:
                if acked and self.case.contract.corruption_excluded:
                    forbidden.add(tx)
                continue
            if acked and 0 < h.end_position[tx] < survivor_position:
                why = f"it was acknowledged on line {h.end_position[tx]} of the ledger{self._when(tx)} and "
                why += f"transaction {survivor}, which is there, sent its COMMIT on line {survivor_position}"
                code = self._report_hole(tx, survivor, why)
            elif successor := self._built_upon(tx):
                why = f"transaction {successor.tx}, which is there, made version {successor.version} of "
                why += f"{successor.write.relation} key {successor.write.key} out of its version"
                code = self._report_hole(tx, successor.tx, why)
            elif self.wal.report_absent(tx):
                code = WAL_MISMATCH
            elif self.commit_log.certainly_committed(tx):
                self.commit_log.report(tx)
                code = "CORRUPT-COMMIT-STATUS"
            elif acked:
                code = self._report_loss(tx, required)
            else:
                continue
            if acked and not self.findings.permits(code):
                forbidden.add(tx)
        return frozenset(forbidden)

    def _steps_of_absent(self) -> dict[str, dict[str, list[Step]]]:
        wanted: Wanted = {}
        for tx in self.absent:
            for write in self.history.writes[tx]:
                wanted.setdefault(write.relation, set()).add(write.key)
        return collect_steps(self.history, wanted)

    def _built_upon(self, tx: int) -> Step | None:
        """Return a survivor's step that can only have followed this transaction's (O2)."""
        h = self.history
        for write in h.writes[tx]:
            steps = self.steps[write.relation][write.key]
            later = [
                step
                for step in steps
                if step.kept and step.version > write.version and self.presence.may_survive(h, step.tx)
            ]
            if not later:
                continue
            if h.state[tx] != ACKED and not self._only_candidate(tx, write.relation, write.version, steps):
                continue
            return later[0]
        return None

    def _only_candidate(self, tx: int, relation: str, version: int, steps: list[Step]) -> bool:
        """Whether an unanswered transaction is the only one that can have made a version that somebody built upon."""
        if relation in self.unversioned:
            return False  # such a count goes on after a rollback, so a version may have no maker
        makers = [
            step.tx
            for step in steps
            if step.kept and step.version == version and self.history.state[step.tx] in MAY_BE_THERE
        ]
        return makers == [tx]

    def _required(self) -> dict[int, str]:
        """Return the absent acknowledged transactions whose records were certainly durable, with the proof."""
        h = self.history
        acked = [tx for tx in self.absent if h.state[tx] == ACKED]
        if not self.case.crashed:  # nobody crashed, so nothing may be missing, flushed or not
            return dict.fromkeys(acked, "The server never crashed, so nothing at all may be missing.")
        process_crash = self.case.contract.crash_class is CrashClass.PROCESS_CRASH
        horizon = h.write_lsn if process_crash else h.flush_lsn
        below = certainly_below(h, horizon)
        barrier, by = self._barrier(below)
        done = "written" if process_crash else "flushed"
        required = {}
        for tx in acked:
            if self.flushed[tx]:
                required[tx] = ""
            elif below[tx]:
                required[tx] = f"Its log lies below {lsn(horizon)}, up to which the server said it had {done} its WAL."
            elif h.end_position[tx] < barrier:
                required[tx] = f"After that {by}, and its log was certainly {done}, with all log before it."
        required |= self._before_flushed_records(acked, required)
        rest = [tx for tx in acked if tx not in required]
        while found := {tx: step for tx in rest if (step := self._required_successor(tx, required, below, barrier))}:
            for tx, step in found.items():
                required[tx] = f"Transaction {step.tx}, whose log was flushed, had built on its version of "
                required[tx] += f"{step.write.relation} key {step.write.key}."
            rest = [tx for tx in rest if tx not in required]
        return required

    def _before_flushed_records(self, acked: list[int], required: dict[int, str]) -> dict[int, str]:
        """Return those whose record lies before that of a required one that is lost, too: one flush covers both."""
        records = {tx: record for tx in acked if (record := self.wal.lost_record(tx, "commit", "commit prepared"))}
        end, last = max(((record.end, tx) for tx, record in records.items() if tx in required), default=(0, 0))
        why = f"The record of transaction {last}, which was to be safe, lies behind its own: one flush covers both."
        return {tx: why for tx, record in records.items() if tx not in required and 0 < record.end < end}

    def _barrier(self, below: bytearray) -> tuple[int, str]:
        """Return the highest line on which somebody sent a commit that was certainly flushed, and who it was."""
        h = self.history
        barrier, who = h.prepared_position, "a PREPARE TRANSACTION"
        for tx, (state, wrote, flushed) in enumerate(zip(h.state, h.wrote, self.flushed, strict=True)):
            if state == ACKED and wrote and (flushed or below[tx]) and h.intent_position[tx] > barrier:
                barrier, who = h.intent_position[tx], f"the COMMIT of transaction {tx}"
        return barrier, f"{who} was sent on line {barrier} and acknowledged"

    def _required_successor(self, tx: int, required: dict[int, str], below: bytearray, barrier: int) -> Step | None:
        h = self.history
        for write in h.writes[tx]:
            for step in self.steps[write.relation][write.key]:
                if not step.kept or step.version <= write.version or h.state[step.tx] != ACKED:
                    continue
                if self.flushed[step.tx] or below[step.tx] or step.tx in required or h.end_position[step.tx] < barrier:
                    return step
        return None

    def _report_hole(self, tx: int, survivor: int, why: str) -> str:
        h = self.history
        status = self.commit_log.status(tx)
        file = self.commit_log.suspect_file(tx)
        marker = self.case.observation.marker
        says = f"Transaction {tx} of client {h.client[tx]} is missing although {why}: it committed first."
        record = self.wal.record_of(tx, "commit", "commit prepared")
        if record is not None:
            says += f" Its commit record ends at {lsn(record.end)}, in the valid part of the WAL."
        if status == "committed":
            says += " Its commit bits say committed, so its rows went, not its commit."
        elif file:
            says += f' Its commit bits are in {file}, which say "{status}".'
        self.findings.add(
            "CORRUPT-HOLE",
            "transactions",
            says,
            files=[marker.file if marker else None, file],
            **self._facts(tx),
            survivor=survivor,
            commit_status=status,
        )
        return "CORRUPT-HOLE"

    def _report_loss(self, tx: int, required: dict[int, str]) -> str:
        facts = self._facts(tx)
        age_ms: float | None = facts["age_ms"]
        if not self.case.contract.sync_commits_survive:
            code = "LOSS-NOTHING-PROMISED"
        elif self.flushed[tx]:
            code = "LOSS-SYNC-COMMIT"
        elif tx in required:
            code = "LOSS-PROTECTED-ASYNC"
        elif self.bound_ms is not None and age_ms is not None and age_ms > self.bound_ms + WINDOW_SLACK_MS:
            code = "LOSS-ASYNC-WINDOW-EXCEEDED"
        else:
            code = "LOSS-ASYNC-WINDOW"
        windowed = self.case.contract.sync_commits_survive and self.case.crashed
        if windowed and not self.flushed[tx] and age_ms is not None:
            self.async_ages_ms.append(age_ms)
        cause, known = self.wal.explain(tx, "commit", "commit prepared")
        end = self.case.observation.recovery.redo_end
        if end and not cause:
            cause = f"Recovery replayed the log up to {end}."
        proof = required.get(tx, "") if code == "LOSS-PROTECTED-ASYNC" else ""
        says = " ".join(part for part in (self._told(tx), proof, cause) if part)
        self.findings.add(code, "transactions", says, **facts, redo_end=end, **known)
        return code

    def _when(self, tx: int) -> str:
        """Say when a transaction was answered, between two commas."""
        when = self.case.when(self.history.end_ns[tx], self.history.end_position[tx])
        return f", {when}," if when else ","

    def _told(self, tx: int) -> str:
        """Say what the client was told."""
        h = self.history
        how = f"with synchronous_commit = {h.sync[tx]}"
        if h.sync[tx] != "off":
            how += ", which flushes the log before the answer"
        elif self.flushed[tx]:
            how += f", in {FORCED}"
        return (
            f"On line {h.end_position[tx]} of the ledger{self._when(tx)} client {h.client[tx]} was told that "
            f"transaction {tx} had committed, {how}; nothing of it is there."
        )

    def _facts(self, tx: int) -> dict[str, Any]:
        h = self.history
        return {
            "tx": tx,
            "client": h.client[tx],
            "xid": h.xid[tx],
            "sync": h.sync[tx],
            "flushed": bool(self.flushed[tx]),
            "intent_line": h.intent_position[tx],
            "ack_line": h.end_position[tx],
            "age_ms": self.case.age_ms(h.end_ns[tx]),
            "insert_lsn_before": h.insert_lsn[tx],
            "keys": [f"{write.relation} key {write.key}" for write in h.writes[tx][:5]],
        }
