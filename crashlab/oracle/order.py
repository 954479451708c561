"""Is what is missing a tail that was allowed to go?

Checks: every acknowledged transaction that is absent. Survivors of a crash are a prefix in commit order, so one that
    precedes a survivor is a hole. Otherwise it is lost: forbidden if its acknowledgement promised durability or if
    something proves that its record had been flushed, permitted if not.
Does not check: by clocks, xids, or the order of two acknowledgements. The ledger's positions (O1), version chains (O2)
    and the commit records of the WAL, where it was read (`wal`), are all the order that is known.
Choices:
    Order O1: A was acknowledged on a line above B's intent. O2: B made a later version of a key that A changed.
    Required: acknowledged and flushed, or acknowledged with a later position of the same client at or below the WAL
    that was certainly written (process crash) or flushed (power loss); and everything before these.
    An unanswered transaction is asked only about holes: a survivor that built on its version proves its commit.
    The age of a lost commit is told, and compared with the documented window softly.

Sources: postgres-contract.md 7.2, 7.3, 7.4, 1.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from crashlab.history import ACKED, PREPARED, PREPARING, History
from crashlab.model import Contract, CrashClass, Injection, Observation
from crashlab.oracle.commit_status import CommitLog
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import MAY_BE_THERE, Presence
from crashlab.oracle.versions import Step, Wanted, collect_steps
from crashlab.oracle.wal import CODE as WAL_MISMATCH
from crashlab.oracle.wal import Wal, certainly_below

WINDOW_SLACK_MS = 100.0
"""Flush time and scheduling come on top of three cycles of walwriter; the bound is soft anyway."""


def check_order(
    findings: Findings,
    history: History,
    contract: Contract,
    injections: Sequence[Injection],
    observation: Observation,
    presence: Presence,
    commit_log: CommitLog,
    wal: Wal,
) -> int:
    """Report holes and losses; return how many acknowledged transactions are missing against the contract."""
    lost = [
        tx
        for tx, (seen, state, wrote) in enumerate(zip(presence.visible, history.state, history.wrote, strict=True))
        if wrote and not seen and state in MAY_BE_THERE
    ]
    if not lost:
        return 0
    return _Missing(findings, history, contract, injections, observation, presence, commit_log, wal, lost).report()


@dataclass
class _Missing:
    findings: Findings
    history: History
    contract: Contract
    injections: Sequence[Injection]
    observation: Observation
    presence: Presence
    commit_log: CommitLog
    wal: Wal
    absent: list[int]

    def __post_init__(self) -> None:
        self.crashed = self.observation.recovery.ran or any(injection.crashes_server for injection in self.injections)
        self.steps = self._steps_of_absent()
        self.unversioned = {
            read.relation for read in self.observation.relations if any(row.version is None for row in read.rows[:1])
        }

    def report(self) -> int:
        h = self.history
        survivor_position, survivor = self._last_survivor()
        required = self._required()
        forbidden = 0
        for tx in self.absent:
            acked = h.state[tx] == ACKED
            if tx in self.presence.explained:
                forbidden += acked and self.contract.corruption_excluded
                continue
            if acked and 0 < h.end_position[tx] < survivor_position:
                why = f"it was acknowledged on line {h.end_position[tx]} of the ledger, and transaction {survivor}, "
                why += f"which is there, sent its COMMIT on line {survivor_position}"
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
            forbidden += acked and not self.findings.permits(code)
        return forbidden

    def _last_survivor(self) -> tuple[int, int]:
        """Return the highest intent position of a survivor, and whose it is."""
        h = self.history
        position = max(map(mul, h.intent_position, self.presence.survivors(h)))
        best = (position, h.intent_position.index(position))
        gids = set(self.observation.prepared)
        for tx, gid in h.gid.items():  # a PREPARE is in the log like a commit
            if gid in gids and h.state[tx] in (PREPARING, PREPARED):
                best = max(best, (h.intent_position[tx], tx))
        return best

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

    def _required(self) -> set[int]:
        """Return the absent acknowledged transactions whose records were certainly durable."""
        h = self.history
        acked = [tx for tx in self.absent if h.state[tx] == ACKED]
        if not self.crashed:
            return set(acked)  # nobody crashed, so nothing may be missing, flushed or not
        horizon = h.write_lsn if self.contract.crash_class is CrashClass.PROCESS_CRASH else h.flush_lsn
        below = certainly_below(h, horizon)
        barrier = h.prepared_position
        for tx, (state, wrote, flushed) in enumerate(zip(h.state, h.wrote, h.flushed, strict=True)):
            if state == ACKED and wrote and (flushed or below[tx]) and h.intent_position[tx] > barrier:
                barrier = h.intent_position[tx]
        required = {tx for tx in acked if h.flushed[tx] or below[tx] or h.end_position[tx] < barrier}
        rest = [tx for tx in acked if tx not in required]
        while found := [tx for tx in rest if self._required_successor(tx, required, below, barrier)]:
            required.update(found)
            rest = [tx for tx in rest if tx not in required]
        return required

    def _required_successor(self, tx: int, required: set[int], below: bytearray, barrier: int) -> bool:
        h = self.history
        for write in h.writes[tx]:
            for step in self.steps[write.relation][write.key]:
                if not step.kept or step.version <= write.version or h.state[step.tx] != ACKED:
                    continue
                if h.flushed[step.tx] or below[step.tx] or step.tx in required or h.end_position[step.tx] < barrier:
                    return True
        return False

    def _report_hole(self, tx: int, survivor: int, why: str) -> str:
        h = self.history
        status = self.commit_log.status(tx)
        file = self.commit_log.suspect_file(tx)
        marker = self.observation.marker
        says = f"Transaction {tx} of client {h.client[tx]} is missing although {why}: it committed first."
        if status == "committed":
            says += " Its commit bits say committed, so its rows went, not its commit."
        elif file:
            says += f" Its commit bits are in {file}, which say {status}."
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

    def _report_loss(self, tx: int, required: set[int]) -> str:
        h = self.history
        facts = self._facts(tx)
        age_ms = facts["age_ms"]
        bound_ms = self.contract.async_window_ms
        if not all(injection.bounds_window for injection in self.injections):
            bound_ms = None
        if not self.contract.sync_commits_survive:
            code, why = "LOSS-NOTHING-PROMISED", ""
        elif h.flushed[tx]:
            code, why = "LOSS-SYNC-COMMIT", " Its log must have been flushed before that."
        elif tx in required:
            code, why = "LOSS-PROTECTED-ASYNC", " A later flush or WAL position proves that its log was safe."
            if not self.crashed:
                why = " The server never crashed, so nothing at all may be missing."
        elif bound_ms is not None and age_ms is not None and age_ms > bound_ms + WINDOW_SLACK_MS:
            code, why = "LOSS-ASYNC-WINDOW-EXCEEDED", f" The documented window is {bound_ms:g} ms, a soft bound."
        else:
            code, why = "LOSS-ASYNC-WINDOW", ""
        age = "" if age_ms is None else f", {abs(age_ms):.1f} ms {'before' if age_ms >= 0 else 'after'} the fault"
        says = (
            f"Transaction {tx} of client {h.client[tx]} was acknowledged on line {h.end_position[tx]} of the ledger "
            f"with synchronous_commit = {h.sync[tx]}{age}, and nothing of it is there.{why}"
        )
        end = self.observation.recovery.redo_end
        cause, known = self.wal.explain(tx, "commit", "commit prepared", no_flush=self._no_flush())
        if end and not cause:
            says += f" Recovery replayed the log up to {end}."
        self.findings.add(code, "transactions", says + cause, files=[], **facts, redo_end=end, **known)
        return code

    def _no_flush(self) -> str:
        """Say why nothing that was written was made durable, if so."""
        if any(clause.setting == "fsync" and clause.value == "off" for clause in self.contract.clauses):
            return "with fsync off the server flushes nothing"
        if any(injection.target == "lying disk" for injection in self.injections):
            return "this disk ignores flushes"
        return ""

    def _facts(self, tx: int) -> dict[str, Any]:
        h = self.history
        faults = [injection.at_ns for injection in self.injections if injection.crashes_server]
        age_ms = round((faults[-1] - h.end_ns[tx]) / 1e6, 3) if faults and h.end_ns[tx] else None
        return {
            "tx": tx,
            "client": h.client[tx],
            "xid": h.xid[tx],
            "sync": h.sync[tx],
            "flushed": bool(h.flushed[tx]),
            "intent_line": h.intent_position[tx],
            "ack_line": h.end_position[tx],
            "age_ms": age_ms,
            "insert_lsn_before": h.insert_lsn[tx],
            "keys": [f"{write.relation} key {write.key}" for write in h.writes[tx][:5]],
        }
