"""What does a test with `crash` cost beside its application, and what does a sweep gain by a second worker?

    python tests/benchmarks/bench_sweep.py [ORDERS [PAIRS]]

A small shop takes ORDERS orders, one commit each. Measured by pytest itself, without its start: a test that kills once,
less the time that the same orders take on the same server without observer and crash. Then a sweep of all moments of
all commits, in one process and with -n 2, in turns: moments a second of each, the ratio, and the processor time that a
moment takes with all its processes, which says most where the machine has other work.
"""

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import time
import pytest
from tests.testing.shop import Shop

ORDERS = {orders}

def work(url, told):
    shop = Shop(url)
    for number in range(ORDERS):
        told(shop.order(number))

def test_once(crash):
    shop = Shop(crash.url).create_tables()
    begun = time.monotonic()
    work(crash.direct_url, lambda number: None)
    print(f"OWN {{time.monotonic() - begun:.4f}}")
    shop.connection.execute("TRUNCATE orders")
    shop.connection.commit()
    with crash:
        work(crash.url, crash.told)
    crash.check("SELECT id FROM orders")

@pytest.mark.crashlab(points="commits")
def test_swept(crash):
    Shop(crash.url).create_tables()
    with crash:
        work(crash.url, crash.told)
    crash.check("SELECT id FROM orders")
"""


def run(folder: Path, name: str, *options: str) -> tuple[str, float]:
    """Run one of the tests in a process of its own; return what it said, and the seconds that pytest names."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", "--durations=0", "--durations-min=0"]
    done = subprocess.run(
        [*command, "--crashlab-seed=1", f"test_bench.py::{name}", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if done.returncode:
        sys.exit(done.stdout)
    found = re.search(r"passed.* in ([\d.]+)s", done.stdout)
    assert found is not None
    return done.stdout, float(found[1])


def _cpu_s() -> float:
    """Return the processor time of all that has ended below this process."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    orders, pairs = (int(word) for word in (sys.argv[1:] + ["10", "3"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_bench.py").write_text(TESTS.format(orders=orders))
        run(folder, "test_once")  # templates are made, modules compiled
        beyond = []
        for _ in range(pairs):
            said, _ = run(folder, "test_once")
            spent = sum(map(float, re.findall(r"^([\d.]+)s (?:setup|call|teardown)", said, re.MULTILINE)))
            own = re.search(r"OWN ([\d.]+)", said)
            assert own is not None
            beyond.append(spent - 2 * float(own[1]))  # the orders are taken twice
        print(f"one crash, beyond the application's own time: {statistics.median(beyond):.2f} s (of {pairs})")
        spent_cpu: list[float] = []
        rates: dict[str, list[float]] = {"0": [], "2": []}
        for _ in range(pairs):
            for workers, found in rates.items():
                before = _cpu_s()
                _, seconds = run(folder, "test_swept", "-n", workers)
                found.append(3 * orders / seconds)
                if workers == "0":
                    spent_cpu.append(_cpu_s() - before)
        cpu = statistics.median(spent_cpu) / (3 * orders)
        one, two = (statistics.median(found) for found in rates.values())
        ratio = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
        print(f"sweep of {3 * orders} moments: {one:.2f} a second, with -n 2 {two:.2f}, ratio {ratio:.2f} (of {pairs})")
        print(f"processor time, with pytest's start and the run that counts: {cpu:.2f} s a moment")


if __name__ == "__main__":
    main()
