"""What may a power cut leave? The same rules as crashlab.disk.model, written a second time, naively.

Everything is recomputed from the whole log with real bytes, and all states are listed: only for logs of a few
operations.
"""

from collections.abc import Iterator
from itertools import chain, combinations, product

from crashlab.disk.contract import DiskContract
from crashlab.disk.operations import Kind, Operation
from tests.disk.disk_text import UNIT, Disk, Image, edits_of, walk

_FLUSH_END = {Kind.FSYNC_END, Kind.SYNCFS_END}
_DATA = {Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE, Kind.CONTENT, Kind.COPY}


def all_images(disk: Disk, contract: DiskContract) -> Iterator[Image]:
    """List every image that the contract allows after the whole log; images may repeat."""
    names = _Names(disk, contract)
    links = {op.file: op.data for op in disk.log if op.kind is Kind.SYMLINK}
    contents: dict[int, set[bytes]] = {}
    for kept in names.choices():
        tree = names.tree(kept)
        paths = walk(tree)
        files = sorted({file for file in paths.values() if file not in tree and file not in links})
        for file in files:
            if file not in contents:
                contents[file] = set(_Contents(disk, contract, file).all())
        for chosen in product(*(contents[file] for file in files)):
            data = dict(zip(files, chosen, strict=True))
            yield frozenset(
                (
                    path,
                    "dir" if file in tree else "link" if file in links else "file",
                    data.get(file, links.get(file, b"")),
                )
                for path, file in paths.items()
            )


def _honest_flushes(disk: Disk, contract: DiskContract) -> list[tuple[Operation, int]]:
    """List (begin, position of its end) of the flushes that the disk obeys, by end."""
    if contract.everything_survives:
        everything = Operation(position=len(disk.log), kind=Kind.SYNCFS_BEGIN)
        return [(everything, len(disk.log))]
    begins = {op.token: op for op in disk.log if op.kind in (Kind.FSYNC_BEGIN, Kind.SYNCFS_BEGIN)}
    pairs = [(begins[op.token], op.position) for op in disk.log if op.kind in _FLUSH_END]
    lie = contract.flushes_ignored_from
    return [(begin, end) for begin, end in pairs if lie is None or begin.position < lie]


def _is_durable_write(operation: Operation, contract: DiskContract) -> bool:
    lie = contract.flushes_ignored_from
    return operation.durable and (lie is None or operation.position < lie)


