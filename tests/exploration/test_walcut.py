"""Is the WAL of a crash state read right, and is every lost commit found where it was lost?"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.record import make
from crashlab.history import ACKED, read_ledger
from crashlab.model import Observation, Outcome, PromiseStatus
from crashlab.oracle.wal import lsn
from crashlab.profile import load_profile, parse_profile
from crashlab.results import make_trial_folder
from crashlab.server import ServerChoice
from tests.running import RunRequest, plan_of, run_profile, states_of

STATES = 24
ROUNDS = 6
"""One is enough nineteen times in twenty."""


def profile(disk: str) -> dict[str, object]:
    return {
        "name": "lost-commits",
        "description": "asynchronous commits and a power loss",
        "crash_class": "process_crash" if disk == "process" else "power_loss",
        "server": {"initdb": ["--wal-segsize=1"], "settings": {"wal_writer_delay": "50ms"}},
        "workload": {"synchronous_commit": {"off": 0.9, "on": 0.1}, "checkpoint_every": "200ms", "acked_min": 1},
        "power_loss": {"acks": 300, "disk": disk},
    }


@pytest.mark.server
@pytest.mark.parametrize("disk", ["linux", "process"])
def test_what_the_wal_says_is_what_recovery_brings(tmp_path: Path, disk: str) -> None:
    """The reading ends where redo ends; whose record is there survives; each lost commit has its fate."""
    chosen = parse_profile(profile(disk))
    request = RunRequest(
        profile=chosen,
        seed=5,
        trials=STATES,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=tmp_path,
        keep="none",
    )
    recorded = make(plan_of(request), tmp_path / "recording")
    possible = {"not written"} if disk == "process" else {"not written", "not durable", "behind a hole"}
    fates: set[str] = set()
    flushes = 0
    for seed in range(ROUNDS):  # which of them a few states show is up to the server's own timing
        with Explorer(recorded, chosen, run_seed=seed) as explorer:
            for trial, state in enumerate(states_of(explorer, STATES)):
                result = explorer.try_state(state, trial, make_trial_folder(tmp_path / str(seed), trial))
                assert result.verdict.outcome in (Outcome.INTACT, Outcome.LOSS), result.verdict.findings
                assert result.verdict.promise is PromiseStatus.KEPT
                observation = evidence.load_observation(result.folder)
                seconds = dict(result.seconds)
                assert seconds.keys() >= {"materialise", "read ledger", "wal", "recovery", "observe"}
                assert seconds.pop("total") == pytest.approx(sum(seconds.values()))
                assert all(read.size_bytes for read in observation.relations if read.rows)
                fates |= check(observation, recorded.ledger, explorer.walk.io_bytes)
                flushes += observation.wal_at_cut is not None and observation.wal_at_cut.last_flush is not None
        if flushes and len(fates) >= min(2, len(possible)):
            break
    assert flushes, "the last flush before a cut was never found"
    assert fates <= possible
    assert len(fates) >= min(2, len(possible))


@pytest.mark.server
def test_what_was_written_is_known_where_the_state_begins_in_a_segment_that_is_gone(tmp_path: Path) -> None:
    """With fsync off a state may have the control file of long ago, and the server had removed that WAL."""
    request = RunRequest(
        profile=load_profile("fsync-off-power-loss"),
        seed=1,
        trials=4,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=tmp_path,
        keep="none",
    )
    seen = [evidence.load_observation(trial.folder) for trial in run_profile(request).trials]
    found = [one.wal_at_cut for one in seen if one.wal_at_cut is not None]
    assert found
    for at_cut in found:
        assert at_cut.durable <= at_cut.written
        # All but those under way were acknowledged, so the server had written their records
        assert not at_cut.lost or {one.fate for one in at_cut.lost} - {"not written"}


def check(observation: Observation, ledger: Path, io_bytes: int) -> set[str]:
    """Hold one state's WAL against its survivors; return the fates of the commits that were lost."""
    wal, at_cut = observation.wal, observation.wal_at_cut
    assert wal is not None
    assert observation.marker is not None
    replayed = lsn(wal.last) if observation.recovery.redo_start else None  # None: nothing followed the checkpoint
    assert observation.recovery.redo_end == replayed
    alive = {row.xid for row in observation.marker.rows}
    committed = {record.xid for record in wal.records if record.decision == "commit"}
    history = read_ledger(ledger, until_io=io_bytes)
    xids = {xid for xid, wrote in zip(history.xid, history.wrote, strict=True) if xid and wrote}
    assert committed & xids <= alive
    lost = {
        xid
        for xid, wrote, state in zip(history.xid, history.wrote, history.state, strict=True)
        if wrote and state == ACKED and xid not in alive
    }
    if not lost:
        return set()
    assert at_cut is not None
    assert at_cut.durable <= wal.end <= at_cut.written
    if (flush := at_cut.last_flush) is not None:
        assert flush.kept
        assert flush.most_ms is None or 0 <= flush.least_ms <= flush.most_ms
    found = {record.xid: record for record in at_cut.lost if record.decision == "commit"}
    assert lost <= found.keys()
    for record in found.values():
        assert record.end == 0 or record.end > wal.end
        assert (record.fate == "not written") == (record.end == 0 or record.end > at_cut.written)
    return {found[xid].fate for xid in lost}
