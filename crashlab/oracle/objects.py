"""Do the things beside tables agree with the survivors: sequences, prepared transactions, statistics?

Checks: the ledgered sequence against every value that a survivor received; pg_prepared_xacts against the ledger's
    two-phase transactions; the statistics after a clean stop.
Does not check: sequence gaps, which are normal after a crash. Prepared transactions of an application's own.
Choices: a decision that lies behind the end of the WAL is lost like any other commit; its transaction is prepared
    again, as it was before. Where the WAL was not read, that cannot be told from a file that came back.

Sources: postgres-contract.md 4 (sequences, prepared transactions), 7.3 (2PC), 7.4 (sequence regress).
"""

import re
from operator import mul
from typing import Any

from crashlab.history import ACKED, COMMITTING_PREPARED, PREPARE_ACKNOWLEDGED, PREPARED, REFUSED, STATES, History
from crashlab.model import Observation
from crashlab.oracle.case import Case
from crashlab.oracle.findings import Findings
from crashlab.oracle.serverlog import warnings
from crashlab.oracle.survivors import Presence
from crashlab.oracle.wal import Wal

SEQUENCE = "crashlab.ticket"
GID_PREFIX = "crashlab-"
"""The workload's own; an application under test may prepare others, which no ledger knows."""


def check_sequences(findings: Findings, case: Case, presence: Presence) -> None:
    """No sequence may hand out a value again that a survivor has."""
    history, observation = case.history, case.observation
    ticket = max(map(mul, history.ticket, presence.survivors(history)))
    named = [read for read in observation.sequences if read.name == SEQUENCE]
    for read in named or observation.sequences[:1]:
        upcoming = read.last_value + 1 if read.is_called else read.last_value
        if ticket < upcoming:
            continue
        tx = history.ticket.index(ticket)
        findings.add(
            "CORRUPT-SEQUENCE-REGRESS",
            read.name,
            f"Surviving transaction {tx} of client {history.client[tx]} received value {ticket} of {read.name}, whose "
            f"next value is {upcoming} now: it must be above {ticket}.",
            files=[read.file],
            tx=tx,
            used=ticket,
            last_value=read.last_value,
            is_called=read.is_called,
        )


def check_prepared(findings: Findings, case: Case, presence: Presence | None, wal: Wal | None) -> None:
    """Hold pg_prepared_xacts against what was prepared and decided."""
    history, observation = case.history, case.observation
    run = observation.checks.get("prepared")
    if run is None or run.status != "ran":
        return
    listed = set(observation.prepared)
    for gid in sorted(listed - set(history.gid.values())):
        if gid.startswith(GID_PREFIX):
            findings.add("CORRUPT-PREPARED-UNKNOWN", "pg_prepared_xacts", f"Nobody prepared {gid}.", gid=gid)
    for tx, gid in history.gid.items():
        state = history.state[tx]
        seen = presence is not None and bool(presence.visible[tx])
        facts: dict[str, Any] = {"tx": tx, "client": history.client[tx], "gid": gid, "state": STATES[state - 1]}
        facts |= {"sync": history.sync[tx], "flushed": True}
        if gid in listed:
            if not seen and wal is not None and _decision_lost(history, tx, wal):
                if state == REFUSED:  # of a COMMIT PREPARED, `order` says that it is missing
                    cause, known = wal.explain(tx, "rollback prepared")
                    says = f"ROLLBACK PREPARED of transaction {tx} ({gid}) was acknowledged, and it is prepared again."
                    findings.add("LOSS-SYNC-COMMIT", "pg_prepared_xacts", f"{says} {cause}".rstrip(), **facts, **known)
            elif state in (ACKED, REFUSED) or (state == COMMITTING_PREPARED and seen):
                why = "its commit is visible" if state == COMMITTING_PREPARED else "its decision was acknowledged"
                says = f"Transaction {tx} of client {history.client[tx]} ({gid}) is prepared again, yet {why}."
                findings.add("CORRUPT-PREPARED-RESURRECTED", "pg_prepared_xacts", says, files=["pg_twophase"], **facts)
                if presence is not None:
                    presence.explained.add(tx)
        elif presence is not None and state in (PREPARED, COMMITTING_PREPARED) and not seen:
            says = f"{_told(case, tx, gid)}; it is neither prepared nor committed."
            if tx not in presence.explained:
                cause, known = wal.explain(tx, "prepare") if wal is not None else ("", {})
                facts |= known
                says = f"{says} {cause}".rstrip() + _warned(observation, history.xid[tx])
                findings.add("LOSS-PREPARED", "pg_prepared_xacts", says, files=["pg_twophase"], **facts)


def _decision_lost(history: History, tx: int, wal: Wal) -> bool:
    """Whether the decision about a prepared transaction was acknowledged and went with the end of the WAL: a loss."""
    prepared = any(step == PREPARE_ACKNOWLEDGED for _, _, step in history.two_phase.get(tx, ()))
    return prepared and history.state[tx] in (ACKED, REFUSED) and wal.ends_before_the_decision(tx)


def _told(case: Case, tx: int, gid: str) -> str:
    """Say when the client was told that a transaction is prepared."""
    h = case.history
    line, at_ns = next(
        ((line, at_ns) for line, at_ns, step in h.two_phase.get(tx, ()) if step == PREPARE_ACKNOWLEDGED), (0, 0)
    )
    when = case.when(at_ns, line)
    age = f", {when}," if when else ""
    return f"On line {line} of the ledger{age} client {h.client[tx]} was told that transaction {tx} ({gid}) is prepared"


def _warned(observation: Observation, xid: int) -> str:
    """Say what the server warned of the state of one prepared transaction."""
    about = re.compile(rf"two-phase state .*transaction {xid & 0xFFFF_FFFF}\b")
    return "".join(f" The server warned: {text}." for text in warnings(observation.recovery) if about.search(text))


def check_statistics(findings: Findings, observation: Observation) -> None:
    """After a clean stop the statistics must still know of the marker rows; after a crash they are thrown away."""
    rows = len(observation.marker.rows) if observation.marker is not None else 0
    if rows and not observation.recovery.ran and observation.rows_counted == 0:
        says = f"The marker table holds {rows} rows, and the statistics know of none that was ever inserted."
        findings.add("NOTE-STATISTICS-LOST", "statistics", says, files=["pg_stat/pgstat.stat"], rows=rows)
