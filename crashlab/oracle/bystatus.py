"""Which transactions are there, where the clients are an application's own and write no markers?

Checks: what pg_xact_status says of each transaction whose id the observer learned, asked before anybody could write; a
    transaction that was refused or rolled back and is called committed.
Does not check: transactions whose id is unknown, and what became of their rows: no ledger knows an application's rows.
    What the application told its own users of them says `told`.

Sources: postgres-contract.md 7.5 (order of evidence), 4 (xids).
"""

from crashlab.history import STATES, History
from crashlab.model import Observation
from crashlab.oracle.findings import Findings
from crashlab.oracle.physical import status_file
from crashlab.oracle.survivors import MAY_BE_THERE, Presence


def read_statuses(findings: Findings, history: History, observation: Observation) -> Presence | None:
    """Tell who is there, and report who should not be; None: nobody could ask."""
    run = observation.checks.get("xact_status")
    if run is None or run.status != "ran":
        return None
    presence = Presence(bytearray(history.count + 1))
    for tx in range(1, history.count + 1):
        xid, client, state = history.xid[tx], history.client[tx], history.state[tx]
        if not xid or observation.xact_status.get(str(xid)) != "committed":
            continue
        presence.visible[tx] = 1
        if state not in MAY_BE_THERE:
            file = status_file(xid)
            says = f'Transaction {tx} of connection {client} (xid {xid}) is "{STATES[state - 1]}" in the conversation, '
            says += 'yet pg_xact_status says "committed".'
            findings.add("CORRUPT-PHANTOM", "transactions", says, files=[file], tx=tx, client=client, xid=xid)
    return presence
