"""Which names may exist after a power cut?

Directories are kept by number, each a table name -> file, once as the server sees them and once as they are on disk.
A pending operation is a list of edits of such tables, so that it can be applied to either.

Choices:
    A rename, an exchange and the replacement of its target are one operation: both happen or neither does.
    An operation depends on the older ones that touch the same directory entry; to remove a directory, on all older
    ones inside it; to move a directory, on the older moves of directories. Nothing survives without what it depends on.
    A name in a directory that has no name itself is not reachable; its file is as good as gone.
    An fsync of a file persists the new directories above it, under the names that they had when the file got its own.
    A later rename of such a directory may be lost: found on ext4 and xfs, where that rename does not touch the file.
    What a contract forces to disk is applied there at once: what it does not depend on commutes with it.

Source: postgres-contract.md 5.4; Linux fs/btrfs/tree-log.c (an fsync logs the inode's names and its new ancestors).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import msgspec

from crashlab.disk.operations import Kind, Operation
from crashlab.errors import EvidenceError

ROOT = 0
"""The number of the directory that holds the recorded roots; no file of a recording has it."""

Entry = tuple[int, str]
"""A directory and a name in it."""

_ANY_DIRECTORY_MOVE: Entry = (-1, "")

Tables = dict[int, dict[str, int]]


class NameOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One pending change of names; `path` and `target` are as they were when it happened."""

    position: int
    kind: Kind
    path: str
    target: str
    edits: tuple[tuple[int, str, int], ...]  # directory, name, file now under it (0: none)
    entries: frozenset[Entry]  # what it reads or changes
    files: frozenset[int]  # whose names it adds or removes
    created: int  # the file that it brought into being, or 0
    emptied: int  # the directory that it removed, or 0

    def depends_on(self, entries: Collection[Entry], directories: Collection[int]) -> bool:
        """Whether it needs an operation that touched these entries, with entries in these directories."""
        return not self.entries.isdisjoint(entries) or (self.emptied != 0 and self.emptied in directories)

    @property
    def directories(self) -> set[int]:
        """The directories that hold the entries."""
        return {directory for directory, _ in self.entries}


