"""Are crash points found where something had just happened, and nowhere else?"""

import pytest

from crashlab.disk.operations import Kind
from crashlab.disk.states import everything
from crashlab.errors import ProfileError, RecordingError
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.nearby import points_near
from crashlab.exploration.record import make
from crashlab.exploration.recording import Recording
from crashlab.profile import Profile, change_profile, load_profile
from crashlab.recording.decoder import Decoder
from crashlab.recovery.wal import read_wal
from crashlab.trial.setup import TrialPlan

PREPARE = "Transaction/PREPARE"


def profile(*overrides: str) -> Profile:
    """Prepared transactions and tables that go, killed between any two writes."""
    return change_profile(
        load_profile("kill9-every-write"),
        [
            "workload.kinds=['transfer', 'ddl']",
            "two_phase=0.4",
            "power_loss.acks=60",
            "checkpoint_every=20ms",  # sixty acknowledgements may take no longer than that
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """One recording for all tests here."""
    return make(TrialPlan(profile=profile(), run_seed=5), tmp_path_factory.mktemp("near") / "recording")


def count_at(explorer: Explorer, point: int, name: str) -> int:
    """How many records of a type the image of a crash point holds, behind its redo point."""
    explorer.make_real(everything(explorer.walk.to(point)))
    facts = read_wal(explorer.worker.images.data_directory)
    assert facts is not None
    return sum(one.plain + one.imaged for one in facts.kinds if one.name == name)


@pytest.mark.server
def test_a_record_is_there_at_its_point_and_was_not_right_before(recorded: Recording) -> None:
    """Read anew from the image of each point, by other code than found the point."""
    points = points_near(recorded, [PREPARE])
    assert len(points) > 5
    with Explorer(recorded, profile()) as explorer:
        for point in points[:12]:
            assert count_at(explorer, point, PREPARE) > count_at(explorer, point - 1, PREPARE)
        quiet = [point for point in range(points[0] - 1, points[3]) if point not in points]
        counts = [count_at(explorer, point, PREPARE) for point in quiet[:10]]
        assert counts == sorted(counts)


@pytest.mark.server
@pytest.mark.parametrize(
    ("near", "kind", "part"),
    [("unlink", Kind.UNLINK, ""), ("base/*/*", None, "/base/"), ("control", None, "global/pg_control")],
)
def test_an_operation_is_right_before_or_right_behind(
    recorded: Recording, near: str, kind: Kind | None, part: str
) -> None:
    """One of the two operations beside each point is meant, and none far away is forgotten."""
    points = set(points_near(recorded, [near]))
    decoder = Decoder(recorded.log, recorded.base.files)
    meant = set()
    for operation in decoder:
        path = operation.path or decoder.path(operation.file)
        if operation.log_end > recorded.record.first_bytes and part in path and kind in (None, operation.kind):
            meant |= {operation.position, operation.position + 1}
    assert points == meant != set()


@pytest.mark.server
def test_points_are_narrowed_and_what_never_happened_is_an_error(recorded: Recording) -> None:
    """An aim and what is near are both kept; a single point may be named; a point beyond the end is none."""

    def points(*overrides: str) -> list[int]:
        wanted = profile(*overrides).power_loss
        assert wanted is not None
        return list(conditions_of(recorded, wanted, 1).points)

    flushed = set(points("power_loss.points=flush"))
    assert set(points('power_loss.near=["wal"]', "power_loss.points=flush")) == flushed & set(
        points_near(recorded, ["wal"])
    )
    assert set() != flushed & set(points_near(recorded, ["wal"])) != flushed
    assert points("power_loss.at=[700, 600]") == [600, 700]
    with pytest.raises(RecordingError, match="has no crash point near to BRIN/UPDATE"):
        points('power_loss.near=["BRIN/UPDATE"]')
    with pytest.raises(RecordingError, match="has no crash point 99999999"):
        points("power_loss.at=[99999999]")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('power_loss.near=["Btree/SPLIT_LL"]', 'did you mean "Btree/SPLIT_L"'),
        ('power_loss.near=["unlinked"]', 'did you mean "unlink"'),
        ('power_loss.near=["unlink"]; power_loss.at=[1]', "exclude each other"),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(override: str, said: str) -> None:
    """Before anything runs."""
    with pytest.raises(ProfileError) as caught:
        profile(*override.split("; "))
    assert said.lower() in (caught.value.detail or "").lower()


@pytest.mark.server
def test_where_there_is_no_point_at_all_none_is_near(recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovery that had nothing to flush has no checkpoint to aim at: it has no states then, and that is no error."""
    monkeypatch.setattr("crashlab.exploration.points.candidates", lambda *_: [])
    wanted = profile('power_loss.near=["control"]').power_loss
    assert wanted is not None
    assert conditions_of(recorded, wanted, 1).points == []
