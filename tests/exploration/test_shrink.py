"""Does the search for the smallest crash state end at the losses that matter, and at the earliest point?"""

from collections.abc import Callable

from crashlab.disk.lost import lost_changes, lost_writes
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.states import nothing_extra
from crashlab.exploration.shrink import Progress, Shrinker
from tests.disk.disk_text import CONTRACTS, Disk

Judge = Callable[[DiskModel, CrashState], bool]


def model_at(disk: Disk, position: int) -> DiskModel:
    """Return the model at a point."""
    model = DiskModel(disk.base, CONTRACTS["strict"])
    for operation in disk.log[:position]:
        model.apply(operation)
    return model


def shrunk(disk: Disk, wrong: Judge, *, tries: int = 1000) -> tuple[Shrinker, DiskModel, list[Progress]]:
    """Shrink the state in which all was lost at the end."""
    told: list[Progress] = []
    asked: list[int] = []

    def still_wrong(state: CrashState) -> bool:
        asked.append(state.fingerprint)
        return wrong(model_at(disk, state.position), state)

    start = nothing_extra(model_at(disk, len(disk.log)))
    search = Shrinker(
        start,
        model_at=lambda position: model_at(disk, position),
        still_wrong=still_wrong,
        may_go_on=lambda tried: tried < tries,
        told=told.append,
    )
    best = search.run()
    assert search.tried == len(asked)
    return search, model_at(disk, best.position), told


def content(disk: Disk, path: str) -> Callable[[DiskModel, CrashState], bytes]:
    """Return what gives the content of a file of a state."""

    def read(model: DiskModel, state: CrashState) -> bytes:
        return {name: data for name, kind, data in disk.image(model, state) if kind == "file"}.get(path, b"")

    return read


def many_pages() -> Disk:
    """Two files of forty pages each, written three times, and ten new names."""
    disk = Disk()
    for name in ("x", "y"):
        disk.add_base(name, b"0000" * 40)
    for letter in "abc":
        for page in range(40):
            disk.run(f"write x {page * 4} {letter * 4}")
            disk.run(f"write y {page * 4} {letter * 4}")
    for number in range(10):
        disk.run(f"create n{number}")
    return disk


def test_one_lost_write_is_left_of_hundreds():
    """Only page 17 of x without its last write is wrong, once that has happened: that one, right after it."""
    disk = many_pages()
    read = content(disk, "x")
    search, model, told = shrunk(disk, lambda model, state: read(model, state)[68:72] == b"bbbb" and _last(state) > 194)
    (lost,) = lost_writes(model, search.best)
    assert (lost.path, lost.offset, lost.torn) == ("x", 68, False)
    assert disk.log[lost.position].data == b"cccc"
    assert search.best.position == lost.position + 1
    assert not lost_changes(model, search.best)
    assert search.complete
    assert [step.lost for step in told] == sorted((step.lost for step in told), reverse=True)
    assert search.tried < 300  # of 2 ** 90 sets of losses, at 240 points


def _last(state: CrashState) -> int:
    return state.position


def test_two_losses_that_need_each_other_stay():
    """A name and a write: without either of them nothing is wrong."""
    disk = many_pages()
    read = content(disk, "y")

    def wrong(model: DiskModel, state: CrashState) -> bool:
        return "n3" not in model.paths(state.names) and read(model, state)[:4] != b"cccc"

    search, model, _ = shrunk(disk, lambda model, state: wrong(model, state) and _last(state) > 243)
    assert [change.what for change in lost_changes(model, search.best)] == ["create of n3"]
    assert [(one.path, one.offset) for one in lost_writes(model, search.best)] == [("y", 0)]
    assert search.best.position == 244


def test_where_nothing_lost_is_wrong_a_kill_is_enough():
    """No loss is needed: none is left, at the earliest point at which it is wrong."""
    disk = many_pages()
    search, model, _ = shrunk(disk, lambda model, state: state.position >= 100)
    assert not lost_writes(model, search.best)
    assert not lost_changes(model, search.best)
    assert search.best.position == 100


def test_a_search_that_is_cut_short_says_so_and_keeps_what_it_has():
    """The best state so far was seen to be wrong."""
    disk = many_pages()
    read = content(disk, "x")
    search, model, _ = shrunk(disk, lambda model, state: read(model, state)[68:72] != b"cccc", tries=5)
    assert not search.complete
    assert search.tried == 5
    assert read(model, search.best)[68:72] != b"cccc"


def test_the_same_search_gives_the_same_state():
    """There is no chance in it."""
    disk = many_pages()
    read = content(disk, "x")
    first, second = (shrunk(disk, lambda model, state: read(model, state)[:4] != b"cccc")[0].best for _ in range(2))
    assert first == second
