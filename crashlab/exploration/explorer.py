"""What would have been lost, had the power been cut at this point of a recording?

A crash state is made real in a worker's directory, recovered by a real server, read and judged with the ledger as it
stood at that point: a transaction counts as acknowledged only if its ack was noted by then, and cannot exist if its
intent came later.

Source: design.md "From state to verdict, fast".
"""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from crashlab import evidence
from crashlab.disk.contract import DiskContract, disk_contract
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.states import everything, losses, nothing_extra
from crashlab.disk.tornpages import torn_pages
from crashlab.errors import RecordingError, UsageProblem
from crashlab.exploration.addresses import Address, PointStates, laps
from crashlab.exploration.conditions import Conditions, conditions_of
from crashlab.exploration.intest import ask, reading_in_test, told_until
from crashlab.exploration.record import refuse_full_disk
from crashlab.exploration.recording import Recording
from crashlab.exploration.walcut import RecordedWal
from crashlab.exploration.walk import Walk
from crashlab.exploration.worker import Worker
from crashlab.history import ACKED, History
from crashlab.ledgercursor import LedgerCursor
from crashlab.model import Injection, Observation, Recovery, Survivors, Told, TornPage
from crashlab.profile import PowerLoss, Profile
from crashlab.recovery import Reading, observe, recover
from crashlab.recovery.afterlife import is_sound, live_on
from crashlab.recovery.restart import copy_settings
from crashlab.recovery.wal import directory, stopped_cleanly
from crashlab.results import Keep, TrialResult
from crashlab.server import SERVER_KINDS, ServerChoice, ServerSpec, owned
from crashlab.server.base import Version, require_same_major
from crashlab.server.builds import find_build
from crashlab.server.choose import choice_again
from crashlab.server.kinds import DEFAULT_IMAGE
from crashlab.trial.clock import Clock
from crashlab.trial.judged import result_of
from crashlab.trial.limit import TrialLimit
from crashlab.trial.setup import connect_plain, reading_of
from crashlab.trial.written import trial_record, write_evidence

if TYPE_CHECKING:
    import psycopg


