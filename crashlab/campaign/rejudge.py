"""What does the oracle of today say about the evidence of then? No server is needed.

Judging a whole run again gives its JSON report again, byte for byte, as long as the oracle is the same.

Choices: evidence that is damaged takes only its own trial with it, and a run's own file only what it alone knows.
    A verdict that cannot be kept, as the file system is full or read-only, is told all the same.
"""

import errno
from pathlib import Path

import crashlab
from crashlab import evidence, files
from crashlab.campaign.runrecord import load_run, trials_then, unfinished
from crashlab.errors import CrashlabError, EvidenceError, LedgerError, Warn
from crashlab.model import Verdict
from crashlab.results import ProfileFacts, ProfileResult, RunResult, TrialResult, trial_order
from crashlab.trial.judged import (
    folders_below,
    ledger_of,
    link_problem,
    not_followed,
    result_of,
    trial_folders,
    verdict_of,
)

_UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)


def insist(problem: CrashlabError) -> None:
    """Be the Warn of a caller who has nobody to tell: do without nothing. Raises the problem."""
    raise problem


class _Judge:
    """Judges trial after trial, and says once that the verdicts cannot be kept."""

    def __init__(self, path: Path, warn: Warn, out: Path | None = None) -> None:
        self._path = path
        self._warn = warn
        self._warned = False
        self._out = out  # where verdicts go; None: beside their trials

    def result_of(self, trial: Path) -> TrialResult:
        """Judge a trial anew. Raises EvidenceError, LedgerError: as `verdict_of`."""
        verdict = verdict_of(trial)
        try:
            evidence.save(self._place_of(trial), evidence.VERDICT, verdict)
        except EvidenceError as error:
            why = _unwritable(error)
            if why is None:
                raise
            if not self._warned:
                self._warned = True
                self._warn(_not_kept(self._path, why))
        return result_of(trial, verdict=verdict)

    def _place_of(self, trial: Path) -> Path:
        if self._out is None:
            return trial
        place = self._out / (trial.relative_to(self._path) if trial != self._path else trial.resolve().name)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvidenceError(f'could not create "{place}": {error.strerror}') from error
        return place


def _unwritable(error: EvidenceError) -> str | None:
    """Say why nothing can be written where an error met it: full, read-only, no permission; None: something else."""
    cause = error.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.errno in _UNWRITABLE else None


def _not_kept(path: Path, why: str) -> EvidenceError:
    return EvidenceError(
        f'could not keep the verdicts in "{path}": {why}',
        detail="What is told is judged from the evidence all the same; what is stored is of an earlier time.",
    )


def add_missed(result: ProfileResult, folder: Path) -> None:
    """Add the trials of a profile whose evidence was complete when the run was cut short before it counted them."""
    known = {trial.folder for trial in result.trials}
    missed = [one for one in folders_below(folder) if one not in known]
    result.trials = sorted([*result.trials, *map(result_of, missed)], key=lambda trial: trial.trial)
    if missed:
        result.server = result.trials[-1].server


def judge_run(path: Path, *, warn: Warn = insist, out: Path | None = None) -> RunResult:
    """Judge all evidence at or below a path again; a whole run is told as it was.

    Args:
        out: the verdicts go below this folder, and nothing is written to the evidence; None: beside their trials.
        warn: by default a problem that could be done without is raised.

    Raises:
        EvidenceError: there is none.
        EvidenceError, LedgerError: none of it can be judged; otherwise `damaged` holds the trials that cannot.
    """
    folders = trial_folders(path)
    told = _told_of(path, warn)
    run = told or RunResult(profiles=[])
    stored = {result.profile.name: result for result in run.profiles}
    others: dict[tuple[str, int], ProfileResult] = {}
    judge = _Judge(path, warn, out)
    for folder in folders:
        try:
            record = evidence.load_trial(folder)
            trial = judge.result_of(folder)
        except (EvidenceError, LedgerError) as error:
            run.damaged.append(error)
            continue
        result = stored.get(record.profile) or others.get((record.profile, record.run_seed))
        if result is None:
            result = others[record.profile, record.run_seed] = _profile_of(record)
        result.trials.append(trial)
    if len(run.damaged) == len(folders):
        raise run.damaged[0]
    run.damaged += map(link_problem, not_followed(path))
    run.profiles += others.values()
    for result in run.profiles:
        result.trials.sort(key=lambda trial: trial.trial)
    if told is not None:
        run.unfinished = unfinished(path, run)
    return run


