"""Does a recording, told step by step, say at each step what the disk model says there?"""

import pytest

from crashlab.disk.model import DiskModel
from crashlab.exploration.conditions import conditions_of
from crashlab.exploration.recording import find
from crashlab.exploration.steps import steps_of
from crashlab.exploration.walk import Walk
from crashlab.profile import stored_profile
from tests.report.conftest import recorded_folder  # noqa: F401


def pending(model: DiskModel) -> dict[str, int]:
    """Units in flight by file."""
    return {file.path or "(no name left)": file.units for file in model.pending().files}


@pytest.mark.parametrize("most", [20_000, 60])
def test_steps_come_to_what_is_in_flight(recorded_folder, most):  # noqa: F811
    """After every operation, from the beginning or of the last ones only: the same files, units and names."""
    recording = find(recorded_folder)
    told = steps_of(recording, most)
    power_loss = stored_profile(recording.record.profile_resolved).profile.power_loss
    assert power_loss is not None
    contract = conditions_of(recording, power_loss, recording.record.run_seed).contract
    walk = Walk(recording, contract, operations=told.end)
    flight = dict(told.begin)
    assert len(told.steps) == min(most, told.end) == told.end - told.first
    assert (told.first > 0) == (most == 60) == bool(flight)
    for number, step in enumerate(told.steps):
        for file, units in step.changes:
            flight.pop(file, None)
            if units >= 0:
                flight[file] = units
        model = walk.to(told.first + number + 1)
        assert {told.files[file][0]: units for file, units in flight.items()} == pending(model), step.says
        assert step.names == len(model.names.pending)
    walk.close()
    assert told.steps[-1].acked > told.steps[0].acked or most == 60
    assert {step.kind for step in steps_of(recording).steps} == {"write", "flush", "flush ended", "name"}
