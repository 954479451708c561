"""Is a campaign on a dask cluster the one that it would be in one process, also where no folder is shared?

The workers run in mount namespaces of their own, in which the client's folders are empty, and have temporary folders
of their own. That needs root: without, these tests are skipped, unless CRASHLAB_REQUIRE names "unshare".
dask is imported by who uses it: that takes half a second, which nobody needs to wait who only collects tests.
"""

import contextlib
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crashlab.campaign import dask_executor, remote
from crashlab.campaign.task import LiveTask
from crashlab.cli import invoke
from crashlab.errors import ServerError
from tests.campaign.command import TRIALS, Command, Told, left_behind, temporary_home, told_by
from tests.campaign.test_pool import JOB, job
from tests.conftest import required

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="dask is not installed"),
]

PATIENCE_S = 60.0
FEW = 8
"""Trials of each recording, where it is asked only who does them: a batch and a bit."""


@functools.cache
def no_namespaces() -> str | None:
    """Say why no process can have a file system view of its own here, or None."""
    try:
        done = subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, timeout=30
        )
    except OSError as error:
        return f"no unshare: {error}"
    return None if done.returncode == 0 else f"unshare: {done.stderr.strip()}"


@dataclass
class Cluster:
    """A scheduler, and two workers that see nothing of the client's."""

    home: Path
    address: str
    processes: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def temporary(self) -> list[Path]:
        """The workers' folders for temporary files."""
        return sorted(self.home.glob("worker-*"))

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """A client to look at the cluster with."""
        import distributed

        with distributed.Client(self.address, set_as_default=False, timeout=30) as client:
            yield client


@pytest.fixture(scope="module")
def cluster(recordings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for all tests of this module."""
    problem = no_namespaces()
    if problem is not None and "unshare" in required():
        pytest.fail(f"CRASHLAB_REQUIRE names unshare, but: {problem}", pytrace=False)
    if problem is not None:
        pytest.skip(problem)
    with temporary_home() as home:
        made = Cluster(home, "")
        try:
            begin(made, tmp_path_factory.getbasetemp())
            yield made
        finally:
            for process in reversed(made.processes):  # workers first: without a scheduler they wait for it
                process.terminate()
                process.wait(PATIENCE_S)


def begin(made: Cluster, hidden: Path) -> None:
    """Start the processes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    file = made.home / "scheduler.json"

    def start(*words: object, **more: str) -> None:
        with (made.home / "log").open("ab") as log:
            command = list(map(str, words))
            made.processes.append(
                subprocess.Popen(command, env=environment | more, cwd=made.home, stdout=log, stderr=log)
            )

    dask = [sys.executable, "-m"]
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard"]
    start(*dask, *scheduler, "--scheduler-file", file)
    for number in range(2):
        folder = made.home / f"worker-{number}"
        folder.mkdir()
        folder.chmod(0o755)
        hide = f'mount -t tmpfs none "{hidden}" && exec "$@"'
        worker = ["distributed.cli.dask_worker", "--scheduler-file", file, "--nworkers", 1, "--nthreads", 1]
        start("unshare", "-m", "sh", "-c", hide, "-", *dask, *worker, "--no-dashboard", TMPDIR=str(folder))
    deadline = time.monotonic() + PATIENCE_S
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline, (made.home / "log").read_text()
        time.sleep(0.05)
    import distributed

    with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=30) as client:
        client.wait_for_workers(2, timeout=PATIENCE_S)
        made.address = client.scheduler.address


def first_of(whole: Told) -> Told:
    """What of a whole run FEW trials come to."""
    return {name: told for name, told in whole.items() if int(name.rpartition("-")[2]) < FEW}


def test_workers_that_share_no_folder_come_to_the_same(cluster, recordings, whole, tmp_path):
    """State and verdict to the byte; the evidence is whole here and judged again; nothing is left there."""
    out = tmp_path / "run"
    args = ["explore", *recordings, "--trials", str(FEW), "--scheduler", cluster.address, "--out", str(out)]
    assert invoke(args) in (0, 1)
    assert told_by(out) == first_of(whole)
    with cluster.client() as client:
        assert client.run(Path(recordings[0]).exists) == dict.fromkeys(client.run(os.getpid), False)
        handed_out = Counter(key for keys in client.run(parcels_handed_out).values() for key in keys)
        assert len(handed_out) == len(recordings)
        assert set(handed_out.values()) <= {1, 2}, "each worker fetches a recording once"
    assert invoke(["judge", str(out)]) in (0, 1)
    assert told_by(out) == first_of(whole)
    assert invoke(["replay", str(out / "lying-disk" / "trial-0003"), "--out", str(tmp_path / "again")]) == 0
    assert [path for folder in cluster.temporary for path in folder.glob("crashlab-*")] == []


def parcels_handed_out(dask_worker: Any) -> list[str]:
    """Which parcels a worker has given to anyone, itself included, in its own process."""
    return [key for one in dask_worker.transfer_outgoing_log for key in one["keys"] if key.startswith("Parcel")]


