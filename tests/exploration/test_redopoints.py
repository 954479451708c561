"""Do few crash points replay nearly all that a recording holds, and more than as many others do?"""

from pathlib import Path

import pytest

from crashlab.disk.states import nothing_extra
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.record import make
from crashlab.exploration.recording import Recording
from crashlab.exploration.redopoints import points_of_redo
from crashlab.exploration.walcut import read_along
from crashlab.profile import Profile, change_profile, load_profile
from crashlab.recordtypes import type_name
from crashlab.recovery.wal import WalReader, read_wal
from crashlab.trial.setup import TrialPlan

pytestmark = pytest.mark.server


def profile(*overrides: str) -> Profile:
    """Index pages that come and go, and a few checkpoints."""
    wanted = ["workload.kinds=['structure', 'transfer']", "power_loss.acks=250", "checkpoint_every=300ms", *overrides]
    return change_profile(load_profile("power-loss"), wanted)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One recording for all tests here."""
    return make(TrialPlan(profile=profile(), run_seed=5), tmp_path_factory.mktemp("redo") / "recording")


def replayed_at(explorer: Explorer, point: int) -> set[str]:
    """The types that a recovery replays where no more survived than had to; read from the image itself."""
    explorer.make_real(nothing_extra(explorer.walk.to(point)))
    facts = read_wal(explorer.worker.images.data_directory)
    assert facts is not None
    return {one.name for one in facts.kinds}


def written_in(recording: Recording) -> set[str]:
    """All types that a recording wrote behind its set-up, by the whole log."""
    major = recording.record.server.version_num // 10_000
    found = set()
    for step in read_along(recording, WalReader(), each_write=True):
        if step.operation is not None and step.operation.log_end > recording.record.first_bytes:
            found |= {type_name(major, kind.manager, kind.bits) for kind in step.found.kinds}
    return found


def test_few_points_replay_all_that_was_written(recorded: Recording) -> None:
    """Once the checkpoint counts, a moment later, less is replayed."""
    with Explorer(recorded, profile("power_loss.points=redo")) as explorer:
        chosen = explorer.conditions.points
        survey = explorer.conditions.survey
        at = [replayed_at(explorer, point) for point in chosen]
        behind = [replayed_at(explorer, min(point + 10, survey.end)) for point in chosen]
    written = written_in(recorded)
    assert len(written) > 40
    assert len(chosen) <= 8
    assert len(written - set().union(*at)) <= 2, "a record of which the flush had not ended"
    assert any(later < now for now, later in zip(at, behind, strict=True))


def test_so_many_are_taken_as_one_recording_gives_states(recorded: Recording) -> None:
    """The first of them is the one that shows most, whatever comes after it; each is one that is allowed."""

    def points(*overrides: str) -> list[int]:
        wanted = profile("power_loss.points=redo", *overrides).power_loss
        assert wanted is not None
        return list(conditions_of(recorded, wanted, 1).points)

    every = points()
    two = points("power_loss.states_per_point=2", "power_loss.states_per_recording=3")
    (one,) = points("power_loss.states_per_point=2", "power_loss.states_per_recording=2")
    assert one in two
    assert len(two) <= 2
    assert set(two) <= set(every)
    survey = conditions_of(recorded, profile().power_loss, 1).survey  # type: ignore[arg-type]
    assert one not in points_of_redo(recorded, survey, [point for point in every if point != one])


def test_the_end_is_left_where_there_was_no_checkpoint(tmp_path: Path) -> None:
    """Then recovery replays all of it there."""
    quiet = profile("power_loss.points=redo", "checkpoint_every=1h", "power_loss.acks=10")
    recording = make(TrialPlan(profile=quiet, run_seed=6), tmp_path / "recording")
    assert quiet.power_loss is not None
    conditions = conditions_of(recording, quiet.power_loss, 1)
    assert list(conditions.points) == [conditions.survey.end]
