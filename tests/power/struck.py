"""Does a large run that is interrupted and killed again and again come to what it would have been?

    python tests/power/struck.py [--states N] [--on pool|local|apart] [--seed N]

Six profiles are recorded. Their states are tried by two processes that nobody touches; then once more, while at seeded
moments the run gets a Ctrl-C, one of its workers kill -9, and itself kill -9, and is resumed each time. Compared are
state and verdict of each trial, to the byte. The second run is one of

    pool    two workers of this machine (-j 2)
    local   a dask LocalCluster of two worker processes
    apart   a dask scheduler and two workers that see none of the client's folders (as root)

The exit code is 1 if any trial differs, is missing, or is one too many.
"""

import argparse
import contextlib
import importlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab import evidence
from crashlab.cli import invoke
from crashlab.seeds import stream
from tests.campaign.command import Command, kill_orphans, left_behind, temporary_home, told_by

PROFILES = (
    *("power-loss", "power-loss-async", "power-loss-strict"),
    *("objects-power-loss", "lying-disk", "full-page-writes-off"),
)
BLOWS = ("interrupt", "worker", "parent")
ROUNDS = 2

Workers = Callable[[Command], list[int]]


@contextlib.contextmanager
def pool(hidden: Path) -> Iterator[tuple[list[str], Workers]]:
    """Two workers of this machine."""
    yield ["-j", "2"], lambda command: command.workers()


@contextlib.contextmanager
def local(hidden: Path) -> Iterator[tuple[list[str], Workers]]:
    """Two processes of dask on this machine."""
    distributed: Any = importlib.import_module("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options) as made,
        distributed.Client(made.scheduler_address, set_as_default=False) as client,
    ):
        yield ["--scheduler", made.scheduler_address], lambda command: sorted(client.run(os.getpid).values())


@contextlib.contextmanager
def apart(hidden: Path) -> Iterator[tuple[list[str], Workers]]:
    """Two processes of dask that see nothing below the folder."""
    from tests.campaign.test_dask import Cluster, begin

    with temporary_home() as home:
        made = Cluster(home, "")
        try:
            begin(made, hidden)
            with made.client() as client:
                yield ["--scheduler", made.address], lambda command: sorted(client.run(os.getpid).values())
        finally:
            for process in reversed(made.processes):
                process.terminate()
            for process in made.processes:
                process.wait(60)
            for folder in made.temporary:
                kill_orphans(folder)


KINDS = {"pool": pool, "local": local, "apart": apart}


def strike(command: Command, blow: str, workers: Workers, rng: Random) -> None:
    """Deal one blow."""
    if blow == "interrupt":
        command.interrupt()
    elif blow == "parent":
        command.process.kill()
    elif alive := workers(command):
        os.kill(rng.choice(alive), signal.SIGKILL)
    print(f"  {blow} struck", flush=True)


def struck(args: list[str], out: Path, states: int, kind: str, rng: Random, home: Path) -> None:
    """Run and resume until all states are tried."""
    moments = sorted(rng.sample(range(1, states * 9 // 10), len(BLOWS) * ROUNDS))
    blows = [blow for _ in range(ROUNDS) for blow in rng.sample(BLOWS, len(BLOWS))]
    command = None
    with KINDS[kind](out.parent) as (options, workers):
        for moment, blow in zip(moments, blows, strict=True):
            if command is None:
                command = Command(*args, *options, cwd=out.parent, home=home)
                command.wait_until_begun()
            command.wait_for_trials(out, moment)
            time.sleep(rng.random() * 0.2)
            strike(command, blow, workers, rng)
            if blow != "worker":
                print(f"  ended with {command.ended()}, {sum(1 for _ in out.rglob(evidence.VERDICT))} states judged")
                kill_orphans(home)
                args, command = ["run", "--resume", str(out)], None
        command = command or Command(*args, *options, cwd=out.parent, home=home)
        command.process.wait(3600)
        print(f"  ended with {command.process.returncode}")


def main() -> int:
    """Be the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=2000)
    parser.add_argument("--on", choices=KINDS, default="pool")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    each = -(-options.states // len(PROFILES))
    with tempfile.TemporaryDirectory() as folder, temporary_home() as home:
        place = Path(folder)
        recordings = [place / "recordings" / name for name in PROFILES]
        for name, recording in zip(PROFILES, recordings, strict=True):
            change = ["--set", "power_loss.acks=100", "--seed", str(options.seed)]
            assert invoke(["record", name, *change, "--out", str(recording)]) == 0
        args = ["explore", *map(str, recordings), "--trials", str(each)]
        invoke([*args, "-j", "2", "--out", str(place / "whole")])
        out = place / "struck"
        struck([*args, "--out", str(out)], out, each * len(PROFILES), options.on, stream(options.seed, "blows"), home)
        whole, again = told_by(place / "whole"), told_by(out)
        missing, more = set(whole) - set(again), set(again) - set(whole)
        other = [name for name in set(whole) & set(again) if whole[name] != again[name]]
        print(f"{options.on}, seed {options.seed}: {len(whole)} states of {len(PROFILES)} profiles;", end=" ")
        print(f"missing {len(missing)}, one too many {len(more)}, different {len(other)}: {sorted(other)[:5]}")
        left = left_behind(home)
        print(f"left behind: {left or 'nothing'}")
    return 1 if missing or more or other or left else 0


if __name__ == "__main__":
    sys.exit(main())
