"""What would have been lost, had the power been cut at this point of a recording?

One pass over the log carries the disk model along. At each crash point states are drawn, each is made real in a
worker's directory, recovered by a real server, read and judged with the ledger as it stood at that point: a
transaction counts as acknowledged only if its ack was noted by then, and cannot exist if its intent came later.
States that are equal in content are judged once.

Source: design.md "From state to verdict, fast".
"""

import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePath
from random import Random
from types import TracebackType
from typing import Self

import msgspec

import crashlab
from crashlab import evidence
from crashlab.disk.contract import DiskContract, disk_contract
from crashlab.disk.fileclass import FileClass
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.states import draw_state, enumerate_states, everything, losses, nothing_extra
from crashlab.disk.tornpages import torn_pages
from crashlab.errors import RecordingError
from crashlab.exploration import points
from crashlab.exploration.recording import Recording
from crashlab.exploration.walcut import RecordedWal
from crashlab.exploration.worker import Worker
from crashlab.history import ACKED, History, read_ledger
from crashlab.model import Injection, Observation, Survivors, TornPage
from crashlab.profile import PowerLoss, Profile
from crashlab.recording.decoder import Decoder
from crashlab.recording.logbytes import LogBytes
from crashlab.recovery import observe, recover
from crashlab.recovery.restart import copy_settings
from crashlab.recovery.wal import directory, stopped_cleanly
from crashlab.results import TrialResult, make_trial_folder
from crashlab.seeds import stream
from crashlab.server import ServerSpec, owned
from crashlab.server.builds import find_build
from crashlab.trial.judged import judge_trial, result_of
from crashlab.trial.setup import reading_of


@dataclass(frozen=True)
class Candidate:
    """One crash state, with the number of the trial that it becomes."""

    trial: int
    state: CrashState
    io_bytes: int  # length of the log at the crash point


@dataclass(frozen=True)
class Plan:
    """What is known of a recording before its states are drawn."""

    survey: points.Survey
    contract: DiskContract
    left_out: points.Flush | None  # the one flush that is swallowed, if the profile asks for that


