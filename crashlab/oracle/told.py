"""What an application told its user is gone: whose fault is that?

Checks: every key that the test named as told, against what its own query found after the crash. For one that is
    missing, the transaction that carried it is the one that is gone and that was last heard of before it was told. If
    none had begun by then, it is the next to begin, but only if nothing that came back was at work since: if
    something was, the key may have been there and been deleted.
Does not check: keys that are there, also if they were told too early and the crash came too late to show it. Whether
    that transaction really wrote the key: the observer knows what was asked, and no rows. Where several connections
    were at work the text says so. Of a key that was told after the fault: which of those that were never answered it
    belongs to, if to any. Nothing but the fault ended them, so all are still open then, related or not.
Choices: blame comes in this order: told before the answer; told against a refusal; permitted by a setting that
    somebody set; only then the database, which `order` accuses of each commit that it answered for and has not. If all
    of those are there, it was none of the database's doing.
    A line in a file was told between two looks at it. What came in between may have come before it, so the first
    transaction is meant, and its answer had come if it was there when the line was seen: in doubt not "too early".

Source: design.md "Applications".
"""

from dataclasses import dataclass
from typing import Any

from crashlab.history import ACKED, REFUSED
from crashlab.model import Told, ToldKey
from crashlab.oracle.case import Case
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import Presence

PLACE = "told keys"
UNSEEN = "Note with crash.told() what such a commit promised, and give crash.check() a query that finds it."


def check_told(findings: Findings, case: Case, told: Told, presence: Presence | None) -> None:
    """Report every key that was told and is not there."""
    if told.unseen:
        says = (
            f"Of {told.unseen} commits that were answered nobody knows the transaction: CALL and DO commit as often as"
            " they want, and a message that holds BEGIN and COMMIT leaves nobody time to ask. So nobody looked for what"
            " they did."
        )
        findings.add("INCONCLUSIVE-CHECK-NOT-RUN", PLACE, says, remedy=UNSEEN, unseen=told.unseen)
    if told.found is None:
        return
    found = set(told.found)
    for key in told.keys:
        if key.text not in found:
            _Missing(findings, case, told, presence, key).report()


@dataclass(frozen=True)
class _Suspect:
    """A transaction that is gone and had been begun when the key was told."""

    tx: int
    heard: int  # the last line of the ledger, up to then, that is about it


