"""What does crashlab add to a crash?

    python tests/benchmarks/bench_trial.py [local|container] [PAIRS]

Runs the bare sequence (copy a template, start, workload, kill -9, restart, first query, remove), written without
crashlab's servers, faults, ledger and checks, and a whole trial, in turns, and prints the ratio pair by pair. The
bare workload sends the same statements: it is the workload's own code over a ledger that notes nothing.
A container trial is held against docker run, kill, start and first query with the same statements in between; its
checks are listed apart, since the bare sequence has none.
"""

import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.profile import load_profile
from crashlab.server import ServerChoice, ServerSpec, create_server
from crashlab.trial.live import run_trial
from crashlab.workload.run import Workload, make_kinds
from crashlab.workload.session import Mix
from tests.running import RunRequest, plan_of

ACKS = 1000
PROFILE = load_profile("kill9-all", overrides=[f'faults=[{{kind="kill", target="all", when={{acks={ACKS}}}}}]'])
SETTINGS = dict(PROFILE.server.settings)
IMAGE = "postgres:17"
CHECKS = ("observe", "read ledger", "afterlife")


class NoLedger:
    """Counts what the workload needs counted, and notes nothing."""

    def __init__(self) -> None:
        self.acked = 0
        self._tx = 0

    def begin(self, client: int) -> int:
        """Give out an id."""
        self._tx += 1
        return self._tx

    def record(self, event: Any) -> int:
        """Count acknowledgements."""
        if type(event).__name__ == "Ack":
            self.acked += 1
        return 0


def run_workload(connect: Any) -> Workload:
    """Set up and run until enough is acknowledged; the sessions are still at work afterwards."""
    ledger: Any = NoLedger()
    plan = PROFILE.workload
    mix = Mix(
        dict(plan.synchronous_commit.items()),
        plan.two_phase,
        plan.rollbacks,
        plan.savepoints,
        plan.errors,
        plan.read_only,
    )
    workload = Workload(connect, ledger, kinds=make_kinds(plan.kinds), clients=plan.clients, mix=mix, seed=1)
    workload.set_up()
    workload.start()
    goal = ledger.acked + ACKS
    while ledger.acked < goal:
        time.sleep(0.0005)
    workload.expect_crash()
    return workload


def first_query(connect: Any) -> None:
    """Connect as soon as the server lets us in, and ask something."""
    while True:
        with contextlib.suppress(psycopg.OperationalError), connect() as connection:
            connection.execute("SELECT count(*) FROM crashlab.marker")
            return
        time.sleep(0.005)


def bare_local(bindir: Path, template: Path) -> float:
    """Return the seconds of one bare sequence with a local build."""
    begun = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="bare-"))
    root = os.getuid() == 0
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if root else {}
    if root:
        os.chown(home, 65534, 65534)
    subprocess.run(["cp", "-a", "--reflink=auto", template, home / "data"], check=True)
    settings = {**SETTINGS, "listen_addresses": "", "unix_socket_directories": str(home)}
    command: list[str | Path] = [
        bindir / "postgres",
        "-D",
        home / "data",
        *(w for k, v in settings.items() for w in ("-c", f"{k}={v}")),
    ]

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(home), user="postgres", dbname="postgres", autocommit=True)

    def start() -> subprocess.Popen[bytes]:
        with (home / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=home, **user)

    server = start()
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            connect().close()
            break
        time.sleep(0.005)
    workload = run_workload(connect)
    kill_tree(server)
    workload.join(timeout_s=10)
    (home / "data" / "postmaster.pid").unlink()
    server = start()
    first_query(connect)
    kill_tree(server)
    shutil.rmtree(home)
    return time.monotonic() - begun


def kill_tree(server: subprocess.Popen[bytes]) -> None:
    """SIGKILL the postmaster and its children, and wait until they are gone."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    for pid in (server.pid, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.wait()
    while any(Path(f"/proc/{pid}/stat").exists() and not is_zombie(pid) for pid in children):
        time.sleep(0.0005)


def is_zombie(pid: str) -> bool:
    """Say whether a process has ended and waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def bare_container() -> float:
    """Return the seconds of docker run, workload, docker kill, docker start, first query, docker rm."""
    begun = time.monotonic()
    name, port = f"bare-{os.getpid()}", 54999
    options = [word for key, value in SETTINGS.items() for word in ("-c", f"{key}={value}")]
    run = ["docker", "run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:5432", "-e", "POSTGRES_PASSWORD=x", IMAGE]
    docker([*run, "postgres", *options])

    def connect() -> psycopg.Connection[Any]:
        address = f"host=127.0.0.1 port={port} user=postgres password=x dbname=postgres connect_timeout=2"
        return psycopg.connect(address, autocommit=True)

    while True:
        with contextlib.suppress(psycopg.OperationalError):
            connect().close()
            break
        time.sleep(0.005)
    workload = run_workload(connect)
    docker(["docker", "kill", name])
    workload.join(timeout_s=10)
    docker(["docker", "start", name])
    first_query(connect)
    docker(["docker", "rm", "-f", "-v", name])
    return time.monotonic() - begun


def docker(command: list[str]) -> None:
    """Run one docker command."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def whole_trial(kind: str, number: int) -> tuple[float, float]:
    """Return the seconds of one crashlab trial, and of its checks."""
    out = Path(tempfile.mkdtemp(prefix="trial-"))
    try:
        choice = ServerChoice(kind=kind, image=IMAGE if kind == "container" else None)
        request = RunRequest(profile=PROFILE, seed=1, trials=1, time_limit_s=None, server=choice, out=out, keep="none")
        begun = time.monotonic()
        result = run_trial(plan_of(request), number, out)
        assert result.verdict.outcome == "intact", result.verdict
        return time.monotonic() - begun, sum(result.seconds[check] for check in CHECKS)
    finally:
        shutil.rmtree(out)


def main() -> None:
    """Print one line a pair, then the medians."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "local"
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    home = Path(tempfile.mkdtemp(prefix="bare-template-"))
    home.chmod(0o755)
    if kind == "local":
        with create_server(ServerSpec(kind="local", initdb=tuple(PROFILE.server.initdb))) as server:
            assert server.data_directory is not None
            subprocess.run(["cp", "-a", server.data_directory, home / "data"], check=True)
            bindir = Path(server.source)
    rows = []
    try:
        for number in range(pairs + 1):
            bare = bare_local(bindir, home / "data") if kind == "local" else bare_container()
            whole, checks = whole_trial(kind, number)
            if number:  # the first pair warms caches
                rows.append((bare, whole, checks))
                print(
                    f"bare {bare:6.3f} s   trial {whole:6.3f} s   of it checks {checks:6.3f} s   {whole / bare:5.2f} x"
                )
    finally:
        shutil.rmtree(home)
    print(f"median of {pairs} pairs, {ACKS} acknowledged transactions each:", end=" ")
    print(f"trial / bare {statistics.median(whole / bare for bare, whole, _ in rows):.2f} x,", end=" ")
    print(f"without the checks {statistics.median((whole - checks) / bare for bare, whole, checks in rows):.2f} x")


if __name__ == "__main__":
    main()
