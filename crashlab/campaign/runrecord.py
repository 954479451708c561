"""Which facts about a run does no trial's evidence hold?

The order of the profiles, why fewer trials were run than asked for, an interrupt, an error of the environment, the
command. They lie in `campaign.json` in the run's folder, so that the whole run can be judged again and told as it was.

Choices: a run that was killed has no such file, and neither has one of an older release; its trials say enough.
"""

from pathlib import Path
from typing import Any

import msgspec

import crashlab
from crashlab import evidence
from crashlab.errors import CrashlabError
from crashlab.model import CrashClass
from crashlab.results import ProfileFacts, ProfileResult, RunResult

SCHEMA = 1
CAMPAIGN = "campaign.json"


class ProfileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One profile of a run, without its trials."""

    profile: dict[str, Any]  # the whole profile after `extends` and `--set`
    seed: int
    crash_class: CrashClass
    server: evidence.ServerFacts | None
    interrupted: bool
    stopped_by: str | None


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The error that ended a run, in its three parts."""

    primary: str
    detail: str | None
    hint: str | None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run, without its trials."""

    schema: int = SCHEMA
    crashlab: str
    command: str | None
    profiles: list[ProfileRecord]
    error: ErrorRecord | None


def save_run(folder: Path, run: RunResult) -> None:
    """Write what a run knows beside its trials. Raises EvidenceError: the folder cannot be written."""
    error = run.error
    record = RunRecord(
        crashlab=crashlab.__version__,
        command=run.command,
        profiles=[_profile_record(result) for result in run.profiles],
        error=None if error is None else ErrorRecord(primary=error.primary, detail=error.detail, hint=error.hint),
    )
    evidence.save(folder, CAMPAIGN, record)


def load_run(folder: Path) -> RunResult | None:
    """Return a stored run, its trials not yet judged; None: the folder is not that of a run that says so.

    Raises:
        EvidenceError: damaged, or of another schema.
    """
    if not (folder / CAMPAIGN).is_file():
        return None
    record = evidence.load(folder / CAMPAIGN, RunRecord)
    error = record.error
    return RunResult(
        profiles=[_profile_result(one) for one in record.profiles],
        command=record.command,
        error=None if error is None else CrashlabError(error.primary, detail=error.detail, hint=error.hint),
    )


def _profile_record(result: ProfileResult) -> ProfileRecord:
    return ProfileRecord(
        profile=result.profile.resolved,
        seed=result.seed,
        crash_class=result.crash_class,
        server=result.server,
        interrupted=result.interrupted,
        stopped_by=result.stopped_by,
    )


def _profile_result(record: ProfileRecord) -> ProfileResult:
    return ProfileResult(
        profile=ProfileFacts.stored(record.profile),
        seed=record.seed,
        server=record.server,
        crash_class=record.crash_class,
        interrupted=record.interrupted,
        stopped_by=record.stopped_by,
    )
