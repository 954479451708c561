"""Which disk images may a power cut leave, at this point of a recording?

A DiskModel takes the operations of a recording one at a time and keeps what is durable and what is pending. `states`
enumerates or draws CrashStates from it; `image` says what such a state looks like, as references into the base image
and the log. It holds no byte of file content: its size goes with the pending writes and the units ever written.

Choices:
    Crash point p: operations 0 .. p-1 happened. A flush that has begun but not ended at p guarantees nothing; one that
    ended covers the operations on its file below its begin. A flush that failed has no end in the log.
    The data of a file varies independently of all names and of other files.
    A CrashState names choices, not content: it means something only together with the recording, the contract and
    its position, and is rebuilt from these. Hence it stays small and can stand in a reproduce command.
Not modelled:
    Modes, owners and times; the order in which ext4's data=ordered writes data before names (xfs promises none); bit
    rot and writes that land elsewhere; what BLIND operations wrote, which is only listed.

Source: design.md "The disk model"; postgres-contract.md sections 1.1, 5.3 and 5.4.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from crashlab.disk.content import MASK, FileImage, mixed
from crashlab.disk.contract import DiskContract
from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.filehistory import FileHistory
from crashlab.disk.names import Namespace
from crashlab.disk.operations import BaseFile, Kind, Operation

_RECENT_FLUSHES = 20


class FileChoice(msgspec.Struct, frozen=True, gc=False):
    """What a power cut left of one file's pending changes; units not listed hold their durable content."""

    file: int
    cuts: int  # how many of the pending truncations, in order
    size: int
    versions: tuple[tuple[int, int], ...]  # (unit, position of the write that it holds the result of)


class CrashState(msgspec.Struct, frozen=True):
    """One disk image that a power cut may leave, as choices among what was pending."""

    position: int  # the crash point
    names: tuple[int, ...]  # positions of the pending name operations that survived
    files: tuple[FileChoice, ...]  # the files found other than durable; all others are as durable
    fingerprint: int  # equal only for equal images (64 bits)
    note: str  # in words: how this state was chosen


class Flush(msgspec.Struct, frozen=True):
    """A flush that has ended, or has only begun (`end` None)."""

    begin: int
    end: int | None
    path: str  # empty: everything, by syncfs or sync
    datasync: bool


class PendingFile(msgspec.Struct, frozen=True, kw_only=True):
    """What of one file is not durable yet."""

    file: int
    path: str  # empty: it has no name any more
    file_class: FileClass
    units: int  # with at least one pending version
    versions: int
    durable_size_bytes: int
    size_bytes: int
    truncations: int


