"""What may a power cut leave? The same rules as crashlab.recording.diskmodel, written a second time, naively.

Everything is recomputed from the whole log with real bytes, and all states are listed: only for logs of a few
operations. Also the small text form in which tests write logs and disks down.
"""

from collections.abc import Iterator
from itertools import chain, combinations, product

from crashlab.recording.diskcontract import DiskContract
from crashlab.recording.diskmodel import CrashState, DiskModel
from crashlab.recording.operations import BaseFile, Kind, Operation

UNIT = 4
Image = frozenset[tuple[str, str, bytes]]
"""(path, kind, bytes) of everything on a disk."""

_FLUSH_END = {Kind.FSYNC_END, Kind.SYNCFS_END}
_DATA = {Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE, Kind.CONTENT, Kind.COPY}


class Disk:
    """A base image and a log of operations, to be written line by line."""

    def __init__(self) -> None:
        self.base: list[BaseFile] = []
        self.base_bytes: dict[int, bytes] = {}
        self.log: list[Operation] = []
        self.tree: dict[int, dict[str, int]] = {0: {}}  # as the server sees it
        self._numbers = 0
        self._begins: dict[str, tuple[int, bool]] = {}

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def at(self, path: str) -> tuple[int, str]:
        *parents, name = path.split("/")
        directory = 0
        for part in parents:
            directory = self.tree[directory][part]
        return directory, name

    def file(self, path: str) -> int:
        directory, name = self.at(path)
        return self.tree[directory][name]

    def paths(self) -> dict[str, int]:
        return walk(self.tree)

    def add_base(self, path: str, content: bytes | None) -> None:
        """Add a file, or with None a directory."""
        directory, name = self.at(path)
        file = self.tree[directory][name] = self.number()
        if content is None:
            self.tree[file] = {}
        else:
            self.base_bytes[file] = content
        kind, size = ("dir", 0) if content is None else ("file", len(content))
        self.base.append(BaseFile(file=file, path=path, kind=kind, size=size))

    def add(self, kind: Kind, **fields: object) -> None:
        """Append an operation and let the server's view follow."""
        self.log.append(Operation(position=len(self.log), kind=kind, **fields))  # type: ignore[arg-type]
        for directory, name, file in edits_of(self.log[-1], self.tree):
            self.tree[directory].pop(name, None)
            if file:
                self.tree[directory][name] = file
                if kind is Kind.MKDIR:
                    self.tree[file] = {}

    def run(self, line: str) -> None:
        """Append the operation of one line, such as `write d/f 0 abc`, `fsync d`, `begin 1 f`, `end 1`."""
        verb, *words = line.split()
        first = words[0] if words else ""
        if verb in ("create", "mkdir"):
            self.add(Kind[verb.upper()], file=self.number(), path=first)
        elif verb in ("rename", "link", "exchange"):
            self.add(Kind[verb.upper()], path=first, target=words[1])
        elif verb in ("unlink", "rmdir"):
            self.add(Kind[verb.upper()], path=first)
        elif verb == "symlink":
            self.add(Kind.SYMLINK, file=self.number(), path=first, data=words[1].encode())
        elif verb in ("write", "dsync"):
            data = words[2].encode().replace(b".", b"\0")
            self.add(Kind.WRITE, file=self.file(first), offset=int(words[1]), data=data, durable=verb == "dsync")
        elif verb == "content":
            self.add(Kind.CONTENT, file=self.file(first), data=words[1].encode().replace(b".", b"\0"))
        elif verb == "truncate":
            self.add(Kind.TRUNCATE, file=self.file(first), offset=int(words[1]))
        elif verb == "allocate":
            self.add(Kind.ALLOCATE, file=self.file(first), offset=int(words[1]), length=int(words[2]))
        elif verb in ("fsync", "fdatasync", "syncfs"):
            token = str(len(self.log))
            self.run(f"begin {token} {first} {verb}")
            self.run(f"end {token}")
        elif verb == "begin":
            everything = words[-1] == "syncfs"
            kind = Kind.SYNCFS_BEGIN if everything else Kind.FSYNC_BEGIN
            file = 0 if everything else self.file(words[1])
            self._begins[first] = (len(self.log), everything)
            self.add(kind, file=file, token=len(self.log), datasync=words[-1] == "fdatasync")
        elif verb == "end":
            token, everything = self._begins[first]
            self.add(Kind.SYNCFS_END if everything else Kind.FSYNC_END, token=token)
        else:
            raise AssertionError(line)

    def model(self, contract: DiskContract) -> DiskModel:
        model = DiskModel(self.base, contract)
        for operation in self.log:
            model.apply(operation)
        return model

    def logged(self, position: int) -> bytes:
        return self.log[position].data

    def base_range(self, file: int, offset: int, length: int) -> bytes:
        found = self.base_bytes[file][offset : offset + length]
        assert len(found) == length
        return found

    def image(self, model: DiskModel, state: CrashState) -> Image:
        """Build the image that a crash state stands for."""
        entries = []
        for path, file in model.paths(state.names).items():
            if model.names.is_directory(file):
                entries.append((path, "dir", b""))
            elif file in model.links:
                entries.append((path, "link", model.links[file].encode()))
            else:
                entries.append((path, "file", model.image(state, file).read(self.logged, self.base_range)))
        return frozenset(entries)


