"""Does a whole live trial end in the right verdict, and never in a good one that nobody earned?"""

import dataclasses
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from crashlab import evidence
from crashlab.campaign import judge_folder, replay
from crashlab.errors import EvidenceError, ServerError
from crashlab.fault import FAULTS
from crashlab.fault.kind import Asked, Effect
from crashlab.fault.kinds.stop import Stop
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.profile_schema import When
from crashlab.results import ProfileResult
from crashlab.server import Server, ServerChoice, registry
from crashlab.server.roles import CLIENT_BACKEND
from crashlab.trial import live
from crashlab.trial.live import run_trial
from crashlab.workload.kinds.register import Register
from crashlab.workload.relations import InvariantQuery
from tests.running import RunRequest, plan_of, run_profile

pytestmark = pytest.mark.server


def request(out: Path, profile: str, *overrides: str, trials: int = 1) -> RunRequest:
    """A request for a shipped profile on a local server."""
    return RunRequest(
        profile=load_profile(profile, overrides=list(overrides)),
        seed=7,
        trials=trials,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=out,
        keep="none",
    )


def only(result: ProfileResult) -> tuple[Outcome, PromiseStatus | None, list[str]]:
    """The outcome, the promise and the codes of a result's one trial."""
    (trial,) = result.trials
    return trial.verdict.outcome, trial.verdict.promise, [finding.code for finding in trial.verdict.findings]


@pytest.mark.parametrize(
    "profile",
    [
        "kill9-postmaster",
        "kill9-backend",
        "kill9-checkpointer",
        "kill9-walwriter",
        "kill9-all",
        "immediate-shutdown",
        "fsync-off-kill9",
        "commit-delay",
        "checkpoint-storm",
        "two-phase",
    ],
)
def test_process_crashes_lose_nothing(profile: str, tmp_path: Path) -> None:
    """Every process crash leaves every acknowledged synchronous transaction, and nothing else."""
    asked = request(tmp_path, profile, trials=2)
    enough = [fault.model_copy(update={"when": When(acks=100)}) for fault in asked.profile.faults]  # not by the clock
    asked = dataclasses.replace(asked, profile=asked.profile.model_copy(update={"faults": enough}))
    result = run_profile(asked)
    verdicts = [trial.verdict for trial in result.trials]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.INTACT] * 2, verdicts
    assert all(verdict.promise is PromiseStatus.KEPT for verdict in verdicts)
    for trial in result.trials:
        phases = dict(trial.seconds)
        assert phases.keys() >= {"prepare", "start", "workload", "read ledger", "wal", "recovery", "observe"}
        assert phases.pop("total") == pytest.approx(sum(phases.values()))
    assert all(verdict.counts.acked_sync >= 20 for verdict in verdicts)


def test_async_commits_are_lost_as_a_tail(tmp_path: Path) -> None:
    """With the walwriter stopped nearly every trial loses its newest commits, which the manual allows."""
    result = run_profile(request(tmp_path, "async-commit", trials=5))
    outcomes = [trial.verdict.outcome for trial in result.trials]
    assert outcomes.count(Outcome.LOSS) >= 4, outcomes
    for trial in result.trials:
        assert trial.verdict.promise is PromiseStatus.KEPT
        assert trial.verdict.counts.lost_forbidden == 0
        assert {finding.family for finding in trial.verdict.findings} <= {"loss", "note"}


ODD_SETTINGS = (
    "DateStyle=German",
    "bytea_output=escape",
    "default_transaction_deferrable=on",
    "default_transaction_isolation=serializable",
    "enable_bitmapscan=off",
    "enable_indexscan=off",
    "quote_all_identifiers=on",
    "session_replication_role=replica",
    "standard_conforming_strings=off",
    "statement_timeout=60s",
    "track_activities=off",
)


@pytest.mark.parametrize("profile", ["objects", "own-application"])
def test_what_a_setting_does_to_sessions_does_not_change_the_verdict(profile: str, tmp_path: Path) -> None:
    """They change how values and names are written, how tables are read, and which triggers run."""
    verdict = run_profile(request(tmp_path, profile, *ODD_SETTINGS)).trials[0].verdict
    assert verdict.promise is PromiseStatus.KEPT, verdict.findings


def test_an_own_invariant_that_never_held_accuses_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting may change what it means: what is false before the crash proves nothing after it."""
    wrong = InvariantQuery("one is two", "SELECT '1'", "2")
    monkeypatch.setattr(Register, "invariants", lambda self: [wrong])
    outcome, promise, codes = only(run_profile(request(tmp_path, "kill9-all", "workload.kinds=['register']")))
    assert (outcome, promise, codes) == (Outcome.INCONCLUSIVE, None, ["INCONCLUSIVE-INVARIANT-BEFORE"])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("default_transaction_read_only=on", "could not set up the workload"),
        ("max_connections=5", "could not connect all sessions of the workload"),
    ],
)
def test_a_server_that_does_not_allow_the_workload_is_an_error_with_a_hint(
    override: str, says: str, tmp_path: Path
) -> None:
    """Not a bug of crashlab, and nothing that a trial could say anything about."""
    with pytest.raises(ServerError, match=says) as caught:
        run_trial(plan_of(request(tmp_path, "kill9-all", "clients=8", override)), 0, tmp_path)
    assert caught.value.hint


AT_ONCE = 'faults=[{kind="kill", target="all", when={after="0ms"}}]'


def test_a_fault_waits_until_there_is_enough_to_judge_by(tmp_path: Path) -> None:
    """However slow the machine: the time of the profile begins to run then. At once means at the minimum."""
    result = run_profile(request(tmp_path, "kill9-all", AT_ONCE, "workload.acked_min=50", "workload.read_only=0.5"))
    assert only(result) == (Outcome.INTACT, PromiseStatus.KEPT, [])
    assert result.trials[0].verdict.counts.acked > 50


def test_a_workload_that_acknowledges_too_little_is_inconclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before enough was promised proves nothing, so there is none; the wait for it has an end."""
    monkeypatch.setattr(live, "FAULT_TIMEOUT_S", 0.5)
    outcome, promise, codes = only(run_profile(request(tmp_path, "kill9-all", AT_ONCE, "workload.acked_min=100000")))
    assert (outcome, promise) == (Outcome.INCONCLUSIVE, None)
    assert "INCONCLUSIVE-TOO-FEW-ACKS" in codes