class PendingName(msgspec.Struct, frozen=True, kw_only=True):
    """A change of names that is not durable yet."""

    position: int
    kind: Kind
    path: str
    target: str


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What was in flight at a crash point."""

    position: int
    files: list[PendingFile]
    names: list[PendingName]
    flushes: list[Flush]  # the last ones that ended and all that are open, by begin
    blind: dict[str, str]  # path -> why the recorder could not see what was written there


class DiskModel:
    """The durable and the pending state of a recorded disk, one operation after the other."""

    def __init__(self, base: Iterable[BaseFile], contract: DiskContract) -> None:
        self.contract = contract
        self.position = 0  # the crash point: how many operations have been applied
        self.names = Namespace()
        self.files: dict[int, FileHistory] = {}  # regular files that some state can reach
        self.links: dict[int, str] = {}  # symbolic link -> its content
        self.modes: dict[int, int] = {}
        self.volatile: set[int] = set()  # files with anything pending but names
        self.blind: dict[str, str] = {}
        self._gone: set[int] = set()
        self._open_flushes: dict[int, Operation] = {}
        self._ended_flushes: deque[Flush] = deque(maxlen=_RECENT_FLUSHES)
        self._path_digests: dict[str, int] = {}
        self._paths: dict[tuple[int, ...], dict[str, int]] = {}
        self._paths_generation = -1
        self._numbers: dict[tuple[int, ...], list[int]] = {}  # the regular files that these paths lead to
        self._prints: dict[int, int] = {}  # file -> fingerprint of what is durable of it
        self._sums: dict[tuple[int, ...], tuple[int, dict[int, list[int]]]] = {}
        for entry in sorted(base, key=lambda entry: entry.path):
            self._add_base(entry)

    def _add_base(self, entry: BaseFile) -> None:
        self.names.add_base(entry.path, entry.file, entry.kind == "dir")
        self.modes[entry.file] = entry.mode
        if entry.kind == "link":
            self.links[entry.file] = entry.link
        elif entry.kind == "file" and entry.file not in self.files:
            self.files[entry.file] = self._new_file(entry.file, entry.size)

    def _new_file(self, number: int, base_size: int = 0) -> FileHistory:
        return FileHistory(number, self.contract.tear_bytes, self.contract.size_step_bytes, base_size)

    # --- what the server does

    def apply(self, operation: Operation) -> None:
        """Take in the next operation of the recording; `EvidenceError` if it cannot belong to this base image."""
        kind = operation.kind
        self.position = operation.position + 1
        self._sums.clear()
        if kind in _DATA_KINDS:
            self._change_content(operation)
        elif kind in _NAME_KINDS:
            self._change_names(operation)
        elif kind in (Kind.FSYNC_BEGIN, Kind.SYNCFS_BEGIN):
            self._open_flushes[operation.token] = operation
        elif kind in (Kind.FSYNC_END, Kind.SYNCFS_END):
            # A begin may lie before the recording's own; then nothing is known to be covered.
            begin = self._open_flushes.pop(operation.token, None)
            if begin is not None:
                self._end_flush(begin, operation.position)
        elif kind is Kind.BLIND:
            self.blind[operation.path] = operation.data.decode("utf-8", "replace")

    def _change_content(self, operation: Operation) -> None:
        number, position, kind = operation.file, operation.position, operation.kind
        if number in self._gone:
            return
        self._prints.pop(number, None)
        file = self.files.get(number)
        if file is None:
            file = self.files[number] = self._new_file(number)
            self._numbers.clear()
        if kind is Kind.WRITE or kind is Kind.COPY:
            file.write(position, operation.offset, operation.data)
            if operation.durable and operation.data and self._honest(number, position):
                file.settle_range(operation.offset, len(operation.data))
                self._persist_own_names(number, position + 1, datasync=True)
        elif kind is Kind.TRUNCATE:
            file.truncate(position, operation.offset)
        elif kind is Kind.ALLOCATE:
            file.allocate(position, operation.offset + operation.length)
        else:
            file.replace(position, operation.data)
        if self.contract.everything_survives:
            file.settle(position + 1)
        self._note_volatile(file)

    def _note_volatile(self, file: FileHistory) -> None:
        if file.volatile:
            self.volatile.add(file.number)
        else:
            self.volatile.discard(file.number)

    def _change_names(self, operation: Operation) -> None:
        kind = operation.kind
        if kind is Kind.CREATE:
            self.modes[operation.file] = operation.offset
            if operation.file not in self.files:
                self.files[operation.file] = self._new_file(operation.file)
        elif kind is Kind.MKDIR:
            self.modes[operation.file] = operation.offset
        elif kind is Kind.SYMLINK:
            self.links[operation.file] = operation.data.decode("utf-8", "surrogateescape")
        is_link = kind is Kind.SYMLINK or self.names.find(operation.path) in self.links
        self.names.apply(operation)
        if self.contract.everything_survives:
            self._forget(self.names.persist_all(operation.position + 1))
        elif is_link and self.contract.durable_symlinks:
            self._forget(self.names.persist_operation(operation.position))

    def _forget(self, gone: Sequence[int]) -> None:
        for number in gone:
            self._gone.add(number)
            self._prints.pop(number, None)
            self.files.pop(number, None)
            self.links.pop(number, None)
            self.modes.pop(number, None)
            self.volatile.discard(number)

    # --- what becomes durable

    def _honest(self, number: int, position: int) -> bool:
        contract = self.contract
        if position == contract.flush_left_out:
            return False
        if contract.flushes_ignored_from is not None and position >= contract.flushes_ignored_from:
            return False
        return not contract.flushes_ignored_for or self.class_of(number) not in contract.flushes_ignored_for

    def _end_flush(self, begin: Operation, end: int) -> None:
        everything = begin.kind is Kind.SYNCFS_BEGIN
        path = "" if everything else self.names.path_of(begin.file) or f"file {begin.file}"
        self._ended_flushes.append(Flush(begin.position, end, path, begin.datasync))
        if everything:
            self._flush_everything(begin.position)
        elif self._honest(begin.file, begin.position):
            self._flush_file(begin)

    def _flush_everything(self, before: int) -> None:
        for number in list(self.volatile):
            if self._honest(number, before):
                self._settle(self.files[number], before)
        ignored_from = self.contract.flushes_ignored_from
        if ignored_from is None or before < ignored_from:
            self._forget(self.names.persist_all(before))

    def _flush_file(self, begin: Operation) -> None:
        number, before = begin.file, begin.position
        file = self.files.get(number)
        if self.contract.ordered_journal and file is not None and not begin.datasync:
            # Every write changes the inode's times, so an fsync of it commits the transaction that it was part of.
            self._forget(self.names.persist_all(file.last_change(before)))
        self._persist_own_names(number, before, datasync=begin.datasync)
        if self.names.is_directory(number):
            self._forget(self.names.persist_entries_of(number, before, in_order=self.contract.ordered_journal))
        if file is not None:
            self._settle(file, before)

    def _settle(self, file: FileHistory, before: int) -> None:
        file.settle(before)
        self._prints.pop(file.number, None)
        self._note_volatile(file)

    def _persist_own_names(self, number: int, before: int, *, datasync: bool) -> None:
        contract = self.contract
        if contract.fsync_persists_own_name:
            self._forget(
                self.names.persist_names_of(number, before, creation_only=datasync, in_order=contract.ordered_journal)
            )

    # --- what a power cut may leave

    def class_of(self, number: int) -> FileClass:
        """Name the part of PostgreSQL that a file belongs to now."""
        return FileClass.DIRECTORY if self.names.is_directory(number) else classify(self.names.path_of(number))

    def paths(self, kept: tuple[int, ...]) -> Mapping[str, int]:
        """Return path -> file of a disk that has these pending name operations; directories before their content."""
        if self._paths_generation != self.names.generation:
            self._paths_generation = self.names.generation
            self._paths.clear()
            self._numbers.clear()
        found = self._paths.get(kept)
        if found is None:
            found = self._paths[kept] = self.names.paths(kept)
        return found

    def state(self, names: tuple[int, ...], choices: Iterable[FileChoice], note: str) -> CrashState:
        """Return the state in which these name operations and these choices of files survived.

        The names must lack nothing that they depend on (`Namespace.closed`), the choices be allowed by the files'
        histories. Files that no name reaches are left out.
        """
        total, places = self._durable_sum(names)
        files = []
        for choice in choices:
            if choice.file not in places:
                continue
            file = self.files[choice.file]
            before = self._durable_fingerprint(choice.file)
            after = file.fingerprint(choice.cuts, choice.size, dict(choice.versions))
            if before != after:
                files.append(choice)
                for digest in places[choice.file]:
                    total += mixed(digest, after) - mixed(digest, before)
        return CrashState(self.position, names, tuple(files), total & MASK, note)

    def _durable_sum(self, names: tuple[int, ...]) -> tuple[int, dict[int, list[int]]]:
        """Return the fingerprint of the image without any choice, and for each file the digests of its paths."""
        found = self._sums.get(names)
        if found is None:
            total, places = 0, dict[int, list[int]]()
            for path, number in self.paths(names).items():
                digest = self._path_digests.get(path)
                if digest is None:
                    digest = self._path_digests[path] = _text_digest(path)
                places.setdefault(number, []).append(digest)
                total += mixed(digest, self._durable_fingerprint(number))
            found = self._sums[names] = (total, places)
        return found

    def _durable_fingerprint(self, number: int) -> int:
        if self.names.is_directory(number):
            return 1
        if number in self.links:
            return _text_digest(self.links[number])
        found = self._prints.get(number)
        if found is None:
            file = self.files[number]
            found = self._prints[number] = file.fingerprint(0, file.durable_size, {})
        return found

    def image(self, state: CrashState, number: int) -> FileImage:
        """Return what a regular file holds in a state of this position; later operations do not change the answer."""
        assert state.position == self.position
        file = self.files[number]
        for choice in state.files:
            if choice.file == number:
                return file.image(choice.cuts, choice.size, dict(choice.versions))
        return file.image(0, file.durable_size, {})

    def fingerprints(self, state: CrashState) -> dict[int, int]:
        """Return for each regular file of a state a number that is equal only for equal contents of that file."""
        paths, numbers = self.paths(state.names), self._numbers.get(state.names)
        if numbers is None:
            numbers = self._numbers[state.names] = [number for number in set(paths.values()) if number in self.files]
        found = {number: self._durable_fingerprint(number) for number in numbers}
        for choice in state.files:
            if choice.file in found:
                file = self.files[choice.file]
                found[choice.file] = file.fingerprint(choice.cuts, choice.size, dict(choice.versions))
        return found

    def pending(self) -> Pending:
        """Return what is in flight here."""
        open_flushes = [
            Flush(begin.position, None, self.names.path_of(begin.file), begin.datasync)
            for begin in self._open_flushes.values()
        ]
        return Pending(
            position=self.position,
            files=[self._pending_file(self.files[number]) for number in sorted(self.volatile)],
            names=[
                PendingName(position=item.position, kind=item.kind, path=item.path, target=item.target)
                for item in self.names.pending
            ],
            flushes=sorted([*self._ended_flushes, *open_flushes], key=lambda flush: flush.begin),
            blind=dict(self.blind),
        )

    def _pending_file(self, file: FileHistory) -> PendingFile:
        return PendingFile(
            file=file.number,
            path=self.names.path_of(file.number),
            file_class=self.class_of(file.number),
            units=len(file.versions),
            versions=sum(map(len, file.versions.values())),
            durable_size_bytes=file.durable_size,
            size_bytes=file.size,
            truncations=len(file.cuts),
        )


_DATA_KINDS = frozenset({Kind.WRITE, Kind.TRUNCATE, Kind.ALLOCATE, Kind.CONTENT, Kind.COPY})
_NAME_KINDS = frozenset(
    {Kind.CREATE, Kind.MKDIR, Kind.SYMLINK, Kind.RENAME, Kind.LINK, Kind.UNLINK, Kind.RMDIR, Kind.EXCHANGE}
)


def _text_digest(text: str) -> int:
    return int.from_bytes(sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "little")
