"""Does every table hold exactly what the surviving transactions left there?

Checks: each row of each ledgered relation, as a sequential scan saw it, against the newest surviving version of its
    key; rows that should not be there, and rows that should; whether a transaction without a marker is there in part.
Does not check: rows of a user's own tables that no ledgered transaction named, or that others changed (`outside`).
    Tables that were not read, whose reading failed: that is a complaint, or an unfinished check.
Choices:
    A damaged row of a transaction whose marker is there is named by what became of the row, which points to the
    page. Only when two or more keys are exactly as they were before the transaction is it called partial.
    A row that is gone and a deletion whose transaction lost its marker look the same; the deletion is believed
    only if the transaction precedes a survivor and nothing else of it contradicts.

Sources: postgres-contract.md 7.1, 7.4 (atomicity, wrong value, phantom, uniqueness).
"""

from collections import defaultdict
from operator import mul

from crashlab.history import ACKED, STATES, History
from crashlab.ledger import Write
from crashlab.model import Observation, RelationRead, Row
from crashlab.oracle.case import Case
from crashlab.oracle.findings import WITNESSES_MAX, Findings
from crashlab.oracle.outside import CODE as CHANGED_OUTSIDE
from crashlab.oracle.outside import Outsiders
from crashlab.oracle.physical import status_file
from crashlab.oracle.survivors import MAY_BE_THERE, UNDECIDED, Presence
from crashlab.oracle.versions import (
    Defect,
    Expected,
    Step,
    Wanted,
    collect_steps,
    judge_key,
    matches,
    replay,
    shortened,
)

Place = tuple[str, str]
"""Relation and key."""
UNREAD = "Look into server.log for what kept it from being read, then run the trial again."


def check_rows(findings: Findings, case: Case, presence: Presence, outsiders: Outsiders) -> None:
    """Report every row that is not what it must be; mark transactions visible whose effects were seen."""
    history, observation = case.history, case.observation
    newest, suspects = _newest(history, presence)
    read = {one.relation: one for one in observation.relations}
    for relation, one in read.items():
        suspects[relation] |= _suspicious_keys(history, newest.get(relation, {}), one.rows)
    _check_unread(findings, observation, newest, read)
    wanted = {relation: keys for relation, keys in suspects.items() if keys and relation in read}
    if wanted:
        _Slow(findings, case, presence, outsiders, read).run(wanted)


def _newest(history: History, presence: Presence) -> tuple[dict[str, dict[str, Write]], defaultdict[str, set[str]]]:
    """Return the newest visible write of each key, and the keys that two writers brought to the same version."""
    newest: dict[str, dict[str, Write]] = {}
    suspects: defaultdict[str, set[str]] = defaultdict(set)
    relation, keys = "", newest.setdefault("", {})  # mostly the same one many times
    for seen, writes in zip(presence.visible, history.writes, strict=True):
        if not seen:
            continue
        for write in writes:
            if write.relation != relation:
                relation = write.relation
                keys = newest.setdefault(relation, {})
            old = keys.setdefault(write.key, write)
            if old is write:
                continue
            if old.version < write.version:
                keys[write.key] = write
            elif old.version == write.version:
                suspects[write.relation].add(write.key)
    newest.pop("")
    return newest, suspects


def _suspicious_keys(history: History, newest: dict[str, Write], rows: list[Row]) -> set[str]:
    """Return the keys that need a closer look, and empty `newest`; lists and rows without versions always do."""
    suspicious = set()
    count, writes = history.count, history.writes
    for row in rows:
        write = newest.pop(row.key, None)
        writer = row.writer
        if write is not None and write.value == row.value and write.version == row.version and writer is not None:
            for one in writes[writer] if 0 < writer <= count else ():
                if one is write:  # an equal one may be another transaction's
                    break
            else:
                suspicious.add(row.key)
        else:
            suspicious.add(row.key)
    suspicious.update(key for key, write in newest.items() if write.value is not None)
    return suspicious


def _check_unread(
    findings: Findings,
    observation: Observation,
    newest: dict[str, dict[str, Write]],
    read: dict[str, RelationRead],
) -> None:
    if any(complaint.check == "heap_read" for complaint in observation.complaints):
        return  # that says it
    for relation in newest:
        if relation not in read:
            says = f"Surviving transactions wrote {relation}, and it was not read."
            findings.add("INCONCLUSIVE-CHECK-NOT-RUN", "heap_read", says, remedy=UNREAD, relation=relation)


