"""One flush of WAL is left out: are the broken promises exactly the synchronous acknowledgements behind it?

What must be lost is worked out without crashlab's reading of WAL: from the lines of the ledger, and from what
pg_waldump finds in the crash state and in the whole run.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from crashlab.campaign.recorded import plan_of
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.states import everything, nothing_extra
from crashlab.exploration import recording
from crashlab.exploration.explorer import Candidate, Explorer, candidates, plan, rebuild
from crashlab.exploration.recording import Recording
from crashlab.model import Outcome, PromiseStatus, Verdict
from crashlab.profile import Profile, parse_profile
from crashlab.results import RunRequest, ServerChoice

pytestmark = pytest.mark.server

SEEDS, SEEDS_MAX = 5, 40
"""After the first ones more are tried until losses were seen: a busy client notes its ack after the next flush."""
STATES = 8
PROFILE = {
    "name": "one-flush",
    "description": "synchronous and asynchronous commits, and the power is cut behind one flush",
    "crash_class": "power_loss",
    # Small segments, so that some flushes lie at a switch; no checkpoint, so that all of the WAL stays to be read
    "server": {"initdb": ["--wal-segsize=1"], "settings": {"wal_writer_delay": "1s", "checkpoint_timeout": "1h"}},
    "workload": {"synchronous_commit": {"on": 0.6, "off": 0.4}, "clients": 6, "acked_min": 1},
}
COMMIT = re.compile(r"tx: +(\d+), lsn: (\w+)/(\w+), .* desc: COMMIT")
FORBIDDEN = {"LOSS-SYNC-COMMIT", "LOSS-PROTECTED-ASYNC"}


def profile(**power_loss: object) -> Profile:
    return parse_profile(PROFILE | {"power_loss": {"acks": 900, **power_loss}})


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One recorded run for all tests."""
    out = tmp_path_factory.mktemp("one-flush")
    choice = ServerChoice(kind="local")
    request = RunRequest(profile=profile(), seed=3, trials=1, time_limit_s=None, server=choice, out=out, keep="all")
    made = recording.make(plan_of(request), out / "recording")
    if not (Path(made.record.server.source) / "pg_waldump").exists():
        pytest.skip(f"no pg_waldump beside the server in {made.record.server.source}")
    return made


def position(lsn: str) -> int:
    high, _, low = lsn.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def tool(recorded: Recording, name: str, *words: str | Path) -> str:
    program = Path(recorded.record.server.source) / name
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60).stdout


def commits(recorded: Recording, data_directory: Path) -> dict[int, int]:
    """xid -> LSN at which its commit record begins, in the valid WAL of a directory, as pg_waldump reads it."""
    control = tool(recorded, "pg_controldata", "-D", recorded.base.image / "pgdata")
    (redo,) = re.findall(r"Latest checkpoint's REDO location: +(\S+)", control)
    text = tool(recorded, "pg_waldump", "-p", data_directory / "pg_wal", "-s", redo, "-r", "Transaction")
    return {int(xid): position(f"{high}/{low}") for xid, high, low in COMMIT.findall(text)}


def synchronous_acks(recorded: Recording, io_bytes: int) -> dict[int, int]:
    """Transaction -> xid of every synchronous commit that was acknowledged by a crash point."""
    intents, acked = {}, {}
    for line in recorded.ledger.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "intent":
            intents[event["tx"]] = event
        elif event["event"] == "ack" and event.get("io", 0) <= io_bytes:
            intent = intents[event["tx"]]
            # client 0 set up the tables, before the recording began
            if event["client"] and intent.get("xid") and intent.get("sync", "on") != "off":
                acked[event["tx"]] = intent["xid"]
    return acked


def look_at(recorded: Recording, at: int, chosen: Profile, out: Path) -> tuple[dict[int, int], dict[int, int]]:
    """Return the commits in the WAL that was durable in any case at a crash point, and in that which was written."""
    with Explorer(recorded, chosen, out) as explorer:
        model, io_bytes = rebuild_at(recorded, chosen, explorer, at)
        found = []
        for state in (nothing_extra(model), everything(model)):
            worker = explorer.make_real(model, Candidate(0, state, io_bytes))
            found.append(commits(recorded, worker.images.data_directory))
    return found[0], found[1]


