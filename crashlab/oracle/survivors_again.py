"""Did a second crash, in the middle of the recovery, change who survived?

Checks: the transactions and the prepared transactions that are there after a recovery that was cut off and begun again,
    against those after one recovery, left alone, of the same first crash state.
Does not check: rows; they are held against the ledger like those of any other trial (`rows`). Trials with one crash,
    or whose first crash state did not start when it was left alone: there is nothing to compare with.
Assumes: what the first cut left is durable at the second. Both recoveries replay the same WAL, and no client was served
    between them, so not even a transaction in doubt may differ.
Choices: this is named before what WAL and order say of the same transaction: it needs neither to be believed.

Sources: design.md "A recorded recovery"; postgres-contract.md 0 (E), 7.2 (O3).
"""

from crashlab.history import History
from crashlab.model import Observation
from crashlab.oracle.findings import Findings
from crashlab.oracle.survivors import Presence

CODE = "CORRUPT-SURVIVORS-CHANGED"


def check_survivors(findings: Findings, history: History, observation: Observation, presence: Presence) -> None:
    """Report who was there after the recovery that was left alone and is not now, or the other way round."""
    first, marker = observation.first_survivors, observation.marker
    if first is None or marker is None:
        return
    count, before = history.count, set(first.transactions)
    gone = [tx for tx in first.transactions if not (0 < tx <= count and presence.visible[tx])]
    back = sorted({row.tx for row in marker.rows} - before)
    for change, transactions in (("gone", gone), ("back", back)):
        for tx in transactions:
            if tx in presence.explained:  # rows of it without its marker, or the reverse
                continue
            client = history.client[tx] if 0 < tx <= count else 0
            xid = history.xid[tx] if 0 < tx <= count else 0
            says = f"Transaction {tx} of client {client} (xid {xid}) {_SAYS[change]}"
            findings.add(CODE, "transactions", says, files=[marker.file], tx=tx, client=client, xid=xid, change=change)
            presence.explained.add(tx)
    run = observation.checks.get("prepared")
    if run is not None and run.status == "ran":
        _check_prepared(findings, history, set(first.prepared), set(observation.prepared), presence)


_SAYS = {
    "gone": "was there after the recovery that was left alone, and is missing after the one that was cut off.",
    "back": "was not there after the recovery that was left alone, and is there after the one that was cut off.",
}


def _check_prepared(findings: Findings, history: History, first: set[str], now: set[str], presence: Presence) -> None:
    numbers = {gid: tx for tx, gid in history.gid.items()}
    for gid in sorted(first ^ now):
        change = "gone" if gid in first else "back"
        tx = numbers.get(gid, 0)
        says = f"Prepared transaction {gid} {_SAYS[change]}"
        findings.add(CODE, "pg_prepared_xacts", says, files=["pg_twophase"], tx=tx, gid=gid, change=change)
        if tx:
            presence.explained.add(tx)
