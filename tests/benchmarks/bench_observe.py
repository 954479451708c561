"""What does observation cost a workload?

    python tests/benchmarks/bench_observe.py [PAIRS] [SECONDS]

One workload goes on without a break while the sampler comes and goes: pairs of short windows, one with it and one
without, in an order drawn for each pair. What is compared is how many transaction ids the server gave out in each. A
ratio is taken within each pair, and the interval is Student's over the pairs' logarithms. Two workloads: crashlab's
own, whose clients are threads of this process, as in a live trial; and pgbench, where the build has it. The target is
3 %: the interval may not lie above it.

On a busy machine that interval is wide. So what the sampler used of a processor is measured as well: the time that its
thread and its server process ran, as the kernel counts it.
"""

import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from crashlab.confidence import mean_interval
from crashlab.ledger import LedgerWriter
from crashlab.observe import Sampler
from crashlab.profile import load_profile
from crashlab.seeds import new_seed, stream
from crashlab.server import Server, ServerSpec, create_server
from crashlab.trial.setup import make_workload

SEED = new_seed()
TARGET = 0.03
PGBENCH_SCALE, CLIENTS = "4", "4"
WARM_UP_S = 0.5
NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


@contextmanager
def own_workload(server: Server, folder: Path) -> Iterator[None]:
    """crashlab's own clients, at work."""
    ledger = LedgerWriter(folder / "ledger.jsonl", seed=SEED)
    workload = make_workload(load_profile("kill9-all", []), server, ledger, SEED)
    workload.set_up()
    workload.start()
    yield
    assert workload.finish(timeout_s=20)
    ledger.close()


@contextmanager
def pgbench(server: Server, program: str) -> Iterator[None]:
    """pgbench, at work."""
    subprocess.run([program, "-i", "-q", "-s", PGBENCH_SCALE, server.conninfo()], capture_output=True, check=True)
    command = [program, "-n", "-M", "prepared", "-c", CLIENTS, "-T", "100000", server.conninfo()]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Measured:
    """The sampler, and what the kernel says that it ran."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.pid = 0
        self.cpu_s = self.seconds = 0.0
        self.looks = 0

    def _connect(self) -> "psycopg.Connection[Any]":
        connection = self._server.connect(autocommit=True)
        self.pid = connection.info.backend_pid
        return connection

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Sample for a while."""
        sampler = Sampler(self._connect)
        sampler.start()
        thread = next(one.native_id for one in threading.enumerate() if one.name == "crashlab-observe")
        used, begun = self._ran(self.pid, thread), time.monotonic()
        yield
        self.cpu_s += self._ran(self.pid, thread) - used
        self.seconds += time.monotonic() - begun
        self.looks += len(sampler.stop().samples)

    def _ran(self, pid: int, thread: int | None) -> float:
        paths = (Path(f"/proc/{pid}/schedstat"), Path(f"/proc/self/task/{thread}/schedstat"))
        return sum(int(path.read_text().split()[0]) for path in paths) / 1e9


def measure(server: Server, pairs: int, seconds: float, what: str) -> bool:
    """Print the cost of observing the workload that runs; return whether it is surely above the target."""
    rng, logs = stream(SEED, what), []
    measured = Measured(server)
    with server.connect(autocommit=True) as connection:

        def rate() -> float:
            first, begun = connection.execute(NEXT_XID).fetchone(), time.monotonic()
            time.sleep(seconds)
            last, ended = connection.execute(NEXT_XID).fetchone(), time.monotonic()
            assert first is not None
            assert last is not None
            return float((last[0] - first[0]) / (ended - begun))

        time.sleep(WARM_UP_S)
        for _ in range(pairs):
            rates: dict[bool, float] = {}
            for observed in rng.sample([True, False], 2):
                if observed:
                    with measured.looking():
                        rates[True] = rate()
                else:
                    rates[False] = rate()
            logs.append(math.log(rates[True] / rates[False]))
    low, middle, high = (1 - math.exp(value) for value in reversed(mean_interval(logs)))
    print(f"{what}: costs {middle:.1%} of throughput ({low:.1%} to {high:.1%} at 95 %, {pairs} pairs of {seconds:g} s)")
    share, each_ms = measured.cpu_s / measured.seconds, 1000 * measured.cpu_s / measured.looks
    often = measured.looks / measured.seconds
    print(f"  it ran {share:.2%} of one processor, {each_ms:.2f} ms a look, {often:.0f} a second")
    return low > TARGET


def main(pairs: int, seconds: float) -> int:
    """Measure both; 1 if a cost is surely above the target."""
    print(f"seed {SEED}")
    missed = False
    with tempfile.TemporaryDirectory() as name, create_server(ServerSpec(kind="local")) as server:
        server.start()
        with own_workload(server, Path(name)):
            missed |= measure(server, pairs, seconds, "crashlab's own clients")
        program = shutil.which("pgbench", path=str(server.source))
        if program is None:
            print("pgbench: this build has none")
            return int(missed)
        with pgbench(server, program):
            missed |= measure(server, pairs, seconds, f"pgbench, {CLIENTS} clients")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, float(sys.argv[2]) if len(sys.argv) > 2 else 2.0))
