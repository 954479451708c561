"""Are settings that a profile leaves open drawn from the seed alone, and is it written down what was drawn?"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.errors import ProfileError
from crashlab.exploration.record import make
from crashlab.profile import load_profile, parse_profile, to_toml
from crashlab.results import make_trial_folder
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from crashlab.trial.vary import drawn
from tests.overrides import kill_after

OPEN = ("vary.wal_buffers=['32kB', '256kB', '1MB', '4MB']", "vary.wal_segsize=[1, 2, 4]")


def plan(name: str, *overrides: str, seed: int = 1) -> TrialPlan:
    """A plan for a profile with two open settings."""
    return TrialPlan(profile=load_profile(name, overrides=[*OPEN, *overrides]), run_seed=seed)


def test_the_seed_decides_and_one_setting_more_changes_no_other() -> None:
    """The same seed draws the same; over many seeds each value comes."""
    one = [drawn(plan("kill9-all"), seed)[1] for seed in range(40)]
    assert one == [drawn(plan("kill9-all"), seed)[1] for seed in range(40)]
    assert {chosen["wal_buffers"] for chosen in one} == {"32kB", "256kB", "1MB", "4MB"}
    more = [drawn(plan("kill9-all", "vary.commit_delay=[0, 10]"), seed)[1] for seed in range(40)]
    assert [{**chosen, "commit_delay": "0"} for chosen in one] == [{**chosen, "commit_delay": "0"} for chosen in more]


def test_what_was_drawn_takes_the_place_of_the_table() -> None:
    """Settings, and initdb's option instead of one that the profile has."""
    made, chosen = drawn(plan("power-loss"), 3)
    assert made.profile.server.settings["wal_buffers"] == chosen["wal_buffers"]
    assert made.profile.server.initdb == [f"--wal-segsize={chosen['wal_segsize']}"]
    assert made.profile.vary == {}
    assert drawn(made, 4) == (made, {})
    same = TrialPlan(profile=load_profile("power-loss"), run_seed=1)
    assert drawn(same, 3) == (same, {})


def test_a_table_of_open_settings_survives_being_written() -> None:
    """As TOML, and as the plain values of evidence."""
    profile = plan("kill9-all").profile
    assert parse_profile(profile.table()) == profile
    assert "wal_buffers" in to_toml(profile)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("vary.archive_command=['rm %p']", "needs superuser = true"),
        ("vary.port=[1]", "crashlab sets this one itself"),
        ("vary.fsync=[]", "at least 1 value, not []"),
        ("vary.fsync=off", "list"),
    ],
)
def test_an_open_setting_is_held_to_the_rules_of_others(override: str, said: str) -> None:
    """Nothing gets in by the side door."""
    with pytest.raises(ProfileError) as caught:
        load_profile("kill9-all", overrides=[override])
    assert said in (caught.value.detail or "")


@pytest.mark.server
def test_a_trial_runs_with_what_was_drawn_and_its_record_says_so(tmp_path: Path) -> None:
    """The server itself confirms it; what the record holds runs the same server again."""
    result = run_trial(plan("kill9-all", kill_after(30)), 0, make_trial_folder(tmp_path, 0))
    record = evidence.load_trial(result.folder)
    assert record.drawn == result.drawn != {}
    assert record.server.settings["wal_buffers"] == record.drawn["wal_buffers"]
    assert record.server.settings["wal_segment_size"] == f"{record.drawn['wal_segsize']}MB"
    assert "vary" not in record.profile_resolved or record.profile_resolved["vary"] == {}
    assert record.profile_resolved["server"]["settings"]["wal_buffers"] == record.drawn["wal_buffers"]


@pytest.mark.server
def test_a_recording_draws_once(tmp_path: Path) -> None:
    """All its states are of one server; the next recording draws again."""
    small = plan("power-loss", "power_loss.acks=30", "workload.acked_min=5", "vary.wal_segsize=[1]")
    first, second = (make(small, tmp_path / str(number), number=number).record for number in (0, 1))
    for record in (first, second):
        assert record.server.settings["wal_buffers"] == record.drawn["wal_buffers"]
        assert "Heap/INSERT" in record.written
    assert first.drawn != second.drawn
