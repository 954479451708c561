"""How does one live trial go? Run a workload, crash the server, recover it, read it, save everything, judge it.

Assumes: the caller gave an empty folder. Everything the trial learns is in that folder before it is judged, and the
    judgement is made from there, by the same code as `crashlab judge`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psycopg

from crashlab import evidence
from crashlab.errors import FaultError, ServerError, UsageProblem
from crashlab.fault import FAULTS, inject
from crashlab.fault.when import StoodStill, wait_until_due
from crashlab.history import read_ledger
from crashlab.ledger import LedgerWriter
from crashlab.model import (
    Broken,
    FirstStart,
    Injection,
    Observation,
    PromiseStatus,
    RecordCount,
    Recovery,
    Verdict,
    WalFacts,
)
from crashlab.observe import SAMPLES, Sampler
from crashlab.profile import Fault
from crashlab.recovery import look_before, observe, recover
from crashlab.recovery.afterlife import is_sound, live_on
from crashlab.recovery.checksums import add_checksums
from crashlab.recovery.fulldisk import full_disk
from crashlab.recovery.replayed import read_replayed
from crashlab.recovery.restart import safe_settings
from crashlab.recovery.wal import WAL_FILES, read_wal
from crashlab.results import TrialResult
from crashlab.seeds import stream, trial_seed
from crashlab.server import Server, SpareDirectories, create_server
from crashlab.server.base import DATABASE
from crashlab.trial.clock import Clock
from crashlab.trial.firststart import kill_first_start, start_again
from crashlab.trial.jitter import Jitter, live_jitter
from crashlab.trial.judged import judge_trial, result_of
from crashlab.trial.limit import TrialLimit
from crashlab.trial.setup import (
    TrialPlan,
    connect_plain,
    invariants_before,
    make_workload,
    reading_of,
    server_facts,
    server_spec,
    wanted_facts,
)
from crashlab.trial.startkills import kill_in_start
from crashlab.trial.vary import drawn
from crashlab.trial.written import trial_record, write_evidence
from crashlab.workload.run import Workload

FAULT_TIMEOUT_S = 60.0
SESSIONS_END_TIMEOUT_S = 20.0
STOP = FAULTS["stop"]
STANDSTILL_S = 2.0
STOPS_MAX = 5
GO_ON_S = (0.001, 0.05)
"""A stopped process behind which all sessions stand still goes on for so long, then it is stopped again."""
_TOLD = {
    "first start": "while the server started for the first time",
    "start": "while the server started",
    "workload": "while the workload ran",
    "read ledger": "while the ledger was read",
    "wal": "while the WAL was read",
    "recovery": "while the server recovered",
    "observe": "while the recovered server was read",
    "afterlife": "while the recovered server was used, restarted and crashed again",
    "checksums": "while the checksums were looked at",
}
"""Phase -> the words for it."""

BeforeRecovery = Callable[[Server], None]
BeforeStep = Callable[[Server, str], None]


class _Live:
    """One live trial under way: what it has learnt so far, also if its time is up in the middle."""

    def __init__(
        self, plan: TrialPlan, chosen: dict[str, str], trial: int, folder: Path, server: Server, clock: Clock
    ) -> None:
        self.plan = plan
        self.trial = trial
        self.folder = folder
        self.server = server
        self.clock = clock
        self.seed = trial_seed(plan.run_seed, plan.profile.name, trial)
        self.drawn = chosen
        self.facts = wanted_facts(server, plan.server)
        self.injections: list[Injection] = []
        self.errors: list[str] = []
        self.observation = Observation(recovery=Recovery(started=False, ran=False, seconds=0.0))
        self._workload: Workload | None = None
        self._sampler: Sampler | None = None
        self._broken = Broken()
        self._jitter: Jitter | None = None
        self._first_receipt: Injection | None = None
        self._first_start: FirstStart | None = None
        self.recovered_with: evidence.RecoveredWith | None = None
        self.before_step: BeforeStep = lambda server, step: None
        self.ledger = LedgerWriter(folder / evidence.LEDGER, seed=self.seed)

    def go(self, limit: TrialLimit, before_recovery: BeforeRecovery | None) -> None:
        """Start the server, run the workload, inject the faults, recover, read. Raises TimeUp."""
        try:
            if not self._start(limit):
                return
            self.facts = server_facts(self.server, self.plan.server)
            log_position = self.server.log_position()
            with self._phase("workload", limit):
                workload = self._crash(limit)
        finally:
            self.ledger.close()
        limit.check()
        if before_recovery is not None:
            before_recovery(self.server)
        self._read(limit, workload, log_position, look_at_wal=before_recovery is None)
        limit.check()

    def _start(self, limit: TrialLimit) -> bool:
        """Start the server; False: it was killed in its first start, and what that left does not start."""
        asked = self.plan.profile.first_start
        if asked is not None:
            with self._phase("first start", limit):
                self._first_receipt, first = kill_first_start(
                    self.server,
                    asked.during,
                    stream(self.seed, "first start"),
                    self.ledger,
                    timeout_s=min(FAULT_TIMEOUT_S, limit.left_s()),
                )
        with self._phase("start", limit):
            self._jitter = live_jitter(self.server, self.plan.profile, self.seed)
            if asked is None:
                self.server.start()
                return True
            self._first_start = start_again(self.server, first, timeout_s=min(FAULT_TIMEOUT_S, limit.left_s()))
        recovery = Recovery(started=False, ran=False, seconds=0.0, fatal=self._first_start.last_words)
        self.observation = Observation(recovery=recovery, first_start=self._first_start)
        return self._first_start.started

    @contextlib.contextmanager
    def _phase(self, name: str, limit: TrialLimit) -> Iterator[None]:
        limit.enter(_TOLD[name])
        with self.clock.phase(name):
            yield

    def _crash(self, limit: TrialLimit) -> Workload:
        workload = self._workload = make_workload(self.plan.profile, self.server, self.ledger, self.seed)
        workload.set_up()
        assert self._jitter is not None
        self._jitter.begin()
        workload.start()
        self._observe()
        self._inject_all(workload, limit)
        self._let_go()
        self._jitter.end()
        self._end_sessions(workload)
        self._save_samples()
        return workload

    def _observe(self) -> None:
        """Look at the server from now on, if that is asked for; its session ends with the crash."""
        if self.plan.observe_ms is None:
            return
        self._sampler = Sampler(lambda: self.server.connect(autocommit=True), every_ms=self.plan.observe_ms)
        try:
            self._sampler.start()
        except psycopg.Error as error:
            self._sampler = None
            self.errors.append(f"the server could not be observed: {error}")

    def _save_samples(self) -> None:
        if self._sampler is not None:
            evidence.save(self.folder, SAMPLES, self._sampler.stop())

    def _read(self, limit: TrialLimit, workload: Workload, log_position: int, *, look_at_wal: bool) -> None:
        with self._phase("read ledger", limit):
            history = read_ledger(self.ledger.path)
        with self._phase("wal", limit):
            # Where starts are killed, the WAL is another one at the last of them
            look_at_wal = look_at_wal and self.plan.profile.start_kills is None
            wal = wal_of(self.server, self.injections) if look_at_wal else None
        self._let_another_recover()
        with self._phase("recovery", limit):
            self._kill_starts(limit)
            recovery = recover(self.server, restart=not self.server.running(), log_position=log_position)
            replayed = None if wal is not None else self._replayed(recovery, log_position)
        reading = reading_of(self.plan.profile, history, workload.tables)
        with self._phase("observe", limit):
            observation = observe(
                self._connect_to,
                reading,
                recovery,
                connect_plain=connect_plain(self.plan.profile, self.server),
            )
        if is_sound(observation) and stream(self.seed, "afterlife").random() < self.plan.profile.afterlife_share:
            with self._phase("afterlife", limit):
                overrides = safe_settings(self.server.version.major)
                afterlife = live_on(self.server, reading, overrides=overrides, before_step=self._before_step)
            observation = msgspec.structs.replace(observation, afterlife=afterlife)
        with self._phase("checksums", limit):
            observation = add_checksums(self.server, observation)
        before = invariants_before(workload.violations)
        self.observation = msgspec.structs.replace(
            observation, wal=wal, replayed=replayed, invariants_before=before, broken_before=self._broken
        )
        self.observation = msgspec.structs.replace(self.observation, first_start=self._first_start)

    def _kill_starts(self, limit: TrialLimit) -> None:
        kills = self.plan.profile.start_kills
        if kills is None or self.server.running():
            return
        rng = stream(self.seed, "start kills")
        for _ in range(kills.times):
            limit.check()
            self.injections.append(
                kill_in_start(self.server, kills, rng, self.ledger, timeout_s=min(FAULT_TIMEOUT_S, limit.left_s()))
            )

    def _let_another_recover(self) -> None:
        """Hand the data directory to the release that is to recover. Raises UsageProblem: it recovers by itself."""
        wanted = self.plan.recover_with
        if wanted is None:
            return
        if self.server.running():
            raise UsageProblem(
                f'cannot recover profile "{self.plan.profile.name}" with another server: its server restarts by itself',
                hint="Choose a fault that ends it, such as kill9-all or immediate-shutdown.",
            )
        self.server.recover_with(wanted)
        self.recovered_with = evidence.RecoveredWith(version=self.server.version.text, source=self.server.source)

    def _before_step(self, step: str) -> None:
        self.before_step(self.server, step)

    def _replayed(self, recovery: Recovery, log_position: int) -> list[RecordCount] | None:
        if not (recovery.ran and recovery.started):
            return None
        try:
            with contextlib.closing(self._connect_to(DATABASE)) as connection:
                return read_replayed(connection, self.server.log_since(log_position))
        except psycopg.Error:  # whoever reads the rest meets it, too, and says so
            return None

    def _inject_all(self, workload: Workload, limit: TrialLimit) -> None:
        rng = stream(self.seed, "faults")
        again = stream(self.seed, "stop again")
        for fault in self.plan.profile.faults:
            try:
                self._wait(fault, workload, limit, rng, again)
            except (
                FaultError
            ) as error:  # nothing was injected: not a mistake of the user's, but nothing to judge either
                self.errors.append(f"{error.primary}{self._stopped()}")
                break
            if not self.injections:
                self._look_before(workload)
            if FAULTS[fault.kind].ends_sessions:
                workload.expect_crash()
            self.injections.append(self._inject(fault, rng))

    def _inject(self, fault: Fault, rng: Random) -> Injection:
        receipt = inject(self.server, fault, self.ledger, rng)
        if self.plan.profile.jitter is None:
            return receipt
        return msgspec.structs.replace(receipt, bounds_window=False)

    def _wait(self, fault: Fault, workload: Workload, limit: TrialLimit, rng: Random, again: Random) -> None:
        """Wait until a fault is due; a stopped process behind which all sessions stand still is stopped once more."""
        for stops_left in range(STOPS_MAX - 1, -1, -1):
            try:
                wait_until_due(
                    fault.when,
                    self.ledger,
                    rng,
                    running=lambda: workload.running,
                    timeout_s=min(FAULT_TIMEOUT_S, limit.left_s()),
                    writes_min=self.plan.profile.workload.acked_min,
                    standstill_s=STANDSTILL_S if self._stopped() and stops_left else None,
                )
                return
            except StoodStill:
                self._stop_again(again)

    def _stopped(self) -> str:
        """Say which process stands still by now, as the reason why nobody may get on; empty: none."""
        if not self.injections or self.injections[-1].kind != STOP.name:
            return ""
        stopped = self.injections[-1]
        return (
            f", while the {stopped.target} (process {stopped.pid}) was stopped:"
            " it may hold a lock that every session waits for"
        )

    def _let_go(self) -> None:
        """Let a process go on that was stopped last: without a crash since, the server has to be able to stop."""
        if self._stopped():
            with contextlib.suppress(ServerError):  # it is gone, and so is the server
                STOP.let_go(self.server, self.injections[-1].target, self.injections[-1].pid)

    def _stop_again(self, rng: Random) -> None:
        """Let the process that was stopped last go on for a drawn time, and stop it at another moment."""
        number = len(self.injections) - 1
        fault, before = self.plan.profile.faults[number], self.injections[number]
        with contextlib.suppress(ServerError):  # it is gone: so is the server, and whoever waits for it is told
            if not STOP.let_go(self.server, before.target, before.pid):
                return
        time.sleep(rng.uniform(*GO_ON_S))
        stopped = self._inject(fault, rng)
        said = f"it was let go and stopped again: all sessions had stood still for {STANDSTILL_S:g} s"
        self.injections[number] = msgspec.structs.replace(stopped, proof=[*stopped.proof, *before.proof[1:], said])

    def _look_before(self, workload: Workload) -> None:
        """Look for what is broken already; only a user's own SQL can have done that, so nobody else waits for it."""
        if not workload.tables:
            return
        try:
            self._broken = look_before(self._connect_to, workload.tables)
        except psycopg.Error as error:
            self.errors.append(f"the tables could not be looked at right before the fault: {error}")

    def _connect_to(self, database: str) -> "psycopg.Connection[Any]":
        return self.server.connect(autocommit=True, dbname=database)

    def _end_sessions(self, workload: Workload) -> None:
        """After a crash each session ends with its connection; otherwise they are told to stop."""
        crashed = any(injection.crashes_server for injection in self.injections)
        end = workload.join if crashed else workload.finish
        if not end(timeout_s=SESSIONS_END_TIMEOUT_S):
            self.errors.append(f"sessions were still at work {SESSIONS_END_TIMEOUT_S:g} s after the last fault")

    def write(self, timed_out: str | None) -> Verdict:
        """Save everything, and judge it."""
        record = trial_record(
            self.plan.profile,
            "live",
            trial=self.trial,
            seed=self.seed,
            run_seed=self.plan.run_seed,
            server=self.facts,
            injections=([] if self._first_receipt is None else [self._first_receipt]) + self.injections,
            seconds=self.clock.seconds(),
            workload_errors=self.errors + (self._workload.errors if self._workload else []),
            timed_out=timed_out,
            recovered_with=self.recovered_with,
            drawn=self.drawn,
            held=self._jitter.held() if self._jitter is not None else [],
        )
        place = self.server.data_directory
        write_evidence(self.folder, record, self.observation, server_log=self.server.log_since(0), place=place)
        return judge_trial(self.folder)

    def met_full_disk(self) -> bool:
        """Whether what ended the trial may be that: then it ends inconclusive, and not with an error."""
        errors = self._workload.errors if self._workload is not None else []
        return full_disk(self.server.log_since(0), errors, self.server.data_directory) is not None