class Explorer:
    """Recovers the crash states of one recording and judges them. Use it as a context manager, in one process."""

    def __init__(
        self,
        recording: Recording,
        profile: Profile,
        *,
        server: ServerChoice | None = None,
        run_seed: int | None = None,
        contract: DiskContract | None = None,
        timeout_s: float | None = None,
        keep: Keep = "none",
    ) -> None:
        """Prepare a worker's directory and server.

        Args:
            profile: its table power_loss says how the recording is cut off.
            server: which one recovers; None: one of this machine's own that is like the recorded one.
            keep: which states' data directories stay, as they are after recovery.
            run_seed: the one that the states are drawn with; None: that of the recording's own run.
            contract: the disk, as evidence has it; None: as profile and seed say.
            timeout_s: for the recovery and the reading of one state.

        Raises:
            RecordingError: the recording is damaged.
            ServerError: this machine has no such server.
        """
        self.recording = recording
        self._keep = keep
        self.profile = profile
        self.run_seed = recording.record.run_seed if run_seed is None else run_seed
        self._timeout_s = timeout_s
        self._log_position = 0  # where the server's log stood before the state that is looked at
        self._told: Told | None = None  # of a test: what had been told by then, and what was found of it
        self._in_recovery = recording.record.ledger_io is not None  # its base image is a crash state
        # Of several recordings of one run each has its own states
        self.seed = recording.record.seed if self._in_recovery else self.run_seed
        conditions = conditions_of(recording, self.power_loss, self.seed)
        self.conditions = conditions if contract is None else dataclasses.replace(conditions, contract=contract)
        self.walk = Walk(recording, self.conditions.contract, operations=self.conditions.survey.end)
        self._ledger = LedgerCursor(recording.ledger)
        self._states: PointStates | None = None
        try:
            self._worker = _worker_for(recording, self.walk, server or ServerChoice())
        except BaseException:
            self.walk.close()
            raise
        self._wal = RecordedWal(recording, self._worker.images, self.walk.log)

    @property
    def power_loss(self) -> PowerLoss:
        """How the recording is cut off."""
        assert self.profile.power_loss is not None
        return self.profile.power_loss

    def state(self, address: Address) -> CrashState | None:
        """Return the crash state that an address means; None: its point has fewer states.

        Raises:
            RecordingError: the recording has no such point.
        """
        model = self.walk.to(address.position)
        if self._states is None or self._states.position != address.position:
            self._states = PointStates(model, self.seed, self.conditions.aim)
        state = self._states.get(address.number)
        return None if state is None else _told(model, state, self.conditions)

    def states(self) -> Iterator[tuple[Address, CrashState]]:
        """Yield crash states in the order in which a campaign tries them, until no point has another one."""
        for lap in laps(self.conditions.points, self.seed, self.conditions.states_per_point):
            found = False
            for address in lap:
                state = self.state(address)
                if state is not None:
                    found = True
                    yield address, state
            if not found:
                return

    def try_state(self, state: CrashState, trial: int, folder: Path) -> TrialResult:
        """Make a crash state real, recover it, read it, save what was found into an empty folder, judge it."""
        clock = Clock()
        with clock.phase("materialise"):
            model = self.make_real(state)
        with clock.phase("read ledger"):
            history = self._ledger.history(self.ledger_io())
        with clock.phase("wal"):
            clean = stopped_cleanly(directory(self._worker.images.data_directory))
            whole = clean and state.fingerprint == everything(model).fingerprint
            wal, wal_at_cut = self._wal.look(model, state, history)
        self._told = told_until(self.recording, self.ledger_io())
        observation, timed_out = self._look_in_time(history, clock, lives_on=self._lives_on(state))
        if self._told is not None:
            observation = msgspec.structs.replace(observation, marker=None)  # nobody writes there
        if not observation.recovery.started and wal_at_cut is None:  # then it is asked where the log was, too
            wal_at_cut = self._wal.at_cut(model, history)
        observation = msgspec.structs.replace(
            observation,
            wal=wal,
            wal_at_cut=wal_at_cut,
            torn_pages=self._torn_pages(model, state),
            invariants_before=self.recording.record.invariants_before,
            broken_before=self.recording.record.broken_before,
            first_survivors=self.recording.record.first_survivors,
        )
        receipt = self._receipt(state, history, clean=clean, whole=whole)
        record = self._record(receipt, trial, folder, clock.seconds(), timed_out)
        log = self._worker.server.log_since(self._log_position)
        place = self._worker.images.data_directory
        write_evidence(folder, record, observation, server_log=log, place=place, state=state, told=self._told)
        if self._keep == "all":  # a replay makes any other state again
            self._worker.keep_data(folder / evidence.DATA)
        return result_of(folder, history=history)

    def _lives_on(self, state: CrashState) -> bool:
        """Whether this state is one that gets an afterlife: the same whoever tries it, and however often."""
        return state.fingerprint % 1000 < self.profile.afterlife_share * 1000

    def _look_in_time(self, history: History, clock: Clock, *, lives_on: bool) -> tuple[Observation, str | None]:
        """Recover and read; return what was found, and the phase in which the time was up, if it was."""
        with TrialLimit(self._timeout_s, self._worker.kill) as limit:
            limit.phase = "while a crash state was recovered and read"
            try:
                return self._recover_and_look(history, clock, lives_on=lives_on), limit.reached
            except Exception:  # whatever a killed server leads to
                if limit.reached is None:
                    raise
        return Observation(recovery=Recovery(started=False, ran=False, seconds=0.0)), limit.reached

    def _torn_pages(self, model: DiskModel, state: CrashState) -> list[TornPage]:
        """Return the pages that nothing in the log makes whole again."""
        if self.recording.record.server.settings.get("full_page_writes") != "off":
            return []
        return torn_pages(model, state, self._worker.images.contents.base_bytes, self.walk.log.read)

    def survivors(self, state: CrashState) -> Survivors | None:
        """Recover a crash state and return who is there; None: that could not be read."""
        self.make_real(state)
        observation = self._recover_and_look(self._ledger.history(self.ledger_io()), Clock())
        run = observation.checks.get("prepared")
        if observation.marker is None or run is None or run.status != "ran":
            return None
        transactions = sorted(row.tx for row in observation.marker.rows)
        return Survivors(transactions=transactions, prepared=observation.prepared)

    def _recover_and_look(
        self, history: History, clock: Clock, *, everything_is_new: bool = False, lives_on: bool = False
    ) -> Observation:
        """Recover what was materialised, read it, use it if asked for, and kill the server."""
        worker = self._worker
        try:
            position = self._log_position = worker.server.log_position()
            settings = copy_settings(worker.server.version.major)
            recovery = recover(worker.server, restart=True, log_position=position, overrides=settings)
            clock.note("recovery", recovery.seconds)
            # The checkpoint at the end of a recovery makes the control file say "shut down" for a moment
            reading = dataclasses.replace(self._reading(history), statistics=not self._in_recovery)
            comparable = recovery.started and not everything_is_new and not self._in_recovery
            known = worker.unchanged() if comparable else frozenset()
            with clock.phase("observe"):
                observation = observe(
                    self._connect,
                    reading,
                    recovery,
                    unchanged=known,
                    connect_plain=connect_plain(self.profile, worker.server),
                )
            if self._told is not None and recovery.started:
                self._told = ask(self._connect, self._told)
            elif lives_on and is_sound(observation):  # an application's own tables are left as they are
                with clock.phase("afterlife"):
                    afterlife = live_on(worker.server, reading, overrides=settings)
                observation = msgspec.structs.replace(observation, afterlife=afterlife)
            return observation
        finally:
            worker.kill()

    def _connect(self, database: str) -> "psycopg.Connection[Any]":
        return self._worker.server.connect(autocommit=True, dbname=database)

    def _reading(self, history: History) -> Reading:
        in_test = self.recording.record.in_test
        if in_test is not None:
            return reading_in_test(in_test, history)
        return reading_of(self.profile, history, self.recording.record.tables)

    def make_real(self, state: CrashState) -> DiskModel:
        """Make the worker's folder hold a crash state; return the model, which stands at the state's point."""
        model = self.walk.to(state.position)
        self._worker.materialise(model, state)
        return model

    @property
    def worker(self) -> Worker:
        """The folder that holds the state that was made real last, and the server on it."""
        return self._worker

    def ledger_io(self) -> int:
        """Return up to which length of the first I/O log the ledger counts, where the walk stands."""
        first_crash = self.recording.record.ledger_io
        return self.walk.io_bytes if first_crash is None else first_crash

    def check_base(self) -> None:
        """Read all of the base image once: states are spared the look at what is still as it was there.

        Raises:
            RecordingError: the base image itself does not start, or cannot be read without a complaint.
        """
        model = DiskModel(self.recording.base.files, disk_contract())
        self._worker.materialise(model, nothing_extra(model))
        observation = self._recover_and_look(History(), Clock(), everything_is_new=True)
        # What was so while the run was recorded is told with each state
        known = {(one.check, one.object) for one in self.recording.record.broken_before.complaints}
        complaints = [one.message for one in observation.complaints if (one.check, one.object) not in known]
        problems = [*observation.recovery.fatal, *complaints]
        if not observation.recovery.started or observation.died or problems:
            log, place = self._worker.server.log_since(self._log_position), self._worker.images.data_directory
            refuse_full_disk(f'could not explore the recording "{self.recording.folder}"', log, place, None)
            raise RecordingError(
                f'cannot explore the recording "{self.recording.folder}": its base image is damaged',
                detail="; ".join(problems[:3]) or observation.died or observation.recovery.tool_fault,
            )

    def _receipt(self, state: CrashState, history: History, *, clean: bool, whole: bool) -> Injection:
        record, disk = self.recording.record, self.power_loss.disk
        return Injection(
            kind="power cut" if disk != "process" else "kill",
            target=f"{disk} disk",
            pid=None,
            pids=[],
            confirmed=not record.differences,
            proof=[
                f"operation {state.position} of the recording, {self.walk.io_bytes} bytes into its log",
                f"state: {state.note}",
                *(["the recording is that of a recovery: the power had failed before"] if self._in_recovery else []),
                *(["its control file says that the server had been stopped: no recovery is due"] if clean else []),
                "; ".join(record.differences) or "the recording passed its self-check",
            ],
            crashes_server=not clean,
            bounds_window=False,  # no clock runs between two operations
            acked_before=sum(state == ACKED for state in history.state),
            ledger_position=history.lines,
            at_ns=max(history.end_ns),
            disk=disk,
            # A power cut that took something asks whether the stop had flushed it, and one in a recovery was a crash
            nothing_due=whole and not self._in_recovery,
        )

    def _record(
        self, receipt: Injection, trial: int, folder: Path, seconds: dict[str, float], timed_out: str | None
    ) -> evidence.TrialRecord:
        record = self.recording.record
        return trial_record(
            self.profile,
            "recorded",
            trial=trial,
            seed=record.seed,
            run_seed=self.run_seed,
            server=record.server,
            injections=[receipt],
            seconds=seconds,
            recording=os.path.relpath(self.recording.folder.resolve(), folder.resolve()),
            crash_io=self.ledger_io(),
            disk_contract=self.conditions.contract,
            acked_min=None if record.in_test is None else 0,  # the test asks that of all its states together
            workload_errors=record.workload_errors,
            timed_out=timed_out,
            recovered_with=self._recovered_with(),
            drawn=record.drawn,
            held=record.held,
        )

    def _recovered_with(self) -> evidence.RecoveredWith | None:
        server = self._worker.server
        if server.version.text == Version.parse(self.recording.record.server.version).text:
            return None
        return evidence.RecoveredWith(version=server.version.text, source=server.source)

    def dispose(self) -> None:
        """Remove the worker and everything it made."""
        self._worker.dispose()
        self.walk.close()

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


