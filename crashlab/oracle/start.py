"""Did the server come back?

Checks: that recovery ended in a server that accepts connections; if not, whether the data or the tool is to blame.
Does not check: how long it took; a slow recovery breaks no promise.
Choices: `Recovery.tool_fault` decides: port, permissions, lock file and limits say nothing about the data. What it
    looks like follows from the server's last words: a hint that holds for one message is not given with another.

Sources: postgres-contract.md 4, 7.4 (will not start).
"""

from crashlab.model import Observation
from crashlab.oracle.findings import WITNESSES_MAX, Findings
from crashlab.oracle.physical import files_in
from crashlab.oracle.signs import sign_of
from crashlab.oracle.wal import how_far, lsn


def check_start(findings: Findings, observation: Observation) -> bool:
    """Report a server that did not start; return whether there is one to look at."""
    recovery = observation.recovery
    if recovery.started:
        return True
    if recovery.tool_fault is not None:
        says = f"The server could not be started: {recovery.tool_fault}."
        findings.add("INCONCLUSIVE-TOOL-FAULT", "server", says, fault=recovery.tool_fault)
        return False
    fatal = recovery.fatal or ["no FATAL or PANIC line in its log"]
    files = files_in("\n".join(fatal))
    sign = next((found for line in fatal if (found := sign_of(line, files_in(line))).like), sign_of(fatal[0], files))
    findings.add(
        "NO-START",
        "server",
        f"After the crash the server does not accept connections: {fatal[0]}.{_log(observation)}",
        files=files,
        like=sign.like,
        ground=sign.ground,
        fatal=fatal[:WITNESSES_MAX],
        redo_start=recovery.redo_start,
        redo_end=recovery.redo_end,
        end_reason=recovery.end_reason,
    )
    return False


def _log(observation: Observation) -> str:
    """Say what is known of the WAL, a sentence behind another one; empty: nothing."""
    facts, at_cut = observation.wal, observation.wal_at_cut
    if facts is None:
        return ""
    valid = f"Before the start the WAL was valid from {lsn(facts.redo)} to {lsn(facts.end)}"
    return f" {valid}." if at_cut is None else f" {valid}; when the fault came, it was {how_far(at_cut, facts)}."
