"""What should one key hold, given who survived, and what does it mean that it holds something else?

Each key has a chain of versions, every one made by one transaction. The newest surviving step says what must be
there. The names for a difference, most telling first: a row of a transaction that must leave no trace, a row that a
savepoint's rollback undid, a key there twice, a wrong value, an old version, a deleted row, no row.

Choices:
    Rows without version and writer (a user's own table) are compared by value alone.
    A row of a list holds a JSON array of all elements that were appended.

Sources: postgres-contract.md 7.2 (O2), 7.4.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import msgspec

from crashlab.history import REFUSED, STATES, UNSENT, History
from crashlab.ledger import Write
from crashlab.model import Row
from crashlab.oracle.survivors import MAY_BE_THERE, Presence

NO_TRACE = frozenset((REFUSED, UNSENT))
TOLD_CHARACTERS_MAX = 60
Value = str | list[str] | None


class Step(NamedTuple):
    """One write of one key; sorts in the order in which the key changed."""

    version: int
    position: int  # of the writer's intent
    tx: int
    write: Write
    kept: bool  # False: undone by ROLLBACK TO SAVEPOINT


@dataclass(frozen=True)
class Expected:
    """What a key must hold; value None: no row."""

    tx: int
    version: int
    value: Value


@dataclass(frozen=True)
class Defect:
    """One key that does not hold what it must; `tx` is the transaction whose effect is damaged, 0 if none."""

    code: str
    key: str
    tx: int
    says: str
    expected: Expected
    row: Row | None
    undone: bool = False  # the key is exactly as it was before `tx`


Wanted = dict[str, set[str]]
"""Keys by relation."""


def collect_steps(history: History, wanted: Wanted) -> dict[str, dict[str, list[Step]]]:
    """Return all steps of the wanted keys, whoever wrote them, in the order of their versions."""
    # Sorted, for a set of texts has another order in each process, and the same evidence must give the same verdict
    steps: dict[str, dict[str, list[Step]]] = {
        relation: {key: [] for key in sorted(keys)} for relation, keys in wanted.items()
    }
    for tx, writes in enumerate(history.writes):
        for write in writes:
            if (keys := steps.get(write.relation)) is not None and (known := keys.get(write.key)) is not None:
                known.append(Step(write.version, history.intent_position[tx], tx, write, True))
    for tx, writes in history.discarded.items():
        for write in writes:
            if (keys := steps.get(write.relation)) is not None and (known := keys.get(write.key)) is not None:
                known.append(Step(write.version, history.intent_position[tx], tx, write, False))
    for keys in steps.values():
        for known in keys.values():
            known.sort(key=lambda step: step[:3])
    return steps


def replay(steps: list[Step], presence: Presence, *, without: int = 0) -> Expected:
    """Apply the visible steps in order and say what the key holds then."""
    tx, version = 0, 0
    value: Value = None
    for step in steps:
        if not step.kept or not presence.visible[step.tx] or step.tx == without:
            continue
        tx, version = step.tx, step.version
        if step.write.op == "append" and step.write.value is not None:
            if not isinstance(value, list):
                value = list(elements(value) or ())
            value.append(step.write.value)
        else:
            value = step.write.value
    return Expected(tx, version, value)


def shortened(value: Value) -> str:
    """Return a value as it is told: quoted, the middle of a long one left out."""
    text = str(value)
    if len(text) <= TOLD_CHARACTERS_MAX:
        return repr(text)
    half = TOLD_CHARACTERS_MAX // 2
    return f"{text[:half]!r} ... {text[-half:]!r} ({len(text)} characters)"


def elements(value: Value) -> list[str] | None:
    """Return the elements of a JSON array as texts; None if it is none."""
    if value is None or isinstance(value, list):
        return value
    try:
        decoded = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(decoded, list):
        return None
    return [item if isinstance(item, str) else msgspec.json.encode(item).decode() for item in decoded]


def matches(row: Row, expected: Expected) -> bool:
    """Whether a row is what its key must hold."""
    if expected.value is None:
        return False
    value: Value = elements(row.value) if isinstance(expected.value, list) else row.value
    return (
        value == expected.value
        and row.version in (None, expected.version)
        and row.writer in (None, expected.tx)
    )  # fmt: skip


def judge_key(history: History, presence: Presence, key: str, steps: list[Step], rows: list[Row]) -> list[Defect]:
    """Say what is wrong with one key, most telling first; an empty list if nothing is."""
    if not steps and all(row.version is None for row in rows):
        return []  # a user's own row that no ledgered transaction named
    expected = replay(steps, presence)
    if forks := _forks(history, presence, key, steps, expected):
        return forks
    defects = []
    right = [row for row in rows if matches(row, expected)]
    wrong = [row for row in rows if not matches(row, expected)]
    for row in right[1:]:
        defects.append(_defect("CORRUPT-DUPLICATE-KEY", key, expected, row, "is there more than once"))
    if right:
        for row in wrong:
            code, tx, says = _classify(history, presence, steps, expected, row)
            if code not in ("CORRUPT-PHANTOM", "CORRUPT-DISCARDED-ROW"):
                code, says = "CORRUPT-DUPLICATE-KEY", f"is there more than once: {says}"
            defects.append(_defect(code, key, expected, row, says, tx=tx))
    elif wrong:
        wrong.sort(key=lambda row: row.version or 0)
        code, tx, says = _classify(history, presence, steps, expected, wrong[-1])
        before = replay(steps, presence, without=expected.tx)
        undone = len(wrong) == 1 and matches(wrong[-1], before)
        defects.append(_defect(code, key, expected, wrong[-1], says, tx=tx, undone=undone))
        for row in wrong[:-1]:
            defects.append(_defect("CORRUPT-DUPLICATE-KEY", key, expected, row, "is there more than once"))
    elif expected.value is not None:
        undone = replay(steps, presence, without=expected.tx).value is None
        defects.append(_defect("CORRUPT-MISSING-ROW", key, expected, None, "is not there", undone=undone))
    return defects


def _defect(
    code: str, key: str, expected: Expected, row: Row | None, says: str, *, tx: int | None = None, undone: bool = False
) -> Defect:
    return Defect(code, key, expected.tx if tx is None else tx, says, expected, row, undone)


def _forks(history: History, presence: Presence, key: str, steps: list[Step], expected: Expected) -> list[Defect]:
    visible = [step for step in steps if step.kept and presence.may_survive(history, step.tx)]
    return [
        _defect(
            "CORRUPT-VERSION-FORK",
            key,
            expected,
            None,
            f"was brought to version {one.version} both by transaction {one.tx} and by transaction {other.tx}",
            tx=other.tx,
        )
        for one, other in pairwise(visible)
        if one.version == other.version and one.tx != other.tx
    ]  # fmt: skip


def _classify(
    history: History, presence: Presence, steps: list[Step], expected: Expected, row: Row
) -> tuple[str, int, str]:
    """Name what one wrong row is: code, transaction concerned, and what it says after "key k "."""
    if row.version is None or row.writer is None:
        return _classify_by_value(history, presence, steps, expected, row)
    writer = row.writer
    state = history.state[writer] if 0 < writer <= history.count else 0
    own = [step for step in steps if step.tx == writer]
    same = [step for step in own if step.kept and step.version == row.version]
    says = f"holds version {row.version} by transaction {writer}, {shortened(row.value)}"
    if state in NO_TRACE:
        return "CORRUPT-PHANTOM", writer, f'{says}, which is "{STATES[state - 1]}" in the ledger'
    if any(not step.kept and step.version == row.version and step.write.value == row.value for step in own):
        return "CORRUPT-DISCARDED-ROW", writer, f"{says}, which that transaction rolled back to a savepoint"
    if not own:
        content = (row.version, row.value) == (expected.version, expected.value)
        wrote = "which the ledger does not know" if state == 0 else "which never wrote that key"
        if content or (state in MAY_BE_THERE and expected.value is not None):
            return "CORRUPT-WRONG-VALUE", expected.tx, f"{says}, {wrote}"
        return "CORRUPT-PHANTOM", writer, f"{says}, {wrote}"
    if not same:
        return "CORRUPT-WRONG-VALUE", writer, f"{says}; that transaction wrote version {own[-1].version}"
    if (row.version, writer) == (expected.version, expected.tx) or not _was_value(steps, presence, same[-1], row):
        return "CORRUPT-WRONG-VALUE", writer, says
    if expected.value is None:
        return "CORRUPT-RESURRECTED", expected.tx, f"{says}, and was deleted by transaction {expected.tx}"
    return "CORRUPT-STALE-VERSION", expected.tx, f"{says}, an old one"


def _classify_by_value(
    history: History, presence: Presence, steps: list[Step], expected: Expected, row: Row
) -> tuple[str, int, str]:
    says = f"holds {shortened(row.value)}"
    old = [step for step in steps if step.kept and presence.visible[step.tx] and step.write.value == row.value]
    if old and expected.value is None:
        return "CORRUPT-RESURRECTED", expected.tx, f"{says}, and was deleted by transaction {expected.tx}"
    if old:
        return "CORRUPT-STALE-VERSION", expected.tx, f"{says}, an old value written by transaction {old[-1].tx}"
    for step in steps:
        if step.write.value == row.value and not step.kept:
            return "CORRUPT-DISCARDED-ROW", step.tx, f"{says}, which transaction {step.tx} rolled back to a savepoint"
        if step.write.value == row.value and history.state[step.tx] in NO_TRACE:
            state = STATES[history.state[step.tx] - 1]
            return "CORRUPT-PHANTOM", step.tx, f'{says} by transaction {step.tx}, which is "{state}" in the ledger'
    code = "CORRUPT-PHANTOM" if expected.value is None else "CORRUPT-WRONG-VALUE"
    return code, expected.tx, f"{says}, which no transaction wrote"


def _was_value(steps: list[Step], presence: Presence, step: Step, row: Row) -> bool:
    """Whether the row is what the key held when `step` had just been applied."""
    until = [one for one in steps if one[:3] <= step[:3]]
    then = replay(until, presence)
    return then.tx == step.tx and matches(row, then)
