"""What share of a trial's time goes into judging it?

    python tests/benchmarks/bench_judge.py [TRANSACTIONS [off]]

Runs one real trial, kill -9 of everything after so many acknowledged transactions (100,000 unless told otherwise;
"off": asynchronous ones, which are faster), and judges its evidence three times more. Prints the medians of reading the
ledger, loading the observation and judging, and their sum's share of the whole trial, its first judgement included.
Accepted: under a tenth.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab import evidence
from crashlab.history import read_ledger
from crashlab.model import PromiseStatus
from crashlab.oracle import judge
from crashlab.profile import load_profile
from crashlab.server import ServerChoice
from crashlab.trial import live as trial
from crashlab.trial.judged import contract_of
from tests.running import RunRequest, plan_of

CLIENTS = 8
ROUNDS = 3
SHARE_MAX = 0.1


def one_trial(acks: int, sync: str, out: Path) -> float:
    """Run it and return its seconds."""
    overrides = [
        f'faults=[{{kind="kill", target="all", when={{acks={acks}}}}}]',
        f"workload.clients={CLIENTS}",
        "workload.read_only=0.0",  # they count as acknowledged, too
        f'workload.synchronous_commit="{sync}"',
        'workload.kinds=["transfer", "register"]',
    ]
    request = RunRequest(
        profile=load_profile("kill9-all", overrides=overrides),
        seed=1,
        trials=1,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=out,
        keep="none",
    )
    trial.FAULT_TIMEOUT_S = 3600.0
    begun = time.monotonic()
    result = trial.run_trial(plan_of(request), 0, out)
    seconds = time.monotonic() - begun
    assert result.verdict.promise is PromiseStatus.KEPT, result.verdict.findings
    assert result.verdict.counts.acked >= acks, result.verdict.counts
    return seconds


def judgement(folder: Path) -> tuple[float, float, float]:
    """Return the seconds of reading the ledger, of loading the observation, and of judging."""
    record = evidence.load_trial(folder)
    at = [time.monotonic()]
    history = read_ledger(folder / evidence.LEDGER)
    at.append(time.monotonic())
    observation = evidence.load_observation(folder)
    at.append(time.monotonic())
    judge(history, contract_of(record), record.injections, observation, acked_min=record.acked_min)
    at.append(time.monotonic())
    return at[1] - at[0], at[2] - at[1], at[3] - at[2]


def main() -> None:
    """Print the parts and their share; exit with 1 if it is too large."""
    acks = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    sync = sys.argv[2] if len(sys.argv) > 2 else "on"
    out = Path(tempfile.mkdtemp(prefix="bench-judge-"))
    try:
        whole = one_trial(acks, sync, out)
        parts = [statistics.median(column) for column in zip(*(judgement(out) for _ in range(ROUNDS)), strict=True)]
    finally:
        shutil.rmtree(out)
    share = sum(parts) / whole
    print(
        f"{acks} acknowledged transactions, synchronous_commit = {sync}, {CLIENTS} clients: trial {whole:.1f} s;",
        end=" ",
    )
    print("ledger {:.2f} s, observation {:.2f} s, judge {:.2f} s;".format(*parts), end=" ")
    print(f"judging / trial {share:.3f}")
    sys.exit(share > SHARE_MAX)


if __name__ == "__main__":
    main()
