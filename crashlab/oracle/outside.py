"""Which rows did somebody change of whom the ledger does not know?

Checks: of a row that is not as the ledger has it, whether a session outside of it may have made it so: it was not as
    the ledger had it right before the fault either; it was written, or is gone and may have been deleted, by a
    transaction that is not in the ledger and that nobody saw then; or its newest ledgered change is lost, and such a
    transaction wrote, or may have deleted, what was there before.
Does not check: rows that are as the ledger has them, whoever wrote them; rows of others of which every ledgered change
    is lost, as if none had ever been. Trials whose clients all have a ledger.
Choices: what such a session was told is unknown, so nothing follows from what became of its row: inconclusive for that
    row, and for no other. A transaction without an intent whose marker was there before the fault, or whose commit
    record is in the WAL, was committed by the application itself, in the middle of its block: it may be there or not.

Source: house-rules.md 2.
"""

from crashlab.history import UNSENT, History
from crashlab.model import Observation, Row
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import Presence
from crashlab.oracle.versions import Step, judge_key

CODE = "INCONCLUSIVE-CHANGED-OUTSIDE"
ENDED_INSIDE = "NOTE-ENDED-INSIDE"

Place = tuple[str, str]
_32_BITS = 0xFFFF_FFFF


class Outsiders:
    """What is known of sessions without a ledger; nothing, in most trials."""

    def __init__(self, history: History, observation: Observation) -> None:
        self._history = history
        self._facts = facts = observation.outside
        self._then = Presence(bytearray(history.count + 1))
        self._before: dict[Place, list[Row]] = {}
        self._read: set[str] = set()
        self._written_before: set[Place] = set()
        self._written_since: set[Place] = set()
        self._committed: set[int] = set()  # transactions whose marker names a commit record
        if facts is None:
            return
        for tx in facts.markers:
            if 0 < tx <= history.count:
                self._then.visible[tx] = 1
        for read in facts.relations:
            self._read.add(read.relation)
            for row in read.rows:
                self._before.setdefault((read.relation, row.key), []).append(row)
        self._written_before, self._written_since = set(facts.rows_before), set(facts.rows_since)
        if observation.wal is not None and observation.marker is not None:
            records = {record.xid for record in observation.wal.records if record.decision.startswith("commit")}
            self._committed = {row.tx for row in observation.marker.rows if row.xid & _32_BITS in records}

    def ended_inside(self, tx: int) -> bool:
        """Whether a transaction was committed in the middle of its block."""
        return self._history.state[tx] == UNSENT and (bool(self._then.visible[tx]) or tx in self._committed)

    def note_ended_inside(self, findings: Findings) -> None:
        """Say which transactions the application committed itself."""
        for tx in filter(self.ended_inside, range(1, self._history.count + 1) if self._facts else ()):
            client = self._history.client[tx]
            says = f"Transaction {tx} of client {client} was committed inside its block, not by its end: the ledger has"
            says = f"{says} no COMMIT of it, and the server had it before the fault. Its rows are not compared."
            findings.add(ENDED_INSIDE, "transactions", says, tx=tx, client=client)

    def is_unnamed(self, place: Place, steps: list[Step], presence: Presence) -> bool:
        """Whether a row is what it was before the ledger first knew of it: then there is nothing to compare it with."""
        return place in self._written_before and not any(presence.visible[step.tx] for step in steps)

    def why(self, place: Place, steps: list[Step], rows: list[Row], presence: Presence) -> str:
        """Say why a row that is not as it should be may be the work of others; empty if it is not."""
        facts = self._facts
        if facts is None:
            return ""
        relation, key = place
        if relation not in self._read:
            return "could not be read right before the fault, so nobody knows what others had made of it"
        if judge_key(self._history, self._then, key, steps, self._before.get(place, [])):
            return "was not as the ledger has it right before the fault either"
        if place in self._written_since:
            return "was written by a transaction that is not in the ledger"
        if not rows and facts.since:
            return f"is gone, and {_transactions(facts.since)} outside the ledger committed around the fault"
        lost = any(self._then.visible[step.tx] and not presence.visible[step.tx] for step in steps)
        if lost and (place in self._written_before if rows else facts.before):
            return "lost its newest change, and what it was before that is not in the ledger"
        return ""


def _transactions(count: int) -> str:
    return f"{count} transaction{'s' if count != 1 else ''}"
