"""What has a crash state lost, write by write, and which state has lost less than that?

A crash state is choices among what was pending. Seen from the state in which everything survived, it is a list of
losses: a change of names, a unit of a file that holds an older version, a size, a truncation. `losses_in` gives that
list, `state_with` the state that a list means, at the same crash point or at another one.

Choices:
    A state with fewer losses is always one that the model allows: what depends on a lost name goes with it, a version
    that a lost truncation forbids gives way to the newest allowed one. So a list may mean a state with other losses.
    What no name reaches is no loss of its own: the lost name stands for it. Neither is what left the same bytes.
    Counted are writes, not units: a page that lost its last two writes has lost two, one that lost both its halves of
    one write has lost one. A size or a truncation counts where no lost write says the same. Where names keep their
    order, the first lost one stands for all that go with it.

Source: design.md "The disk model".
"""

from collections.abc import Iterable, Iterator

import msgspec

from crashlab.disk.fileclass import FileClass
from crashlab.disk.filehistory import DURABLE, FileHistory
from crashlab.disk.model import CrashState, DiskModel, FileChoice
from crashlab.disk.tornpages import PAGE_BYTES, ReadBytes, bytes_of


class LostName(msgspec.Struct, frozen=True, order=True):
    """A change of names that the disk has not."""

    position: int

    @property
    def group(self) -> tuple[int, int]:
        """What it is lost together with: nothing."""
        return 0, self.position


class LostUnit(msgspec.Struct, frozen=True, order=True):
    """A unit of a file that holds an older version than the newest one."""

    file: int
    unit: int
    kept: int  # position of the write that it holds the result of, or DURABLE

    @property
    def group(self) -> tuple[int, int]:
        """What it is lost together with: the rest of its file."""
        return 1, self.file


class LostSize(msgspec.Struct, frozen=True, order=True):
    """A file that is not as large as it was."""

    file: int
    size: int

    @property
    def group(self) -> tuple[int, int]:
        """What it is lost together with: the rest of its file."""
        return 1, self.file


class LostCuts(msgspec.Struct, frozen=True, order=True):
    """A file whose last truncations were lost."""

    file: int
    cuts: int  # how many of the pending ones survived

    @property
    def group(self) -> tuple[int, int]:
        """What it is lost together with: the rest of its file."""
        return 1, self.file


Loss = LostName | LostUnit | LostSize | LostCuts


class LostWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write of which a crash state has nothing, or only a part."""

    position: int  # the operation
    file: int
    path: str  # the file's name in the state, or as the server saw it
    file_class: FileClass
    offset: int  # in the file, of the first lost byte
    length: int  # up to the last lost one, in whole units
    torn: bool  # a part of it survived


class LostChange(msgspec.Struct, frozen=True, kw_only=True):
    """A lost change of names, size or length, in words."""

    position: int | None
    path: str
    what: str


def losses_in(model: DiskModel, state: CrashState) -> list[Loss]:
    """Return what a state of the model's position has lost of what was pending, names first, in order."""
    kept_names = set(state.names)
    found: list[Loss] = [LostName(one.position) for one in model.names.pending if one.position not in kept_names]
    for file, choice in _reachable(model, state):
        found += _file_losses(file, choice)
    return found


def _reachable(model: DiskModel, state: CrashState) -> Iterable[tuple[FileHistory, FileChoice]]:
    """Yield each file with anything pending that a name leads to, with what the state has of it."""
    there = set(model.paths(state.names).values())
    chosen = {choice.file: choice for choice in state.files}
    for number in sorted(model.volatile & there):
        file = model.files[number]
        choice = chosen.get(number) or FileChoice(number, 0, file.durable_size, ())
        if _print(file, choice) != _print(file, _choice(file, [])):
            yield file, choice


def _print(file: FileHistory, choice: FileChoice) -> int:
    return file.fingerprint(choice.cuts, choice.size, dict(choice.versions))


def _file_losses(file: FileHistory, choice: FileChoice) -> Iterable[Loss]:
    if choice.cuts < len(file.cuts):
        yield LostCuts(file.number, choice.cuts)
    whole = _whole_size(file, choice.cuts)
    if choice.size != whole:
        yield LostSize(file.number, choice.size)
    held = dict(choice.versions)
    for unit in sorted(file.versions):
        if unit * file.unit_bytes >= max(choice.size, whole):
            continue
        kept = held.get(unit, DURABLE)
        if unit * file.unit_bytes >= choice.size:
            kept = DURABLE
        if _differs(file, unit, kept, choice.cuts):
            yield LostUnit(file.number, unit, kept)


def _differs(file: FileHistory, unit: int, kept: int, cuts: int) -> bool:
    """Whether a version of a unit has not the same bytes as the newest that these truncations allow."""
    newest = file.choices(unit, cuts)[-1]
    return kept != newest and file.version(unit, kept, cuts).digest != file.version(unit, newest, cuts).digest


def _whole_size(file: FileHistory, cuts: int) -> int:
    return file.size if cuts == len(file.cuts) else file.largest(cuts)