class _Slow:
    """The closer look: all versions of the suspicious keys. Few keys, so clarity before speed."""

    def __init__(
        self,
        findings: Findings,
        case: Case,
        presence: Presence,
        outsiders: Outsiders,
        read: dict[str, RelationRead],
    ) -> None:
        self.findings = findings
        self.outsiders = outsiders
        self.history = history = case.history
        self.presence = presence
        self.read = read
        self.statuses = case.observation.xact_status
        self.survivor_position = max(map(mul, history.intent_position, presence.survivors(history)))
        self.marker_file = case.observation.marker.file if case.observation.marker else None
        self.rows: dict[Place, list[Row]] = {}
        self.steps: dict[str, dict[str, list[Step]]] = {}
        self.left_out: set[Place] = set()

    def run(self, wanted: Wanted) -> None:
        self._look_up(wanted)
        seen = self._effects_without_marker()
        if seen:
            for tx in seen:
                self.presence.visible[tx] = 1
                for write in self.history.writes[tx]:
                    if write.relation in self.read:
                        wanted.setdefault(write.relation, set()).add(write.key)
            self._look_up(wanted)
        defects = self._defects()
        for tx, places in seen.items():
            self._report_effects(tx, places, defects)
        self._report_undone(defects)
        for (relation, _), found in defects.items():
            for defect in found:
                if defect.tx not in seen:
                    self._report(relation, defect)

    def _look_up(self, wanted: Wanted) -> None:
        self.steps = collect_steps(self.history, wanted)
        self.rows = {}
        for relation, keys in wanted.items():
            for row in self.read[relation].rows:
                if row.key in keys:
                    self.rows.setdefault((relation, row.key), []).append(row)
        self._leave_out_what_others_changed()

    def _defects(self) -> dict[Place, list[Defect]]:
        return {
            (relation, key): found
            for relation, keys in self.steps.items()
            for key, steps in keys.items()
            if (found := judge_key(self.history, self.presence, key, steps, self.rows.get((relation, key), [])))
        }

    def _leave_out_what_others_changed(self) -> None:
        """Report the rows that are not as they must be and may be the work of others; they are judged no further."""
        for place in self._defects():
            relation, key = place
            steps, rows = self.steps[relation][key], self.rows.get(place, [])
            if self.outsiders.is_unnamed(place, steps, self.presence):
                del self.steps[relation][key]
                continue
            why = self.outsiders.why(place, steps, rows, self.presence)
            if not why:
                continue
            if place not in self.left_out:
                says = f"Key {key} of {relation} may be the work of a session outside the ledger: it {why}."
                self.findings.add(CHANGED_OUTSIDE, relation, says, key=key)
            self.left_out.add(place)
            del self.steps[relation][key]

    def _effects_without_marker(self) -> dict[int, list[Place]]:
        """Return the transactions that have effects in the tables but no marker, with the places seen."""
        seen: defaultdict[int, list[Place]] = defaultdict(list)
        deleted: defaultdict[int, list[Place]] = defaultdict(list)
        for relation, keys in self.steps.items():
            for key, steps in keys.items():
                rows = self.rows.get((relation, key), [])
                expected = replay(steps, self.presence)
                wrong = [row for row in rows if not matches(row, expected)]
                unseen = [step for step in steps if step.kept and not self.presence.visible[step.tx]]
                for step in unseen:
                    if self.history.state[step.tx] in MAY_BE_THERE | UNDECIDED and any(
                        _is_effect(step, row) for row in wrong
                    ):
                        seen[step.tx].append((relation, key))
                if not rows and expected.value is not None and (tx := self._deleter(unseen, expected)):
                    deleted[tx].append((relation, key))
        for tx, places in deleted.items():
            if len(places) + len(seen.get(tx, ())) == len(self.history.writes[tx]):  # nothing contradicts
                seen[tx].extend(places)
        return dict(seen)

    def _deleter(self, unseen: list[Step], expected: Expected) -> int:
        """Return the transaction that deleted what must be there and is not, if one must have survived; else 0."""
        h = self.history
        for step in unseen:
            if step.version > expected.version and step.write.value is None and h.state[step.tx] == ACKED:
                return step.tx if h.end_position[step.tx] < self.survivor_position else 0
        return 0

    def _report_effects(self, tx: int, places: list[Place], defects: dict[Place, list[Defect]]) -> None:
        """Report a transaction whose marker is missing and whose rows are there, in part or all."""
        h = self.history
        missing = [place for place, found in defects.items() if any(defect.tx == tx for defect in found)]
        status = self.statuses.get(str(h.xid[tx]))
        file = status_file(h.xid[tx]) if status not in (None, "committed") else None
        files = [self.marker_file, *(self.read[relation].file for relation, _ in places), file]
        state = STATES[h.state[tx] - 1]
        what = f"Transaction {tx} of client {h.client[tx]} ({state} in the ledger) has no marker row, yet "
        what += f"{len(places)} of its {len(h.writes[tx])} changes are there, such as {_name(places[0])}"
        what += f"; missing: {', '.join(map(_name, missing[:5]))}." if missing else "."
        undecided = h.state[tx] in UNDECIDED
        self.findings.add(
            "CORRUPT-PREPARED-VISIBLE" if undecided else "CORRUPT-PARTIAL-TRANSACTION",
            "transactions",
            what,
            files=files,
            tx=tx,
            client=h.client[tx],
            state=state,
            xid=h.xid[tx],
            commit_status=status,
            found=[_name(place) for place in places[:WITNESSES_MAX]],
            missing=["marker", *(_name(place) for place in missing[:WITNESSES_MAX])],
        )
        self.presence.explained.add(tx)

    def _report_undone(self, defects: dict[Place, list[Defect]]) -> None:
        """Report, and take out, transactions of which only the marker is left."""
        undone: defaultdict[int, list[Place]] = defaultdict(list)
        for place, found in defects.items():
            if len(found) == 1 and found[0].undone:
                undone[found[0].tx].append(place)
        for tx, places in undone.items():
            if len(places) < 2 or len(places) != len(self.history.writes[tx]):
                continue
            names = [_name(place) for place in places]
            says = (
                f"Transaction {tx} of client {self.history.client[tx]} has its marker row, yet all of its "
                f"{len(places)} changes are undone: {', '.join(names[:5])} are as they were before it."
            )
            self.findings.add(
                "CORRUPT-PARTIAL-TRANSACTION",
                "transactions",
                says,
                files=[self.marker_file, *(self.read[relation].file for relation, _ in places)],
                tx=tx,
                client=self.history.client[tx],
                found=["marker"],
                missing=names[:WITNESSES_MAX],
            )
            for place in places:
                del defects[place]

    def _report(self, relation: str, defect: Defect) -> None:
        expected, read = defect.expected, self.read[relation]
        found = None
        if defect.row is not None:
            found = {"version": defect.row.version, "writer": defect.row.writer, "value": defect.row.value}
        like = ""
        if defect.code != "CORRUPT-MISSING-ROW":
            says = f"A sequential scan of {relation} read key {defect.key}, which {defect.says}."
        elif read.rows:
            says = f"A sequential scan of {relation} did not return key {defect.key}."
        else:
            says = f"A sequential scan of {relation} returned nothing at all, and so not key {defect.key}."
            like = _like_of_nothing(read)
        self.findings.add(
            defect.code,
            relation,
            f"{says} {self._wanted(expected)}",
            files=[read.file],
            like=like,
            key=defect.key,
            tx=defect.tx,
            expected={"version": expected.version, "writer": expected.tx, "value": expected.value},
            found=found,
        )

    def _wanted(self, expected: Expected) -> str:
        """Say what must be there, and who wrote it."""
        h, tx = self.history, expected.tx
        who = f"transaction {tx}"
        if 0 < tx <= h.count and h.state[tx] == ACKED:
            who += f", which client {h.client[tx]} was told on line {h.end_position[tx]} of the ledger had committed"
        elif 0 < tx <= h.count:
            who += f" of client {h.client[tx]}, which is there"
        if expected.value is None:
            return f"There must be no such row, for it was deleted by {who}." if tx else "There must be no such row."
        return f"There must be version {expected.version}, {shortened(expected.value)}, written by {who}."


def _like_of_nothing(read: RelationRead) -> str:
    """Say what it looks like that a table has no row at all: its file has gone, or what is in the file is not seen."""
    if read.size_bytes is None:
        return "That is what a file looks like that was cut to nothing or replaced, or none of whose rows is seen."
    if read.size_bytes:
        return (
            f"Its file is there, with {read.size_bytes} bytes. That is what it looks like when its pages are empty, or "
            "when their rows are taken for those of transactions that did not commit."
        )
    return "That is what a file looks like that was cut to nothing, or replaced by a new one."


def _is_effect(step: Step, row: Row) -> bool:
    """Whether a row shows a step's own write."""
    if row.writer is not None:
        return row.writer == step.tx and row.version == step.version
    return step.write.op == "put" and row.value is not None and row.value == step.write.value


def _name(place: Place) -> str:
    return f"{place[0]} key {place[1]}"
