"""Does a crash state's list of losses say what it has lost, and does a shorter list give a state that may be?"""

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crashlab.disk.lost import cost, losses_in, lost_changes, lost_writes, state_with
from crashlab.disk.states import draw_state, everything, nothing_extra
from tests.disk.disk_text import CONTRACTS, Disk
from tests.disk.test_model import disks, reference


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=150, deadline=None)
@given(disk=disks(), rule=st.sampled_from(["linux", "strict", "journal", "lying"]), seed=st.integers(0, 99))
def test_a_list_of_losses_is_the_state_and_any_part_of_it_is_allowed(disk, rule, seed):
    """All losses: the same image. None: everything survived. Some: a state that the model has."""
    model = disk.model(CONTRACTS[rule])
    allowed, dice = reference(disk, model.contract), Random(seed)
    for state in [nothing_extra(model), everything(model), *(draw_state(model, dice) for _ in range(5))]:
        losses = losses_in(model, state)
        assert state_with(model, losses, "again").fingerprint == state.fingerprint
        assert state_with(model, [], "nothing").fingerprint == everything(model).fingerprint
        some = state_with(model, [loss for loss in losses if dice.random() < 0.5], "some")
        assert disk.image(model, some) in allowed
        assert state_with(model, losses_in(model, some), "again").fingerprint == some.fingerprint
    assert cost(model, everything(model))[0] == 0


def test_lost_writes_are_counted_as_writes_and_a_torn_one_is_called_so():
    """Two writes of two units: one is lost whole, of the other the second half."""
    disk = Disk()
    disk.add_base("x", b"")
    disk.run("write x 0 abcdefgh")
    disk.run("write x 8 ABCDEFGH")
    model = disk.model(CONTRACTS["linux"])
    whole = everything(model)
    (choice,) = whole.files
    torn = model.state((), [type(choice)(choice.file, 0, 16, ((0, 0), (2, 1)))], "")
    first, second = lost_writes(model, torn)
    assert (first.position, first.offset, first.length, first.torn) == (0, 4, 4, True)
    assert (second.position, second.offset, second.length, second.torn) == (1, 12, 4, True)
    (only,) = lost_writes(model, model.state((), [type(choice)(choice.file, 0, 16, ((0, 0), (1, 0)))], ""))
    assert (only.position, only.torn, only.length) == (1, False, 8)
    assert not lost_writes(model, whole)
    assert lost_changes(model, whole) == []


def test_a_lost_name_stands_for_the_file_that_it_led_to():
    """The data that no name reaches is no loss of its own; a lost truncation and size are told in words."""
    disk = Disk()
    disk.add_base("y", b"ABCDEFGH")
    disk.run("create x")
    disk.run("write x 0 abcd")
    disk.run("truncate y 4")
    model = disk.model(CONTRACTS["strict"])
    found = lost_changes(model, nothing_extra(model))
    assert [one.what for one in found] == ["create of x", "truncation of y to 4 bytes"]
    assert [write.path for write in lost_writes(model, nothing_extra(model))] == []


@pytest.mark.parametrize("rule", ["linux", "strict"])
def test_some_losses_are_allowed_states(rule):
    """Held against the model's own judge of images."""
    disk = Disk()
    disk.add_base("x", b"ABCDEFGH")
    for line in ("write x 0 ab", "truncate x 4", "write x 4 cdef", "create z", "write z 0 q", "rename z w"):
        disk.run(line)
    model, dice = disk.model(CONTRACTS[rule]), Random(1)
    for _ in range(200):
        state = draw_state(model, dice)
        some = state_with(model, [loss for loss in losses_in(model, state) if dice.random() < 0.5], "some")
        for choice in some.files:
            file = model.files[choice.file]
            assert choice.size in set(file.sizes(choice.cuts))
            assert all(position in file.choices(unit, choice.cuts) for unit, position in choice.versions)
        assert model.names.closed(some.names) == some.names
