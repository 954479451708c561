"""Did the server come back?

Checks: that recovery ended in a server that accepts connections; if not, whether the data or the tool is to blame.
Does not check: how long it took; a slow recovery breaks no promise.
Choices: `Recovery.tool_fault` decides: port, permissions, lock file and limits say nothing about the data.

Sources: postgres-contract.md 4, 7.4 (will not start).
"""

from crashlab.model import Observation
from crashlab.oracle.findings import WITNESSES_MAX, Findings
from crashlab.oracle.physical import files_in


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
    findings.add(
        "NO-START",
        "server",
        f"After the crash the server does not accept connections: {fatal[0]}.",
        files=files_in("\n".join(fatal)),
        fatal=fatal[:WITNESSES_MAX],
        redo_start=recovery.redo_start,
        redo_end=recovery.redo_end,
        end_reason=recovery.end_reason,
    )
    return False