class _Names:
    def __init__(self, disk: Disk, contract: DiskContract) -> None:
        self.disk, self.contract = disk, contract
        tree: dict[int, dict[str, int]] = {0: {}}
        for entry in disk.base:
            paths = walk(tree)
            parent, _, name = entry.path.rpartition("/")
            tree[paths[parent] if parent else 0][name] = entry.file
            if entry.kind == "dir":
                tree[entry.file] = {}
        self.base_tree = tree
        self.edits: dict[int, list[tuple[int, str, int]]] = {}
        self.entries: dict[int, set[tuple[int, str]]] = {}
        self.files: dict[int, set[int]] = {}
        self.removed: dict[int, set[int]] = {}  # operation -> directories that it removed
        self.moved: set[int] = set()  # operations that moved a directory
        now = {directory: dict(table) for directory, table in tree.items()}
        for operation in disk.log:
            self._note(operation, now)
        self.durable = self._durable()
        self.pending = [position for position in self.edits if position not in self.durable]

    def _note(self, operation: Operation, now: dict[int, dict[str, int]]) -> None:
        edits = edits_of(operation, now)
        if not edits:
            return
        position = operation.position
        self.edits[position] = edits
        self.entries[position] = {(directory, name) for directory, name, _ in edits}
        if operation.kind is Kind.LINK:
            paths = walk(now)
            parent, _, name = operation.path.rpartition("/")
            self.entries[position].add((paths[parent] if parent else 0, name))
        old = {now[directory].get(name, 0) for directory, name, _ in edits}
        new = {file for _, _, file in edits}
        self.files[position] = (old | new) - {0}
        self.removed[position] = {file for file in old - new - {0} if file in now}
        if operation.kind is not Kind.MKDIR and any(file in now for file in new):
            self.moved.add(position)
        for directory, name, file in edits:
            now[directory].pop(name, None)
            if file:
                now[directory][name] = file
                if operation.kind is Kind.MKDIR:
                    now[file] = {}

    def depends(self, later: int, earlier: int) -> bool:
        if self.entries[later] & self.entries[earlier] or {later, earlier} <= self.moved:
            return True
        return any(directory in self.removed[later] for directory, _ in self.entries[earlier])

    def _durable(self) -> set[int]:
        durable: set[int] = set()
        log, contract = self.disk.log, self.contract
        events = [(end, begin.position, begin) for begin, end in _honest_flushes(self.disk, contract)]
        events += [(op.position, op.position + 1, op) for op in log if _is_durable_write(op, contract) and op.data]
        for _, before, begin in sorted(events, key=lambda event: event[0]):
            pending = [position for position in self.edits if position < before and position not in durable]
            forced = self._forced(begin, pending)
            while more := [
                one
                for one in pending
                if one not in forced and any(one < two and self.depends(two, one) for two in forced)
            ]:
                forced |= set(more)
            durable |= forced
        return durable

    def _forced(self, begin: Operation, pending: list[int]) -> set[int]:
        if begin.kind is Kind.SYNCFS_BEGIN:
            return set(pending)
        # Not by `entries`: a link does not change the directory of its older name.
        forced = {one for one in pending if any(begin.file == directory for directory, _, _ in self.edits[one])}
        if not self.contract.fsync_persists_own_name:
            return forced if begin.kind is Kind.FSYNC_BEGIN else set()
        creations = {self.disk.log[one].file: one for one in pending if self.disk.log[one].file}
        data_only = begin.datasync or begin.kind is Kind.WRITE
        own = {creations[begin.file]} & set(pending) if data_only and begin.file in creations else set()
        if not data_only:
            own = {one for one in pending if begin.file in self.files[one]}
        while (
            ancestors := {
                one
                for one in pending
                if any(
                    one < two and directory in creations and directory in self.files[one]
                    for two in own
                    for directory, _ in self.entries[two]
                )
            }
            - own
        ):
            own |= ancestors
        return forced | own

    def choices(self) -> Iterator[set[int]]:
        if self.contract.names_in_order:
            yield from (set(self.pending[:count]) for count in range(len(self.pending) + 1))
            return
        every = chain.from_iterable(combinations(self.pending, count) for count in range(len(self.pending) + 1))
        for kept in every:
            lost = set(self.pending) - set(kept)
            if not any(self.depends(one, two) for one in kept for two in lost if two < one):
                yield set(kept)

    def tree(self, kept: set[int]) -> dict[int, dict[str, int]]:
        tree = {directory: dict(table) for directory, table in self.base_tree.items()}
        tree |= {op.file: {} for op in self.disk.log if op.kind is Kind.MKDIR}
        for position in sorted(self.durable | kept):
            for directory, name, file in self.edits[position]:
                tree[directory].pop(name, None)
                if file:
                    tree[directory][name] = file
        return tree


