"""What does it cost when a process of a pool is killed, and what when one fails?

The tasks need no server: here is tested who does them, how often, and what is left. `test_resume` does it with servers.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.campaign import pool, stuck
from crashlab.campaign.executor import Done, Executor, InlineExecutor, WorkerFailed
from crashlab.campaign.plan import executor_for
from crashlab.campaign.pool import PoolExecutor
from crashlab.campaign.source import Source
from crashlab.campaign.task import Job, LiveTask, Task
from crashlab.cli import invoke
from crashlab.errors import CrashlabError, ServerError
from crashlab.ledger import LedgerWriter
from crashlab.model import Observation, Recovery
from crashlab.profile import load_profile
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.trial.judged import judge_trial
from crashlab.trial.setup import TrialPlan
from crashlab.trial.written import trial_record, write_evidence
from tests.campaign.command import Command, left_behind
from tests.campaign.hard_tasks import Astray, Deadly, Slow, Stopped

PATIENCE_S = 60.0
JOB = "kill9-all"


def job(out: Path, timeout_s: float | None = None) -> Job:
    """A job without a server: each of its tasks ends in an error of the environment, at once."""
    choice = ServerChoice(kind="local", pg_bindir=Path("/nowhere"))
    return Job(plan=TrialPlan(profile=load_profile(JOB), run_seed=1, server=choice, timeout_s=timeout_s), out=out)


def all_done(executor: Executor, tasks: Sequence[Task]) -> dict[Task, BaseException]:
    """Have tasks done as the loop does; return what became of them, each once."""
    waiting, ended = list(tasks), dict[Task, BaseException]()
    deadline = time.monotonic() + PATIENCE_S
    while len(ended) < len(tasks):
        assert time.monotonic() < deadline, f"only {sorted(map(str, ended))} of {len(tasks)}"
        while waiting and executor.has_room():
            executor.submit(waiting.pop(0))
        for done in executor.wait(0.05):
            assert isinstance(done, Done)
            assert done.task not in ended
            assert isinstance(done.outcome, BaseException)
            ended[done.task] = done.outcome
    assert not executor.wait(0.1)
    return ended


def gone(pid: int, within_s: float) -> bool:
    """Whether a process ends in time; a zombie has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def written(note: Path) -> int:
    """The process id that a slow task has noted."""
    deadline = time.monotonic() + PATIENCE_S
    while not note.exists() or not note.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(note.read_text())


@pytest.fixture
def looks_often(monkeypatch):
    """Whether a worker is stuck is looked at ten times a second."""
    monkeypatch.setattr(pool, "LOOK_EVERY_S", 0.1)


def test_a_killed_worker_costs_its_own_task_which_is_done_again(tmp_path):
    """Also if all workers die at once, with tasks that wait behind: each comes back once, done."""
    deadly = [Deadly(JOB, number, tmp_path / f"killed-{number}") for number in range(2)]
    tasks = [*deadly, *(LiveTask(JOB, number) for number in range(2, 8))]
    with PoolExecutor(2) as executor:
        executor.start([job(tmp_path)])
        ended = all_done(executor, tasks)
    assert all(isinstance(error, ServerError) and "postgres" in error.primary for error in ended.values())
    notes = [task.once for task in deadly if task.once is not None]
    assert len(notes) == 2
    assert [Path(note.read_text()).exists() for note in notes] == [False, False], "what they had made is left"


def test_a_task_that_kills_two_workers_is_an_error(tmp_path):
    """It is not tried for ever, it is named, and the others are done all the same."""
    deadly = Deadly(JOB, 5)
    with PoolExecutor(2) as executor:
        executor.start([job(tmp_path)])
        ended = all_done(executor, [LiveTask(JOB, 0), deadly, LiveTask(JOB, 1), LiveTask(JOB, 2)])
    error = ended.pop(deadly)
    assert isinstance(error, CrashlabError)
    assert error.primary == "could not run trial 5 of kill9-all: it has ended 2 worker processes"
    assert error.detail == "The last one: killed by signal 9 (SIGKILL)."
    assert error.exit_code == 4
    assert all(isinstance(other, ServerError) for other in ended.values())


