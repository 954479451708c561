"""What does a trial leave on disk, so that it can be judged again by a newer oracle?

One folder a trial:

    trial.json         what was run, on which server, with which settings read back, what was injected
    ledger.jsonl       what the clients were told
    told.json          what an unchanged application told its own users, if the trial is one of a test with `crash`
    observation.json   what the recovered server holds
    server.log         the server's own log
    samples.json       what the server was waiting for, if it was observed (`observe.samples`); no verdict rests on it
    state.json         the crash state, if the trial is one of a recording; the ledger is the recording's then
    verdict.json       the judgement, made from the others and replaceable
    data/              the server's data directory after recovery, if it was kept

Every file but the ledger and the log is written whole or not at all. Of the evidence trial.json comes last: a folder
without it holds no trial.

Choices: what the judge needs of the profile stands in the record by itself, so that no key of a profile, new, renamed
or gone, decides whether an old trial can be judged. Each JSON file bears a digest of its content (`sealed`), and
trial.json those of the files beside it, so that neither a flipped bit nor another trial's file is judged.
"""

import functools
import os
import shlex
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from crashlab import files, sealed
from crashlab.disk.contract import DiskContract
from crashlab.errors import EvidenceError
from crashlab.evidence_upgrade import upgraded
from crashlab.model import CrashClass, Held, Injection, Observation, Verdict

SCHEMA = 2
"""Of trial.json; the other files have a number of their own, or have never changed."""
TRIAL = "trial.json"
LEDGER = "ledger.jsonl"
OBSERVATION = "observation.json"
TOLD = "told.json"
SERVER_LOG = "server.log"
VERDICT = "verdict.json"
STATE = "state.json"
RECORDING = "recording.json"
LOG = "io.log"
"""Of a recording's folder, see `exploration.recording`."""
DATA = "data"
CAMPAIGN = "campaign.json"
"""In the folder of a whole run; a trial's is two levels below it."""

T = TypeVar("T")
TrialKind = Literal["live", "recorded", "application", "observed"]


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Which server it was, and under which settings, as it says itself."""

    kind: str  # local, container
    version: str  # "18.6"
    version_num: int  # server_version_num, 180006
    source: str  # bin directory or image
    initdb: list[str]
    requested: dict[str, str]  # settings that the profile asked for
    settings: dict[str, str]  # read back from pg_settings before the fault; units as SHOW prints them
    chosen: list[str] = []  # the words of the command line that chose it; none: crashlab's own search found it


class RecoveredWith(msgspec.Struct, frozen=True, kw_only=True):
    """Which server recovered, where it is not the one that crashed."""

    version: str
    source: str  # bin directory or image


class TrialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a trial but its ledger, its observation and its verdict."""

    schema: int = SCHEMA
    crashlab: str
    profile: str
    profile_resolved: dict[str, Any]  # the whole profile after `extends` and `--set`, for a replay and for people
    kind: TrialKind
    disk: str  # the disk that the promises are held against, see contract.contract_for
    trial: int
    seed: int  # this trial's
    run_seed: int
    crash_class: CrashClass
    server: ServerFacts
    acked_min: int  # fewer acknowledged writes before the crash make the trial inconclusive
    injections: list[Injection]
    seconds: dict[str, float]
    recording: str | None = None  # a recorded trial: the recording's folder, as seen from the trial's
    crash_io: int | None = None  # ... and the crash point, in bytes of its I/O log
    disk_contract: DiskContract | None = None  # ... and the rules by which its state came about; None: older ones
    digests: dict[str, str] = {}  # file -> digest, of those that the verdict is made from; empty: an older trial
    workload_errors: list[str] = []  # what the clients met that was not a consequence of the fault
    timed_out: str | None = None  # the trial's time was up: when, in words; nothing that it left can be judged
    recovered_with: RecoveredWith | None = None  # None: the server that crashed, or one of the same release
    reproduce: str | None = None  # the command that runs it again; None: a replay of this folder, wherever it is
    drawn: dict[str, str] = {}  # what of the profile's table [vary] its server had, or that of its recording
    held: list[Held] = []  # where processes of its server were held, or those of its recording: the table [jitter]


def save(folder: Path, name: str, value: Any) -> str:
    """Write one evidence file whole, and return the digest of its content.

    Raises:
        EvidenceError: the folder cannot be written.
    """
    content, digest = sealed.sealed(value)
    _write(folder / name, content)
    return digest


def save_text(folder: Path, name: str, text: str) -> None:
    """Write a text, such as the server's log. Raises EvidenceError: the folder cannot be written."""
    _write(folder / name, text.encode(errors="replace"))


def _write(target: Path, content: bytes) -> None:
    try:
        files.write_whole(target, content)
    except OSError as error:
        raise EvidenceError(f'could not write evidence "{target}": {error.strerror}') from error


def move_in(file: Path, folder: Path, name: str) -> None:
    """Move a file that was written elsewhere into the evidence. Raises EvidenceError: the folder cannot be written."""
    try:
        files.move_in(file, folder / name)
    except OSError as error:
        raise EvidenceError(f'could not write evidence "{folder / name}": {error.strerror}') from error


def load_trial(folder: Path) -> TrialRecord:
    """Read what was run. Raises EvidenceError: missing, damaged, or of another schema."""
    record = load(folder / TRIAL, TrialRecord)
    return msgspec.structs.replace(record, injections=[_with_disk(injection) for injection in record.injections])


