"""How does one live trial go? Run a workload, crash the server, recover it, read it, save everything, judge it.

Assumes: the caller gave an empty folder. Everything the trial learns is in that folder before it is judged, and the
    judgement is made from there, by the same code as `crashlab judge`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

import crashlab
from crashlab import evidence
from crashlab.errors import FaultError
from crashlab.fault import inject
from crashlab.fault.when import wait_until_due
from crashlab.history import History, read_ledger
from crashlab.ledger import LedgerWriter
from crashlab.model import Injection, Invariant, Observation, PromiseStatus, WalFacts
from crashlab.profile import Profile
from crashlab.recovery import Reading, observe, recover
from crashlab.recovery.checksums import add_checksums
from crashlab.recovery.wal import WAL_FILES, read_wal
from crashlab.results import RunRequest, TrialResult
from crashlab.seeds import stream, trial_seed
from crashlab.server import Server, ServerSpec, SpareDirectories, create_server
from crashlab.trial.judged import judge_trial, result_of
from crashlab.workload.databases import Databases
from crashlab.workload.relations import NO_ROWS, InvariantQuery, Relation
from crashlab.workload.run import Workload, invariants_of, relations_of
from crashlab.workload.session import Mix
from crashlab.workload.sql import Application, Variable

FAULT_TIMEOUT_S = 60.0
SESSIONS_END_TIMEOUT_S = 20.0
INVARIANTS_EVERY_MS = 50.0
RECORDED_INVARIANTS_EVERY_MS = 500.0  # a look may set hint bits and prune pages: writes that are no transaction's

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


def server_spec(request: RunRequest) -> ServerSpec:
    """Return the server that a request needs."""
    profile = request.profile
    kind = request.server.kind
    if kind == "auto" and profile.server.kinds == ["container"]:
        kind = "container"
    return ServerSpec(
        kind=kind,
        image=request.server.image,
        pg_bindir=request.server.pg_bindir,
        initdb=tuple(profile.server.initdb),
        settings=dict(profile.server.settings),
    )


def run_trial(
    request: RunRequest,
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
        server = create_server(server_spec(request), spares=spares)
    keep = False
    try:
        with clock.phase("start"):
            server.start()
        _crash_and_observe(request, trial, folder, server, clock, before_recovery)
        verdict = judge_trial(folder)
        keep = request.keep == "all" or (request.keep == "failed" and verdict.promise is PromiseStatus.BROKEN)
    finally:
        try:
            evidence.save_text(folder, evidence.SERVER_LOG, server.log_since(0))
        finally:
            server.dispose(keep_data_to=folder / evidence.DATA if keep and server.data_directory else None)
    return result_of(folder, verdict=verdict)


def _crash_and_observe(
    request: RunRequest,
    trial: int,
    folder: Path,
    server: Server,
    clock: _Clock,
    before_recovery: BeforeRecovery | None,
) -> None:
    """Run the workload, inject the faults, recover, read; leave the evidence in `folder`."""
    profile = request.profile
    seed = trial_seed(request.seed, profile.name, trial)
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
        run_seed=request.seed,
        crash_class=profile.crash_class,
        server=facts,
        acked_min=profile.workload.acked_min,
        injections=injections,
        seconds=clock.with_total(),
        workload_errors=errors + workload.errors,
        reproduce=reproduce_command(request, trial),
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


def server_facts(server: Server) -> evidence.ServerFacts:
    """Return what a running server says about itself.

    Raises:
        ServerError: a setting that was asked for is not in force.
    """
    return evidence.ServerFacts(
        kind=server.kind,
        version=str(server.version),
        version_num=server.version.num,
        source=server.source,
        initdb=list(server.initdb),
        requested=dict(server.settings),
        settings=server.read_settings(),
    )


def make_workload(profile: Profile, server: Server, ledger: LedgerWriter, seed: int) -> Workload:
    """Return a profile's workload on a server, not started."""
    plan = profile.workload
    return Workload(
        lambda: server.connect(autocommit=True),
        ledger,
        kinds=list(plan.kinds),
        clients=plan.clients,
        mix=Mix(
            synchronous_commit={str(mode): share for mode, share in plan.synchronous_commit.items()},
            two_phase=plan.two_phase,
            rollbacks=plan.rollbacks,
            savepoints=plan.savepoints,
            errors=plan.errors,
            read_only=plan.read_only,
        ),
        seed=seed,
        every_ms={
            statement: every_ms
            for statement, every_ms in (("CHECKPOINT", plan.checkpoint_every_ms), ("VACUUM", plan.vacuum_every_ms))
            if every_ms is not None
        },
        databases=Databases(lambda name: server.connect(autocommit=True, dbname=name), plan.databases)
        if plan.databases
        else None,
        application=application_of(profile),
        invariants=user_invariants(profile),
        invariants_every_ms=INVARIANTS_EVERY_MS if profile.power_loss is None else RECORDED_INVARIANTS_EVERY_MS,
    )


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
        if fault.kind != "stop":
            workload.expect_crash()
        injections.append(inject(server, fault, ledger, rng))
    return injections


def _end_sessions(workload: Workload, injections: list[Injection], errors: list[str]) -> None:
    """After a crash each session ends with its connection; otherwise they are told to stop."""
    crashed = any(injection.crashes_server for injection in injections)
    end = workload.join if crashed else workload.finish
    if not end(timeout_s=SESSIONS_END_TIMEOUT_S):
        errors.append(f"sessions were still at work {SESSIONS_END_TIMEOUT_S:g} s after the last fault")


def application_of(profile: Profile) -> Application | None:
    """Return what the kind "sql" runs."""
    plan = profile.workload.sql
    if plan is None:
        return None
    variables = {
        name: Variable(
            between=(one.between[0], one.between[1]) if one.between else None, choice=tuple(one.choice or ())
        )
        for name, one in plan.variables.items()
    }
    transactions = tuple((one.sql, one.weight) for one in plan.transactions)
    return Application(plan.setup, transactions, tuple(plan.tables), variables)


def user_invariants(profile: Profile) -> list[InvariantQuery]:
    """Return the profile's own invariants."""
    return [InvariantQuery(invariant.name, invariant.sql, None) for invariant in profile.invariants]


def invariants_before(violations: Mapping[str, str]) -> list[Invariant]:
    """Return as evidence which of a user's invariants did not hold before the crash."""
    return [Invariant(name=name, expected=NO_ROWS, observed=observed) for name, observed in violations.items()]


def reading_of(profile: Profile, history: History, tables: Sequence[Relation]) -> Reading:
    """Return what is to be read: every relation, and the fate of every transaction that was given an xid.

    Args:
        tables: the user's own ledgered tables.
    """
    plan = profile.workload
    return Reading(
        relations=[*relations_of(plan.kinds), *tables],
        invariants=[*invariants_of(plan.kinds), *user_invariants(profile)],
        xids=[xid for xid in history.xid if xid],
        databases=bool(plan.databases),
    )


def reproduce_command(request: RunRequest, trial: int) -> str:
    """Return the command that runs this trial again, whether or not its folder is still there."""
    return f"crashlab replay {request.out / f'trial-{trial:04d}'}"


def _save(folder: Path, record: evidence.TrialRecord, observation: Observation) -> None:
    evidence.save(folder, evidence.OBSERVATION, observation)
    evidence.save(folder, evidence.TRIAL, record)
