"""What does a campaign cost beside its trials, and what do more workers bring?

    python tests/benchmarks/bench_campaign.py [STATES]

Without servers: the loop, its events and the index, with results that are made in no time; a plan of 100,000 trials in
a process of its own, with the time until its first task is handed out and the largest resident size. With servers:
states a second of one recording, by one worker, by a pool of two, and by two workers of a dask cluster, in turns, in
one run; ratios are those of a turn. For dask's workers as clusters.md advises to start them, set
DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False.
"""

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec

from crashlab.campaign import Campaign, Store, run_campaign
from crashlab.campaign.executor import Done, Executor, InlineExecutor
from crashlab.campaign.loop import Order
from crashlab.campaign.pool import PoolExecutor
from crashlab.campaign.task import Job, LiveTask, Task
from crashlab.profile import load_profile
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.trial.setup import TrialPlan
from tests.made_results import intact
from tests.running import RunRequest, record

TURNS = 3
PLAN = 100_000
COST = 2_000
WARM = 6
"""States that are not counted: each worker opens the recording and writes its first image."""
PROFILE = """
description = "the benchmark's"
crash_class = "power_loss"
[power_loss]
acks = 400
"""


class NoTrial:
    """Answers each task at once."""

    def __init__(self) -> None:
        self._tasks: list[Task] = []
        self.first_s: float | None = None

    def start(self, jobs: Iterable[Job]) -> None:
        """Know nothing."""

    def has_room(self) -> bool:
        """Two at a time."""
        return len(self._tasks) < 2

    def submit(self, task: Task) -> None:
        """Note when the first one came."""
        if self.first_s is None:
            self.first_s = time.monotonic()
        self._tasks.append(task)

    def wait(self, timeout_s: float) -> list[Done]:
        """Answer the first."""
        task = self._tasks.pop(0)
        assert isinstance(task, LiveTask)
        return [Done(task, made(task.trial))]

    def __enter__(self) -> "NoTrial":
        return self

    def __exit__(self, *_: object) -> None:
        pass


_RESULT = intact()
_PARTS = {name: msgspec.json.encode(getattr(_RESULT, name)) for name in ("verdict", "injections", "server", "contract")}
_TYPES = {
    "verdict": type(_RESULT.verdict),
    "injections": list[type(_RESULT.injections[0])],  # type: ignore[misc]
    "server": type(_RESULT.server),
    "contract": type(_RESULT.contract),
}


def made(number: int) -> TrialResult:
    """A result as it comes from a worker: every part an object of its own."""
    parts = {name: msgspec.json.decode(text, type=_TYPES[name]) for name, text in _PARTS.items()}
    folder = Path(f"out/profile/trial-{number:04d}")
    return replace(_RESULT, trial=number, folder=folder, seconds=dict(_RESULT.seconds), **parts)


def without_servers(trials: int) -> dict[str, float]:
    """Run a plan whose trials take no time, with events and index; return seconds and MB."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        plan = TrialPlan(profile=load_profile("kill9-all"), run_seed=1, server=ServerChoice())
        order = Order(job=Job(plan=plan, out=out / "kill9-all"), trials=trials)
        executor = NoTrial()
        begun = time.monotonic()
        with contextlib.closing(Store(out)) as store:
            result = run_campaign(Campaign(orders=[order]), executor, store.handle)
        ended = time.monotonic()
        assert len(result.profiles[0].trials) == trials
        assert executor.first_s is not None
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"first_s": executor.first_s - begun, "all_s": ended - begun, "peak_mb": peak_kb / 1024}


def in_a_process_of_its_own(trials: int) -> dict[str, float]:
    """Return what `without_servers` does, from start to end of a process."""
    command = [sys.executable, __file__, "--without-servers", str(trials)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    begun = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, float] = json.loads(done.stdout)
    told["process_s"] = time.monotonic() - begun
    return told


def rate(recording: Path, job: Job, executor: Executor, states: int, home: Path) -> float:
    """Return states a second, without the first ones."""
    out = Path(tempfile.mkdtemp(dir=home))
    order = Order(job=replace(job, out=out), trials=states, recording=recording)
    ended: list[float] = []

    def note(event: object) -> None:
        if type(event).__name__ == "TrialDone":
            ended.append(time.monotonic())

    result = run_campaign(Campaign(orders=[order]), executor, note)
    assert result.error is None, result.error
    return (len(ended) - 1 - WARM) / (ended[-1] - ended[WARM])


def with_servers(states: int) -> None:
    """Print one line a turn, then the medians of the ratios."""
    import distributed

    from crashlab.campaign.dask_executor import DaskExecutor

    home = Path(tempfile.mkdtemp(prefix="bench-campaign-"))
    home.chmod(0o755)
    (home / "bench.toml").write_text(PROFILE)
    profile = load_profile(str(home / "bench.toml"))
    choice = ServerChoice(kind="local")
    recording = record(
        RunRequest(profile=profile, seed=1, trials=1, time_limit_s=None, server=choice, out=home / "recorded")
    )
    assert not recording.record.differences
    job = Job(plan=TrialPlan(profile=profile, run_seed=1, server=choice), out=home)
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    rows = []
    with distributed.LocalCluster(**options) as cluster:
        for _ in range(TURNS):
            one = rate(recording.folder, job, InlineExecutor(), states, home)
            two = rate(recording.folder, job, PoolExecutor(2), states, home)
            dask = rate(recording.folder, job, DaskExecutor(cluster.scheduler_address), states, home)
            rows.append((two / one, dask / two))
            rates = f"-j 1 {one:5.1f}  -j 2 {two:5.1f}  dask {dask:5.1f} states/s"
            print(f"{rates}   {two / one:4.2f} x   {dask / two:4.2f} x", flush=True)
    more, other = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"median: -j 2 is {more:.2f} x -j 1 (target 1.8), dask {other:.2f} x the pool (target 0.9)")
    shutil.rmtree(home)


def main() -> None:
    """Measure all of it."""
    if sys.argv[1:2] == ["--without-servers"]:
        print(json.dumps(without_servers(int(sys.argv[2]))))
        return
    cost = in_a_process_of_its_own(COST)
    print(f"a trial costs {cost['all_s'] / COST * 1000:.2f} ms beside itself (target 5)")
    plan = in_a_process_of_its_own(PLAN)
    print(
        f"{PLAN} trials: the first after {plan['first_s']:.2f} s (target 2), all after {plan['all_s']:.0f} s, "
        f"largest resident size {plan['peak_mb']:.0f} MB (target 300)"
    )
    with_servers(int(sys.argv[1]) if len(sys.argv) > 1 else 80)


if __name__ == "__main__":
    main()