def _worker_for(recording: Recording, walk: Walk, wanted: ServerChoice) -> Worker:
    """Make a folder for the states, and a server of the kind that was recorded."""
    facts = recording.record.server
    settings = dict(facts.requested)
    choice = choice_again(wanted, facts.kind, facts.source, Version.parse(facts.version))
    if choice.kind != facts.kind:
        raise UsageProblem(
            f'cannot recover the recording "{recording.folder}" with a {choice.kind} server',
            detail=f"A {facts.kind} server was recorded, and its files are for such a one.",
        )
    recorded = Version.parse(facts.version)
    build = find_build(choice.pg_bindir) if facts.kind == "local" else None
    if build is not None:
        require_same_major(recorded, build.version, str(build.bindir))
    folder = owned.make_folder(prefix="crashlab-states-")
    folder.chmod(0o755)
    if facts.kind == "container":
        image = choice.image or DEFAULT_IMAGE
        spec = ServerSpec(kind="container", image=image, settings=settings)
        roots = [PurePath(root) for root in recording.record.roots]
        worker = Worker.container(recording.base, walk.log, folder, spec, roots)
        try:
            require_same_major(recorded, worker.server.version, image)
        except UsageProblem:
            worker.dispose()
            raise
        return worker
    if build is None:
        raise SERVER_KINDS[facts.kind].missing()
    return Worker.local(recording.base, walk.log, folder, build, ServerSpec(kind="local", settings=settings))


def _told(model: DiskModel, state: CrashState, conditions: Conditions) -> CrashState:
    note = f"{state.note}; {losses(model, state)}"
    left_out = conditions.left_out
    if left_out is not None:
        note += f"; the flush of {left_out.path} that began at operation {left_out.position} was left out"
    return msgspec.structs.replace(state, note=note)
