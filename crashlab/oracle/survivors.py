"""Which transactions are there, as far as the marker table tells?

Checks: each writing transaction inserts one marker row (tx, client, xid); a marker of a transaction that must leave
    no trace, a marker that nobody wrote, one that is there twice, one whose client or xid is wrong.
Does not check: whether the data agrees with the markers (`rows`), or whether a missing marker is legal (`order`).

Sources: postgres-contract.md 7.1, 7.3 (2PC), 7.4 (phantom, atomicity).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import and_
from typing import Any

from crashlab.history import (
    ACKED,
    COMMITTING_PREPARED,
    INDETERMINATE,
    PREPARED,
    PREPARING,
    ROLLING_BACK_PREPARED,
    STATES,
    History,
)
from crashlab.model import MarkerRead, MarkerRow
from crashlab.oracle.findings import Findings

MARKER = "marker table"
MAY_BE_THERE = frozenset((ACKED, INDETERMINATE, COMMITTING_PREPARED))
_MAY_BE_THERE_TABLE = bytes(state in MAY_BE_THERE for state in range(256))
UNDECIDED = frozenset((PREPARING, PREPARED, ROLLING_BACK_PREPARED))
"""Prepared at most: never visible."""


@dataclass
class Presence:
    """What is known of each transaction's presence; columns are indexed by transaction, as in the history."""

    visible: bytearray  # 1: its marker was read, or other effects of it
    explained: set[int] = field(default_factory=set)  # a finding outranks what `order` would say about it

    def may_survive(self, history: History, tx: int) -> bool:
        """Whether it is visible, and legally so."""
        return bool(self.visible[tx]) and history.state[tx] in MAY_BE_THERE

    def survivors(self, history: History) -> bytes:
        """Return `may_survive` of all transactions, as a column."""
        return bytes(map(and_, self.visible, history.state.translate(_MAY_BE_THERE_TABLE)))


def read_markers(
    findings: Findings, history: History, read: MarkerRead, ended_inside: Callable[[int], bool]
) -> Presence:
    """Tell who is there, and report markers that should not be.

    Args:
        ended_inside: whether the application committed a transaction itself, so that its marker may be there.
    """
    count, client, xid = history.count, history.client, history.xid
    visible = bytearray(count + 1)
    odd = []
    for row in read.rows:
        tx = row.tx
        if 0 < tx <= count and xid[tx] == row.xid and client[tx] == row.client and not visible[tx]:
            visible[tx] = 1
        else:
            odd.append(row)
    for row in odd:
        _check_odd_marker(findings, history, read.file, visible, row)
    presence = Presence(visible)
    if (survivors := presence.survivors(history)) != visible:
        for tx, (seen, legal) in enumerate(zip(visible, survivors, strict=True)):
            if seen and not legal and not ended_inside(tx):
                _report_illegal(findings, history, read.file, tx)
    return presence


def _check_odd_marker(
    findings: Findings, history: History, file: str | None, visible: bytearray, row: MarkerRow
) -> None:
    transaction = history.transactions.get(row.tx)
    facts: dict[str, Any] = {"tx": row.tx, "client": row.client, "xid": row.xid}
    if transaction is None:
        says = f"The marker table names transaction {row.tx}, which the ledger does not know."
        findings.add("CORRUPT-PHANTOM", MARKER, says, files=[file], **facts)
    elif visible[row.tx]:
        says = f"Transaction {row.tx} has more than one row in the marker table, whose primary key is tx."
        findings.add("CORRUPT-DUPLICATE-KEY", MARKER, says, files=[file], **facts)
    else:
        visible[row.tx] = 1
        if transaction.client != row.client or transaction.xid not in (0, row.xid):
            says = (
                f"The marker of transaction {row.tx} says client {row.client}, xid {row.xid}; it was written as "
                f"client {transaction.client}, xid {transaction.xid}."
            )
            expected = {"client": transaction.client, "xid": transaction.xid}
            findings.add("CORRUPT-WRONG-VALUE", MARKER, says, files=[file], found=facts, expected=expected)


def _report_illegal(findings: Findings, history: History, file: str | None, tx: int) -> None:
    client, state = history.client[tx], history.state[tx]
    says = f'Transaction {tx} of client {client} is "{STATES[state - 1]}" in the ledger, yet its marker row is there.'
    code = "CORRUPT-PREPARED-VISIBLE" if state in UNDECIDED else "CORRUPT-PHANTOM"
    findings.add(code, MARKER, says, files=[file], tx=tx, client=client, state=STATES[state - 1])