def test_a_bug_in_a_worker_comes_back_with_its_own_traceback(tmp_path):
    """No word of it is lost on the way, and the worker goes on."""
    unknown = LiveTask("no-such-job", 0)
    with PoolExecutor(1) as executor:
        executor.start([job(tmp_path)])
        ended = all_done(executor, [unknown, LiveTask(JOB, 1)])
    assert isinstance(ended[unknown], WorkerFailed)
    assert "crashlab/campaign/runner.py" in str(ended[unknown])
    assert "KeyError: 'no-such-job'" in str(ended[unknown])
    assert isinstance(ended[LiveTask(JOB, 1)], ServerError)


def test_a_bug_in_a_worker_is_told_as_a_bug_of_crashlab(tmp_path, monkeypatch, capfd):
    """Exit code 4, with the lines that a report of it needs."""
    monkeypatch.setattr(Source, "_live", lambda self: iter([Astray(self._job.name, 0)]))
    assert invoke(["run", JOB, "-j", "2", "--trials", "2", "--out", str(tmp_path / "run")]) == 4
    err = capfd.readouterr().err
    assert "KeyError: 'no-such-job'" in err
    assert "this is a bug in crashlab" in err


def test_leaving_a_pool_ends_its_workers_at_once(tmp_path):
    """Those with a task, and those without."""
    with PoolExecutor(2) as executor:
        executor.start([job(tmp_path)])
        executor.submit(LiveTask(JOB, 0))
        executor.submit(Slow(JOB, 1, tmp_path / "pid"))
        busy = written(tmp_path / "pid")
        pids = [worker.process.pid for worker in executor._workers]
        assert busy in pids
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    assert all(gone(pid, 1) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_do_not_outlive_their_parent(number, tmp_path):
    """Killed outright it can tell them nothing: the kernel does, to the busy one as well as to the idle one."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom crashlab.campaign.pool import PoolExecutor\n"
        "from tests.campaign.hard_tasks import Slow\nfrom tests.campaign.test_pool import JOB, job\n"
        "folder = Path(sys.argv[1])\npool = PoolExecutor(2)\npool.start([job(folder)])\n"
        "pool.submit(Slow(JOB, 0, folder / 'busy'))\npool.submit(Slow(JOB, 1, folder / 'idle', 0.0))\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    try:
        pids = [written(tmp_path / "busy"), written(tmp_path / "idle")]
        parent.send_signal(number)
        parent.wait(PATIENCE_S)
        assert [gone(pid, 5) for pid in pids] == [True, True]
    finally:
        parent.kill()
        parent.wait()


def test_a_stopped_worker_is_killed_and_its_task_done_again(looks_often, tmp_path, monkeypatch, capfd):
    """Once it is over the limit and stays stopped; one that is only slow, for longer than that, is left alone."""
    monkeypatch.setattr(stuck, "STOPPED_GRACE_S", 0.2)
    stopped = Stopped(JOB, 0, tmp_path / "stopped")
    slow = Slow(JOB, 1, tmp_path / "slow", 1.2)
    with PoolExecutor(2) as executor:
        executor.start([job(tmp_path, timeout_s=0.2)])
        begun = time.monotonic()
        ended = all_done(executor, [stopped, slow, LiveTask(JOB, 2)])
        assert int((tmp_path / "slow").read_text()) in [worker.process.pid for worker in executor._workers]
    assert time.monotonic() - begun < 20
    assert all(isinstance(error, ServerError) and "postgres" in error.primary for error in ended.values())
    assert stopped.once is not None
    assert not Path(stopped.once.read_text()).exists(), "what it had made is left"
    err = capfd.readouterr().err
    assert err.count(" is stuck at ") == 1
    assert "is stuck at trial 0: stopped for " in err


@pytest.mark.parametrize("how", ["stopped for", "not done after"])
def test_a_task_whose_workers_get_stuck_is_an_error(how, looks_often, tmp_path, monkeypatch):
    """It is not tried for ever, and it says why: also for a worker that is not stopped, once all limits are over."""
    stopped = how == "stopped for"
    monkeypatch.setattr(stuck, "STOPPED_GRACE_S" if stopped else "SILENT_GRACE_S", 0.4)
    task = Stopped(JOB, 0) if stopped else Slow(JOB, 0, tmp_path / "slow")
    with PoolExecutor(1) as executor:
        executor.start([job(tmp_path, timeout_s=0.4)])
        error = all_done(executor, [task])[task]
    assert isinstance(error, CrashlabError)
    assert error.primary == "could not run trial 0 of kill9-all: it has ended 2 worker processes"
    assert error.detail is not None
    assert error.detail.startswith(f"It was stuck ({how} ")


def test_a_trial_that_was_written_whole_is_not_run_again(tmp_path):
    """Its worker died between the last word of evidence and the answer: it may have found what is not found again."""
    folder = tmp_path / "trial-0000"
    folder.mkdir()
    facts = evidence.ServerFacts(
        kind="local", version="18.6", version_num=180006, source="/bin", initdb=[], requested={}, settings={}
    )
    plan = job(tmp_path).plan
    record = trial_record(
        plan.profile, "live", trial=0, seed=7, run_seed=1, server=facts, injections=[], seconds={}, timed_out="here"
    )
    LedgerWriter(folder / evidence.LEDGER, seed=7).close()
    write_evidence(folder, record, Observation(recovery=Recovery(started=False, ran=False, seconds=0.0)), server_log="")
    judge_trial(folder)
    before = (folder / evidence.TRIAL).read_bytes()
    with PoolExecutor(1) as executor:
        executor.start([job(tmp_path)])
        executor.submit(Deadly(JOB, 0))
        done: list[Done] = []
        deadline = time.monotonic() + PATIENCE_S
        while not done and time.monotonic() < deadline:
            done = executor.wait(0.5)
    assert isinstance(done[0].outcome, TrialResult)
    assert [finding.code for finding in done[0].outcome.verdict.findings] == ["INCONCLUSIVE-TRIAL-TIMEOUT"]
    assert (folder / evidence.TRIAL).read_bytes() == before


def test_unless_somebody_says_how_many_there_is_one_process_a_processor(monkeypatch):
    """And none beside this one where there is one processor, or one is asked for."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5})
    executor = executor_for(None)
    assert isinstance(executor, PoolExecutor)
    assert executor._size == 3
    assert isinstance(executor_for(1), InlineExecutor)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4})
    assert isinstance(executor_for(None), InlineExecutor)


