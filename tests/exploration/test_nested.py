"""Does a recovery that is cut in its turn come to the same end as one that was left alone?"""

from pathlib import Path

import msgspec
import pytest

from crashlab import evidence
from crashlab.campaign import replay
from crashlab.exploration.addresses import Address
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.nearby import points_near
from crashlab.exploration.recording import load
from crashlab.model import Observation, Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import make_trial_folder
from crashlab.server import ServerChoice
from crashlab.trial.judged import judge_trial
from tests.running import RunRequest, run_profile

pytestmark = pytest.mark.server


def request(out: Path, *overrides: str, trials: int) -> RunRequest:
    """A request for crashes during recovery, with a short recording that is kept."""
    return RunRequest(
        profile=load_profile("crash-during-recovery", overrides=["power_loss.acks=200", *overrides]),
        seed=11,
        trials=trials,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=out,
        keep="all",
    )


def content(observation: Observation) -> dict[str, object]:
    """Everything that clients can read: transactions, rows, prepared transactions."""
    assert observation.marker is not None
    return {
        "transactions": sorted(row.tx for row in observation.marker.rows),
        "prepared": observation.prepared,
        **{read.relation: sorted(read.rows, key=lambda row: row.key) for read in observation.relations},
    }


def test_the_survivors_are_those_of_the_recovery_that_was_not_cut(tmp_path: Path) -> None:
    """Each crash state, recovered at once and recovered after a second cut, holds the same."""
    asked = request(tmp_path / "cut", "power_loss.recovery_depth=1", "power_loss.states_per_point=4", trials=8)
    result = run_profile(asked)
    assert {trial.verdict.outcome for trial in result.trials} == {Outcome.INTACT}
    recording = load(asked.out / "recording")
    direct: dict[str, dict[str, object]] = {}
    with Explorer(recording, asked.profile, run_seed=asked.seed) as explorer:
        for number, folder in enumerate(sorted(recording.folder.glob("recovery-*"))):
            state = explorer.state(Address(*map(int, folder.name.removeprefix("recovery-").split("."))))
            assert state is not None
            done = explorer.try_state(state, number, make_trial_folder(tmp_path / "direct", number))
            direct[folder.name] = content(evidence.load_observation(done.folder))
    assert len(direct) >= 2  # one more where a recovery had fewer states than were asked for
    replayed_again = 0
    for trial in result.trials:
        observation = evidence.load_observation(trial.folder)
        inside = evidence.load_trial(trial.folder).recording
        assert inside is not None
        assert content(observation) == direct[Path(inside).name]
        assert observation.first_survivors is not None
        assert content(observation)["transactions"] == observation.first_survivors.transactions
        assert content(observation)["prepared"] == observation.first_survivors.prepared
        replayed_again += observation.recovery.redo_start is not None
    assert replayed_again >= len(result.trials) // 2, "the second cut came after the recovery"


def test_the_checkpoint_that_ends_a_recovery_is_replayed_if_the_cut_is_near_its_control_file(tmp_path: Path) -> None:
    """Between its record and the control file the next recovery reads it; what is near goes on being so, if control."""
    aims = ("power_loss.recovery_depth=1", 'power_loss.points="checkpoint"', 'power_loss.near=["control", "wal"]')
    result = run_profile(request(tmp_path / "run", "power_loss.states_per_point=8", *aims, trials=8))
    assert {trial.verdict.outcome for trial in result.trials} == {Outcome.INTACT}
    replayed = set()
    for trial in result.trials:
        inside = evidence.load_trial(trial.folder).recording
        assert inside is not None
        assert trial.state is not None
        assert trial.state.position in points_near(load(trial.folder / inside), ["control"])
        if trial.redo is not None:  # None: the control file says "shut down" already, so nothing is replayed
            replayed |= {kind.name for kind in trial.redo.replayed}
    assert "XLOG/CHECKPOINT_SHUTDOWN" in replayed


def test_two_deep_and_rebuilt(tmp_path: Path) -> None:
    """A recovery from a recovery that was cut is intact, and one of its states can be made again.

    Asynchronous commits are among what must survive all three recoveries alike; prepared transactions do not, from 17
    on (tests/power/test_known_bugs.py).
    """
    mix = "workload.synchronous_commit={ on = 0.5, off = 0.5 }"
    overrides = ("power_loss.recovery_depth=2", "power_loss.states_per_point=3", mix)
    result = run_profile(request(tmp_path / "run", *overrides, trials=3))
    assert {trial.verdict.promise for trial in result.trials} == {PromiseStatus.KEPT}
    stored = evidence.load_trial(result.trials[0].folder)
    assert stored.recording is not None
    assert stored.recording.count("recovery-") == 2
    (tmp_path / "again").mkdir()
    again = replay(result.trials[0].folder, out=tmp_path / "again", server=ServerChoice())
    assert [trial.verdict.promise for trial in again.trials] == [PromiseStatus.KEPT]
    observation = evidence.load_observation(result.trials[0].folder)
    assert content(evidence.load_observation(again.trials[0].folder)) == content(observation)
    survivors = observation.first_survivors
    assert survivors is not None
    name = next(part for part in Path(stored.recording).parts if part.startswith("recovery-"))
    outer = load(tmp_path / "run" / "recording" / name)
    assert survivors == outer.record.first_survivors, "those of the very first crash state"
    fewer = msgspec.structs.replace(survivors, transactions=survivors.transactions[:-1])
    accused = msgspec.structs.replace(observation, first_survivors=fewer)
    digest = evidence.save(result.trials[0].folder, evidence.OBSERVATION, accused)
    record = evidence.load_trial(result.trials[0].folder)
    digests = record.digests | {evidence.OBSERVATION: digest}
    evidence.save(result.trials[0].folder, evidence.TRIAL, msgspec.structs.replace(record, digests=digests))
    (finding,) = [one for one in judge_trial(result.trials[0].folder).findings if not one.permitted]
    assert finding.code == "CORRUPT-SURVIVORS-CHANGED"
    assert finding.evidence["witnesses"][0]["tx"] == survivors.transactions[-1]
