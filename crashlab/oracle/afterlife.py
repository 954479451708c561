"""Did the recovered server bear being used, restarted and crashed once more?

Checks: errors of its use that a healthy database does not give; that what had survived is the same after use, restart
    and another crash; that no decided prepared transaction comes back, no sequence gives a value again; that recovered
    prepared transactions hold their locks; that the server starts again, twice; that it did not die meanwhile.
Does not check: the content that COMMIT PREPARED makes visible. Trials without an afterlife: not every recorded state
    has one, and a server on which something was found has none.
Assumes: nothing was found before it (`recovery.afterlife.is_sound`), so what is found here was not seen by reading.

Sources: postgres-contract.md 7.5; `recovery/afterlife.py`.
"""

from crashlab.model import Afterlife, Observation, Recovery
from crashlab.oracle.findings import WITNESSES_MAX, Findings
from crashlab.oracle.physical import files_in
from crashlab.oracle.signs import sign_of

_CODES = {
    "content": "CORRUPT-AFTERLIFE-CHANGED",
    "sequence": "CORRUPT-AFTERLIFE-CHANGED",
    "prepared": "CORRUPT-AFTERLIFE-CHANGED",
    "unlogged": "CORRUPT-AFTERLIFE-CHANGED",
    "lock": "CORRUPT-PREPARED-UNLOCKED",
}
AFTERLIFE_CODES = frozenset({*_CODES.values(), "CORRUPT-AFTERLIFE-ERROR", "NO-START-AGAIN"})
"""Of a trial without an afterlife none of these is found."""
_WHEN = {
    "locks": "right after the recovery",
    "decide": "when prepared transactions were decided",
    "use": "when every row was written anew",
    "create": "when a table was made and filled",
    "vacuum": "when it was vacuumed",
    "checkpoint": "at the next checkpoint",
    "restart": "after a clean restart",
    "crash": "after another crash",
}
_KILLED = "a kill in place of a stop that took too long"


def check_afterlife(findings: Findings, observation: Observation) -> None:
    """Report what only the use of the recovered server showed."""
    life = observation.afterlife
    if life is None:
        return
    for one in life.complaints:
        said = one.message.splitlines()[0] if one.message else "nothing"
        findings.add(
            "CORRUPT-AFTERLIFE-ERROR",
            one.object,
            f"Nothing was found while the recovered server was read; {_when(life, one.check)}, of"
            f" {one.object}, it said: {said} (SQLSTATE {one.sqlstate}).",
            files=[one.file, *files_in(one.message)],
            step=one.check,
            sqlstate=one.sqlstate,
            message=one.message,
        )
    for change in life.changes:
        what = "prepared transaction " if change.kind in ("prepared", "lock") else ""
        says = f"{_when(life, change.step)}, of {what}{change.object}: {change.says}."
        findings.add(
            _CODES[change.kind],
            change.object,
            says[:1].upper() + says[1:],
            files=[change.file],
            step=change.step,
            kind=change.kind,
            change=change.says,
        )
    for index in life.indexes:
        findings.add(
            "CORRUPT-AFTERLIFE-CHANGED",
            index.index,
            f"After another crash, index {index.index} returns {index.index_rows} rows and a sequential scan of "
            f"{index.relation} {index.heap_rows}.",
            files=[index.file],
            step="crash",
            kind="index",
            change=f"{index.index_rows} rows through the index, {index.heap_rows} in the table",
        )
    _check_starts(findings, life)


def _when(life: Afterlife, step: str) -> str:
    if step == "restart" and life.killed:
        return f"after {_KILLED}"
    return _WHEN.get(step, step)


def _check_starts(findings: Findings, life: Afterlife) -> None:
    stop = _KILLED if life.killed else "a clean stop"
    for recovery, when in ((life.restart, stop), (life.second, "another crash")):
        if recovery is not None and not recovery.started:
            _tell_no_start(findings, recovery, when)
    if life.died is not None:
        says = f"The recovered server was read without a complaint, and then went away {life.died.splitlines()[0]}."
        findings.add("CORRUPT-AFTERLIFE-ERROR", "server", says, files=files_in(life.died), died=life.died)


def _tell_no_start(findings: Findings, recovery: Recovery, when: str) -> None:
    if recovery.tool_fault is not None:
        says = f"After {when} the recovered server could not be started: {recovery.tool_fault}."
        findings.add("INCONCLUSIVE-TOOL-FAULT", "server, again", says, fault=recovery.tool_fault)
        return
    fatal = recovery.fatal or ["no FATAL or PANIC line in its log"]
    sign = sign_of(fatal[0], files_in(fatal[0]))
    findings.add(
        "NO-START-AGAIN",
        "server",
        f"It had recovered, and was read; after {when} it does not accept connections: {fatal[0]}.",
        files=files_in("\n".join(fatal)),
        like=sign.like,
        ground=sign.ground,
        fatal=fatal[:WITNESSES_MAX],
        after=when,
    )
