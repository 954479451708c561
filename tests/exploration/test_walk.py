"""Does a walk that goes forward and back stand where one that only ever went forward would stand?"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from crashlab.disk.operations import Operation
from crashlab.errors import RecordingError
from crashlab.exploration import walk as walks
from crashlab.exploration.addresses import PointStates
from crashlab.exploration.conditions import Conditions, conditions_of
from crashlab.exploration.recording import Recording
from crashlab.exploration.walk import Walk
from crashlab.profile import load_profile
from crashlab.server import ServerChoice
from tests.running import RunRequest, record

pytestmark = pytest.mark.server

SEED = 3


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recording, Conditions]:
    """A short recording, and how its profile cuts it."""
    profile = load_profile("power-loss-async", overrides=["power_loss.acks=150"])
    choice = ServerChoice(kind="local")
    out = tmp_path_factory.mktemp("walk")
    made = record(RunRequest(profile=profile, seed=SEED, trials=1, time_limit_s=None, server=choice, out=out))
    assert profile.power_loss is not None
    return made, conditions_of(made, profile.power_loss, SEED)


@pytest.fixture
def walk(recorded: tuple[Recording, Conditions], monkeypatch: pytest.MonkeyPatch) -> Iterator[Walk]:
    """A walk that leaves 32 snapshots behind, as it would in a long recording."""
    monkeypatch.setattr(walks, "SNAPSHOT_EVERY_MIN", 1)
    one = fresh(*recorded)
    yield one
    one.close()


def fresh(recording: Recording, conditions: Conditions) -> Walk:
    """A walk that stands at the beginning."""
    return Walk(recording, conditions.contract, operations=conditions.survey.end)


def seen(walk: Walk, position: int) -> tuple[int, list[tuple[str, int]]]:
    """What depends on where the model stands: the ledger's end, and the first states that are drawn there."""
    model = walk.to(position)
    assert model.position == position
    states = PointStates(model, SEED, None)
    found = (states.get(number) for number in range(3))
    return walk.io_bytes, [(state.note, state.fingerprint) for state in found if state is not None]


def test_a_point_is_the_same_from_wherever_it_is_reached(
    recorded: tuple[Recording, Conditions], walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty points in a seeded order, some twice, against a walk of its own for each; going back starts no new one."""
    points = recorded[1].points
    rng = Random(SEED)
    asked = [points[0], points[-1], *(rng.choice(points) for _ in range(36))]
    asked += [points[-1], asked[5]]
    expected = {}
    for position in sorted(set(asked)):
        straight = fresh(*recorded)
        expected[position] = seen(straight, position)
        straight.close()
    assert len({fingerprint for _, states in expected.values() for _, fingerprint in states}) > len(expected)
    applied = []
    apply = Walk._apply

    def noted(self: Walk, operation: Operation) -> None:
        applied.append(operation)
        apply(self, operation)

    monkeypatch.setattr(Walk, "_apply", noted)
    assert [seen(walk, position) for position in asked] == [expected[position] for position in asked]
    assert len(walk._snapshots) > 3
    steps = list(zip([0, *asked], asked, strict=False))
    forward = sum(position - before for before, position in steps if position > before)
    from_the_beginning = sum(position for before, position in steps if position < before)
    assert len(applied) < forward + from_the_beginning / 4


def test_the_state_of_a_point_does_not_depend_on_those_before_it(
    recorded: tuple[Recording, Conditions], walk: Walk
) -> None:
    """The third state, asked for alone, is the third state."""
    for position in islice(recorded[1].points, 0, None, max(1, len(recorded[1].points) // 10)):
        states = PointStates(walk.to(position), SEED, None)
        all_of_them = [states.get(number) for number in range(5)]
        assert PointStates(walk.model, SEED, None).get(2) == all_of_them[2]
        assert PointStates(walk.model, SEED, None).get(4) == all_of_them[4]


def test_a_point_after_the_end_is_an_error(recorded: tuple[Recording, Conditions], walk: Walk) -> None:
    """It says where the recording ends, and the walk can be used afterwards."""
    end = recorded[1].survey.end
    with pytest.raises(RecordingError, match=f"has no operation {end + 100_000}") as caught:
        walk.to(end + 100_000)
    assert caught.value.detail is not None
    assert "It ends at operation" in caught.value.detail
    first = recorded[1].points[0]
    straight = fresh(*recorded)
    assert seen(walk, first) == seen(straight, first)
    straight.close()


def test_a_recording_whose_log_is_cut_off_is_an_error(recorded: tuple[Recording, Conditions], tmp_path: Path) -> None:
    """Half of a log has no point in its other half; nothing stands in for it."""
    recording, conditions = recorded
    half = tmp_path / "half"
    half.mkdir()
    content = recording.log.read_bytes()
    (half / recording.log.name).write_bytes(content[: len(content) // 2])
    cut = Walk(Recording(half, recording.record, recording.base), conditions.contract, operations=100)
    with pytest.raises(RecordingError):
        cut.to(conditions.points[-1])
    cut.close()
