"""Does a trial end when its time is up, whatever holds it, and is nobody accused then?"""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crashlab import evidence
from crashlab.campaign.rejudge import judge_run
from crashlab.errors import ServerTimeout
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import TrialResult
from crashlab.server import Server, ServerChoice, registry
from crashlab.server.local import LocalServer
from crashlab.trial import live
from crashlab.trial.limit import TimeUp, TrialLimit
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.overrides import kill_after

LIMIT_S = 4.0
LATE_S = 2.0
"""So much later than its limit a trial may end, on a machine that has other things to do."""


def test_the_kill_is_repeated_until_the_trial_has_noticed():
    """A server that is started once more after the first kill dies, too; a kill that fails is no matter."""
    kills: list[float] = []

    def kill() -> None:
        kills.append(time.monotonic())
        if len(kills) == 1:
            raise ServerTimeout("could not kill")

    begun = time.monotonic()
    with TrialLimit(0.2, kill) as limit:
        limit.enter("at work")
        assert 0 < limit.left_s() <= 0.2
        limit.check()
        while len(kills) < 3:
            assert time.monotonic() < begun + 10
            time.sleep(0.01)
        assert limit.reached == "after 0.2 s, at work"
        assert limit.left_s() == 0
        with pytest.raises(TimeUp):
            limit.enter("idle")
    done = len(kills)
    time.sleep(0.5)
    assert len(kills) == done
    assert kills[0] - begun >= 0.2


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_a_trial_in_time_is_left_alone(timeout_s):
    """Nothing is killed, nothing is waited for, no thread stays."""
    kills: list[int] = []
    begun, threads = time.monotonic(), threading.active_count()
    with TrialLimit(timeout_s, lambda: kills.append(1)) as limit:
        limit.enter("at work")
    assert (limit.reached, kills, threading.active_count()) == (None, [], threads)
    assert time.monotonic() - begun < 5


def sleepy(out: Path, *, sleep_s: float, timeout_s: float | None) -> tuple[TrialResult, float]:
    """Run one trial of a workload that sleeps; return the result and how long it took from the server's start on."""
    profile = load_profile(
        "own-application",
        overrides=[
            "workload.sql.transactions=['UPDATE item SET price = price + 1 WHERE id = :item; SELECT pg_sleep(:s)']",
            f"workload.sql.variables={{item = {{between = [1, 50]}}, s = {{choice = [0.001, {sleep_s}]}}}}",
            kill_after(60),
        ],
    )
    plan = TrialPlan(profile=profile, run_seed=5, server=ServerChoice(kind="local"), keep="none", timeout_s=timeout_s)
    begun = time.monotonic()
    result = run_trial(plan, 0, out)
    return result, time.monotonic() - begun - result.seconds["prepare"]


@pytest.mark.server
def test_a_sleeping_transaction_does_not_hold_a_trial(tmp_path: Path) -> None:
    """It ends in time, inconclusive, with everything that it left; judged again it says the same."""
    before = dict(registry._alive)  # what earlier tests keep to use again
    result, took_s = sleepy(tmp_path, sleep_s=300, timeout_s=LIMIT_S)
    assert LIMIT_S <= took_s < LIMIT_S + LATE_S
    (finding,) = result.verdict.findings
    assert (result.verdict.outcome, result.verdict.promise) == (Outcome.INCONCLUSIVE, None)
    assert finding.code == "INCONCLUSIVE-TRIAL-TIMEOUT"
    assert "after 4 s, while the workload ran" in finding.explanation
    record = evidence.load_trial(tmp_path)
    assert record.timed_out == "after 4 s, while the workload ran"
    assert record.server.settings["fsync"] == "on"
    assert (tmp_path / evidence.SERVER_LOG).read_text()
    assert judge_run(tmp_path).profiles[0].trials == [result]
    assert registry._alive == before


@pytest.mark.server
def test_the_same_workload_with_time_enough_is_judged(tmp_path: Path) -> None:
    """A limit that is not reached changes nothing."""
    result, _ = sleepy(tmp_path, sleep_s=0.01, timeout_s=60)
    assert result.verdict.promise is PromiseStatus.KEPT, result.verdict.findings
    assert evidence.load_trial(tmp_path).timed_out is None


@pytest.mark.server
@pytest.mark.parametrize("phase", ["the server started", "the server recovered", "the recovered server was read"])
def test_a_trial_ends_in_time_in_every_phase(phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start, a recovery, a query that do not end: each is over soon after the limit, and never a loss or damage."""

    def held(server: Server) -> None:
        with server.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_sleep(300)")

    real_start, starts = LocalServer.start, []

    def start(server: LocalServer, **rest: Any) -> None:
        starts.append(1)
        real_start(server, **rest)
        if len(starts) == (1 if phase == "the server started" else 2):
            held(server)

    def observe(connect, *rest, **more):
        with connect("postgres") as connection:
            connection.execute("SELECT pg_sleep(300)")

    if phase == "the recovered server was read":
        monkeypatch.setattr(live, "observe", observe)
    else:
        monkeypatch.setattr(LocalServer, "start", start)
    profile = load_profile("kill9-all", overrides=[kill_after(30)])
    plan = TrialPlan(profile=profile, run_seed=5, server=ServerChoice(kind="local"), keep="none", timeout_s=LIMIT_S)
    begun = time.monotonic()
    result = run_trial(plan, 0, tmp_path)
    assert time.monotonic() - begun - result.seconds["prepare"] < LIMIT_S + LATE_S
    assert [one.code for one in result.verdict.findings] == ["INCONCLUSIVE-TRIAL-TIMEOUT"]
    assert evidence.load_trial(tmp_path).timed_out == f"after 4 s, while {phase}"