def walk(tree: dict[int, dict[str, int]], directory: int = 0, prefix: str = "") -> dict[str, int]:
    found = {}
    for name, file in tree.get(directory, {}).items():
        found[prefix + name] = file
        if file in tree:
            found |= walk(tree, file, f"{prefix}{name}/")
    return found


def edits_of(operation: Operation, tree: dict[int, dict[str, int]]) -> list[tuple[int, str, int]]:
    """Say which directory entries an operation changes, given the tree it was issued on."""

    def at(path: str) -> tuple[int, str]:
        *parents, name = path.split("/")
        directory = 0
        for part in parents:
            directory = tree[directory][part]
        return directory, name

    def file(path: str) -> int:
        directory, name = at(path)
        return tree[directory].get(name, 0)

    kind, path, target = operation.kind, operation.path, operation.target
    if kind in (Kind.CREATE, Kind.MKDIR, Kind.SYMLINK):
        return [(*at(path), operation.file)]
    if kind in (Kind.UNLINK, Kind.RMDIR):
        return [(*at(path), 0)]
    if kind not in (Kind.RENAME, Kind.LINK, Kind.EXCHANGE) or file(path) == file(target):
        return []
    if kind is Kind.LINK:
        return [(*at(target), file(path))]
    return [(*at(path), file(target) if kind is Kind.EXCHANGE else 0), (*at(target), file(path))]


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
                contents[file] = set(_contents(disk, contract, file))
        for chosen in product(*(contents[file] for file in files)):
            data = dict(zip(files, chosen, strict=True))
            yield frozenset(
                (path, "dir" if file in tree else "link" if file in links else "file", data.get(file, links.get(file, b"")))
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
                one for one in pending if one not in forced and any(one < two and self.depends(two, one) for two in forced)
            ]:
                forced |= set(more)
            durable |= forced
        return durable

    def _forced(self, begin: Operation, pending: list[int]) -> set[int]:
        if begin.kind is Kind.SYNCFS_BEGIN:
            return set(pending)
        forced = {one for one in pending if any(begin.file == directory for directory, _ in self.entries[one])}
        if not self.contract.fsync_persists_own_name:
            return forced if begin.kind is Kind.FSYNC_BEGIN else set()
        creations = {self.disk.log[one].file: one for one in pending if self.disk.log[one].file}
        data_only = begin.datasync or begin.kind is Kind.WRITE
        own = {creations[begin.file]} & set(pending) if data_only and begin.file in creations else set()
        if not data_only:
            own = {one for one in pending if begin.file in self.files[one]}
        while ancestors := {
            one
            for one in pending
            if any(directory in creations and directory in self.files[one] for two in own for directory, _ in self.entries[two])
        } - own:
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


