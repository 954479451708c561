"""Which of the many crash states of a point are worth a recovery?

`enumerate_states` gives the most telling ones first, `draw_state` gives random ones from a seeded stream. Both can be
aimed: the files of the aimed classes vary, all others keep everything that was written.

Choices:
    Densities: a drawn state first decides how likely a pending change is to survive, for the whole disk or for each
    file, from almost nothing to almost everything. One fixed chance would never lose a single page of thousands.
    Names of files vary only without an aim, or with FileClass.DIRECTORY among the aimed.
    Two choices that come to the same image are one state, told by the fingerprint.

Source: design.md "The disk model"; the all-but-one and only-one states after ALICE (OSDI '14).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice, product, zip_longest
from typing import Protocol, TypeVar

from crashlab.disk.fileclass import FileClass
from crashlab.disk.filehistory import DURABLE, FileHistory
from crashlab.disk.model import CrashState, DiskModel, FileChoice

DENSITIES = (0.01, 0.1, 0.5, 0.9, 0.99)
"""How likely a pending change is to survive, in a drawn state."""

_LATEST_SHARE = 0.75  # of the surviving units with several versions, those that hold the last one


_T = TypeVar("_T")


class Dice(Protocol):
    """What is needed of a random stream of crashlab.seeds."""

    def random(self) -> float: ...
    def randint(self, a: int, b: int) -> int: ...
    def choice(self, seq: Sequence[_T]) -> _T: ...


def nothing_extra(model: DiskModel) -> CrashState:
    """Return the state in which only what is durable survived."""
    return model.state((), (), "nothing that was pending survived")


def everything(model: DiskModel) -> CrashState:
    """Return the state in which everything survived: what the server saw at this point."""
    return model.state(_all_names(model), map(_whole, _pending_files(model)), "everything survived")


def losses(model: DiskModel, state: CrashState) -> str:
    """Say how much of what was pending a state has lost: pages by class of file, and names."""
    kept = {choice.file: dict(choice.versions) for choice in state.files}
    lost: Counter[FileClass] = Counter()
    pending: Counter[FileClass] = Counter()
    for file in _pending_files(model):
        versions = kept.get(file.number, {})
        pending[model.class_of(file.number)] += len(file.versions)
        lost[model.class_of(file.number)] += sum(
            versions.get(unit, DURABLE) != history[-1][0] for unit, history in file.versions.items()
        )
    parts = [f"{lost[part]} of {number} {part} units" for part, number in sorted(pending.items()) if lost[part]]
    if names := len(model.names.pending):
        parts.append(f"{names - len(state.names)} of {names} names")
    return f"lost {', '.join(parts)}" if parts else "lost nothing"


def draw_state(model: DiskModel, rng: Dice, aim: Collection[FileClass] | None = None) -> CrashState:
    """Draw one crash state; the same stream at the same point of the same recording gives the same one."""
    common = rng.choice(DENSITIES)
    each_its_own = rng.random() < 0.5
    choices = []
    for file in _pending_files(model):
        if not _aimed(model, file, aim):
            choices.append(_whole(file))
            continue
        choices.append(_draw_file(file, rng, rng.choice(DENSITIES) if each_its_own else common))
    names = _draw_names(model, rng, common) if _names_vary(aim) else _all_names(model)
    how = "each file its own density" if each_its_own else f"density {common}"
    return model.state(names, choices, f"drawn, {how}")


def _draw_names(model: DiskModel, rng: Dice, density: float) -> tuple[int, ...]:
    positions = _all_names(model)
    if not model.contract.names_in_order:
        return model.names.closed([position for position in positions if rng.random() < density])
    return positions if rng.random() < density else positions[: rng.randint(0, len(positions))]


def _draw_file(file: FileHistory, rng: Dice, density: float) -> FileChoice:
    cuts = 0
    while cuts < len(file.cuts) and rng.random() < density:
        cuts += 1
    size = _draw_size(file, rng, density, cuts)
    end = -(-size // file.unit_bytes)
    chosen = []
    for unit, history in file.versions.items():
        if unit >= end or rng.random() >= density:
            continue
        if cuts == len(file.cuts) and (len(history) == 1 or rng.random() < _LATEST_SHARE):
            chosen.append((unit, history[-1][0]))
        elif (position := rng.choice(file.choices(unit, cuts))) != DURABLE:
            chosen.append((unit, position))
    return FileChoice(file.number, cuts, size, tuple(chosen))


def _draw_size(file: FileHistory, rng: Dice, density: float, cuts: int) -> int:
    if rng.random() < density:
        return file.largest(cuts)
    sizes = list(file.sizes(cuts))
    return sizes[0] if rng.random() < 0.5 else rng.choice(sizes)


def enumerate_states(
    model: DiskModel, limit: int | None = None, aim: Collection[FileClass] | None = None
) -> Iterator[CrashState]:
    """Yield different crash states, the most telling first; without a limit, and on a small disk only, all of them."""
    seen: set[int] = set()

    def new_ones() -> Iterator[CrashState]:
        for state in chain(_telling(model, aim), _every(model, aim)):
            if state.fingerprint not in seen:
                seen.add(state.fingerprint)
                yield state

    return islice(new_ones(), limit)


def _telling(model: DiskModel, aim: Collection[FileClass] | None) -> Iterator[CrashState]:
    files = _pending_files(model)
    aimed = [file for file in files if _aimed(model, file, aim)]
    whole = {file.number: _whole(file) for file in files}
    fixed = {file.number: whole[file.number] for file in files if file not in aimed}
    names = _all_names(model)

    def but(choice: FileChoice, note: str) -> CrashState:
        return model.state(names, (whole | {choice.file: choice}).values(), note)

    def only(choice: FileChoice, note: str) -> CrashState:
        return model.state(names, (fixed | {choice.file: choice}).values(), note)

    yield model.state(() if _names_vary(aim) else names, fixed.values(), "nothing that was pending survived")
    yield model.state(names, whole.values(), "everything survived")
    yield model.state(names, fixed.values(), "all names survived, no data")
    if _names_vary(aim):
        yield model.state((), whole.values(), "all data survived, no name")
        for count in range(len(names) - 1, 0, -1):
            kept = names[:count]
            yield model.state(kept, whole.values(), f"names survived up to operation {kept[-1]}, all data")
    for file in aimed:
        path = model.names.path_of(file.number)
        yield but(_durable(file), f"everything survived but {path}")
        yield only(whole[file.number], f"only {path} survived")
    yield from _round_robin([_torn_writes(model, file, but) for file in aimed])
    yield from _round_robin([_single_changes(model, file, but, only) for file in aimed])


_Make = Callable[[FileChoice, str], CrashState]


def _torn_writes(model: DiskModel, file: FileHistory, but: _Make) -> Iterator[CrashState]:
    """Yield the states in which one write of several units survived in half, and everything else whole."""
    whole, path = _whole(file), model.names.path_of(file.number)
    writes: dict[int, list[int]] = {}
    for unit, position in whole.versions:
        writes.setdefault(position, []).append(unit)
    for position, units in sorted(writes.items()):
        if len(units) < 2:
            continue
        units.sort()
        half = len(units) // 2
        for lost, which in ((units[half:], "second"), (units[:half], "first")):
            choice = _with(whole, {unit: _older(file, unit, position) for unit in lost})
            yield but(choice, f"the {which} half of the write at operation {position} to {path} was lost")


def _single_changes(model: DiskModel, file: FileHistory, but: _Make, only: _Make) -> Iterator[CrashState]:
    """Yield the states in which one unit, one size or one truncation is other than the rest."""
    whole, path = _whole(file), model.names.path_of(file.number)
    for unit, position in whole.versions:
        where = f"offset {unit * file.unit_bytes} of {path}"
        for older in reversed(file.choices(unit, whole.cuts)[:-1]):
            what = "was lost" if older == DURABLE else f"is as of operation {older}"
            yield but(_with(whole, {unit: older}), f"everything survived, but {where} {what}")
        if position in file.choices(unit, 0):
            sizes = list(file.sizes(0))
            size = next((size for size in sizes if size >= (unit + 1) * file.unit_bytes), sizes[-1])
            yield only(FileChoice(file.number, 0, size, ((unit, position),)), f"only {where} survived")
    for size in file.sizes(whole.cuts):
        if size != whole.size:
            yield but(_with(whole, {}, size=size), f"everything survived, but the size of {path} is {size}")
    for cuts in range(len(file.cuts)):
        versions = tuple(
            (unit, position) for unit in file.versions if (position := file.choices(unit, cuts)[-1]) != DURABLE
        )
        choice = FileChoice(file.number, cuts, file.largest(cuts), versions)
        yield but(choice, f"everything survived, but {path} was not truncated at operation {file.cuts[cuts][0]}")


def _every(model: DiskModel, aim: Collection[FileClass] | None) -> Iterator[CrashState]:
    """Yield all states, in no telling order; their number is exponential."""
    if not _names_vary(aim):
        name_sets = iter([_all_names(model)])
    elif model.contract.names_in_order:
        names = _all_names(model)
        name_sets = (names[:count] for count in range(len(names) + 1))
    else:
        name_sets = model.names.subsets()
    for kept in name_sets:
        reachable = set(model.paths(kept).values())
        files = [file for file in _pending_files(model) if file.number in reachable]
        options = [_options(file) if _aimed(model, file, aim) else iter([_whole(file)]) for file in files]
        for choices in product(*options):
            yield model.state(kept, choices, "one of all")


def _options(file: FileHistory) -> Iterator[FileChoice]:
    for cuts in range(len(file.cuts) + 1):
        for size in file.sizes(cuts):
            units = [unit for unit in file.versions if unit * file.unit_bytes < size]
            for positions in product(*(file.choices(unit, cuts) for unit in units)):
                chosen = tuple(
                    (unit, position) for unit, position in zip(units, positions, strict=True) if position != DURABLE
                )
                yield FileChoice(file.number, cuts, size, chosen)


def _pending_files(model: DiskModel) -> list[FileHistory]:
    return [model.files[number] for number in sorted(model.volatile)]


def _all_names(model: DiskModel) -> tuple[int, ...]:
    return tuple(operation.position for operation in model.names.pending)


def _aimed(model: DiskModel, file: FileHistory, aim: Collection[FileClass] | None) -> bool:
    return aim is None or model.class_of(file.number) in aim


def _names_vary(aim: Collection[FileClass] | None) -> bool:
    return aim is None or FileClass.DIRECTORY in aim


def _whole(file: FileHistory) -> FileChoice:
    versions = tuple((unit, history[-1][0]) for unit, history in file.versions.items())
    return FileChoice(file.number, len(file.cuts), file.size, versions)


def _durable(file: FileHistory) -> FileChoice:
    return FileChoice(file.number, 0, file.durable_size, ())


def _older(file: FileHistory, unit: int, position: int) -> int:
    choices = file.choices(unit, len(file.cuts))
    return choices[choices.index(position) - 1]


def _with(choice: FileChoice, positions: dict[int, int], size: int | None = None) -> FileChoice:
    versions = {**dict(choice.versions), **positions}
    kept = tuple((unit, position) for unit, position in versions.items() if position != DURABLE)
    return FileChoice(choice.file, choice.cuts, choice.size if size is None else size, kept)


def _round_robin(sources: list[Iterator[CrashState]]) -> Iterator[CrashState]:
    for row in zip_longest(*sources):
        yield from (state for state in row if state is not None)