def plan(recording: Recording, power_loss: PowerLoss, seed: int) -> Plan:
    """Return the disk contract that a profile asks for; when a lying disk begins to lie is seeded.

    Raises:
        RecordingError: the recording is damaged, or has no flush that could be swallowed.
    """
    first_bytes = recording.record.first_bytes
    survey = points.survey(Decoder(recording.log, recording.base.files), first_bytes)
    left_out, lies_from = None, None
    if power_loss.swallow_one:
        classes = {FileClass(name) for name in power_loss.swallow_one}
        flushes = points.flushes_of(Decoder(recording.log, recording.base.files), first_bytes, classes)
        if not flushes:
            names = ", ".join(power_loss.swallow_one)
            raise RecordingError(f'cannot swallow a flush of {names}: the recording "{recording.folder}" has none')
        left_out = stream(seed, "swallowed flush").choice(flushes)
    if power_loss.disk == "lying":
        # Early, so that most cuts come after it
        lies_from = stream(seed, "lying disk").randint(survey.first, (3 * survey.first + survey.end) // 4)
    contract = disk_contract(
        power_loss.disk,
        tear_bytes=power_loss.tear_bytes,
        ordered_journal=power_loss.ordered_journal,
        durable_symlinks=power_loss.durable_symlinks,
        flushes_ignored_from=lies_from,
        flushes_ignored_for=frozenset(FileClass(name) for name in power_loss.swallow),
        flush_left_out=left_out.position if left_out else None,
    )
    return Plan(survey, contract, left_out)


def candidates(
    recording: Recording, profile: Profile, log: LogBytes, *, seed: int, trials: int
) -> Iterator[tuple[DiskModel, Candidate]]:
    """Yield the crash states to try, in the order of the log; the model stands at the state's position.

    The first state of a point is the one in which nothing extra survived, the others are drawn. Fewer than `trials`
    come if the recording has no more different states to offer.
    """
    power_loss = profile.power_loss
    assert power_loss is not None
    planned = plan(recording, power_loss, seed)
    model = DiskModel(recording.base.files, planned.contract)
    per_point = 1 if power_loss.disk == "process" else power_loss.states_per_point
    count, rng = -(-trials // per_point), stream(seed, "points")
    wanted = points.choose_points(planned.survey, power_loss.points, count, rng, planned.left_out)
    aim = frozenset(FileClass(name) for name in power_loss.aim) or None
    rng = stream(seed, "states")
    seen: set[int] = set()
    trial = 0
    # The log's tail stands between records: whatever was noted up to first_bytes came before the first crash point
    io_bytes = recording.record.first_bytes
    for operation in chain(Decoder(recording.log, recording.base.files), (None,)):
        if wanted and wanted[0] == model.position:
            count = -(-(trials - trial) // len(wanted))
            del wanted[0]
            for state in _states_here(model, count, rng, aim, seen):
                if trial == trials:
                    return
                yield model, Candidate(trial, _told(model, state, planned.left_out), io_bytes)
                trial += 1
        if operation is not None:
            model.apply(operation)
            log.note(operation)
            io_bytes = max(io_bytes, operation.log_end)


def _told(model: DiskModel, state: CrashState, left_out: points.Flush | None) -> CrashState:
    note = f"{state.note}; {losses(model, state)}"
    if left_out is not None:
        note += f"; the flush of {left_out.path} that began at operation {left_out.position} was left out"
    return msgspec.structs.replace(state, note=note)


def rebuild(
    recording: Recording, profile: Profile, log: LogBytes, state: CrashState, *, seed: int
) -> tuple[DiskModel, int]:
    """Return the model as it stands at a state's position, and the length of the log there.

    Raises:
        RecordingError: the recording is shorter than the state's position.
    """
    assert profile.power_loss is not None
    model = DiskModel(recording.base.files, plan(recording, profile.power_loss, seed).contract)
    io_bytes = 0
    for operation in Decoder(recording.log, recording.base.files):
        if model.position == state.position:
            break
        model.apply(operation)
        log.note(operation)
        io_bytes = operation.log_end
    if model.position != state.position:
        raise RecordingError(
            f'the recording "{recording.folder}" has no operation {state.position}',
            detail=f"It ends at operation {model.position}.",
        )
    return model, max(io_bytes, recording.record.first_bytes)


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

    def __init__(self, recording: Recording, profile: Profile, out: Path, *, seed: int | None = None) -> None:
        """Prepare a worker.

        Args:
            out: takes one folder a trial.
            seed: the one that the states are drawn with; None: the recording's own.
        """
        assert profile.power_loss is not None
        self.recording = recording
        self.profile = profile
        self.out = out
        self.seed = recording.record.run_seed if seed is None else seed
        self._in_recovery = recording.record.ledger_io is not None  # its base image is a crash state
        self.log = LogBytes(recording.log)
        facts = recording.record.server
        settings = dict(facts.requested)
        folder = owned.make_folder(prefix="crashlab-states-")
        folder.chmod(0o755)
        if facts.kind == "container":
            spec = ServerSpec(kind="container", image=facts.source, settings=settings)
            roots = [PurePath(root) for root in recording.record.roots]
            self._worker = Worker.container(recording.base, self.log, folder, spec, roots)
        else:
            build = find_build(Path(facts.source))
            assert build is not None
            spec = ServerSpec(kind="local", settings=settings)
            self._worker = Worker.local(recording.base, self.log, folder, build, spec)
        self._wal = RecordedWal(recording, self._worker.images, self.log)

    def try_state(self, model: DiskModel, candidate: Candidate) -> TrialResult:
        """Make a crash state real, recover it, read it, save what was found, judge it."""
        begun = time.monotonic()
        seconds: dict[str, float] = {}
        folder = make_trial_folder(self.out, candidate.trial)
        worker = self._worker
        self.make_real(model, candidate)
        seconds["materialise"] = round(time.monotonic() - begun, 4)
        clean = stopped_cleanly(directory(worker.images.data_directory))
        history = read_ledger(self.recording.ledger, until_io=self.ledger_io(candidate))
        looking = time.monotonic()
        wal, wal_at_cut = self._wal.look(model, candidate.state, history)
        seconds["wal"] = round(time.monotonic() - looking, 4)
        observation = self._recover_and_look(history, seconds)
        evidence.save(folder, evidence.STATE, candidate.state)
        observation = msgspec.structs.replace(
            observation,
            wal=wal,
            wal_at_cut=wal_at_cut,
            torn_pages=self._torn_pages(model, candidate.state),
            invariants_before=self.recording.record.invariants_before,
            first_survivors=self.recording.record.first_survivors,
        )
        evidence.save(folder, evidence.OBSERVATION, observation)
        seconds["total"] = round(time.monotonic() - begun, 4)
        evidence.save(folder, evidence.TRIAL, self._record(candidate, folder, seconds, history, clean))
        return result_of(folder, verdict=judge_trial(folder))

    def _torn_pages(self, model: DiskModel, state: CrashState) -> list[TornPage]:
        """Return the pages that nothing in the log makes whole again."""
        if self.recording.record.server.settings.get("full_page_writes") != "off":
            return []
        return torn_pages(model, state, self._worker.images.base_bytes, self.log.read)

    def survivors(self, model: DiskModel, candidate: Candidate) -> Survivors | None:
        """Recover a crash state and return who is there; None: that could not be read."""
        self.make_real(model, candidate)
        observation = self._recover_and_look(read_ledger(self.recording.ledger, until_io=self.ledger_io(candidate)), {})
        run = observation.checks.get("prepared")
        if observation.marker is None or run is None or run.status != "ran":
            return None
        transactions = sorted(row.tx for row in observation.marker.rows)
        return Survivors(transactions=transactions, prepared=observation.prepared)

    def _recover_and_look(
        self, history: History, seconds: dict[str, float], *, everything_is_new: bool = False
    ) -> Observation:
        """Recover what was materialised, read it, and kill the server."""
        worker = self._worker
        try:
            position = worker.server.log_position()
            settings = copy_settings(worker.server.version.major)
            recovery = recover(worker.server, restart=True, log_position=position, overrides=settings)
            seconds["recovery"] = recovery.seconds
            looking = time.monotonic()
            # The checkpoint at the end of a recovery makes the control file say "shut down" for a moment
            reading = dataclasses.replace(
                reading_of(self.profile, history, self.recording.record.tables), statistics=not self._in_recovery
            )
            comparable = recovery.started and not everything_is_new and not self._in_recovery
            known = worker.unchanged() if comparable else frozenset()
            observation = observe(
                lambda name: worker.server.connect(autocommit=True, dbname=name), reading, recovery, unchanged=known
            )
            seconds["observe"] = round(time.monotonic() - looking, 4)
            return observation
        finally:
            worker.kill()

    def make_real(self, model: DiskModel, candidate: Candidate) -> Worker:
        """Make the worker's folder hold a crash state, and return the worker."""
        self._worker.materialise(model, candidate.state)
        return self._worker

    def ledger_io(self, candidate: Candidate) -> int:
        """Return up to which length of the first I/O log the ledger counts."""
        first_crash = self.recording.record.ledger_io
        return candidate.io_bytes if first_crash is None else first_crash

    def check_base(self) -> None:
        """Read all of the base image once: states are spared the look at what is still as it was there.

        Raises:
            RecordingError: the base image itself does not start, or cannot be read without a complaint.
        """
        model = DiskModel(self.recording.base.files, disk_contract())
        self._worker.materialise(model, nothing_extra(model))
        observation = self._recover_and_look(History(), {}, everything_is_new=True)
        problems = [*observation.recovery.fatal, *(complaint.message for complaint in observation.complaints)]
        if not observation.recovery.started or observation.died or problems:
            raise RecordingError(
                f'cannot explore the recording "{self.recording.folder}": its base image is damaged',
                detail="; ".join(problems[:3]) or observation.died or observation.recovery.tool_fault,
            )

    def _record(
        self, candidate: Candidate, folder: Path, seconds: dict[str, float], history: History, clean: bool
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
                *(["the recording is that of a recovery: the power had failed before"] if self._in_recovery else []),
                *(["its control file says that the server had been stopped: no recovery is due"] if clean else []),
                "; ".join(record.differences) or "the recording passed its self-check",
            ],
            crashes_server=not clean,
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
            run_seed=self.seed,
            crash_class=self.profile.crash_class,
            server=record.server,
            acked_min=self.profile.workload.acked_min,
            injections=[receipt],
            seconds=seconds,
            recording=os.path.relpath(self.recording.folder.resolve(), folder.resolve()),
            crash_io=self.ledger_io(candidate),
            workload_errors=record.workload_errors,
            reproduce=f"crashlab replay {folder}",
        )

    def dispose(self) -> None:
        """Remove the worker and everything it made."""
        self._worker.dispose()
        self.log.close()

    def __enter__(self) -> Self:
        try:
            if not self._in_recovery:
                self.check_base()
        except BaseException:
            self.dispose()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dispose()