def _with_disk(injection: Injection) -> Injection:
    """Name the disk of a cut whose receipt is older than that field: its target ended so, and no role's name does."""
    if injection.disk is not None or not injection.target.endswith(" disk"):
        return injection
    return msgspec.structs.replace(injection, disk=injection.target.removesuffix(" disk"))


def load_observation(folder: Path, *, digest: str | None = None) -> Observation:
    """Read what the recovered server held. Raises EvidenceError as `load`."""
    return load(folder / OBSERVATION, Observation, digest=digest)


def load_verdict(folder: Path) -> Verdict:
    """Read the stored judgement. Raises EvidenceError as `load_trial`."""
    return load(folder / VERDICT, Verdict)


def load(path: Path, kind: type[T], *, digest: str | None = None) -> T:
    """Read one evidence file.

    Args:
        digest: what its content must have, as another file says; None: that says nothing.

    Raises:
        EvidenceError: missing, damaged, of another schema, or another trial's.
    """
    try:
        data = files.read_whole(path)
    except OSError as error:
        raise EvidenceError(
            f'could not read evidence "{path}": {error.strerror}',
            hint=again_hint(path.parent) if path.name in _OF_A_TRIAL[1:] else _NO_TRIAL,
        ) from error
    wanted = _schema_of(kind)
    try:
        found = sealed.check(data)
        if digest not in (None, found):
            raise msgspec.ValidationError("it is not the one that the trial was judged by")
        schema = msgspec.json.decode(data, type=_Versioned).schema or wanted  # first: another may look like damage
        if schema == wanted:
            return msgspec.json.decode(data, type=kind)
        if 0 < schema < wanted:
            return _older(data, schema, kind)
    except sealed.PROBLEMS as error:
        hint = again_hint(path.parent) if path.name in _OF_A_TRIAL else None
        raise EvidenceError(f'damaged evidence "{path}": {error}', hint=hint) from error
    raise EvidenceError(
        f'cannot read evidence "{path}": schema {schema} is not {wanted}',
        hint="A newer crashlab wrote it: judge it with that one." if schema > wanted else None,
    )


def digest_of(path: Path) -> str:
    """Return the digest of a file that is no JSON table, such as a ledger. Raises EvidenceError: it cannot be read."""
    try:
        with files.opened(path, buffering=0) as file:
            status = os.fstat(file.fileno())
            return _digest_of(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise EvidenceError(f'could not read evidence "{path}": {error.strerror}') from error


def is_same(path: Path, digest: str) -> bool:
    """Say whether a file has the digest that `digest_of` gave; its size is looked at first. Raises as that."""
    size = digest.rpartition(" ")[2]
    if files.is_file(path) and str(path.stat().st_size) != size:
        return False
    return digest_of(path) == digest


@functools.lru_cache(maxsize=64)
def _digest_of(path: Path, _inode: int, _size: int, _mtime_ns: int) -> str:
    """Read a file once and not for each state of a recording, as long as nobody has written to it."""
    with files.opened(path, buffering=0) as file:
        return sealed.digest_of(file)


_OF_A_TRIAL = (TRIAL, OBSERVATION, STATE)
_NO_TRIAL = "Give the folder of one trial, or of a whole run; it holds trial.json."


def go_on_hint(run: Path) -> str | None:
    """Say how a run goes on that has no trial yet; None: the folder is not that of one."""
    told = _told_of_run(run)
    if told is None or told.plan is None:
        return None
    return f"A run began there and has no trial yet. Go on: crashlab run --resume {shlex.quote(str(run))}"


def again_hint(trial: Path) -> str:
    """Say how a trial whose evidence cannot be used is had again, if going on with its run can make it again."""
    run = trial.resolve().parent.parent
    delete = f"Delete the trial's folder, {shlex.quote(str(trial))}"
    told = _told_of_run(run)
    if told is None or told.plan is None:
        return f"{delete}: without it the others can be judged."
    if _recording_gone(trial.resolve()):
        whole = f", and the whole run makes it again: {told.command}" if told.command else "."
        return f"{delete}: without it the others can be judged. Its recording is gone{whole}"
    return f"{delete}, and run crashlab run --resume {shlex.quote(str(run))}, which makes it again."


class _ToldOfRun(msgspec.Struct):
    plan: dict[str, Any] | None = None
    command: str | None = None


def _told_of_run(run: Path) -> _ToldOfRun | None:
    """Return what a run was asked for, as far as a hint needs it; None: no run says so."""
    try:
        return msgspec.json.decode(files.read_whole(run / CAMPAIGN), type=_ToldOfRun)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def _recording_gone(trial: Path) -> bool:
    """Whether a trial is one of a recording, and one that its run made has been removed."""
    if not any(trial.parent.glob(f"*/{STATE}")):
        return False
    made = [folder for folder in trial.parent.parent.glob("*/recording*") if files.is_file(folder / RECORDING)]
    return any(not files.is_file(folder / LOG) for folder in made)


def _older(data: bytes, schema: int, kind: type[T]) -> T:
    """Read a file of an older schema. Raises msgspec.DecodeError: it is not what that schema says."""
    table = msgspec.json.decode(data, type=dict[str, Any])
    try:
        table = upgraded(kind.__name__, schema, table)
    except (LookupError, TypeError, AttributeError) as error:
        raise msgspec.ValidationError(f"not as schema {schema} has it: {error!r}") from error
    return msgspec.convert(table, kind)


def _schema_of(kind: type[Any]) -> int:
    """Return the version of a file that today's crashlab writes; 0: it has none, as it has never changed."""
    return next((field.default for field in msgspec.structs.fields(kind) if field.name == "schema"), 0)


class _Versioned(msgspec.Struct):
    schema: int = 0
