"""How does a crash state become a real directory, without writing all of it?

An ImageFolder owns one folder: `image/pgdata` and `image/tblspc0`, ... hold the state asked for last, `spare` files
for later. From one state to the next only what differs is written, and what a server has changed in between.

Choices:
    Every file written here gets the same old modification time. A server writes with the present one, so a file is
    as it was left exactly if that time, its inode and its size are.
    Files are rewritten in place, moved by rename, and kept as spares when no name leads to them: to create a file
    costs ext4 up to a millisecond once many were deleted (Linux fs/ext4/ialloc.c, recently_deleted()), and to
    truncate one to nothing starts its writing to disk (auto_da_alloc).
    Where the kernel tells what was touched, only that and what differs from the state before is looked at.
    Left out of every image: postmaster.pid and postmaster.opts, which belong to a living server (postgres-contract.md
    section 8). Sockets and pipes are in no recording.
Not restored: owners other than the server's user, access and modification times.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from crashlab.disk.content import FileImage
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.operations import root_label
from crashlab.errors import RecordingError
from crashlab.exploration.contents import STAMP_NS, Contents
from crashlab.exploration.notices import Notices
from crashlab.recording.base import BaseImage
from crashlab.recording.logbytes import LogBytes
from crashlab.server.privileges import ServerUser, make_searchable, server_user

SERVER_FOLDER = "/proc/self/cwd/"
"""Leads every server process into its own data directory, wherever that is."""

LEFT_OUT = frozenset({"pgdata/postmaster.pid", "pgdata/postmaster.opts"})
SPARES_MAX = 2000
SPARE_BYTES_MAX = 1 << 20
_LOOKS_MAX = 3
_TABLESPACE = re.compile(r"pgdata/pg_tblspc/\d+")
_MODE_UNKNOWN = {"dir": 0o700, "file": 0o600}

Scan = dict[str, os.stat_result]
_Known = tuple[int, int | None]
"""A file and its fingerprint; None: a directory or a link."""
_Kinds = tuple[dict[int, int], dict[int, str], int]
"""What else a state depends on: modes, links, the unit in which files tear."""


class _Held:
    """What was written to a path."""

    __slots__ = ("content", "image", "inode")

    def __init__(self, image: FileImage, inode: int) -> None:
        self.image, self.inode = image, inode
        self.content = image.file, image.fingerprint, image.unit_bytes  # equal only for equal bytes

    def untouched(self, status: os.stat_result) -> bool:
        """Whether nobody wrote to the file since."""
        return (self.inode, self.image.size, STAMP_NS) == (status.st_ino, status.st_size, status.st_mtime_ns)


class ImageFolder:
    """A folder that can hold any crash state of one recording. Use it in one process at a time."""

    def __init__(
        self,
        base: BaseImage,
        log: LogBytes,
        folder: Path,
        *,
        user: ServerUser | None = None,
        recorded_roots: Sequence[PurePath] | None = None,
        seen_as: PurePath | None = None,
        same_kernel: bool = True,
    ) -> None:
        """Take over a folder, which is made if need be and must be empty.

        Args:
            log: notes every operation that the disk model has applied.
            user: who owns the files; the user of local servers by default.
            recorded_roots: the recorded directories as the recorded server saw them; the base image's by default.
            seen_as: the folder as the server will see it, such as a mount in a container; itself by default.
            same_kernel: whether what the server does is certainly told to this process by the kernel.

        Raises:
            RecordingError: the folder is not empty.
        """
        self.base = base
        self.folder = folder
        self.image = folder / "image"
        self._image_text = str(self.image)
        self._spare_folder = folder / "spare"
        self._log = log
        self._user = user or server_user()
        self.recorded_roots = [str(root) for root in (base.roots if recorded_roots is None else recorded_roots)]
        seen = (seen_as or Path(os.path.realpath(folder))) / "image"
        self._moved = {root: str(seen / root_label(index)) for index, root in enumerate(self.recorded_roots)}
        self.contents = Contents(base, log)
        self._held: dict[str, _Held] = {}
        self._spares: dict[Path, _Held | None] = {}
        self._spare_of: dict[int, Path] = {}  # file -> the spare that held it
        self._spare_names = 0
        make_searchable(folder)
        if any(folder.iterdir()):
            raise RecordingError(f'could not use "{folder}" for crash states: it is not empty')
        make_searchable(self.image)
        self._spare_folder.mkdir()
        self._seen: Scan = {}  # what the last look saw, kept up to date by notices; empty: nothing is known
        self._touched: set[str] | None = None  # since a state was made; None: anything may have been
        self._placed: dict[str, _Known] = {}  # what that state has; empty: it is not whole
        self._placed_as: _Kinds | None = None
        self._notices: Notices | None = None
        if same_kernel:
            with contextlib.suppress(OSError):
                self._notices = Notices()

    @property
    def data_directory(self) -> Path:
        """The data directory of the image."""
        return self.image / root_label(0)

    def materialise(self, model: DiskModel, state: CrashState) -> int:
        """Make the folder hold a crash state; nothing may run in it. Returns how many files were written.

        Raises:
            RecordingError: a file of the base image or the log cannot be read; a symbolic link leads to a directory
                that was not recorded, or recovery would make one that leads out of the folder.
        """
        paths = {path: number for path, number in model.paths(state.names).items() if path not in LEFT_OUT}
        self._refuse_fixed_tablespaces(model.position)
        found = self.look()
        prints = model.fingerprints(state)
        wanted = {path: (number, prints.get(number)) for path, number in paths.items()}
        paths, found = self._suspects(model, wanted, found)
        self._placed = {}
        self._remove_surplus(model, paths, found)
        written = self._make(model, state, paths, found, prints)
        self._placed, self._touched = wanted, set()
        self._placed_as = dict(model.modes), dict(model.links), model.contract.tear_bytes
        return written

    def _suspects(
        self, model: DiskModel, wanted: Mapping[str, _Known], found: Scan
    ) -> tuple[dict[str, int], dict[str, os.stat_result]]:
        """Return what of a state, and of what is there, may not be as it has to be; the rest certainly is.

        A directory comes before what is in it, among the first; among the second where the last look had all.
        """
        touched = self._touched
        everything = {path: number for path, (number, _) in wanted.items()}
        same_kinds = self._placed_as == (model.modes, model.links, model.contract.tear_bytes)
        several_names = len(set(everything.values())) < len(everything)
        if touched is None or not self._placed or not same_kinds or several_names:
            return everything, found.copy()
        differing = wanted.items() ^ self._placed.items()
        suspects = touched.union(path for path, _ in differing)
        statuses = {path: status for path in suspects if (status := found.get(path)) is not None}
        if any(status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode) for status in statuses.values()):
            return everything, found.copy()
        return {path: number for path, number in everything.items() if path in suspects}, statuses

    def _make(
        self, model: DiskModel, state: CrashState, paths: Mapping[str, int], found: Scan, prints: Mapping[int, int]
    ) -> int:
        """Make these paths hold what they do in a state; return how many files were written."""
        placed: dict[int, str] = {}
        owners: dict[int, int] = {}
        written = 0
        for path, number in paths.items():
            status, mode = found.get(path), model.modes.get(number, 0)
            if number in model.links:
                self._make_link(path, model.links[number], status)
            elif number not in prints:
                self._make_directory(path, mode, status)
            elif number in placed:
                self._link(placed[number], path, status)
            else:
                placed[number] = path
                if status is not None and status.st_nlink > 1 and owners.setdefault(status.st_ino, number) != number:
                    self._discard(path, os.lstat(self._at(path)))  # one inode, two files of this state
                    status = None
                if not self._is_placed(path, (number, prints[number], model.contract.tear_bytes), status):
                    status = self._place(path, model.image(state, number), status)
                    written += 1
                assert status is not None
                if stat.S_IMODE(status.st_mode) != (mode or _MODE_UNKNOWN["file"]):
                    os.chmod(self._at(path), mode or _MODE_UNKNOWN["file"])
        return written

    def scan(self) -> Scan:
        """Return the status of everything in the image, by path as in the recording; a directory before its content."""
        found: Scan = {}
        waiting = [""]
        image = str(self.image)
        while waiting:
            prefix = waiting.pop()
            with os.scandir(f"{image}/{prefix}") as entries:
                for entry in entries:
                    path = prefix + entry.name
                    found[path] = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path + "/")
        return found

    def look(self) -> Scan:
        """Return what `scan` does, siblings in another order, but ask only for what has changed since the last look.

        The times of directories are not kept up to date. The next look changes what is returned.
        """
        changed = self._notices.changed() if self._notices is not None and self._seen else None
        if changed is None:
            self._touched = None
            return self._look_at_everything()
        seen = self._seen
        inodes = set()
        for path in changed:
            for status in (seen.get(path), self._update(path)):
                if status is not None and status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    inodes.add(status.st_ino)
        if inodes:  # what happens to a file is told of one of its names
            others = [path for path, status in seen.items() if status.st_ino in inodes]
            for path in others:
                self._update(path)
            changed.update(others)
        if self._touched is not None:
            self._touched |= changed
        return seen

    def may_differ(self, known: Mapping[str, tuple[int, int]]) -> set[str]:
        """Return which of some paths may have other contents than these files with these fingerprints; after a look."""
        if self._touched is None:
            return set(known)
        differing = known.items() - self._placed.items()
        return self._touched.intersection(known).union(path for path, _ in differing)

    def _update(self, path: str) -> os.stat_result | None:
        try:
            self._seen[path] = os.lstat(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            self._seen.pop(path, None)
        return self._seen.get(path)

    def _look_at_everything(self) -> Scan:
        """Scan, after all folders are watched, so that nothing can happen between."""
        found, self._seen = self.scan(), {}
        for _ in range(_LOOKS_MAX):
            if self._notices is None:
                break
            folders = _folders(found)
            try:
                self._notices.watch(str(self.image), folders)
            except FileNotFoundError:
                pass  # it went after the scan
            except OSError:  # a limit of this user's
                self._notices.close()
                self._notices = None
                break
            found = self.scan()
            if _folders(found) == folders:
                self._seen = found
                break
        return found

    def held_fingerprint(self, path: str, status: os.stat_result) -> tuple[int, int] | None:
        """Return number and fingerprint of the file that was written here; None if it has been changed since."""
        held = self._held.get(path)
        if held is None or not held.untouched(status):
            return None
        return held.image.file, held.image.fingerprint

    # --- names

    def _remove_surplus(self, model: DiskModel, paths: Mapping[str, int], found: Scan) -> None:
        """Remove what has no place in the state, what is inside before its directory."""
        for path, status in sorted(found.items(), reverse=True):
            number = paths.get(path)
            if number is not None and stat.S_IFMT(status.st_mode) == _kind(model, number):
                continue
            del found[path]
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(self._at(path))
            else:
                self._discard(path, status)

    def _discard(self, path: str, status: os.stat_result) -> None:
        """Take a name away; keep the file as a spare where it is good for that."""
        held = self._held.pop(path, None)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or len(self._spares) >= SPARES_MAX:
            os.unlink(self._at(path))
            return
        self._spare_names += 1
        spare = self._spare_folder / str(self._spare_names)
        os.rename(self._at(path), spare)
        if status.st_size > SPARE_BYTES_MAX:
            os.truncate(spare, SPARE_BYTES_MAX)
            held = None
        if held is not None and not held.untouched(status):
            held = None
        self._spares[spare] = held
        if held is not None:
            self._spare_of[held.image.file] = spare

    def _make_directory(self, path: str, mode: int, status: os.stat_result | None) -> None:
        mode = mode or _MODE_UNKNOWN["dir"]
        if status is None:
            os.mkdir(self._at(path))
            self._user.own(self._at(path))
        if status is None or stat.S_IMODE(status.st_mode) != mode:
            os.chmod(self._at(path), mode)

    def _make_link(self, path: str, content: str, status: os.stat_result | None) -> None:
        content = self._relocated(path, content)
        if status is not None:
            if os.readlink(self._at(path)) == content:
                return
            os.unlink(self._at(path))
        os.symlink(content, self._at(path))

    def _relocated(self, path: str, content: str) -> str:
        """Let a link to a recorded directory lead to its copy; it must never lead a server out of the folder."""
        for root, copy in self._moved.items():
            if content == root or content.startswith(root + "/"):
                return copy + content[len(root) :]
        server_side = content.startswith(SERVER_FOLDER)
        place = (
            root_label(0) + "/" + content[len(SERVER_FOLDER) :] if server_side else f"{PurePath(path).parent}/{content}"
        )
        if (content.startswith("/") and not server_side) or os.path.normpath(place).split("/")[0] == "..":
            raise RecordingError(
                f'cannot rebuild the link "{path}"',
                detail=f'It leads to "{content}", which is none of the recorded directories.',
                hint="Record the directories of all tablespaces.",
            )
        return content

    def _refuse_fixed_tablespaces(self, position: int) -> None:
        """Recovery makes the link of a tablespace anew, as the WAL has it: to the live directory, whoever recovers."""
        for operation in self._log.links:
            content = os.fsdecode(operation.data)
            if operation.position >= position:
                continue
            if _TABLESPACE.fullmatch(operation.path) and not content.startswith(SERVER_FOLDER):
                raise RecordingError(
                    f'cannot recover copies of a recording that makes a tablespace in "{content}"',
                    detail=f"Recovery makes {operation.path} lead there again, out of the copy.",
                    hint=f"Make a link in the data directory before, and create the tablespace in {SERVER_FOLDER}LINK.",
                )

    def _link(self, first: str, path: str, status: os.stat_result | None) -> None:
        """Make a path one more name of a file."""
        if status is not None:
            if status.st_ino == os.lstat(self._at(first)).st_ino:
                self._held[path] = self._held[first]
                return
            self._discard(path, os.lstat(self._at(path)))
        os.link(self._at(first), self._at(path), follow_symlinks=False)
        self._held[path] = self._held[first]

    # --- files

    def _is_placed(self, path: str, content: tuple[int, int, int], status: os.stat_result | None) -> bool:
        held = self._held.get(path)
        return status is not None and held is not None and held.content == content and held.untouched(status)

    def _place(self, path: str, image: FileImage, status: os.stat_result | None) -> os.stat_result:
        """Write what differs of a file; return the status that it had before, for its inode and mode."""
        held = self._held.pop(path, None)
        if status is None:
            held = self._obtain(path, image.file)
            status = os.lstat(self._at(path))
        known = held.image if held is not None and held.untouched(status) else None
        self.contents.write(self._at(path), status, image, known)
        self._held[path] = _Held(image, status.st_ino)
        return status

    def _obtain(self, path: str, number: int) -> _Held | None:
        """Give a path a file: the spare that held this one before, else any, else a new one."""
        if not self._spares:
            os.close(os.open(self._at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            self._user.own(self._at(path))
            return None
        spare = self._spare_of.pop(number, None) or next(reversed(self._spares))
        held = self._spares.pop(spare)
        if held is not None:
            self._spare_of.pop(held.image.file, None)
        os.rename(spare, self._at(path))
        return held

    def _at(self, path: str) -> str:
        return f"{self._image_text}/{path}"

    def dispose(self) -> None:
        """Remove the folder and everything in it."""
        self.contents.close()
        if self._notices is not None:
            self._notices.close()
            self._notices = None
        shutil.rmtree(self.folder, ignore_errors=True)


def _folders(found: Scan) -> list[str]:
    """Return the prefixes of all paths."""
    return ["", *(f"{path}/" for path, status in found.items() if stat.S_ISDIR(status.st_mode))]


def _kind(model: DiskModel, number: int) -> int:
    if model.names.is_directory(number):
        return stat.S_IFDIR
    return stat.S_IFLNK if number in model.links else stat.S_IFREG
