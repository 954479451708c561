"""Which facts about a run does no trial's evidence hold?

What was asked for, the order of the profiles, why fewer trials were run than asked for, an interrupt, an error of the
environment, the command. They lie in `campaign.json` in the run's folder, so that a run that was cut short can be
resumed, and the whole run can be judged again and told as it was.

Choices: what was asked for is there from the beginning; what came of it when the run has ended. A run that was killed
    says nothing about that: its trials say enough. A run of an older release has no such file.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

import crashlab
from crashlab import evidence
from crashlab.campaign.machine import this_machine
from crashlab.campaign.plan import Asked, Plan
from crashlab.confidence import Until
from crashlab.errors import CrashlabError, EvidenceError, UsageProblem
from crashlab.model import CrashClass, PromiseStatus
from crashlab.profile import stored_profile
from crashlab.results import Keep, ProfileFacts, ProfileResult, RunResult, Unfinished
from crashlab.server import ServerChoice
from crashlab.server.choose import folder_or_image

SCHEMA = 1
CAMPAIGN = evidence.CAMPAIGN


class AskedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One profile that is to be run."""

    profile: dict[str, Any]  # the whole profile after `extends` and `--set`
    recording: str | None = None
    recording_of: str | None = None  # a profile of this run


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked for."""

    asked: list[AskedRecord]
    seed: int
    trials: int | None
    time_limit_s: float | None
    until: str | None
    server: str
    image: str | None
    pg_bindir: str | None
    keep: Keep
    fail_fast: bool
    record_again: bool
    trial_timeout_s: float | None
    observe_ms: float | None = None
    recover_with: str | None = None  # a folder or an image


class ProfileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One profile of a run, without its trials."""

    profile: dict[str, Any]  # the whole profile after `extends` and `--set`
    seed: int
    crash_class: CrashClass
    server: evidence.ServerFacts | None
    interrupted: bool
    stopped_by: str | None
    complete: bool = False
    trials: int | None = None  # how many it had then; None: of an older release
    seconds: float = 0.0


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The error that ended a run, in its three parts."""

    primary: str
    detail: str | None
    hint: str | None
    exit_code: int = CrashlabError.exit_code

    @classmethod
    def of(cls, error: CrashlabError) -> Self:
        """Note an error."""
        return cls(primary=error.primary, detail=error.detail, hint=error.hint, exit_code=error.exit_code)

    def error(self) -> CrashlabError:
        """Return it."""
        error = CrashlabError(self.primary, detail=self.detail, hint=self.hint)
        error.exit_code = self.exit_code
        return error


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run, without its trials."""

    schema: int = SCHEMA
    crashlab: str
    command: str | None
    profiles: list[ProfileRecord]  # empty as long as the run goes on, and for ever if it was killed
    error: ErrorRecord | None
    plan: PlanRecord | None = None  # None: of an older release
    begun: str | None = None  # ISO 8601, UTC; None: of an older release, as below
    machine: str | None = None


def save_plan(folder: Path, plan: Plan) -> None:
    """Write what is asked for, before anything is run. Raises EvidenceError: the folder cannot be written."""
    save_run(folder, begun_now(RunResult(profiles=[], command=plan.again)), plan)


def forget_plan(folder: Path) -> None:
    """Take back what is asked for: nothing of it was run, and nobody could go on with it."""
    (folder / CAMPAIGN).unlink(missing_ok=True)


def begun_now(run: RunResult) -> RunResult:
    """Note in a run that it begins, and where."""
    run.begun, run.machine = datetime.now(UTC).isoformat(timespec="seconds"), this_machine()
    return run


def save_run(folder: Path, run: RunResult, plan: Plan | None = None) -> None:
    """Write what a run knows beside its trials. Raises EvidenceError: the folder cannot be written.

    When the run began, and on which machine, stands there since its plan was saved, and is given to the run itself.
    """
    if run.begun is None and (before := _readable(folder)) is not None:
        run.begun, run.machine = before.begun, before.machine
    error = run.error
    record = RunRecord(
        crashlab=crashlab.__version__,
        command=run.command,
        profiles=[_profile_record(result) for result in run.profiles],
        error=None if error is None else ErrorRecord.of(error),
        plan=None if plan is None else _plan_record(plan),
        begun=run.begun,
        machine=run.machine,
    )
    evidence.save(folder, CAMPAIGN, record)


def _stored(folder: Path) -> RunRecord | None:
    """Return what lies in a run's folder; None: nothing. Raises EvidenceError: damaged, or of another schema."""
    path = folder / CAMPAIGN
    return evidence.load(path, RunRecord) if os.path.lexists(path) else None


def _readable(folder: Path) -> RunRecord | None:
    """Return what lies in a run's folder; None: nothing that could be gone on with."""
    try:
        return _stored(folder)
    except EvidenceError:
        return None


def load_run(folder: Path) -> RunResult | None:
    """Return a stored run, its trials not yet judged; None: the folder is not that of a run that says so.

    Raises:
        EvidenceError: damaged, or of another schema.
    """
    record = _stored(folder)
    if record is None:
        return None
    error = record.error
    return RunResult(
        profiles=[_profile_result(one) for one in record.profiles],
        command=record.command,
        error=None if error is None else error.error(),
        begun=record.begun,
        machine=record.machine,
    )


