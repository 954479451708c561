"""What does a test accept?

Nothing that was acknowledged may be gone, and nothing may be wrong: also where the manual permits it, or promises
nothing. PostgreSQL kept its word then, and the application's user has lost an order all the same. What a test does
accept it names by its code.

Choices: inconclusive is not accepted either, for nobody looked. A row that others changed is inconclusive by itself, so
    a test that has such sessions names that code.
"""

from collections.abc import Collection
from pathlib import Path

from crashlab.errors import ProfileError, UsageProblem, did_you_mean
from crashlab.model import Family, Finding, Verdict
from crashlab.oracle.codes import CODES
from crashlab.profile import Profile

CALL = "crash_ledger.check(allow=[{}])"
"""How a test says what it accepts."""
_INCLUDED = {"LOSS-ASYNC-WINDOW": "TOLD-ASYNC-COMMIT"}
"""Who accepts that such a commit is lost accepts that a user was told of it."""


_WITH_TIMELINE = ("TOLD-", "APPLICATION-DONE-TWICE")


def for_a_test(profile: Profile) -> Profile:
    """Return a profile that a test can run.

    Raises:
        ProfileError: it cuts the power of a recorded run, or is a tour of other profiles.
    """
    reason = ""
    if profile.power_loss is not None:
        reason = "it cuts the power of a recorded run, and a test crashes a live server"
    elif profile.tour:
        reason = "it is a tour of other profiles"
    if reason:
        raise ProfileError(
            f'cannot use profile "{profile.name}" in a test: {reason}',
            hint='Choose one with a fault of its own, such as "kill9-all" or "async-commit".',
        )
    return profile


def objection(verdict: Verdict, folder: Path, allow: Collection[str] = (), *, call: str = CALL) -> str:
    """Say why a test must fail, with the findings; empty if it accepts all of them.

    Args:
        folder: where the evidence is.
        allow: the codes of findings that the test accepts.
        call: how the test says so.

    Raises:
        UsageProblem: a code is unknown.
    """
    allow = [allow] if isinstance(allow, str) else allow
    for code in allow:
        if code not in CODES:
            raise UsageProblem(f'cannot allow "{code}": no such finding', hint=did_you_mean(code, CODES) or None)
    allow = {*allow, *(_INCLUDED[code] for code in allow if code in _INCLUDED)}
    unaccepted = [one for one in verdict.findings if one.family is not Family.NOTE and one.code not in allow]
    if not unaccepted:
        return ""
    lines = [f"crashlab: {verdict.outcome}, promise {verdict.promise or 'not judged'}"]
    for finding in unaccepted:
        lines += ["", f"{finding.code}: {finding.summary}", finding.explanation]
        lines += [f"    {line}" for line in finding.timeline] if finding.code.startswith(_WITH_TIMELINE) else []
    if permitted := _permitted(unaccepted):
        codes = ", ".join(f'"{code}"' for code in permitted)
        lines += ["", f"PostgreSQL's manual permits that; to accept it, say so: {call.format(codes)}"]
    return "\n".join([*lines, "", f"evidence: {folder} (crashlab judge {folder})"])


def _permitted(findings: list[Finding]) -> list[str]:
    """Return the codes if all that is wrong is a loss that is permitted; else nothing."""
    permitted = all(one.permitted and one.family is Family.LOSS and not CODES[one.code].application for one in findings)
    return list(dict.fromkeys(one.code for one in findings)) if permitted else []
