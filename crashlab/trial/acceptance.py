"""What does a test accept?

Nothing that was acknowledged may be gone, and nothing may be wrong: also where the manual permits it, or promises
nothing. PostgreSQL kept its word then, and the application's user has lost an order all the same. What a test does
accept it names by its code.

Choices: each code is accepted by its own name. That an asynchronous commit may be lost (LOSS-ASYNC-WINDOW) is no leave
    to tell a user of one (TOLD-ASYNC-COMMIT): a shop may lose views of its pages, and no order.
    Inconclusive is not accepted either, for nobody looked. A row that others changed is inconclusive by itself, so
    a test that has such sessions names that code.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from crashlab.errors import ProfileError, UsageProblem, did_you_mean
from crashlab.model import CrashClass, Family, Finding, Verdict
from crashlab.oracle.codes import CODES
from crashlab.profile import Fault, Profile, When, load_profile

OWN_COMMITS = (
    "Have the application do it as it does in production, by SET synchronous_commit = off or ALTER ROLE ... SET; "
    'or let it connect to crash.url + "?options=-csynchronous_commit%3Doff".'
)
CALL = "crash_ledger.check(allow=[{}])"
"""How a test says what it accepts."""
_WITH_TIMELINE = ("TOLD-", "APPLICATION-DONE-TWICE")


def changed_for_a_test(name_or_path: str, disk: str | None, settings: Mapping[str, object]) -> Profile:
    """Load a profile for a test that wants another disk, or other settings of the server.

    Raises:
        ProfileError: there is none such, or it has no such disk or setting.
        UsageProblem: that is no name, or those are no settings.
    """
    if not isinstance(name_or_path, str):
        raise UsageProblem(f"cannot use {name_or_path!r} as a profile", hint='Name one, such as "kill9-all".')
    if not isinstance(settings, Mapping):
        raise UsageProblem(f"cannot use the settings {settings!r}", hint='They are written {"fsync": False}.')
    if any(str(key).lower() == "synchronous_commit" for key in settings):
        raise UsageProblem(
            "cannot set synchronous_commit for the server of a test: it is for each session to set", hint=OWN_COMMITS
        )
    shown = {key: "on" if value is True else "off" if value is False else value for key, value in settings.items()}
    spelt = {
        f"server.settings.{key}={value}": f"settings={{{key!r}: {settings[key]!r}}}" for key, value in shown.items()
    }
    if disk is not None:
        plain = load_profile(name_or_path)
        if plain.power_loss is None:
            raise ProfileError(
                f'cannot use the disk "{disk}" with profile "{plain.name}": it cuts no power',
                hint='Choose a recorded one, such as "power-loss".',
            )
        spelt[f"power_loss.disk={disk}"] = f"disk={disk!r}"
    return load_profile(name_or_path, list(spelt), spelt=spelt)


def for_a_test(profile: Profile, *, recorded: bool = False) -> Profile:
    """Return a profile that a test can run.

    Args:
        recorded: the test's block can be recorded, as that of the fixture `crash`.

    Raises:
        ProfileError: it cuts the power of a recorded run in a way that this test cannot, or is a tour of others.
    """
    reason = ""
    power_loss = profile.power_loss
    if power_loss is not None and not recorded:
        reason = "it cuts the power of a recorded run, and this test crashes a live server"
    elif power_loss is not None and (power_loss.recovery_depth or power_loss.end == "stop"):
        reason = "it cuts recoveries, or stops the server first, and a test cuts the power of its block alone"
    elif profile.tour:
        reason = "it is a tour of other profiles"
    elif profile.jitter is not None:
        reason = "it holds processes ([jitter]), which only runs do"
    elif profile.first_start is not None or profile.start_kills is not None:
        reason = "it kills the server while it starts ([first_start], [start_kills]), which only runs do"
    if reason:
        raise ProfileError(
            f'cannot use profile "{profile.name}" in a test: {reason}',
            hint='Choose one with a fault of its own, such as "kill9-all" or "async-commit"'
            + ('; or "power-loss".' if recorded else "; the fixture crash can be recorded."),
        )
    return profile


def live_half(profile: Profile) -> Profile:
    """Return the profile by which a recorded test's server dies at the end of its block: everything is killed."""
    if profile.power_loss is None:
        return profile
    kill = Fault(kind="kill", target="all", when=When(acks=0))
    return profile.model_copy(update={"power_loss": None, "crash_class": CrashClass.PROCESS_CRASH, "faults": [kill]})


def require_codes(allow: Collection[str]) -> Collection[str]:
    """Return the codes that a test accepts. Raises UsageProblem: there is no such finding."""
    __tracebackhide__ = True
    codes = [allow] if isinstance(allow, str) else list(allow)
    for code in codes:
        if code not in CODES:
            near = did_you_mean(str(code), CODES)
            raise UsageProblem(
                f'cannot allow "{code}": there is no such finding',
                hint=f"{near + ' ' if near else ''}crashlab explain lists all codes.",
            )
    return codes


def objection(verdict: Verdict, folder: Path, allow: Collection[str] = (), *, call: str = CALL) -> str:
    """Say why a test must fail, with the findings; empty if it accepts all of them.

    Args:
        folder: where the evidence is.
        allow: the codes of findings that the test accepts.
        call: how the test says so.

    Raises:
        UsageProblem: as `require_codes`.
    """
    __tracebackhide__ = True
    allow = require_codes(allow)
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
