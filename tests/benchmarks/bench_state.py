"""What does one crash state cost, held against the least that anybody would have to do?

    python tests/benchmarks/bench_state.py [PAIRS [STATES [AFTERLIFE]]]
    TMPDIR=/dev/shm python tests/benchmarks/bench_state.py

Floor: copy the same image with cp -a, start the server on it with the same settings, one query, kill. A whole state:
materialise, recover, all checks, save, judge. In turns, state by state; removing the copy is not counted. Then states a
second with one worker process and with two, in turns, and the same of the floor, with all that belongs to it: what two
processes come to on this machine that share its kernel, and nothing else. The folder for all of it is the temporary
one. AFTERLIFE is the share of the states whose server lives on, 0 for none; without it, as many as in every run.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.disk.model import CrashState, DiskModel
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.images import ImageFolder
from crashlab.exploration.record import make
from crashlab.exploration.recording import Recording
from crashlab.profile import Profile, load_profile
from crashlab.recovery.restart import copy_settings
from crashlab.results import make_trial_folder
from crashlab.server import ServerChoice
from crashlab.server.base import describe_exit
from crashlab.server.builds import open_build
from crashlab.server.privileges import server_user
from tests.running import RunRequest, plan_of, states_of

PROFILE = """
description = "the benchmark's"
crash_class = "power_loss"
[power_loss]
acks = 400
"""
ROUNDS = 3
STATES_MIN = 4


def record(home: Path, afterlife: str | None = None) -> tuple[Recording, Profile]:
    """Make the recording that all states are taken from."""
    file = home / "bench.toml"
    file.write_text(PROFILE)
    profile = load_profile(str(file), overrides=[f"afterlife={afterlife}"] if afterlife else [])
    choice = ServerChoice(kind="local")
    request = RunRequest(
        profile=profile, seed=1, trials=1, time_limit_s=None, server=choice, out=home / "out", keep="none"
    )
    recording = make(plan_of(request), home / "recording")
    assert not recording.record.differences, recording.record.differences
    return recording, profile


class Floor:
    """The bare sequence, written without crashlab; only the image to copy is crashlab's."""

    def __init__(self, recording: Recording, explorer: Explorer, home: Path) -> None:
        self._model = ImageFolder(recording.base, explorer.walk.log, home / "floor")
        self._home = home
        facts = recording.record.server
        self._build = open_build(Path(facts.source), facts.source)
        self._settings = facts.requested | copy_settings(self._build.version.major)

    def seconds(self, model: DiskModel, state: CrashState) -> float:
        """Return the seconds of copy, start, query and kill."""
        self._model.materialise(model, state)
        user = server_user()
        home = Path(tempfile.mkdtemp(prefix="bare-", dir=self._home))
        user.own(home)
        begun = time.monotonic()
        subprocess.run(["cp", "-a", "--reflink=auto", self._model.data_directory, home / "data"], check=True)
        settings = {**self._settings, "listen_addresses": "", "unix_socket_directories": str(home)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (home / "log").open("ab") as log:
            server = subprocess.Popen(
                [self._build.bindir / "postgres", "-D", home / "data", *words],
                stdout=log,
                stderr=log,
                cwd=home,
                **user.credentials(),
            )
        self._first_query(server, home)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        for pid in (server.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()
        seconds = time.monotonic() - begun
        shutil.rmtree(home)
        return seconds

    def _first_query(self, server: "subprocess.Popen[bytes]", home: Path) -> None:
        while True:
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(host=str(home), user="postgres", dbname="postgres", autocommit=True) as connection,
            ):
                connection.execute("SELECT count(*) FROM crashlab.marker")
                return
            if server.poll() is not None:
                raise SystemExit(f"the bare server {describe_exit(server.returncode)}:\n{(home / 'log').read_text()}")
            time.sleep(0.005)

    def dispose(self) -> None:
        """Remove the image that was copied."""
        self._model.dispose()


def pairs(recording: Recording, profile: Profile, home: Path, count: int) -> None:
    """Print one line a pair, then the medians."""
    rows: list[tuple[float, float]] = []
    with Explorer(recording, profile) as explorer:
        floor = Floor(recording, explorer, home)
        for trial, state in enumerate(states_of(explorer, count + 2)):
            bare = floor.seconds(explorer.walk.to(state.position), state)
            begun = time.monotonic()
            result = explorer.try_state(state, trial, make_trial_folder(home / "pairs", trial))
            whole = time.monotonic() - begun
            if trial >= 2:  # the first ones warm caches, and write the whole directory
                rows.append((bare, whole))
                phases = "  ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in result.seconds.items())
                print(f"floor {bare * 1000:5.0f} ms  state {whole * 1000:5.0f} ms  {whole / bare:5.2f} x  ({phases})")
        floor.dispose()
    bare, whole = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(whole / bare for bare, whole in rows)
    print(f"median of {len(rows)} pairs: floor {bare * 1000:.0f} ms, state {whole * 1000:.0f} ms, ratio {ratio:.2f}")


def work(
    recording: Recording, profile: Profile, out: Path, share: slice, count: int, ready: object, *, bare: bool
) -> None:
    """Try a share of the states, from the moment on that all workers are ready."""
    with Explorer(recording, profile, run_seed=2) as explorer:
        out.mkdir(mode=0o755)
        floor = Floor(recording, explorer, out) if bare else None
        todo = islice(enumerate(states_of(explorer, count)), share.start, None, share.step)
        for done, (trial, state) in enumerate(todo):
            if done == 1:
                ready.wait()  # type: ignore[attr-defined]
            if floor is not None:
                floor.seconds(explorer.walk.to(state.position), state)
            else:
                explorer.try_state(state, trial, make_trial_folder(out, trial))
        ready.wait()  # type: ignore[attr-defined]


def rate(recording: Recording, profile: Profile, home: Path, workers: int, count: int, *, bare: bool = False) -> float:
    """Return states a second of so many worker processes, without their first state each."""
    out = Path(tempfile.mkdtemp(dir=home))
    out.chmod(0o755)
    ready = multiprocessing.Barrier(workers + 1)
    running = [
        multiprocessing.Process(
            target=work,
            args=(recording, profile, out / str(at), slice(at, None, workers), count, ready),
            kwargs={"bare": bare},
        )
        for at in range(workers)
    ]
    for process in running:
        process.start()
    ready.wait(120)
    begun = time.monotonic()
    ready.wait(600)
    seconds = time.monotonic() - begun
    for process in running:
        process.join()
    return (count - workers) / seconds


def main() -> None:
    """Record once, then measure."""
    multiprocessing.set_start_method("fork")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    states = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    if states < STATES_MIN:
        raise SystemExit(f"at least {STATES_MIN} states: each of two workers tries one before the clock starts")
    home = Path(tempfile.mkdtemp(prefix="bench-state-"))
    home.chmod(0o755)
    try:
        recording, profile = record(home, sys.argv[3] if len(sys.argv) > 3 else None)
        pairs(recording, profile, home, count)
        for bare in (False, True):
            rates = [
                tuple(rate(recording, profile, home, workers, states, bare=bare) for workers in (1, 2))
                for _ in range(ROUNDS)
            ]
            what = "floors" if bare else "states"
            for one, two in rates:
                print(f"one worker {one:5.1f} {what}/s   two {two:5.1f} {what}/s   {two / one:4.2f} x")
            print(f"median {statistics.median(two / one for one, two in rates):.2f} x")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