def test_a_trial_without_its_kill_is_inconclusive(tmp_path: Path) -> None:
    """No receipt, no verdict."""
    short = "workload.read_only=0"
    asked = request(tmp_path, "kill9-all", short, 'faults=[{kind="stop", target="walwriter", when={acks=50}}]')
    no_fault = dataclasses.replace(asked, profile=asked.profile.model_copy(update={"faults": []}))
    outcome, promise, codes = only(run_profile(no_fault))
    assert (outcome, promise) == (Outcome.INCONCLUSIVE, None)
    assert "INCONCLUSIVE-NO-INJECTION" in codes


class StoppedWithALock(Stop):
    """Whose first stops meet the process while it holds what all sessions need: they are stopped with it."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.held: list[int] = []

    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        effect = super().inject(server, asked, rng)
        if self.left > 0:
            self.left -= 1
            self.held = [process.pid for process in server.processes() if process.role == CLIENT_BACKEND]
            for pid in self.held:
                server.signal(pid, signal.SIGSTOP)
        return effect

    def let_go(self, server: Server, target: str | None, pid: int | None) -> bool:
        for one in self.held:
            server.signal(one, signal.SIGCONT)
        return super().let_go(server, target, pid)


@pytest.mark.parametrize("times", [0, 2, 9])
def test_a_process_that_was_stopped_with_a_lock_is_stopped_once_more(times, tmp_path, monkeypatch):
    """At another moment, a few times; the receipt says so. Where it never helps, what happened is told."""
    stop = StoppedWithALock(times)
    monkeypatch.setitem(FAULTS, "stop", stop)
    for name, value in (("STOP", stop), ("STANDSTILL_S", 0.5), ("STOPS_MAX", 3), ("FAULT_TIMEOUT_S", 4.0)):
        monkeypatch.setattr(live, name, value)
    monkeypatch.setattr(live, "SESSIONS_END_TIMEOUT_S", 1.0)
    verdict = run_profile(request(tmp_path, "async-commit")).trials[0].verdict
    record = evidence.load_trial(next(tmp_path.rglob(evidence.TRIAL)).parent)
    (stopped, *others) = record.injections
    again = [line for line in stopped.proof if "let go and stopped again" in line]
    assert len(again) == min(times, 2)
    assert "state T" in stopped.proof[0]
    assert stopped.pid == record.injections[0].pids[0]
    if times == 9:
        assert (verdict.outcome, others) == (Outcome.INCONCLUSIVE, [])
        assert f"while the walwriter (process {stopped.pid}) was stopped" in record.workload_errors[0]
    else:
        assert verdict.outcome is Outcome.LOSS, record.workload_errors
        assert stopped.at_ns < others[0].at_ns
        assert stopped.acked_before <= others[0].acked_before - 150


def test_skipped_checks_make_a_trial_inconclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever required check did not run: nobody looked."""
    module = sys.modules["crashlab.recovery.observe"]
    without = tuple(check for check in module.CHECKS if check[0] != "amcheck_heap")
    monkeypatch.setattr(module, "CHECKS", without)
    outcome, promise, codes = only(run_profile(request(tmp_path, "kill9-all")))
    assert (outcome, promise) == (Outcome.INCONCLUSIVE, None)
    assert "INCONCLUSIVE-CHECK-NOT-RUN" in codes


def test_stored_evidence_is_judged_again_to_the_same_verdict(tmp_path: Path) -> None:
    """`judge` needs no server and says the same; a damaged ledger is an error, not a verdict."""
    result = run_profile(request(tmp_path, "kill9-all"))
    (again,) = judge_folder(tmp_path)
    assert again.trials[0] == result.trials[0]
    ledger = result.trials[0].folder / evidence.LEDGER
    ledger.write_bytes(ledger.read_bytes().replace(b'"event":"ack"', b'"event":"hat"', 1))
    with pytest.raises(Exception, match="damaged ledger"):
        judge_folder(tmp_path)


def test_a_replay_runs_the_same_trial_elsewhere(tmp_path: Path) -> None:
    """Same profile, seed and trial number; the first one's evidence is not touched."""
    first = run_profile(request(tmp_path / "first", "kill9-all"))
    folder = first.trials[0].folder
    second = replay(folder, out=tmp_path / "second", server=ServerChoice(), keep="none")
    assert second.trials[0].seed == first.trials[0].seed
    assert second.trials[0].folder != folder
    assert second.trials[0].verdict.outcome is first.trials[0].verdict.outcome
    with pytest.raises(EvidenceError, match="it exists"):
        replay(folder, out=tmp_path / "second", server=ServerChoice(), keep="none")


def test_what_cannot_be_written_is_a_clear_error_and_leaves_no_server(tmp_path: Path) -> None:
    """It is named, and the server is gone all the same; here a folder is in the way."""
    before = dict(registry._alive)  # what earlier tests keep to use again
    (tmp_path / evidence.SERVER_LOG).mkdir()
    with pytest.raises(EvidenceError, match=r"could not write evidence .*server.log.*Is a directory"):
        run_trial(plan_of(request(tmp_path, "kill9-all")), 0, tmp_path)
    assert registry._alive == before
