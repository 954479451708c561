"""What does observation cost a workload?

    python tests/benchmarks/bench_observe.py [PAIRS] [SECONDS]

Pairs of runs of the same workload on one server, with the sampler and without it, in an order drawn for each pair. A
ratio is taken within each pair, and the interval is Student's over the pairs' logarithms. Two workloads: crashlab's
own, whose clients are threads of this process, as in a live trial; and pgbench, where the build has it. The target is
3 %: the interval may not lie above it. What the sampler says about itself is printed beside.
"""

import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from crashlab.confidence import mean_interval
from crashlab.ledger import LedgerWriter
from crashlab.observe import Sampler
from crashlab.observe.samples import cost_line
from crashlab.profile import load_profile
from crashlab.seeds import new_seed, stream
from crashlab.server import Server, ServerSpec, create_server
from crashlab.trial.setup import make_workload

SEED = new_seed()
TARGET = 0.03
PGBENCH_SCALE, PGBENCH_CLIENTS = "4", "4"


def own_workload(server: Server, seconds: float, folder: Path, number: int) -> float:
    """Return the acknowledged transactions a second of crashlab's own clients."""
    with server.connect(autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS crashlab CASCADE")
    ledger = LedgerWriter(folder / f"{number}.jsonl", seed=number)
    workload = make_workload(load_profile("kill9-all", []), server, ledger, number)
    workload.set_up()
    workload.start()
    acked, begun = ledger.acked, time.monotonic()
    time.sleep(seconds)
    rate = (ledger.acked - acked) / (time.monotonic() - begun)
    assert workload.finish(timeout_s=20)
    ledger.close()
    return rate


def pgbench(server: Server, seconds: float, program: str) -> float:
    """Return pgbench's transactions a second."""
    command = [program, "-n", "-M", "prepared", "-c", PGBENCH_CLIENTS, "-T", str(round(seconds)), server.conninfo()]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(next(line.split()[2] for line in said.splitlines() if line.startswith("tps = ")))


def measure(server: Server, run: Callable[[int], float], pairs: int, what: str) -> bool:
    """Print the cost of observing one workload; return whether it is surely above the target."""
    rng, logs, said = stream(SEED, what), [], ""
    for pair in range(pairs):
        rates: dict[bool, float] = {}
        for number, observed in enumerate(rng.sample([True, False], 2)):
            sampler = Sampler(lambda: server.connect(autocommit=True)) if observed else None
            if sampler is not None:
                sampler.start()
            rates[observed] = run(2 * pair + number)
            if sampler is not None:
                said = cost_line(sampler.stop())
        logs.append(math.log(rates[True] / rates[False]))
    low, middle, high = (1 - math.exp(value) for value in reversed(mean_interval(logs)))
    print(f"{what}: costs {middle:.1%} of throughput ({low:.1%} to {high:.1%} at 95 %, {pairs} pairs)")
    print(f"  the last sampler says: {said}")
    return low > TARGET


def main(pairs: int, seconds: float) -> int:
    """Measure both; 1 if a cost is surely above the target."""
    print(f"seed {SEED}")
    missed = False
    with tempfile.TemporaryDirectory() as name, create_server(ServerSpec(kind="local")) as server:
        server.start()
        folder = Path(name)
        missed |= measure(
            server, lambda number: own_workload(server, seconds, folder, number), pairs, "crashlab's own clients"
        )
        program = shutil.which("pgbench", path=str(server.source))
        if program is None:
            print("pgbench: this build has none")
            return int(missed)
        subprocess.run([program, "-i", "-q", "-s", PGBENCH_SCALE, server.conninfo()], capture_output=True, check=True)
        missed |= measure(server, lambda number: pgbench(server, seconds, program), pairs, "pgbench, 4 clients")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15, float(sys.argv[2]) if len(sys.argv) > 2 else 3))