class _Contents:
    """What one file may hold after the whole log."""

    def __init__(self, disk: Disk, contract: DiskContract, file: int) -> None:
        base = disk.base_bytes.get(file, b"")
        self.events: list[tuple[int, str, int, bytes, bool]] = []  # position, what, offset or size, data, durable
        for op in disk.log:
            if op.file == file and op.kind in _DATA:
                self._note(op, _is_durable_write(op, contract))
        flushes = _honest_flushes(disk, contract)
        before = max((begin.position for begin, _ in flushes if begin.file in (0, file)), default=0)
        last_dsync = max((at for at, event in enumerate(self.events) if event[4]), default=-1)
        self.base_size = len(base)
        self.seen = [base]  # the file after each event, index 0 before all
        self.cuts: dict[int, int] = {}  # event -> the smaller size that it set
        self.grown: dict[int, int] = {}
        self.dsynced: dict[int, int] = {}  # unit -> the last event that wrote it durably
        for at, event in enumerate(self.events):
            self._replay(at, *event)
        self.durable = {at for at, event in enumerate(self.events) if event[0] < before}
        self.durable_cuts = {at for at in self.cuts if at in self.durable or at < last_dsync}

    def _note(self, op: Operation, durable: bool) -> None:
        if op.kind is Kind.TRUNCATE:
            self.events.append((op.position, "size", op.offset, b"", False))
        elif op.kind is Kind.ALLOCATE:
            self.events.append((op.position, "allocate", op.offset + op.length, b"", False))
        else:
            if op.kind is Kind.CONTENT:
                self.events.append((op.position, "size", 0, b"", False))
            self.events.append((op.position, "write", op.offset, op.data, durable))

    def _replay(self, at: int, _position: int, what: str, number: int, data: bytes, durable: bool) -> None:
        now = self.seen[-1]
        if what == "write":
            after = now.ljust(number, b"\0")[:number] + data + now[number + len(data) :]
            if durable:
                self.dsynced |= dict.fromkeys(range(number // UNIT, (number + len(data) - 1) // UNIT + 1), at)
        else:
            after = now.ljust(number, b"\0") if what == "allocate" else now[:number].ljust(number, b"\0")
        if len(after) < len(now):
            self.cuts[at] = number
        elif len(after) > len(now):
            self.grown[at] = len(after)
        self.seen.append(after)

    def all(self) -> Iterator[bytes]:
        pending = [at for at in self.cuts if at not in self.durable_cuts]
        for count in range(len(pending) + 1):
            kept, lost = self.durable_cuts | set(pending[:count]), pending[count:]
            for size in self._sizes(kept, lost):
                units = [self._versions(unit, kept, lost) for unit in range(-(-size // UNIT))]
                for chosen in product(*units):
                    yield b"".join(chosen)[:size]

    def _sizes(self, kept: set[int], lost: list[int]) -> list[int]:
        """List the sizes if exactly the truncations of `kept` survive; `lost` are the pending ones after them."""
        end = lost[0] if lost else len(self.events)
        size = self.base_size
        for at, (_, _, number, data, durable) in enumerate(self.events[:end]):
            if at in kept:
                size = self.cuts[at]
            elif at in self.durable and at in self.grown:
                size = max(size, self.grown[at])
            elif durable:
                size = max(size, number + len(data))
        found = [size]
        for at in range(max(kept, default=-1) + 1, end):
            if at in self.grown and self.grown[at] > found[-1]:
                if self.events[at][1] != "size":
                    found += [step for step in range(found[-1] + 1, self.grown[at]) if step % UNIT == 0]
                found.append(self.grown[at])
        passed = {
            self.events[at][2] for at in range(max(kept, default=-1) + 1, end) if self.events[at][1] == "allocate"
        }
        return sorted({*found, *(number for number in passed if found[0] < number < found[-1])})

    def _versions(self, unit: int, kept: set[int], lost: list[int]) -> list[bytes]:
        """List what a unit may hold if exactly the truncations of `kept` survive."""
        start = max([-1, *self.durable, *([self.dsynced[unit]] if unit in self.dsynced else [])])
        gone = [cut for cut in self.cuts if self.cuts[cut] <= unit * UNIT]
        found = {self._view(start, unit, kept)}
        for at in range(start + 1, len(self.events)):
            if at in gone or any(cut in gone and cut < at for cut in lost):
                continue
            found.add(self._view(at, unit, kept))
        return sorted(found)

    def _view(self, at: int, unit: int, kept: set[int]) -> bytes:
        data = self.seen[at + 1][unit * UNIT : (unit + 1) * UNIT].ljust(UNIT, b"\0")
        for cut in kept:
            # The rest of a unit that it cuts in two is zeroed in place, seen as a version of its own.
            if cut > at and self.cuts[cut] <= unit * UNIT:
                data = bytes(UNIT)
        return data
