"""Is a crash state the same whoever asks for it, and does a run that is cut off span its recording?"""

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashlab.disk.model import CrashState, DiskModel
from crashlab.exploration.addresses import LARGEST_ROUND, Address, PointStates, laps, rounds
from crashlab.seeds import stream
from tests.disk.disk_text import CONTRACTS, Disk
from tests.disk.test_model import disks


@given(st.integers(0, 700), st.integers(0, 50))
def test_every_point_has_its_turn_once(count: int, seed: int) -> None:
    """Whatever their number: none is left out, none comes twice, each round is in order."""
    found = list(rounds(range(1000, 1000 + count), stream(seed, "points")))
    assert sorted(chain(*found)) == list(range(1000, 1000 + count))
    assert all(chosen == sorted(chosen) for chosen in found)
    assert all(len(chosen) <= LARGEST_ROUND for chosen in found)


@given(st.integers(200, 5000), st.integers(0, 50), st.integers(2, 300))
def test_a_run_that_is_cut_off_has_looked_at_all_of_its_recording(count: int, seed: int, tried: int) -> None:
    """After each round every part of the recording has had as many points as any other, give or take one."""
    found = rounds(range(count), stream(seed, "points"))
    points: list[int] = []
    for chosen in found:
        points += chosen
        low, high = sum(point < count // 2 for point in points), sum(point >= count - count // 2 for point in points)
        assert abs(low - high) <= 2
        if len(points) >= min(tried, count // 2):
            break
    assert min(points) < count / 2
    assert max(points) >= count / 2


def test_another_lap_takes_the_next_states_of_each_point() -> None:
    """Few points give many states, and no address comes twice; no point gives none."""
    first, second = (set(lap) for lap in islice(laps([7, 9], 3, 4), 2))
    assert first == {Address(point, number) for point in (7, 9) for number in range(4)}
    assert second == {Address(point, number) for point in (7, 9) for number in range(4, 8)}
    assert list(laps([], 3, 4)) == []


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    """The order does not know how many are wanted."""
    few, many = (list(islice(next(laps(range(50, 900), 8, 4)), count)) for count in (50, 500))
    assert many[:50] == few


def model_of(disk: Disk, rules: str, position: int) -> DiskModel:
    model = DiskModel(disk.base, CONTRACTS[rules])
    for operation in disk.log[:position]:
        model.apply(operation)
    return model


@given(disks(), st.sampled_from(sorted(CONTRACTS)), st.integers(0, 9), st.data())
def test_a_state_does_not_depend_on_what_was_asked_before(
    disk: Disk, rules: str, seed: int, data: st.DataObject
) -> None:
    """State k is the same one asked alone, and after all others in any order; no two are equal in content."""
    position = data.draw(st.integers(0, len(disk.log)))
    numbers = data.draw(st.permutations(range(12)))
    together = PointStates(model_of(disk, rules, position), seed, None)
    asked = {number: together.get(number) for number in numbers}
    for number in data.draw(st.lists(st.sampled_from(range(12)), max_size=3)):
        assert PointStates(model_of(disk, rules, position), seed, None).get(number) == asked[number]
    found = [state for state in asked.values() if state is not None]
    assert len({state.fingerprint for state in found}) == len(found) >= 1
    # those that there are come first
    assert all((asked[number] is not None) == (number < len(found)) for number in range(12))


@pytest.mark.parametrize(("rules", "states"), [("process", 1), ("linux", 2)])
def test_a_point_says_when_it_has_no_more(rules: str, states: int) -> None:
    """One pending write of one unit: there or not; where everything survives, it is there."""
    disk = Disk()
    disk.add_base("x", b"ABCD")
    disk.run("write x 0 abcd")
    found = [PointStates(model_of(disk, rules, 1), 1, None).get(number) for number in range(5)]
    assert sum(isinstance(state, CrashState) for state in found) == states
    assert found[states:] == [None] * (5 - states)