def run_trial(
    plan: TrialPlan,
    trial: int,
    folder: Path,
    *,
    spares: SpareDirectories | None = None,
    before_recovery: BeforeRecovery | None = None,
    before_step: BeforeStep | None = None,
) -> TrialResult:
    """Run one trial and return its result; its evidence is in `folder`.

    Args:
        spares: used data directories of earlier trials, repaired instead of copied anew.
        before_recovery: called between crash and restart, to plant damage.
        before_step: called before each step of the afterlife, with its name, for the same.

    Raises:
        CrashlabError: the environment does not allow it: no server, no such role, folder not writable.
    """
    clock = Clock()
    plan, chosen = drawn(plan, trial_seed(plan.run_seed, plan.profile.name, trial))
    with clock.phase("prepare"):
        server = create_server(server_spec(plan.profile, plan.server), spares=spares)
    keep = False
    verdict: Verdict | None = None
    try:
        live = _Live(plan, chosen, trial, folder, server, clock)
        live.before_step = before_step or live.before_step
        with TrialLimit(plan.timeout_s, server.kill_all) as limit:
            try:
                live.go(limit, before_recovery)
            except Exception:  # TimeUp, or whatever a killed server, or one without room, leads to
                if limit.reached is None and not live.met_full_disk():
                    raise
        verdict = live.write(limit.reached)
        keep = plan.keep == "all" or (plan.keep == "failed" and verdict.promise is PromiseStatus.BROKEN)
    finally:
        try:
            if verdict is None:  # what ended the trial may be told there
                evidence.save_text(folder, evidence.SERVER_LOG, server.log_since(0))
        finally:
            server.dispose(keep_data_to=folder / evidence.DATA if keep and server.data_directory else None)
    return result_of(folder, verdict=verdict)


def wal_of(server: Server, injections: list[Injection]) -> WalFacts | None:
    """Read the WAL of a dead server; None where a postmaster lives on and recovers at once, or has recovered before.

    After an earlier recovery an xid may have been given out again, so a commit record may be another transaction's.
    """
    crashes = sum(injection.crashes_server for injection in injections)
    if server.running() or crashes != 1:
        return None
    with server.files_at_rest(WAL_FILES) as files:
        return read_wal(files)
