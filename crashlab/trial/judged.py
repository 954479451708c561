"""What does the oracle say about one stored trial? No server is needed, and nothing but the trial's folder is read.

Every trial is judged from its evidence, also the one that has just been run: so judging it again says the same.
Choices: a stored verdict is never read, only replaced, so that one with codes that are unknown today is no obstacle.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from crashlab import evidence
from crashlab.contract import contract_for
from crashlab.errors import EvidenceError, LedgerError
from crashlab.history import History, read_ledger
from crashlab.model import Contract, Verdict
from crashlab.oracle import judge
from crashlab.results import CrashPoint, TrialResult, trial_order

_RECORDING, _BASE = "recording.json", "base"
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
    """Return where a trial's ledger is: beside it, or with the recording that it is a state of."""
    return folder / (record.recording or "") / evidence.LEDGER


def judge_trial(folder: Path, *, history: History | None = None) -> Verdict:
    """Judge one trial's evidence and store the verdict beside it.

    Args:
        history: what its ledger says, if it has been read already.

    Raises:
        EvidenceError, LedgerError: the evidence is missing or damaged; the message names the file. Or the verdict
            cannot be written.
    """
    verdict = verdict_of(folder, history=history)
    evidence.save(folder, evidence.VERDICT, verdict)
    return verdict


def verdict_of(folder: Path, *, history: History | None = None) -> Verdict:
    """Judge one trial's evidence and write nothing; arguments and errors as of `judge_trial`."""
    record = evidence.load_trial(folder)
    if history is None:
        history = _read_ledger(folder, record)
    return judge(
        history,
        contract_of(record),
        record.injections,
        evidence.load_observation(folder),
        acked_min=record.acked_min,
        workload_errors=record.workload_errors,
        timed_out=record.timed_out,
        in_test=record.kind == "application",
    )


def _read_ledger(folder: Path, record: evidence.TrialRecord) -> History:
    try:
        return read_ledger(ledger_of(folder, record), until_io=None if record.recording is None else record.crash_io)
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
        raise EvidenceError(
            f'no evidence of a trial in "{path}"',
            hint="Give the folder of one trial, of a profile, or of a whole run (--out; .crashlab/latest by default).",
        )
    return found


def folders_below(path: Path) -> Iterator[Path]:
    """Yield the folders of trials, without a look into their data directories or into base images."""
    for folder, below, files in os.walk(path):
        if evidence.TRIAL in files:
            yield Path(folder)
            below.clear()
        if _RECORDING in files:
            below[:] = [name for name in below if name != _BASE]


def result_of(folder: Path, *, verdict: Verdict | None = None) -> TrialResult:
    """Return a trial's result from its evidence alone, so that a stored one reads like a fresh one.

    Args:
        verdict: the judgement, if it has just been made; otherwise the evidence is judged.
    """
    record = evidence.load_trial(folder)
    data = folder / evidence.DATA
    return TrialResult(
        trial=record.trial,
        seed=record.seed,
        verdict=verdict or judge_trial(folder),
        injections=record.injections,
        seconds=record.seconds,
        folder=folder,
        kept_data=data if data.exists() else None,
        again=record.reproduce,
        server=record.server,
        state=evidence.load(folder / evidence.STATE, CrashPoint) if record.recording is not None else None,
        contract=contract_of(record),
    )