def test_a_parent_that_was_stopped_itself_blames_nobody():
    """The time in which it could not look is not its workers'."""
    clock = stuck.TaskClock(os.getpid())
    clock.look(100_000.0)
    assert clock.stuck(1.0) is None
    for _ in range(1000):
        clock.look(2.0)
    assert clock.stuck(1.0) is not None
    assert clock.stuck(None) is None


def test_leaving_a_pool_ends_a_stopped_worker(tmp_path, monkeypatch, capfd):
    """It is killed, what it had made goes, and whoever waits is told why."""
    monkeypatch.setattr(pool, "END_TIMEOUT_S", 0.4)
    monkeypatch.setattr(pool, "QUIET_S", 0.2)
    task = Stopped(JOB, 0, tmp_path / "stopped")
    with PoolExecutor(1) as executor:
        executor.start([job(tmp_path)])
        executor.submit(task)
        assert task.once is not None
        while not task.once.exists() or not task.once.read_text():
            time.sleep(0.02)
        (pid,) = [worker.process.pid for worker in executor._workers]
        begun = time.monotonic()
    assert time.monotonic() - begun < 15
    assert gone(pid, 0.1)
    assert not Path(task.once.read_text()).exists()
    assert f"to remove what they made: {pid}\n" in capfd.readouterr().err


@pytest.mark.server
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_with_a_stopped_worker_ends_and_leaves_nothing(interrupted, tmp_path, home):
    """By itself, with all trials; or after Ctrl-C, with those that were done. No server is left, and no folder."""
    out = tmp_path / "run"
    options = ["--trials", "4", "-j", "2", "--server", "local", "--trial-timeout", "20s", "--seed", "12"]
    command = Command("run", JOB, *options, "--out", str(out), cwd=tmp_path, home=home)
    try:
        command.wait_for(out / JOB / "trial-0001" / evidence.LEDGER)
        victim = command.workers()[-1]
        os.kill(victim, signal.SIGSTOP)
        begun = time.monotonic()
        if interrupted:
            command.interrupt()
        code = command.ended()
        seconds = time.monotonic() - begun
    finally:
        command.end()
    assert gone(victim, 0.1)
    assert left_behind(home, within_s=0.5) == []
    if interrupted:
        assert code == 130, command.text()
        assert seconds < 20
        assert f"to remove what they made: {victim}\n" in command.text()
    else:
        assert code in (0, 3), command.text()  # a busy machine may acknowledge too little
        assert seconds < 90
        assert f"worker process {victim} is stuck" in command.text()
        assert len(list(out.rglob(evidence.VERDICT))) == 4
