"""What does the oracle say about one stored trial? No server is needed, and nothing but the trial's folder is read.

Every trial is judged from its evidence, also the one that has just been run: so judging it again says the same.
Choices: a stored verdict is never read, only replaced, so that one with codes that are unknown today is no obstacle.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from crashlab import evidence, files
from crashlab.contract import contract_for
from crashlab.errors import EvidenceError, LedgerError
from crashlab.history import History, read_ledger
from crashlab.model import Contract, Injection, Observation, RecordCount, Told, Verdict
from crashlab.oracle import Judgement, judge_closely
from crashlab.results import CrashPoint, Redo, TrialResult, trial_order

_RECORDING, _BASE, RECORDING_SCHEMA = "recording.json", "base", 1
"""A recording's record, and its folder with whole data directories; `exploration` stands above this module."""


def contract_of(record: evidence.TrialRecord) -> Contract:
    """Return what was promised to the clients of a trial."""
    return contract_for(
        record.server.settings,
        record.crash_class,
        version_num=record.server.version_num,
        bounded_window=all(injection.bounds_window for injection in record.injections),
        disk=record.disk,
    )


def ledger_of(folder: Path, record: evidence.TrialRecord) -> Path:
    """Return where a trial's ledger is: beside it, or with the recording that it is a state of. Raises as that."""
    return (folder if record.recording is None else recording_of(folder, record)) / evidence.LEDGER


def recording_of(folder: Path, record: evidence.TrialRecord) -> Path:
    """Return the folder of the recording that a trial is a state of.

    Raises:
        EvidenceError: it is gone, or a link is on the way to it.
    """
    assert record.recording is not None
    home = Path(os.path.realpath(folder))
    target = Path(os.path.normpath(home / record.recording))
    common = Path(os.path.commonpath([home, target]))
    place = common
    for part in target.relative_to(common).parts:
        place = place / part
        if not files.is_folder(place):
            raise EvidenceError(f'could not read the recording "{target}": "{place}" is no folder, or a link to one')
    return target


def judge_trial(folder: Path) -> Verdict:
    """Judge one trial's evidence and store the verdict beside it.

    Raises:
        EvidenceError, LedgerError: the evidence is missing or damaged; the message names the file. Or the verdict
            cannot be written.
    """
    verdict = verdict_of(folder)
    evidence.save(folder, evidence.VERDICT, verdict)
    return verdict


def verdict_of(folder: Path) -> Verdict:
    """Judge one trial's evidence and write nothing; raises as `judge_trial`."""
    record = evidence.load_trial(folder)
    return judgement_of(folder, record, read_history(folder, record), read_observation(folder, record)).verdict


def judgement_of(folder: Path, record: evidence.TrialRecord, history: History, observation: Observation) -> Judgement:
    """Judge what was read of a trial's evidence, and say what is known of each transaction. Raises as `judge_trial`."""
    return judge_closely(
        history,
        contract_of(record),
        record.injections,
        observation,
        acked_min=record.acked_min,
        workload_errors=record.workload_errors,
        timed_out=record.timed_out,
        kind=record.kind,
        told=_told(folder, record),
    )


def _told(folder: Path, record: evidence.TrialRecord) -> Told | None:
    digest = record.digests.get(evidence.TOLD)
    if record.kind != "observed" and digest is None:
        return None
    return evidence.load(folder / evidence.TOLD, Told, digest=digest)


def read_observation(folder: Path, record: evidence.TrialRecord) -> Observation:
    """Read what a trial's recovered server held. Raises EvidenceError: missing, or another trial's."""
    return evidence.load_observation(folder, digest=record.digests.get(evidence.OBSERVATION))


def read_history(folder: Path, record: evidence.TrialRecord) -> History:
    """Read what the clients of a trial were told. Raises EvidenceError, LedgerError: missing, or another trial's."""
    try:
        path = ledger_of(folder, record)
        until_io = None if record.recording is None else record.crash_io
        if evidence.LEDGER in record.digests and not evidence.is_same(path, record.digests[evidence.LEDGER]):
            if path.stat().st_size < files.WHOLE_BYTES_MAX:
                read_ledger(path, until_io=until_io)  # says where, if the ledger itself tells
            raise LedgerError(f"{path}: damaged ledger: it is not the one that the trial was judged by")
        return read_ledger(path, until_io=until_io)
    except LedgerError as error:
        if record.recording is not None:  # of many trials: none of them alone can be made again
            raise
        raise LedgerError(error.primary, detail=error.detail, hint=evidence.again_hint(folder)) from error