def state_with(model: DiskModel, losses: Iterable[Loss], note: str) -> CrashState:
    """Return the state of the model's position that has lost this much, or as near to it as the model allows."""
    lost_names: set[int] = set()
    by_file: dict[int, list[Loss]] = {}
    for loss in losses:
        if isinstance(loss, LostName):
            lost_names.add(loss.position)
        else:
            by_file.setdefault(loss.file, []).append(loss)
    positions = [one.position for one in model.names.pending]
    if model.contract.names_in_order:
        first = min(lost_names.intersection(positions), default=None)
        names = tuple(position for position in positions if first is None or position < first)
    else:
        names = model.names.closed([position for position in positions if position not in lost_names])
    choices = [_choice(model.files[number], by_file.get(number, [])) for number in sorted(model.volatile)]
    return model.state(names, choices, note)


def _choice(file: FileHistory, losses: list[Loss]) -> FileChoice:
    cuts = next((min(loss.cuts, len(file.cuts)) for loss in losses if isinstance(loss, LostCuts)), len(file.cuts))
    size = whole = _whole_size(file, cuts)
    for loss in losses:
        if isinstance(loss, LostSize) and loss.size != whole and loss.size in file.sizes(cuts):
            size = loss.size
    older = {loss.unit: loss.kept for loss in losses if isinstance(loss, LostUnit)}
    chosen = []
    for unit in file.versions:
        if unit * file.unit_bytes >= size:
            continue
        allowed = file.choices(unit, cuts)
        kept = older.get(unit, allowed[-1])
        kept = kept if kept in allowed else allowed[-1]
        if kept != DURABLE:
            chosen.append((unit, kept))
    return FileChoice(file.number, cuts, size, tuple(chosen))


# --- in terms of what the server did


def lost_writes(model: DiskModel, state: CrashState) -> list[LostWrite]:
    """Return the writes that a state of the model's position has lost, whole or in part, in their order."""
    paths = {number: path for path, number in model.paths(state.names).items()}
    found = []
    for file, choice in _reachable(model, state):
        held = dict(choice.versions)
        units: dict[int, list[int]] = {}
        lost: dict[int, list[int]] = {}
        for unit, history in file.versions.items():
            beyond = unit * file.unit_bytes >= choice.size
            kept = DURABLE if beyond else held.get(unit, DURABLE)
            within = unit * file.unit_bytes < max(choice.size, _whole_size(file, choice.cuts))
            differs = within and _differs(file, unit, kept, choice.cuts)
            for position, _ in history:
                units.setdefault(position, []).append(unit)
                if differs and position > kept:
                    lost.setdefault(position, []).append(unit)
        for position, gone in lost.items():
            begin = min(gone) * file.unit_bytes
            found.append(
                LostWrite(
                    position=position,
                    file=file.number,
                    path=paths.get(file.number) or model.names.path_of(file.number),
                    file_class=model.class_of(file.number),
                    offset=begin,
                    length=(max(gone) + 1) * file.unit_bytes - begin,
                    torn=len(gone) < len(units[position]),
                )
            )
    return sorted(found, key=lambda write: write.position)


def page_header(
    model: DiskModel, write: LostWrite, page: int, length: int, base: ReadBytes, logged: ReadBytes
) -> bytes | None:
    """Return the first bytes of a page as they were right after a lost write; None: the page begins beyond it.

    Args:
        base, logged: see `tornpages.torn_pages`.
    """
    file = model.files[write.file]
    unit = page * PAGE_BYTES // file.unit_bytes
    if unit * file.unit_bytes >= write.offset + write.length:
        return None
    at = max([at for at, _ in file.versions.get(unit, ()) if at <= write.position], default=DURABLE)
    return bytes_of(file, file.version(unit, at, len(file.cuts)), base, logged)[:length]


def lost_changes(model: DiskModel, state: CrashState) -> list[LostChange]:
    """Return what else a state has lost: changes of names; truncations; sizes that no lost write explains."""
    found = list(_lost_names(model, state))
    written = {write.file for write in lost_writes(model, state)}
    for file, choice in _reachable(model, state):
        path = model.names.path_of(file.number)
        for position, size in file.cuts[choice.cuts :]:
            found.append(LostChange(position=position, path=path, what=f"truncation of {path} to {size} bytes"))
        whole = _whole_size(file, choice.cuts)
        if choice.size != whole and file.number not in written:
            what = f"size of {path}: {choice.size} bytes in place of {whole}"
            found.append(LostChange(position=None, path=path, what=what))
    return found


def _lost_names(model: DiskModel, state: CrashState) -> Iterator[LostChange]:
    kept = set(state.names)
    lost = [name for name in model.names.pending if name.position not in kept]
    in_order = model.contract.names_in_order
    for name in lost[:1] if in_order else lost:
        arrow = f" -> {name.target}" if name.target else ""
        what = f"{name.kind.name.lower()} of {name.path}{arrow}"
        if in_order and len(lost) > 1:
            what += f" and, as this disk keeps names in order, the {len(lost) - 1} changes of names after it"
        yield LostChange(position=name.position, path=name.path, what=what)


def cost(model: DiskModel, state: CrashState) -> tuple[int, int, int]:
    """Return what makes a state of the model's position small: lost writes and changes, its point, lost units."""
    changes, writes = lost_changes(model, state), lost_writes(model, state)
    return len(changes) + len(writes), state.position, len(losses_in(model, state))
