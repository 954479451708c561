"""How does one live trial go? Run a workload, crash the server, recover it, read it, save everything, judge it.

Assumes: the caller gave an empty folder. Everything the trial learns is in that folder before it is judged, and the
    judgement is made from there, by the same code as `crashlab judge`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import crashlab
from crashlab import evidence
from crashlab.errors import FaultError
from crashlab.fault import FAULTS, inject
from crashlab.fault.when import wait_until_due
from crashlab.history import read_ledger
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection, Observation, PromiseStatus, WalFacts
from crashlab.profile import Profile
from crashlab.recovery import observe, recover
from crashlab.recovery.checksums import add_checksums
from crashlab.recovery.wal import WAL_FILES, read_wal
from crashlab.results import TrialResult, replay_command
from crashlab.seeds import stream, trial_seed
from crashlab.server import Server, SpareDirectories, create_server
from crashlab.trial.judged import judge_trial, result_of
from crashlab.trial.setup import TrialPlan, invariants_before, make_workload, reading_of, server_facts, server_spec
from crashlab.workload.run import Workload

FAULT_TIMEOUT_S = 60.0
SESSIONS_END_TIMEOUT_S = 20.0

BeforeRecovery = Callable[[Server], None]


@dataclass
class _Clock:
    """Seconds spent in each phase, and since the trial began."""

    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def with_total(self) -> dict[str, float]:
        return {**self.seconds, "total": round(time.monotonic() - self.begun, 4)}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - begun, 4)


def run_trial(
    plan: TrialPlan,
    trial: int,
    folder: Path,
    *,
    spares: SpareDirectories | None = None,
    before_recovery: BeforeRecovery | None = None,
) -> TrialResult:
    """Run one trial and return its result; its evidence is in `folder`.

    Args:
        spares: used data directories of earlier trials, repaired instead of copied anew.
        before_recovery: called between crash and restart, to plant damage.

    Raises:
        CrashlabError: the environment does not allow it: no server, no such role, folder not writable.
    """
    clock = _Clock()
    with clock.phase("prepare"):
        server = create_server(server_spec(plan.profile, plan.server), spares=spares)
    keep = False
    try:
        with clock.phase("start"):
            server.start()
        _crash_and_observe(plan, trial, folder, server, clock, before_recovery)
        verdict = judge_trial(folder)
        keep = plan.keep == "all" or (plan.keep == "failed" and verdict.promise is PromiseStatus.BROKEN)
    finally:
        try:
            evidence.save_text(folder, evidence.SERVER_LOG, server.log_since(0))
        finally:
            server.dispose(keep_data_to=folder / evidence.DATA if keep and server.data_directory else None)
    return result_of(folder, verdict=verdict)


def _crash_and_observe(
    plan: TrialPlan,
    trial: int,
    folder: Path,
    server: Server,
    clock: _Clock,
    before_recovery: BeforeRecovery | None,
) -> None:
    """Run the workload, inject the faults, recover, read; leave the evidence in `folder`."""
    profile = plan.profile
    seed = trial_seed(plan.run_seed, profile.name, trial)
    facts = server_facts(server)
    ledger = LedgerWriter(folder / evidence.LEDGER, seed=seed)
    workload = make_workload(profile, server, ledger, seed)
    log_position = server.log_position()
    injections: list[Injection] = []
    errors: list[str] = []
    try:
        with clock.phase("workload"):
            workload.set_up()
            workload.start()
            injections = _inject_all(profile, server, workload, ledger, seed, errors)
            _end_sessions(workload, injections, errors)
    finally:
        ledger.close()
    if before_recovery is not None:
        before_recovery(server)
    with clock.phase("read ledger"):
        history = read_ledger(ledger.path)
    wal = wal_of(server, injections) if before_recovery is None else None
    with clock.phase("recovery"):
        recovery = recover(server, restart=not server.running(), log_position=log_position)
    with clock.phase("observe"):
        observation = observe(
            lambda name: server.connect(autocommit=True, dbname=name),
            reading_of(profile, history, workload.tables),
            recovery,
        )
    with clock.phase("checksums"):
        observation = add_checksums(server, observation)
    before = invariants_before(workload.violations)
    observation = msgspec.structs.replace(observation, wal=wal, invariants_before=before)
    record = evidence.TrialRecord(
        crashlab=crashlab.__version__,
        profile=profile.name,
        profile_resolved=profile.model_dump(mode="json", by_alias=True),
        trial=trial,
        seed=seed,
        run_seed=plan.run_seed,
        crash_class=profile.crash_class,
        server=facts,
        acked_min=profile.workload.acked_min,
        injections=injections,
        seconds=clock.with_total(),
        workload_errors=errors + workload.errors,
        reproduce=replay_command(folder),
    )
    _save(folder, record, observation)


def wal_of(server: Server, injections: list[Injection]) -> WalFacts | None:
    """Read the WAL of a dead server; None where a postmaster lives on and recovers at once, or has recovered before.

    After an earlier recovery an xid may have been given out again, so a commit record may be another transaction's.
    """
    crashes = sum(injection.crashes_server for injection in injections)
    if server.running() or crashes != 1:
        return None
    with server.files_at_rest(WAL_FILES) as files:
        return read_wal(files)


def _inject_all(
    profile: Profile, server: Server, workload: Workload, ledger: LedgerWriter, seed: int, errors: list[str]
) -> list[Injection]:
    rng = stream(seed, "faults")
    injections = []
    for fault in profile.faults:
        try:
            wait_until_due(fault.when, ledger, rng, running=lambda: workload.running, timeout_s=FAULT_TIMEOUT_S)
        except FaultError as error:  # nothing was injected: not a mistake of the user's, but nothing to judge either
            errors.append(error.primary)
            break
        if FAULTS[fault.kind].ends_sessions:
            workload.expect_crash()
        injections.append(inject(server, fault, ledger, rng))
    return injections


def _end_sessions(workload: Workload, injections: list[Injection], errors: list[str]) -> None:
    """After a crash each session ends with its connection; otherwise they are told to stop."""
    crashed = any(injection.crashes_server for injection in injections)
    end = workload.join if crashed else workload.finish
    if not end(timeout_s=SESSIONS_END_TIMEOUT_S):
        errors.append(f"sessions were still at work {SESSIONS_END_TIMEOUT_S:g} s after the last fault")


def _save(folder: Path, record: evidence.TrialRecord, observation: Observation) -> None:
    evidence.save(folder, evidence.OBSERVATION, observation)
    evidence.save(folder, evidence.TRIAL, record)
