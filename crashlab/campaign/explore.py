"""What would have been lost, had the power been cut at this point of a recording?

One pass over the log carries the disk model along. At each crash point states are drawn, each is made real in a
worker's directory, recovered by a real server, read and judged with the ledger as it stood at that point: a
transaction counts as acknowledged only if its ack was noted by then, and cannot exist if its intent came later.
States that are equal in content are judged once.

Source: design.md "From state to verdict, fast".
"""

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import crashlab
from crashlab import evidence
from crashlab.campaign import points
from crashlab.campaign.recording import Recording
from crashlab.campaign.rejudge import judge_trial, result_of
from crashlab.campaign.results import TrialResult, make_trial_folder
from crashlab.campaign.trial import reading_of
from crashlab.ledger import ACKED, History, read_ledger
from crashlab.model import Injection
from crashlab.profile import PowerLoss, Profile
from crashlab.recording.decoder import Decoder
from crashlab.recording.diskcontract import DiskContract, disk_contract
from crashlab.recording.diskmodel import CrashState, DiskModel
from crashlab.recording.fileclass import FileClass
from crashlab.recording.logbytes import LogBytes
from crashlab.recording.states import draw_state, enumerate_states, everything
from crashlab.recording.worker import Worker
from crashlab.recovery import observe, recover
from crashlab.recovery.restart import SAFE_SETTINGS, SMALL_SETTINGS
from crashlab.seeds import stream
from crashlab.server import ServerSpec
from crashlab.server.builds import find_build


@dataclass(frozen=True)
class Candidate:
    """One crash state, with the number of the trial that it becomes."""

    trial: int
    state: CrashState
    io_bytes: int  # length of the log at the crash point


def contract_of_disk(power_loss: PowerLoss, survey: points.Survey, seed: int) -> DiskContract:
    """Return the disk contract that a profile asks for; a lying disk begins to lie at a seeded moment."""
    lies_from = None
    if power_loss.disk == "lying":
        lies_from = stream(seed, "lying disk").randint(survey.first, survey.end)
    return disk_contract(
        power_loss.disk,
        tear_bytes=power_loss.tear_bytes,
        ordered_journal=power_loss.ordered_journal,
        flushes_ignored_from=lies_from,
        flushes_ignored_for=frozenset(FileClass(name) for name in power_loss.swallow),
    )