def unfinished(folder: Path, run: RunResult, plan: Plan | None = None) -> Unfinished | None:
    """Return what is missing of a run in a folder, if going on can help; None: nothing, or nobody noted a plan.

    This alone decides it, for the run itself and for each later judgement of it. A rule that was decided, or never can
    be, and a recording without more states leave nothing to do (`ProfileResult.complete`), nor does a first broken
    promise that was to end the run. What was asked for and makes no sense makes none the second time either.

    Args:
        plan: what was asked for; None: what the folder says.

    Raises:
        EvidenceError: damaged, or of another schema.
    """
    if plan is None:
        record = _stored(folder)
        asked = None if record is None else record.plan
    else:
        asked = _plan_record(plan)
    promises = [trial.verdict.promise for result in run.profiles for trial in result.trials]
    if run.error is not None and run.error.exit_code == UsageProblem.exit_code:
        return None
    if asked is None or (asked.fail_fast and PromiseStatus.BROKEN in promises):
        return None
    done = {result.profile.name: result for result in run.profiles}
    wanted = [_asked_trials(asked, one, done) for one in asked.asked]
    there = sum(len(result.trials) for result in run.profiles)
    whole = None if None in wanted else sum(filter(None, wanted))
    complete = sum(result.complete for result in run.profiles) == len(asked.asked)
    if complete or (whole is not None and there >= whole):
        return None
    return Unfinished(there=there, asked=whole, resume=f"crashlab run --resume {shlex.quote(str(folder.resolve()))}")


def _asked_trials(plan: PlanRecord, asked: AskedRecord, done: Mapping[str, ProfileResult]) -> int | None:
    """Return how many trials of a profile there are to be; None: as many as a rule takes."""
    facts = ProfileFacts.stored(asked.profile)
    result = done.get(facts.name)
    if result is not None and result.complete:
        return len(result.trials)
    own: int | None = None if plan.until is not None else facts.resolved.get("trials")
    return plan.trials or own


def _profile_record(result: ProfileResult) -> ProfileRecord:
    return ProfileRecord(
        profile=result.profile.resolved,
        seed=result.seed,
        crash_class=result.crash_class,
        server=result.server,
        interrupted=result.interrupted,
        stopped_by=result.stopped_by,
        complete=result.complete,
        trials=len(result.trials),
        seconds=result.seconds,
    )


def _profile_result(record: ProfileRecord) -> ProfileResult:
    return ProfileResult(
        profile=ProfileFacts.stored(record.profile),
        seed=record.seed,
        server=record.server,
        crash_class=record.crash_class,
        interrupted=record.interrupted,
        stopped_by=record.stopped_by,
        complete=record.complete,
        seconds=record.seconds,
    )


def trials_then(folder: Path) -> dict[str, int]:
    """Return how many trials each profile of a stored run had when the run ended, where it says so. Raises as that."""
    record = _stored(folder)
    profiles = record.profiles if record is not None else ()
    return {ProfileFacts.stored(one.profile).name: one.trials for one in profiles if one.trials is not None}


def load_plan(folder: Path) -> Plan:
    """Return what a stored run was asked for.

    Raises:
        EvidenceError: the folder is not that of a run that says so, or it is damaged.
    """
    try:
        record = _stored(folder)
    except EvidenceError as error:
        hint = (
            error.hint
            or f"Judge what is there, with crashlab judge {shlex.quote(str(folder))}; or run all of it again."
        )
        raise EvidenceError(f'cannot resume "{folder}": {error.primary}', hint=hint) from error
    if record is None or record.plan is None:
        raise EvidenceError(
            f'cannot resume "{folder}": it does not say what was asked for',
            detail=f'There is no plan in "{folder / CAMPAIGN}".',
            hint="Give the folder of a whole run, such as .crashlab/latest. One that was ended before it began, "
            "or that an older release made, cannot be resumed: run it again.",
        )
    plan = record.plan
    return Plan(
        asked=_asked(plan.asked),
        seed=plan.seed,
        trials=plan.trials,
        time_limit_s=plan.time_limit_s,
        until=None if plan.until is None else Until.parse(plan.until),
        server=ServerChoice(
            kind=plan.server,
            image=plan.image,
            pg_bindir=None if plan.pg_bindir is None else Path(plan.pg_bindir),
        ),
        keep=plan.keep,
        fail_fast=plan.fail_fast,
        record_again=plan.record_again,
        trial_timeout_s=plan.trial_timeout_s,
        observe_ms=plan.observe_ms,
        recover_with=None if plan.recover_with is None else folder_or_image(plan.recover_with),
        again=record.command,
    )


def _asked(records: Sequence[AskedRecord]) -> list[Asked]:
    return [
        Asked(
            profile=stored_profile(one.profile).profile,
            recording=None if one.recording is None else Path(one.recording),
            recording_of=one.recording_of,
        )
        for one in records
    ]


def _plan_record(plan: Plan) -> PlanRecord:
    return PlanRecord(
        asked=[
            AskedRecord(
                profile=ProfileFacts.of(one.profile).resolved,
                recording=None if one.recording is None else str(one.recording.resolve()),
                recording_of=one.recording_of,
            )
            for one in plan.asked
        ],
        seed=plan.seed,
        trials=plan.trials,
        time_limit_s=plan.time_limit_s,
        until=None if plan.until is None else str(plan.until),
        server=plan.server.kind,
        image=plan.server.image,
        pg_bindir=None if plan.server.pg_bindir is None else str(plan.server.pg_bindir.resolve()),
        keep=plan.keep,
        fail_fast=plan.fail_fast,
        record_again=plan.record_again,
        trial_timeout_s=plan.trial_timeout_s,
        observe_ms=plan.observe_ms,
        recover_with=None if plan.recover_with is None else plan.recover_with.described,
    )
