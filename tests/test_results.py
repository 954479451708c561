"""How are trials numbered and found again, however many there are?"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.cli import stored
from crashlab.errors import EvidenceError
from crashlab.results import make_trial_folder, trial_name, trial_order
from crashlab.trial.judged import trial_folders

NUMBERS = [0, 7, 999, 9999, 10000, 99999, 100000, 1000000]


def test_trials_come_in_the_order_of_their_numbers(tmp_path):
    """Beyond four digits the order of names would be another; profiles come by name, whatever number is in it."""
    profiles = ["kill9-all", "kill10-all", "trial-of-mine", "trial-9x", "trial-10x"]
    for profile in profiles:
        for number in reversed(NUMBERS):
            (make_trial_folder(tmp_path / profile, number) / evidence.TRIAL).write_text("{}")
    wanted = [tmp_path / profile / trial_name(number) for profile in sorted(profiles) for number in NUMBERS]
    assert trial_folders(tmp_path) == wanted
    assert sorted(wanted) != wanted
    assert sorted(set(wanted), key=trial_order) == wanted


@pytest.mark.parametrize("number", NUMBERS)
def test_a_trial_is_found_by_its_number(tmp_path, monkeypatch, number):
    """PROFILE:TRIAL of the latest run, with or without leading zeros; a folder is made once only."""
    monkeypatch.setattr(stored, "BASE", tmp_path)
    folder = make_trial_folder(tmp_path / "latest" / "kill9-all", number)
    (folder / evidence.TRIAL).write_text("{}")
    for asked in (f"kill9-all:{number}", f"kill9-all:{number:08d}"):
        assert stored.trial_folder(asked) == folder.resolve()
    with pytest.raises(EvidenceError, match="it exists"):
        make_trial_folder(Path(folder).parent, number)