def trial_folders(path: Path) -> list[Path]:
    """Return every trial's folder at or below a path, in order.

    Raises:
        EvidenceError: there is none.
    """
    found = sorted(folders_below(path), key=trial_order)
    if not found:
        for link in not_followed(path):
            raise link_problem(link)
        why = "" if path.is_dir() else ": it is no folder" if os.path.lexists(path) else ": there is no such folder"
        raise EvidenceError(
            f'no evidence of a trial in "{path}"{why}',
            hint=evidence.go_on_hint(path)
            or "Give the folder of one trial, of a profile, or of a whole run (--out; .crashlab/latest by default).",
        )
    return found


def folders_below(path: Path) -> Iterator[Path]:
    """Yield the folders of trials, without a look into their data directories or into base images.

    Where a verdict is, there was a trial: one whose record is gone is damaged, and not one that never was.
    """
    for folder, below, names in os.walk(path):
        if not {evidence.TRIAL, evidence.VERDICT}.isdisjoint([*names, *below]):
            yield Path(folder)
            below.clear()
        if _RECORDING in names:
            below[:] = [name for name in below if name != _BASE]


def link_problem(link: Path) -> EvidenceError:
    """Say that a link was not followed."""
    return EvidenceError(
        f'did not look at "{link}": it is a symbolic link out of the folder',
        hint=f"Judge what it leads to by itself: crashlab judge {shlex.quote(os.path.realpath(link))}.",
    )


def not_followed(path: Path) -> Iterator[Path]:
    """Yield the symbolic links out of a folder that `folders_below` passes by where there might be trials."""
    inside = Path(os.path.realpath(path))
    for folder, below, names in os.walk(path):
        if evidence.TRIAL in names:
            below.clear()
        if _RECORDING in names:
            below[:] = [name for name in below if name != _BASE]
        for name in sorted([*below, *names]):
            link = Path(folder) / name
            if link.is_symlink() and link.is_dir() and not Path(os.path.realpath(link)).is_relative_to(inside):
                yield link


def result_of(folder: Path, *, verdict: Verdict | None = None, history: History | None = None) -> TrialResult:
    """Return a trial's result from its evidence alone, so that a stored one reads like a fresh one.

    Args:
        verdict: the judgement, if it has been made; otherwise the evidence is judged, and the verdict stored.
        history: what its ledger says, if it has been read already.
    """
    record = evidence.load_trial(folder)
    if verdict is None:
        observation = read_observation(folder, record)
        history = read_history(folder, record) if history is None else history
        verdict = judgement_of(folder, record, history, observation).verdict
        evidence.save(folder, evidence.VERDICT, verdict)
        seen: Observation | _Replayed = observation
    else:
        seen = evidence.load(folder / evidence.OBSERVATION, _Replayed, digest=record.digests.get(evidence.OBSERVATION))
    data = folder / evidence.DATA
    return TrialResult(
        trial=record.trial,
        seed=record.seed,
        verdict=verdict,
        injections=record.injections,
        seconds=record.seconds,
        folder=folder,
        kept_data=data if files.is_folder(data) else None,
        again=record.reproduce,
        server=record.server,
        recovered_with=record.recovered_with,
        state=_state_of(folder, record),
        contract=contract_of(record),
        redo=_redo_of(folder, record, seen),
        drawn=record.drawn,
        held=record.held,
        nothing_due=nothing_due(record.injections, ran=seen.recovery.ran),
    )


def nothing_due(injections: Sequence[Injection], *, ran: bool) -> bool:
    """Whether the server had shut down before it could crash, so that there was nothing to recover.

    Args:
        ran: whether its log tells of a recovery.
    """
    crashed = ran or any(one.crashes_server for one in injections)
    return not crashed and any(one.nothing_due for one in injections)


class _Recovered(msgspec.Struct):
    started: bool = False
    ran: bool = False


class _Read(msgspec.Struct):
    kinds: list[RecordCount] = []


class _Replayed(msgspec.Struct):
    """What an observation holds about redo; the rest is passed over."""

    recovery: _Recovered = msgspec.field(default_factory=_Recovered)
    wal: _Read | None = None
    replayed: list[RecordCount] | None = None


class _Written(msgspec.Struct):
    schema: int = RECORDING_SCHEMA
    written: list[str] = []


def _redo_of(folder: Path, record: evidence.TrialRecord, seen: Observation | _Replayed) -> Redo | None:
    replayed = seen.replayed if seen.wal is None else seen.wal.kinds
    if replayed is None or not (seen.recovery.ran and seen.recovery.started):
        return None
    written = [] if record.recording is None else _written(recording_of(folder, record) / _RECORDING)
    return Redo(replayed, written or [one.name for one in replayed])


@lru_cache(maxsize=16)
def _written(recording: Path) -> list[str]:
    return evidence.load(recording, _Written).written


def _state_of(folder: Path, record: evidence.TrialRecord) -> CrashPoint | None:
    if record.recording is None:
        return None
    return evidence.load(folder / evidence.STATE, CrashPoint, digest=record.digests.get(evidence.STATE))
