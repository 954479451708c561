"""Is a flush measured where it costs something, and is what is implausible called so?"""

from pathlib import Path
from typing import get_args

import pytest

from crashlab.cli.disk import METHODS as CLI_METHODS
from crashlab.errors import EvidenceError
from crashlab.flush.cost import METHODS, NONE, measure
from crashlab.flush.place import ANY_DEVICE_MS, FLASH_MS, TURNING_MS, Place, Plausibility, opinion, place_of, usual
from tests.documents import PAGES, rows

DISK = Path(__file__).parent
"""The checkout lies on a disk; the tests' own temporary folder may not."""


def place(kind: str = "ext4", **more) -> Place:
    """A made-up place."""
    return Place(path="/p", kind=kind, source="/dev/sda1", **{"options": ("rw",), "device": "sda", **more})


def test_the_command_has_the_methods_that_are_measured():
    """The list that help shows, without loading what measures."""
    assert list(METHODS) == list(CLI_METHODS)


@pytest.mark.skipif(place_of(DISK).kind in ("tmpfs", "overlay"), reason="the checkout is not on a disk")
def test_each_flush_costs_more_than_none_on_a_disk_and_nothing_in_memory(tmp_path):
    """Innocent and guilty: on a disk each method costs ten times a bare write; in memory fdatasync costs nothing."""
    on_disk = {cost.method: cost for cost in measure(tmp_on_disk(), 1, seconds=0.1, rounds=3)}
    for name in METHODS.keys() - {NONE}:
        assert on_disk[name].quick_ms > 3 * on_disk[NONE].median_ms, on_disk
    for cost in on_disk.values():
        assert cost.quick_ms <= cost.median_ms <= cost.p99_ms
        assert cost.low_ms <= cost.high_ms
        assert cost.flushes >= 9
    memory = Path("/dev/shm")
    if place_of(memory).kind == "tmpfs":
        found = opinion(place_of(memory), usual(measure(memory, 1, seconds=0.05, rounds=2)).quick_ms)
        assert found.plausible == "impossible"
    assert not list(tmp_on_disk().glob("crashlab-flush-*"))


def test_a_place_where_no_file_can_be_made_is_named_as_such():
    """Linux says of /proc that there is no such file, which is no help: the folder is there."""
    with pytest.raises(EvidenceError, match=r'in "/proc": no file can be made there \(') as error:
        measure(Path("/proc"), 1, seconds=0.05, rounds=2)
    assert "write to" in str(error.value.hint)


def tmp_on_disk() -> Path:
    """A folder on the disk that the checkout is on."""
    return DISK


@pytest.mark.parametrize(
    ("where", "flush_ms", "expected"),
    [
        (place(), 3.0, "plausible"),
        (place(turns=True), 8.0, "plausible"),
        (place(turns=True), 0.9, "cache"),
        (place(turns=True, device="vda"), 0.9, "plausible"),  # the host's word: nothing turns for certain
        (place(), 0.05, "cache"),
        (place(), 0.004, "impossible"),
        (place("tmpfs", device=None), 3.0, "impossible"),
        (place("xfs", options=("rw", "nobarrier")), 3.0, "cache"),
        (place("overlay", device=None), 3.0, "unknown"),
    ],
)
def test_what_is_plausible(where, flush_ms, expected):
    """Each limit, and just beyond it; whatever the word, the limits of the look are named."""
    found = opinion(where, flush_ms)
    assert found.plausible == expected, found
    assert found.limits


def test_limits_name_what_cannot_be_looked_through():
    """Virtual disks, loop devices and layered file systems each have a line of their own; a plain disk has none."""
    assert len(opinion(place(), 3.0).limits) == 1
    assert "virtual" in opinion(place(device="vda"), 3.0).limits[1]
    assert "loop" in opinion(place(backing="/f"), 3.0).limits[1]
    assert "below" in opinion(place("fuse.sshfs", device=None), 3.0).limits[1]


def test_where_nothing_can_be_written_is_an_error(tmp_path):
    """A folder that is gone: the message names it."""
    with pytest.raises(EvidenceError, match="could not measure flushes in"):
        measure(tmp_path / "gone", 1, seconds=0.01)


def test_the_page_has_the_words_and_the_limits():
    """Each opinion, and the times at which it changes."""
    page = PAGES["costs"]
    assert set(rows(page, "word")) == set(get_args(Plausibility))
    for limit in (f"{ANY_DEVICE_MS * 1000:g} us", f"{FLASH_MS:g} ms", f"{TURNING_MS:g} ms"):
        assert f"({limit})" in page
