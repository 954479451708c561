"""Did the server come back?

Checks: that recovery ended in a server that accepts connections; if not, whether the data or the tool is to blame.
Does not check: how long it took; a slow recovery breaks no promise.
Choices: `Recovery.tool_fault` decides: port, permissions, lock file and limits say nothing about the data, and neither
    does a startup process that was killed from outside; one that died of itself does. What it looks like follows from
    the server's last words: a hint that holds for one message is not given with another.

Sources: postgres-contract.md 4, 7.4 (will not start).
"""

import re

from crashlab.model import Observation, Recovery
from crashlab.oracle.findings import WITNESSES_MAX, Findings
from crashlab.oracle.physical import files_in
from crashlab.oracle.signs import sign_of
from crashlab.oracle.wal import how_far, lsn

_RECORD = re.compile(r"WAL redo at ([0-9A-F]+/[0-9A-F]+ for [^:;]+)")
_PROGRESS = re.compile(r"redo in progress, .*current LSN: ([0-9A-F]+/[0-9A-F]+)")


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
    record, reached = _last_of(_RECORD, recovery), _last_of(_PROGRESS, recovery)
    files = files_in("\n".join(fatal))
    sign = next((found for line in fatal if (found := sign_of(line, files_in(line))).like), sign_of(fatal[0], files))
    more = _died_on(record, reached) + _log(observation)
    findings.add(
        "NO-START",
        "server",
        f"After the crash the server does not accept connections: {fatal[0]}.{more}",
        files=files,
        like=sign.like,
        ground=sign.ground,
        fatal=fatal[:WITNESSES_MAX],
        redo_start=recovery.redo_start,
        redo_end=recovery.redo_end,
        end_reason=recovery.end_reason,
        record=record,
    )
    return False


def _log(observation: Observation) -> str:
    """Say what is known of the WAL, a sentence behind another one; empty: nothing."""
    facts, at_cut = observation.wal, observation.wal_at_cut
    if facts is None:
        return ""
    valid = f"Before the start the WAL was valid from {lsn(facts.redo)} to {lsn(facts.end)}"
    return f" {valid}." if at_cut is None else f" {valid}; when the fault came, it was {how_far(at_cut, facts)}."


def _last_of(pattern: re.Pattern[str], recovery: Recovery) -> str | None:
    found = [match for line in (*recovery.log_lines, *recovery.fatal) for match in pattern.findall(line)]
    return found[-1] if found else None


def _died_on(record: str | None, reached: str | None) -> str:
    if record is not None:
        return f" It was replaying the record at {record}."
    return f" Its redo had come to {reached} when it said so last." if reached is not None else ""