def test_a_worker_that_is_killed_costs_nothing(cluster, recordings, whole, tmp_path, home):
    """Its trial is done again by another one, the same; also if it alone had a recording."""
    out = tmp_path / "run"
    args = ["explore", *recordings, "--trials", str(TRIALS), "--scheduler", cluster.address, "--out", str(out)]
    command = Command(*args, cwd=tmp_path, home=home)
    try:
        for moment in (0, 5):
            command.wait_for_trials(out, moment)
            with cluster.client() as client:
                os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
                client.wait_for_workers(2, timeout=PATIENCE_S)
        assert command.ended() in (0, 1), command.text()
    finally:
        command.end()
    assert told_by(out) == whole
    for folder in cluster.temporary:
        remove_killed(folder)


def remove_killed(folder: Path) -> None:
    """Remove what killed workers left; nobody else does."""
    from tests.campaign.command import kill_orphans

    kill_orphans(folder)
    subprocess.run(
        ["find", folder, "-mindepth", "1", "-maxdepth", "1", "-name", "crashlab-*", "-exec", "rm", "-rf", "{}", "+"],
        check=True,
    )


def test_what_is_recorded_on_a_worker_comes_back_whole(cluster, tmp_path):
    """Recordings, recorded recoveries, live trials: the run can be judged and replayed where it was asked for."""
    out = tmp_path / "run"
    names = ["crash-during-recovery", "kill9-all"]
    change = ["--set", "power_loss.acks=50"]
    for name, more in zip(names, (change, []), strict=True):
        args = [name, "--trials", "4", "--seed", "3", "--keep", "all", *more]
        assert invoke(["run", *args, "--scheduler", cluster.address, "--out", str(out / name)]) == 0
    told = told_by(out / names[0])
    assert len(told) == 4
    assert invoke(["judge", str(out / names[0])]) == 0
    trial = out / names[0] / names[0] / "trial-0002"
    assert invoke(["replay", str(trial), "--out", str(tmp_path / "again")]) == 0
    (again,) = told_by(tmp_path / "again").values()
    assert again == told[f"{names[0]}/trial-0002"]


def test_a_client_that_is_killed_can_go_on_with_another_kind_of_worker(cluster, recordings, whole, tmp_path, home):
    """Begun on the cluster, killed, resumed by a pool of this machine: the same run."""
    out = tmp_path / "run"
    args = ["explore", *recordings, "--trials", str(TRIALS), "--scheduler", cluster.address, "--out", str(out)]
    command = Command(*args, cwd=tmp_path, home=home)
    try:
        command.wait_for_trials(out, 4)
        command.process.kill()
    finally:
        command.end()
    assert left_behind(home) == []
    assert invoke(["run", "--resume", str(out), "-j", "2"]) in (0, 1)
    assert told_by(out) == whole


def test_a_local_cluster_comes_to_the_same(recordings: list[str], whole: Told, tmp_path: Path) -> None:
    """Two worker processes of this machine."""
    import distributed

    out = tmp_path / "run"
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as local:
        scheduler = local.scheduler_address
        args = ["explore", *recordings, "--trials", str(FEW), "--scheduler", scheduler, "--out", str(out)]
        assert invoke(args) in (0, 1)
    assert told_by(out) == first_of(whole)


def test_a_scheduler_that_ends_is_an_error_and_the_run_can_go_on(recordings, whole, tmp_path, home):
    """No wait is without end; what came back is kept."""
    import distributed

    out = tmp_path / "run"
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as local:
        args = ["explore", *recordings, "--trials", str(TRIALS), "--scheduler", local.scheduler_address]
        command = Command(*args, "--out", str(out), cwd=tmp_path, home=home)
        try:
            command.wait_for_trials(out, 3)
            local.close(timeout=5)
            assert command.ended() == 4, command.text()
            assert "Traceback" not in command.text()
        finally:
            command.end()
    assert invoke(["run", "--resume", str(out), "-j", "1"]) in (0, 1)
    assert told_by(out) == whole


def test_where_there_is_no_scheduler_or_no_worker_the_run_says_so(tmp_path, monkeypatch, capfd):
    """After a bounded wait, as an error of the environment."""
    import distributed

    monkeypatch.setattr(dask_executor, "CONNECT_TIMEOUT_S", 2)
    args = ["run", "kill9-all", "--trials", "1", "--out", str(tmp_path / "run")]
    for address in ("foo", "", "http://127.0.0.1:9", "tcp://127.0.0.1", "tcp://127.0.0.1:abc"):
        assert invoke([*args, "--scheduler", address]) == 2
        assert f'"{address}" is no address of a dask scheduler' in capfd.readouterr().err
    assert invoke([*args, "--scheduler", "tcp://127.0.0.1:9"]) == 4
    assert 'could not reach a dask scheduler at "tcp://127.0.0.1:9"' in capfd.readouterr().err
    with distributed.LocalCluster(n_workers=0, dashboard_address=None) as local:
        assert invoke([*args, "--scheduler", local.scheduler_address]) == 4
    assert "it has no worker" in capfd.readouterr().err


def test_a_worker_that_nobody_asks_any_more_removes_what_it_made(tmp_path, monkeypatch):
    """Its client was killed and can say nothing."""
    monkeypatch.setattr(remote, "IDLE_MAX_S", 0.2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(remote, "fetch", {"jobs": [job(tmp_path / "out")]}.__getitem__)
    batch = remote.Batch(run="run", jobs="jobs", tasks=(LiveTask(JOB, 0),), recordings={})
    [returned] = remote.run_batch(batch)
    assert isinstance(returned.outcome, ServerError)
    deadline = time.monotonic() + PATIENCE_S
    while list(tmp_path.glob("crashlab-remote-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert remote._hands is None