def _contents(disk: Disk, contract: DiskContract, file: int) -> Iterator[bytes]:
    """List what a file may hold after the whole log."""
    base = disk.base_bytes.get(file, b"")
    events: list[tuple[int, str, int, bytes, bool]] = []  # position, what, offset or size, data, durable
    for op in disk.log:
        if op.file != file or op.kind not in _DATA:
            continue
        if op.kind is Kind.TRUNCATE:
            events.append((op.position, "size", op.offset, b"", False))
        elif op.kind is Kind.ALLOCATE:
            events.append((op.position, "allocate", op.offset + op.length, b"", False))
        else:
            if op.kind is Kind.CONTENT:
                events.append((op.position, "size", 0, b"", False))
            events.append((op.position, "write", op.offset, op.data, _is_durable_write(op, contract)))
    before = max(
        (begin.position for begin, _ in _honest_flushes(disk, contract) if begin.file in (0, file)), default=0
    )
    last_dsync = max((at for at, event in enumerate(events) if event[4] and event[3]), default=-1)

    # The file as seen after each event, index 0 being the base; and what each event did to the size.
    seen, cuts, grown = [base], {}, {}
    dsynced: dict[int, int] = {}  # unit -> the last event that wrote it durably
    for at, (_, what, number, data, durable) in enumerate(events):
        now = seen[-1]
        if what == "write":
            after = now.ljust(number, b"\0")[:number] + data + now[number + len(data) :] if data else now
            if durable and data:
                dsynced |= dict.fromkeys(range(number // UNIT, (number + len(data) - 1) // UNIT + 1), at)
        else:
            after = now.ljust(number, b"\0") if what == "allocate" else now[:number].ljust(number, b"\0")
        if len(after) < len(now):
            cuts[at] = number
        elif len(after) > len(now):
            grown[at] = (len(after), what != "size")
        seen.append(after)
    durable_events = {at for at, event in enumerate(events) if event[0] < before}
    durable_cuts = {at for at in cuts if at in durable_events or at < last_dsync}
    pending_cuts = [at for at in cuts if at not in durable_cuts]

    def view(at: int, unit: int) -> bytes:
        return seen[at + 1][unit * UNIT : (unit + 1) * UNIT].ljust(UNIT, b"\0")

    for count in range(len(pending_cuts) + 1):
        kept = durable_cuts | set(pending_cuts[:count])
        lost = pending_cuts[count:]
        size_choices = _sizes(len(base), events, cuts, grown, durable_events, kept, lost, dsynced)
        for size in size_choices:
            options = []
            for unit in range(-(-size // UNIT)):
                start_at = max([-1, *durable_events, *([dsynced[unit]] if unit in dsynced else [])])
                ats = [start_at] + [
                    at
                    for at in range(start_at + 1, len(events))
                    if view(at, unit) != view(at - 1, unit) or events[at][1] == "write"
                ]
                found = set()
                for at in ats:
                    if at != start_at and at in cuts and cuts[at] <= unit * UNIT:
                        continue  # the unit is gone: no version, but what masks the others
                    if at != start_at and any(cut < at and cuts[cut] <= unit * UNIT for cut in lost):
                        continue
                    data = view(at, unit)
                    for cut in kept:
                        if cut > at:
                            rest = max(0, cuts[cut] - unit * UNIT)
                            data = data[:rest].ljust(UNIT, b"\0")
                    found.add(data)
                options.append(sorted(found))
            for units in product(*options):
                yield b"".join(units)[:size]


def _sizes(base_size, events, cuts, grown, durable_events, kept, lost, dsynced):  # type: ignore[no-untyped-def]
    """List the sizes if exactly the truncations of `kept` survive; `lost` are the pending ones after them."""
    last_cut = max(kept, default=-1)
    end = lost[0] if lost else len(events)
    size = base_size
    for at, (_, what, number, data, durable) in enumerate(events):
        if at >= end:
            break
        if at in kept:
            size = cuts[at]
        elif at in durable_events and at in grown:
            size = max(size, grown[at][0])
        elif durable and what == "write" and data:
            size = max(size, number + len(data))
    found = [size]
    for at in range(last_cut + 1, end):
        if at in grown and grown[at][0] > found[-1]:
            if grown[at][1]:
                found += [step for step in range(found[-1] + 1, grown[at][0]) if step % UNIT == 0]
            found.append(grown[at][0])
    return found
