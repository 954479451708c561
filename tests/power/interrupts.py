"""Does a run that is interrupted, or killed, at any moment leave what it should and nothing else?

    python tests/power/interrupts.py [--moments 20] [--seed 1] [--keep DIR]

At so many seeded moments of a live run and of a recorded one each: Ctrl-C once, twice and five times in a row, and
kill -9. A moment lies anywhere between crashlab's first line and a time that a few trials take. Afterwards:
no traceback; what was judged can be judged again, with the same result; an interrupted run ends as such, with its
report as soon as it had begun; and after `crashlab clean --yes` nothing of it is left.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab import evidence
from crashlab.campaign.runrecord import CAMPAIGN
from crashlab.seeds import stream
from tests.campaign.command import Command, left_behind, temporary_home

RUNS = {
    "live": ["run", "kill9-all", "kill9-backend", "--trials", "500", "--set", "faults.0.when={acks=30}"],
    "recorded": ["run", "power-loss", "--trials", "2000", "--set", "power_loss.acks=150"],
}
BLOWS = {"ctrl-c": 1, "twice": 2, "five times": 5, "kill": 0}
LATEST_S = 6.0
"""A run of either kind has some trials behind it then, here."""
BETWEEN_S = (0.0, 0.3)  # two interrupts of a row
END_S = 60.0
INTERRUPTED = {130, -signal.SIGINT}
"""A shell says 130 to both. Python ends by the signal itself, whatever it is told, if an interrupt has once come out
of an exec() of a text, as data classes use it (pythonrun.c, run_eval_code_obj)."""
BAD_WORDS = ("Traceback", "KeyboardInterrupt", "this is a bug", "Exception ignored")


def problems_of(kind: str, blow: str, rng: Random, work: Path) -> Iterator[str]:
    """Strike one run at a drawn moment and yield what is wrong afterwards."""
    out, report = work / "out", work / "report.json"
    moment_s = rng.uniform(0.0, LATEST_S)
    args = [*RUNS[kind], "-j", "2", "--seed", "1", "--out", str(out), "--json", str(report)]
    with temporary_home() as home:
        command = Command(*args, cwd=work, home=home)
        try:
            yield from _struck(command, blow, moment_s, rng, report)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.process.pid, signal.SIGKILL)
            command.end()
        trials = told_by_finished(out)
        if trials:
            judged = crashlab("judge", str(out))
            if judged.returncode not in (0, 3) or "Traceback" in judged.stderr:
                yield f"cannot be judged again: {judged.returncode} {judged.stderr[-500:]}"
            if not trials.items() <= told_by_finished(out).items():  # more may have been written, and not judged yet
                yield "is another one when it is judged again"
        if out.exists() and not (out / CAMPAIGN).exists() and trials:
            yield "has trials and no plan to go on with"
        cleaned = crashlab("clean", "--yes")
        if cleaned.returncode != 0:
            yield f"cannot be cleaned up: {cleaned.stdout[-300:]} {cleaned.stderr[-500:]}"
        if left := left_behind(home):
            yield f"has left {left}"


def _struck(command: Command, blow: str, moment_s: float, rng: Random, report: Path) -> Iterator[str]:
    command.wait_until_loading()  # before that it is Python's own to answer
    time.sleep(moment_s)
    if command.process.poll() is not None:
        yield f"ended before it was struck: {command.text()[-500:]}"
        return
    begun = "evidence in" in command.text()
    if blow == "kill":
        command.process.kill()
    for number in range(BLOWS[blow]):
        if number:
            time.sleep(rng.uniform(*BETWEEN_S))
        with contextlib.suppress(ProcessLookupError):  # it has ended
            command.interrupt()
    try:
        code = command.process.wait(END_S)
    except subprocess.TimeoutExpired:
        yield f"goes on {END_S:g} s after it was struck"
        return
    said = command.text()
    for word in BAD_WORDS:
        if word in said:
            yield f"says {word}: {said[-1500:]}"
            break
    if blow != "kill" and code not in INTERRUPTED:
        yield f"ended with {code}: {said[-500:]}"
    if blow == "ctrl-c" and begun and not (report.exists() and json.loads(report.read_text())["interrupted"]):
        yield f"wrote no report: {said[-500:]}"


def told_by_finished(out: Path) -> dict[str, tuple[bytes, bytes]]:
    """Return every verdict and its trial, of those that are whole."""
    return {
        str(file.parent.relative_to(out)): ((file.parent / evidence.TRIAL).read_bytes(), file.read_bytes())
        for file in out.rglob(evidence.VERDICT)
    }


def crashlab(*args: str) -> "subprocess.CompletedProcess[str]":
    """Run a command that starts no server."""
    return subprocess.run([sys.executable, "-m", "crashlab", *args], capture_output=True, text=True, timeout=300)


def strike_all(moments: int, seed: int, folder: Path, tell: Callable[[str], None]) -> int:
    """Strike at so many moments of each kind of run with each kind of blow; return how many went wrong."""
    wrong = 0
    for kind in RUNS:
        for blow in BLOWS:
            rng = stream(seed, "interrupts", kind, blow)
            bad = 0
            for number in range(moments):
                work = folder / f"{kind}-{blow.replace(' ', '-')}-{number}"
                work.mkdir()
                found = list(problems_of(kind, blow, rng, work))
                for problem in found:
                    tell(f"{kind}, {blow}, moment {number}: the run {problem}")
                bad += bool(found)
                if not found:
                    shutil.rmtree(work)
            tell(f"{kind:<9} {blow:<11} {moments} moments, {bad} went wrong")
            wrong += bad
    return wrong


def main() -> int:
    """Be the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where what went wrong stays")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="interrupts-"))
    folder.mkdir(exist_ok=True)
    return min(1, strike_all(options.moments, options.seed, folder, lambda text: print(text, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