def candidates(
    recording: Recording, profile: Profile, log: LogBytes, *, seed: int, trials: int
) -> Iterator[tuple[DiskModel, Candidate]]:
    """Yield the crash states to try, in the order of the log; the model stands at the state's position.

    The first state of a point is the one in which nothing extra survived, the others are drawn. Fewer than `trials`
    come if the recording has no more different states to offer.
    """
    power_loss = profile.power_loss
    assert power_loss is not None
    found = points.survey(Decoder(recording.log, recording.base.files), recording.record.first_bytes)
    model = DiskModel(recording.base.files, contract_of_disk(power_loss, found, seed))
    per_point = 1 if power_loss.disk == "process" else power_loss.states_per_point
    wanted = points.choose_points(found, power_loss.points, -(-trials // per_point), stream(seed, "points"))
    if wanted:
        per_point = -(-trials // len(wanted))
    aim = frozenset(FileClass(name) for name in power_loss.aim) or None
    rng = stream(seed, "states")
    seen: set[int] = set()
    trial = io_bytes = 0
    for operation in chain(Decoder(recording.log, recording.base.files), (None,)):
        if wanted and wanted[0] == model.position:
            del wanted[0]
            for state in _states_here(model, per_point, rng, aim, seen):
                if trial == trials:
                    return
                yield model, Candidate(trial, state, io_bytes)
                trial += 1
        if operation is not None:
            model.apply(operation)
            log.note(operation)
            io_bytes = operation.log_end


def _states_here(
    model: DiskModel, count: int, rng: Random, aim: frozenset[FileClass] | None, seen: set[int]
) -> Iterator[CrashState]:
    """Yield up to `count` states of this point that are equal to none before."""
    if model.contract.everything_survives:
        yield everything(model)
        return
    draws = (draw_state(model, rng, aim) for _ in range(2 * count))
    first = islice(enumerate_states(model, 1, aim), 1)
    yield from islice(_unseen(chain(first, draws), seen), count)


def _unseen(states: Iterator[CrashState], seen: set[int]) -> Iterator[CrashState]:
    for state in states:
        if state.fingerprint not in seen:
            seen.add(state.fingerprint)
            yield state


class Explorer:
    """A worker that recovers the crash states of one recording and judges them. Use it as a context manager."""

    def __init__(self, recording: Recording, profile: Profile, out: Path) -> None:
        """Prepare a worker; `out` takes one folder a trial."""
        assert profile.power_loss is not None
        self.recording = recording
        self.profile = profile
        self.out = out
        self.log = LogBytes(recording.log)
        facts = recording.record.server
        build = find_build(Path(facts.source))
        assert build is not None
        spec = ServerSpec(kind="local", settings=dict(facts.requested))
        folder = Path(tempfile.mkdtemp(prefix="crashlab-states-"))
        folder.chmod(0o755)
        self._worker = Worker(recording.base, self.log, folder, build, spec)

    def try_state(self, model: DiskModel, candidate: Candidate) -> TrialResult:
        """Make a crash state real, recover it, read it, save what was found, judge it."""
        begun = time.monotonic()
        seconds: dict[str, float] = {}
        folder = make_trial_folder(self.out, candidate.trial)
        worker = self._worker
        worker.materialise(model, candidate.state)
        seconds["materialise"] = round(time.monotonic() - begun, 4)
        history = read_ledger(self.recording.ledger, until_io=candidate.io_bytes)
        try:
            position = worker.server.log_position()
            recovery = recover(worker.server, restart=True, log_position=position, overrides=self._overrides())
            seconds["recovery"] = recovery.seconds
            looking = time.monotonic()
            reading = reading_of(self.profile, history)
            unchanged = worker.unchanged() if recovery.started else frozenset()
            observation = observe(
                lambda: worker.server.connect(autocommit=True), reading, recovery, unchanged=unchanged
            )
            seconds["observe"] = round(time.monotonic() - looking, 4)
        finally:
            worker.kill()
        evidence.save(folder, evidence.STATE, candidate.state)
        evidence.save(folder, evidence.OBSERVATION, observation)
        seconds["total"] = round(time.monotonic() - begun, 4)
        evidence.save(folder, evidence.TRIAL, self._record(candidate, folder, seconds, history))
        return result_of(folder, verdict=judge_trial(folder))

    def _overrides(self) -> dict[str, str]:
        return (
            SAFE_SETTINGS | SMALL_SETTINGS | ({"io_method": "sync"} if self._worker.server.version.major >= 18 else {})
        )

    def _record(
        self, candidate: Candidate, folder: Path, seconds: dict[str, float], history: History
    ) -> evidence.TrialRecord:
        record = self.recording.record
        power_loss = self.profile.power_loss
        assert power_loss is not None
        receipt = Injection(
            kind="power cut" if power_loss.disk != "process" else "kill",
            target=f"{power_loss.disk} disk",
            pid=None,
            pids=[],
            confirmed=not record.differences,
            proof=[
                f"operation {candidate.state.position} of the recording, {candidate.io_bytes} bytes into its log",
                f"state: {candidate.state.note}",
                "; ".join(record.differences) or "the recording passed its self-check",
            ],
            crashes_server=True,
            bounds_window=False,  # no clock runs between two operations
            acked_before=sum(state == ACKED for state in history.state),
            ledger_position=history.lines,
            at_ns=max(history.end_ns),
        )
        return evidence.TrialRecord(
            crashlab=crashlab.__version__,
            profile=self.profile.name,
            profile_resolved=self.profile.model_dump(mode="json", by_alias=True),
            trial=candidate.trial,
            seed=record.seed,
            run_seed=record.run_seed,
            crash_class=self.profile.crash_class,
            server=record.server,
            acked_min=self.profile.workload.acked_min,
            injections=[receipt],
            seconds=seconds,
            recording=os.path.relpath(self.recording.folder, folder),
            crash_io=candidate.io_bytes,
            workload_errors=record.workload_errors,
            reproduce=f"crashlab replay {folder}",
        )

    def dispose(self) -> None:
        """Remove the worker and everything it made."""
        self._worker.dispose()
        self.log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dispose()