def rebuild_at(recorded: Recording, chosen: Profile, explorer: Explorer, at: int) -> tuple[DiskModel, int]:
    somewhere = CrashState(at, (), (), 0, "")
    return rebuild(recorded, chosen, explorer.log, somewhere, seed=0)


def test_the_broken_promises_are_the_synchronous_acks_behind_the_flush(recorded: Recording, tmp_path: Path) -> None:
    """In every state they are those whose record pg_waldump does not find; with nothing to spare, all behind it."""
    chosen = profile(swallow_one=["wal"])
    assert chosen.power_loss is not None
    _, whole = look_at(recorded, plan(recorded, chosen.power_loss, 0).survey.end, profile(), tmp_path / "end")
    lost_in_all = 0
    for seed in range(SEEDS_MAX):
        if seed >= SEEDS and lost_in_all >= SEEDS:
            break
        flush = plan(recorded, chosen.power_loss, seed).left_out
        assert flush is not None
        before, _ = look_at(recorded, flush.position, profile(), tmp_path / f"before-{seed}")
        with Explorer(recorded, chosen, tmp_path / str(seed), seed=seed) as explorer:
            for model, candidate in candidates(recorded, chosen, explorer.log, seed=seed, trials=STATES):
                worker = explorer.make_real(model, candidate)
                there = commits(recorded, worker.images.data_directory)
                promised = synchronous_acks(recorded, candidate.io_bytes)
                behind = {tx for tx, xid in promised.items() if xid not in before}
                gone = {tx for tx, xid in promised.items() if xid not in there}
                assert gone == behind if candidate.state.note.startswith("nothing that was pending") else gone <= behind
                result = explorer.try_state(model, candidate)
                assert f"began at operation {flush.position} was left out" in result.injections[0].proof[1]
                check(result.verdict, {tx: whole[promised[tx]] for tx in gone}, whole, set(before))
                lost_in_all += len(gone)
    assert lost_in_all >= SEEDS


def check(verdict: Verdict, gone: dict[int, int], whole: dict[int, int], before: set[int]) -> None:
    """Hold a verdict against the synchronous commits that are gone, with the places where their records begin."""
    findings = {finding.code: finding for finding in verdict.findings}
    assert findings.keys() <= FORBIDDEN | {"LOSS-ASYNC-WINDOW"}, verdict.findings
    assert verdict.outcome is (Outcome.LOSS if findings else Outcome.INTACT)
    assert verdict.promise is (PromiseStatus.BROKEN if findings.keys() & FORBIDDEN else PromiseStatus.KEPT)
    starts = sorted(whole.values())
    named = findings["LOSS-SYNC-COMMIT"].evidence["witnesses"] if gone else []
    assert ("LOSS-SYNC-COMMIT" in findings) == bool(gone)
    assert {witness["tx"] for witness in named} == gone.keys()
    for witness in named:
        start = gone[witness["tx"]]
        following = next((at for at in starts if at > start), start + 8192)
        assert start < position(witness["record_end"]) <= following
    for finding in verdict.findings:
        assert finding.code == "LOSS-ASYNC-WINDOW" or not finding.permitted
        for witness in finding.evidence["witnesses"]:
            assert witness["xid"] not in before


def test_with_that_flush_no_promise_is_broken(recorded: Recording, tmp_path: Path) -> None:
    """The innocent twin: the same moments, every flush as the server made it."""
    chosen = profile(swallow_one=["wal"])
    assert chosen.power_loss is not None
    for seed in range(SEEDS):
        flush = plan(recorded, chosen.power_loss, seed).left_out
        assert flush is not None
        with Explorer(recorded, profile(), tmp_path / str(seed)) as explorer:
            model, io_bytes = rebuild_at(recorded, profile(), explorer, flush.last)
            for trial, state in enumerate((nothing_extra(model), everything(model))):
                verdict = explorer.try_state(model, Candidate(trial, state, io_bytes)).verdict
                assert verdict.promise is PromiseStatus.KEPT
                assert {finding.code for finding in verdict.findings} <= {"LOSS-ASYNC-WINDOW"}