class _Missing:
    def __init__(self, findings: Findings, case: Case, told: Told, presence: Presence | None, key: ToldKey) -> None:
        self.findings = findings
        self.case = case
        self.told = told
        self.key = key
        self.presence = presence
        self.after_fault = case.after_crash(key.since_ns or key.at_ns)
        self.suspects = [] if presence is None else self._suspects(presence)

    def _suspects(self, presence: Presence) -> list[_Suspect]:
        """Return who is gone, had begun and was last heard of before; else who was the next one to begin.

        Of a line in a file, "before" is when it was not there yet; and whoever began until it was seen is next.
        """
        h, key = self.case.history, self.key
        gone = [tx for tx in range(1, h.count + 1) if not presence.visible[tx] and not self._nothing_to_lose(tx)]
        since = key.since_line or key.line
        found = [_Suspect(tx, self._heard(tx, since)) for tx in gone if h.begin_position[tx] <= since]
        if self.after_fault:
            found = [one for one in found if self._ended(one.tx)]
        if found or self.after_fault:
            return sorted(found, key=lambda one: -one.heard)
        meanwhile = [tx for tx in gone if h.begin_position[tx] <= key.line]
        answered = [tx for tx in meanwhile if self._ended(tx)]
        if self._at_work_since(presence, key.line):
            return [_Suspect(tx, self._heard(tx, key.line)) for tx in answered]
        meanwhile = meanwhile or [tx for tx in gone[:1] if h.state[tx] != REFUSED]
        return [_Suspect(tx, self._heard(tx, key.line)) for tx in meanwhile]

    def _ended(self, tx: int) -> bool:
        """Whether its answer had come when the key was told."""
        return 0 < self.case.history.end_position[tx] <= self.key.line

    def _nothing_to_lose(self, tx: int) -> bool:
        """Whether it was answered and has no id: as far as anybody knows it wrote nothing."""
        h = self.case.history
        return h.state[tx] == ACKED and not h.wrote[tx] and bool(h.flushed[tx]) and self.case.weak_spot is None

    def _at_work_since(self, presence: Presence, since: int) -> bool:
        """Whether anything that is there may have done something after the key was told, such as delete it."""
        h = self.case.history
        there = (tx for tx in range(1, h.count + 1) if presence.visible[tx])
        return any(not 0 < h.end_position[tx] <= since for tx in there)

    def _heard(self, tx: int, until: int) -> int:
        h = self.case.history
        lines = (h.begin_position[tx], h.intent_position[tx], h.end_position[tx])
        return max((line for line in lines if line <= until), default=0)

    def report(self) -> None:
        if not self.suspects:
            self._add("TOLD-LOST", self._nothing_missing())
            return
        tx = self.suspects[0].tx
        h = self.case.history
        ended = self._ended(tx)
        if ended and h.state[tx] == REFUSED:
            self._add("TOLD-AFTER-FAILURE", self._refused(tx), tx)
        elif ended and h.state[tx] == ACKED and not h.flushed[tx]:
            self._add("TOLD-ASYNC-COMMIT", self._asynchronous(tx), tx)
        elif ended and h.state[tx] == ACKED and self.case.weak_spot is not None:
            self._add("TOLD-NOTHING-PROMISED", self._nothing_promised(tx), tx)
        elif ended:
            self._add(
                "TOLD-LOST", f"Its {self._name(tx)} was answered before that, and is gone: see what is said of it.", tx
            )
        else:
            self._add("TOLD-BEFORE-COMMIT", self._too_early(tx), tx)

    def _add(self, code: str, why: str, tx: int = 0) -> None:
        h = self.case.history
        when = self.case.when(self.key.at_ns, 0 if self.after_fault else self.key.line)
        says = f"Key {self.key.text} was told{f' {when}' if when else ''}, and is not there. {why}"
        if self.told.failed:
            says += f" The query itself could not be run: {self.told.failed}."
        others = len(self.suspects) - 1
        if others > 1:
            says += f" {others} more transactions that are gone were under way then."
        facts: dict[str, Any] = {"tx": tx, "client": h.client[tx], "xid": h.xid[tx]} if tx else {}
        if code in ("TOLD-ASYNC-COMMIT", "TOLD-NOTHING-PROMISED"):
            facts |= {"sync": h.sync[tx], "flushed": bool(h.flushed[tx])}
        facts |= {"told_line": self.key.line, "told_ns": self.key.at_ns, "by": self.key.by}
        if self.after_fault:
            facts["told_after_fault"] = True
        self.findings.add(code, PLACE, says, told=self.key.text, **facts)

    def _name(self, tx: int) -> str:
        h = self.case.history
        xid = f", xid {h.xid[tx]}" if h.xid[tx] else ""
        return f"transaction (number {tx} of the ledger{xid}) on connection {h.client[tx]}"

    def _too_early(self, tx: int) -> str:
        h, line = self.case.history, self.key.line
        name = self._name(tx)
        if h.begin_position[tx] > line:
            return (
                f"No transaction that is gone was open then. Its {name} began only after that, or else nobody ever "
                "wrote it: nothing that came back was at work since. What is not answered may be gone after a crash."
            )
        sent = 0 < h.intent_position[tx] <= line
        how = "had reached the server then and not been answered" if sent else "had not reached the server then"
        if h.state[tx] == REFUSED:
            end = f"and never committed: {self._reason(tx)}. No crash was needed to lose it."
            return f"Its {name} was open then {end}"
        came = "; the answer came later" if h.end_position[tx] else ""
        says = f"The COMMIT of its {name} {how}{came}. What is not answered may be gone after a crash."
        since = self.key.since_line
        if since and self.presence is not None and self._at_work_since(self.presence, since):
            says += (
                f" Its line in the file came somewhere between lines {since} and {line} of the ledger: it may also have"
                " been there before, and been deleted."
            )
        return says

    def _refused(self, tx: int) -> str:
        ended = f"had ended without a commit by then: {self._reason(tx)}"
        return f"Its {self._name(tx)} {ended}. No crash was needed to lose it."

    def _reason(self, tx: int) -> str:
        return self.told.reasons.get(str(tx), "it was rolled back")

    def _asynchronous(self, tx: int) -> str:
        h = self.case.history
        by = self.told.set_by.get(str(tx))
        whose = (
            f"set by connection {h.client[tx]} itself: {by}"
            if by
            else "which no statement of its connection set: look at the settings of server, database and role"
        )
        return (
            f"Its {self._name(tx)} had been answered, with synchronous_commit = {h.sync[tx]}, {whose}. The manual "
            "permits that such a commit is lost in a crash, and the user was told of it all the same."
        )

    def _nothing_promised(self, tx: int) -> str:
        weak = self.case.weak_spot
        assert weak is not None
        where = f"on a {weak.value} disk" if weak.setting == "disk" else f"under {weak.setting} = {weak.value}"
        return (
            f"Its {self._name(tx)} had been answered, {where}, where no commit is promised to survive the loss of "
            "power: the database broke no promise."
        )

    def _nothing_missing(self) -> str:
        if not self.told.observed:
            return "Nobody listened between application and server, so nobody knows what became of its transaction."
        if self.presence is None:
            return "Nobody could ask which transactions are there, so nobody knows what became of this key's."
        h = self.case.history
        numbers = range(1, h.count + 1)
        if any(h.state[tx] == ACKED and h.wrote[tx] and not self.presence.visible[tx] for tx in numbers):
            word = "The commits that were answered and are gone (see what is said of them) began only after that"
        elif any(self._nothing_to_lose(tx) for tx in numbers):
            word = "Every commit that was answered and has an id is there, so the database has kept its word"
        else:
            word = "Every commit that was answered is there, so the database has kept its word"
        return f"{word}. Whether the key was ever written is not known: {self._ways()}."

    def _ways(self) -> str:
        """Say in which ways a key can be missing of which no transaction is known."""
        h, line = self.case.history, self.key.line
        begun = [tx for tx in range(1, h.count + 1) if h.begin_position[tx] <= line]
        if self.after_fault:
            left = sum(h.state[tx] not in (ACKED, REFUSED) for tx in begun)
            early = f"was to be written by one of {left} transactions without an answer, " if left > 1 else ""
            early = "was to be written by the one transaction without an answer, " if left == 1 else early
        elif len(begun) == h.count:
            early = "was told before its transaction had begun (nothing more was asked of the server after that), "
        else:
            early = "was told before its transaction had begun, "
        return (
            f"it never was, {early}was undone by ROLLBACK TO SAVEPOINT, was deleted, stood in an unlogged table,"
            " or is not what the query returns"
        )