class Namespace:
    """The names of a recording: as seen by the server, as durable, and the operations between the two."""

    def __init__(self) -> None:
        self.pending: list[NameOperation] = []
        self.generation = 0  # changes whenever an answer of `paths` may
        self._seen: Tables = {ROOT: {}}
        self._durable: Tables = {ROOT: {}}
        self._is_directory: set[int] = {ROOT}
        self._places: dict[int, set[Entry]] = {}  # file -> its names as seen
        self._touched: Counter[int] = Counter()  # file -> pending operations on its names
        self._inside: Counter[int] = Counter()  # directory -> pending operations on its entries
        self._links: Counter[int] = Counter()  # file -> durable names
        self._fresh: set[int] = set()  # files whose creation is pending

    def add_base(self, path: str, file: int, directory: bool) -> None:
        """Note a name of the base image; a directory comes before what it holds."""
        parent, name = self._locate(path, -1)
        if directory:
            self._is_directory.add(file)
        for tables in (self._seen, self._durable):
            tables.setdefault(parent, {})[name] = file
        self._places.setdefault(file, set()).add((parent, name))
        self._links[file] += 1

    # --- as the server sees it

    def find(self, path: str) -> int:
        """Return the file that has this path now, or 0."""
        at = ROOT
        for part in path.split("/"):
            at = self._seen.get(at, {}).get(part, -1)
            if at == -1:
                return 0
        return at

    def path_of(self, file: int) -> str:
        """Return one present path of the file, the first in order; empty when it has none."""
        parts: list[str] = []
        while file != ROOT:
            places = self._places.get(file)
            if not places:
                return ""
            file, name = min(places)
            parts.append(name)
        return "/".join(reversed(parts))

    def is_directory(self, file: int) -> bool:
        """Whether the file is a directory."""
        return file in self._is_directory

    def _locate(self, path: str, position: int) -> Entry:
        parent, _, name = path.rpartition("/")
        directory = self.find(parent) if parent else ROOT
        if (parent and not directory) or directory not in self._is_directory:
            where = f"operation {position}" if position >= 0 else "the base image"
            raise EvidenceError(
                f'directory "{parent}" of the recording does not exist',
                detail=f'{where} names "{path}"',
                hint="The recording and its base image may not belong together.",
            )
        return directory, name

    def _existing(self, path: str, position: int) -> tuple[Entry, int]:
        entry = self._locate(path, position)
        file = self._seen.get(entry[0], {}).get(entry[1])
        if file is None:
            raise EvidenceError(
                f'file "{path}" of the recording does not exist',
                detail=f"operation {position} renames, links or removes it",
                hint="The recording and its base image may not belong together.",
            )
        return entry, file

    def apply(self, operation: Operation) -> None:
        """Take in an operation on names: the server sees it now, the disk may see it later."""
        pending = self._understand(operation)
        if pending is None:
            return
        if pending.created:
            self._fresh.add(pending.created)
        for directory, name, file in pending.edits:
            table = self._seen.setdefault(directory, {})
            old = table.pop(name, 0)
            if old:
                self._places[old].discard((directory, name))
            if file:
                table[name] = file
                self._places.setdefault(file, set()).add((directory, name))
        self.pending.append(pending)
        self._touched.update(pending.files)
        self._inside.update(pending.directories)
        self.generation += 1

    def _understand(self, operation: Operation) -> NameOperation | None:
        """Return the operation as edits, None if it changes nothing."""
        kind, position = operation.kind, operation.position
        if kind in (Kind.CREATE, Kind.MKDIR, Kind.SYMLINK):
            entry = self._locate(operation.path, position)
            if kind is Kind.MKDIR:
                self._is_directory.add(operation.file)
            return self._edited(operation, [(entry, operation.file)], created=operation.file)
        entry, file = self._existing(operation.path, position)
        if kind in (Kind.UNLINK, Kind.RMDIR):
            return self._edited(operation, [(entry, 0)])
        if kind is Kind.EXCHANGE:
            target, other = self._existing(operation.target, position)
            return self._edited(operation, [(entry, other), (target, file)]) if file != other else None
        target = self._locate(operation.target, position)
        if self._seen.get(target[0], {}).get(target[1]) == file:
            return None  # POSIX: two names of one file, rename() and link() leave both alone
        if kind is Kind.LINK:
            return self._edited(operation, [(target, file)], read=entry)
        return self._edited(operation, [(entry, 0), (target, file)])

    def _edited(
        self, operation: Operation, edits: list[tuple[Entry, int]], *, created: int = 0, read: Entry | None = None
    ) -> NameOperation:
        entries = {entry for entry, _ in edits} | ({read} if read else set())
        old = {self._seen.get(directory, {}).get(name, 0) for (directory, name), _ in edits}
        new = {file for _, file in edits}
        gone = (old - new) & self._is_directory
        if not created and new & self._is_directory:
            entries.add(_ANY_DIRECTORY_MOVE)
        return NameOperation(
            position=operation.position,
            kind=operation.kind,
            path=operation.path,
            target=operation.target,
            edits=tuple((directory, name, file) for (directory, name), file in edits),
            entries=frozenset(entries),
            files=frozenset((old | new) - {0}),
            created=created,
            emptied=next(iter(gone), 0),
        )

    # --- what becomes durable

    def persist_all(self, before: int) -> list[int]:
        """Make every change below a position durable; return the files that no state can reach any more."""
        return self._persist({operation.position for operation in self.pending if operation.position < before})

    def persist_operation(self, position: int) -> list[int]:
        """Make one change durable, and the older ones of the same entry; return the files that are gone for good."""
        return self._persist({operation.position for operation in self.pending if operation.position == position})

    def persist_names_of(self, file: int, before: int, *, creation_only: bool, in_order: bool) -> list[int]:
        """Make the file's own names durable, and the new directories that it was named in; return the files gone.

        What happened to such a directory's name after that stays pending: see the module's choices.
        """
        if not self._touched[file]:
            return []
        forced: set[int] = set()
        limits = {file: before}  # file or new directory -> the position below which its names are needed
        for operation in reversed(self.pending):
            needed = {at for at in operation.files if operation.position < limits.get(at, 0)}
            if creation_only and operation.created != file:
                needed.discard(file)
            if needed:
                forced.add(operation.position)
                for parent in operation.directories & self._fresh:
                    limits.setdefault(parent, operation.position)
        return self._persist(forced, in_order)

    def persist_entries_of(self, directory: int, before: int, *, in_order: bool) -> list[int]:
        """Make the names in a directory durable, not those linked from it; return the files gone for good."""
        if not self._inside[directory]:
            return []
        return self._persist(
            {
                operation.position
                for operation in self.pending
                if operation.position < before and any(directory == changed for changed, _, _ in operation.edits)
            },
            in_order,
        )

    def _persist(self, forced: set[int], in_order: bool = False) -> list[int]:
        if not forced:
            return []
        if in_order:
            last = max(forced)
            forced = {operation.position for operation in self.pending if operation.position <= last}
        else:
            self._add_dependencies(forced)
        done = [operation for operation in self.pending if operation.position in forced]
        self.pending = [operation for operation in self.pending if operation.position not in forced]
        changed: set[int] = set()
        for operation in done:
            self._touched.subtract(operation.files)
            self._inside.subtract(operation.directories)
            self._fresh.discard(operation.created)
            changed |= operation.files
            for directory, name, file in operation.edits:
                table = self._durable.setdefault(directory, {})
                self._links[table.pop(name, 0)] -= 1
                if file:
                    table[name] = file
                    self._links[file] += 1
        self.generation += 1
        return [
            file for file in changed if not (self._links[file] > 0 or self._touched[file] or self._places.get(file))
        ]

    def _add_dependencies(self, forced: set[int]) -> None:
        entries: set[Entry] = set()
        emptied: set[int] = set()
        for operation in reversed(self.pending):
            if operation.position not in forced:
                if operation.entries.isdisjoint(entries) and operation.directories.isdisjoint(emptied):
                    continue
                forced.add(operation.position)
            entries |= operation.entries
            if operation.emptied:
                emptied.add(operation.emptied)

    # --- what a power cut may leave

    def closed(self, kept: Iterable[int]) -> tuple[int, ...]:
        """Return those of the kept pending operations (positions) that lack nothing they depend on."""
        wanted, possible = set(kept), []
        lost_entries: set[Entry] = set()
        lost_inside: set[int] = set()
        for operation in self.pending:
            if operation.position in wanted and not operation.depends_on(lost_entries, lost_inside):
                possible.append(operation.position)
            else:
                lost_entries |= operation.entries
                lost_inside |= operation.directories
        return tuple(possible)

    def subsets(self) -> Iterator[tuple[int, ...]]:
        """Yield every set of pending operations that lacks nothing it depends on."""
        seen: set[tuple[int, ...]] = set()
        positions = [operation.position for operation in self.pending]
        for number in range(1 << len(positions)):
            kept = self.closed(position for at, position in enumerate(positions) if number >> at & 1)
            if kept not in seen:
                seen.add(kept)
                yield kept

    def paths(self, kept: Collection[int]) -> dict[str, int]:
        """Return path -> file on a disk that has these of the pending operations; directories come before content."""
        kept, overlay = frozenset(kept), Tables()
        for operation in self.pending if kept else ():
            if operation.position in kept:
                for directory, name, file in operation.edits:
                    if directory not in overlay:
                        overlay[directory] = dict(self._durable.get(directory, {}))
                    overlay[directory].pop(name, None)
                    if file:
                        overlay[directory][name] = file
        found: dict[str, int] = {}
        waiting = [("", ROOT)]
        while waiting:
            prefix, directory = waiting.pop()
            table = overlay.get(directory)
            for name, file in (self._durable.get(directory, {}) if table is None else table).items():
                path = prefix + name
                found[path] = file
                if file in self._is_directory:
                    waiting.append((path + "/", file))
        return found
