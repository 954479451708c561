"""How do tests write a base image, a log and a disk down in a few words?"""

from dataclasses import replace

from crashlab.disk.contract import DiskContract
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.operations import BaseFile, Kind, Operation

UNIT = 4
"""Tear size of the small logs."""

_LINUX = DiskContract("linux", tear_bytes=UNIT, size_step_bytes=UNIT)
CONTRACTS = {
    "linux": _LINUX,
    "journal": replace(_LINUX, ordered_journal=True),
    "durable links": replace(_LINUX, durable_symlinks=True),
    "strict": replace(_LINUX, fsync_persists_own_name=False, names_in_order=False),
    "lying": replace(_LINUX, flushes_ignored_from=0),
    "lying later": replace(_LINUX, flushes_ignored_from=3),
    "process": replace(_LINUX, everything_survives=True),
}

Image = frozenset[tuple[str, str, bytes]]
"""(path, kind, bytes) of everything on a disk."""


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
            begin, everything = self._begins[first]
            self.add(Kind.SYNCFS_END if everything else Kind.FSYNC_END, token=begin)
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
