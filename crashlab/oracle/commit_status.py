"""Does the commit log agree with the data?

Checks: pg_xact_status, asked before anybody could write, against what is visible.
Does not check: "committed" for a transaction that is absent and newer than every survivor: recovery gives an xid out
    again that left no trace in the log, and then the answer is about another transaction.
Choices: for a transaction that is absent, `order` asks first whether a survivor proves a hole; "committed" then says
    only that the rows went, not the commit.

Sources: postgres-contract.md 4 (xids), 6 (pg_xact_status), 7.4 (WAL/state mismatch), 7.5.
"""

from collections.abc import Mapping
from operator import mul

from crashlab.history import STATES, History
from crashlab.oracle.findings import Findings
from crashlab.oracle.physical import status_file
from crashlab.oracle.survivors import MAY_BE_THERE, Presence

_CONTRADICTS_PRESENCE = ("aborted", "in progress", "future")


class CommitLog:
    """What pg_xact_status said of each transaction."""

    def __init__(self, findings: Findings, history: History, statuses: Mapping[str, str], presence: Presence) -> None:
        self._findings = findings
        self._history = history
        self._statuses = statuses
        self._presence = presence
        self._newest_xid = 0
        if statuses:
            self._newest_xid = max(map(mul, history.xid, presence.survivors(history)))

    def status(self, tx: int) -> str | None:
        """Return what was said; None if it was not asked."""
        return self._statuses.get(str(self._history.xid[tx])) if self._history.xid[tx] else None

    def suspect_file(self, tx: int) -> str | None:
        """Return the file of the commit bits if they do not say "committed"."""
        status = self.status(tx)
        return None if status in (None, "committed") else status_file(self._history.xid[tx])

    def certainly_committed(self, tx: int) -> bool:
        """Whether the log says committed, and can only mean this transaction."""
        return self._history.xid[tx] < self._newest_xid and self.status(tx) == "committed"

    def check(self) -> None:
        """Report survivors that the log denies, and transactions without a trace that it calls committed."""
        if not self._statuses:
            return
        for tx, (xid, seen, state) in enumerate(
            zip(self._history.xid, self._presence.visible, self._history.state, strict=True)
        ):
            if not xid or tx in self._presence.explained:
                continue
            if seen and state in MAY_BE_THERE:
                if self._statuses.get(str(xid)) in _CONTRADICTS_PRESENCE:
                    self.report(tx)
            elif not seen and state not in MAY_BE_THERE and self.certainly_committed(tx):
                self.report(tx)

    def report(self, tx: int) -> None:
        """Report that log and data disagree about one transaction."""
        xid = self._history.xid[tx]
        file = status_file(xid)
        state = STATES[self._history.state[tx] - 1]
        status = self.status(tx)
        what = "is there" if self._presence.visible[tx] else "is not there"
        self._findings.add(
            "CORRUPT-COMMIT-STATUS",
            file,
            f"Transaction {tx} of client {self._history.client[tx]} (xid {xid}, {state} in the ledger) {what}, yet "
            f'{file} says "{status}".',
            files=[file],
            tx=tx,
            client=self._history.client[tx],
            xid=xid,
            state=state,
            commit_status=status,
            visible=bool(self._presence.visible[tx]),
        )