def _told_of(folder: Path, warn: Warn) -> RunResult | None:
    """Return what a run says of itself, if its folder is given; a warning, if that cannot be read."""
    try:
        return load_run(folder)
    except EvidenceError as error:
        detail = (
            "Not known: what was asked for, in which order, and whether the run came to its end. "
            "Its trials are judged all the same."
        )
        warn(EvidenceError(error.primary, detail=detail, hint=error.hint))
        return None


def _profile_of(record: evidence.TrialRecord) -> ProfileResult:
    return ProfileResult(
        profile=ProfileFacts.stored(record.profile_resolved, name=record.profile),
        seed=record.run_seed,
        server=record.server,
        crash_class=record.crash_class,
    )


def done_so_far(folder: Path, *, any_release: bool = False, warn: Warn = insist) -> dict[str, ProfileResult]:
    """Return what a run has done by now, by profile, to go on from there.

    Choices: verdicts that this release made are taken as they are; of 2,000 trials to judge each again takes a while.

    Args:
        any_release: take every verdict that can be read; then nothing is written where each trial has one.
        warn: as of `judge_run`.

    Raises:
        EvidenceError, LedgerError: some of the evidence is damaged.
    """
    run = _told_of(folder, warn)
    found = {result.profile.name: result for result in run.profiles} if run is not None else {}
    judge = _Judge(folder, warn)
    for trial in sorted(folders_below(folder), key=trial_order):
        if not any_release and not files.is_file(trial / evidence.TRIAL):
            continue  # half of one: it is made again
        record = evidence.load_trial(trial)
        if not any_release:
            _require_files(trial, record)
        if record.profile not in found:
            found[record.profile] = _profile_of(record)
        known = any_release or record.crashlab == crashlab.__version__
        verdict = _stored_verdict(trial) if known else None
        result = judge.result_of(trial) if verdict is None else result_of(trial, verdict=verdict)
        found[record.profile].trials.append(result)
    for name, then in (trials_then(folder) if run is not None else {}).items():
        if name in found and len(found[name].trials) < then:  # evidence has been removed since
            found[name].complete = False
    return found


def _require_files(trial: Path, record: evidence.TrialRecord) -> None:
    """Raise EvidenceError: a file is gone that the trial's verdict was made from, whatever the verdict says."""
    for path in (trial / evidence.OBSERVATION, ledger_of(trial, record)):
        if not files.is_file(path):
            raise EvidenceError(
                f'could not read evidence "{path}": there is no such file',
                hint=evidence.again_hint(trial) if path.parent == trial else None,
            )


def _stored_verdict(trial: Path) -> Verdict | None:
    try:
        return evidence.load_verdict(trial)
    except EvidenceError:  # missing, or not as one is today: it can be made again
        return None


def stored_results(folder: Path, *, warn: Warn = insist) -> dict[str, ProfileResult]:
    """Return what a stored run said of its trials, by profile; only one without a verdict is judged.

    Args:
        warn: as of `judge_run`.

    Raises:
        EvidenceError: there is no evidence of a trial, or some of it is damaged.
    """
    trial_folders(folder)  # complains if there is none
    return done_so_far(folder, any_release=True, warn=warn)


def stored_run(folder: Path, *, warn: Warn = insist) -> RunResult:
    """Return a stored run as it was told, with the verdicts that lie beside its trials. Raises as `stored_results`."""
    found = stored_results(folder, warn=warn)
    told = _told_of(folder, warn)
    run = told or RunResult(profiles=[])
    run.profiles = list(found.values())
    if told is not None:
        run.unfinished = unfinished(folder, run)
    return run


def judge_folder(path: Path) -> list[ProfileResult]:
    """Return the profiles of `judge_run`, all of whose trials could be judged. Raises as that, or for the first."""
    run = judge_run(path)
    if run.damaged:
        raise run.damaged[0]
    return run.profiles
