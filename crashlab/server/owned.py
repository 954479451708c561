"""How does a process that is killed leave a trace of what it has made?

Each process that makes something outside of its evidence folder has a file that lists it, in a folder of its user:
one line before the thing is made, one after it is gone. So a SIGKILL at any moment leaves either nothing, or a line.
The first line says which process it is; the file goes with the last thing on its list. A folder says so too, in a
file of its own: what carries no such file is not crashlab's to remove, whatever a list says.

A forked child is a process of its own: it starts with an empty list.
"""

import atexit
import contextlib
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from crashlab.errors import ServerError
from crashlab.server.owner import Owner, this_process

RUNS_ROOT = Path("/tmp")  # the same for every run of a user, whatever TMPDIR is
PREFIX = "crashlab-"
MARKER = ".crashlab-owner"
LIST_SUFFIX = ".jsonl"
PARTIAL_SUFFIX = ".new"
MARKER_CHARACTERS_MAX = 10_000
LABEL = "crashlab.owner"
LINES_MAX = 500  # more than that for things long gone, and the file is written anew
ATTEMPTS = 10

Kind = Literal["folder", "posix segment", "sysv segment", "container", "uses"]
"""Of what is on a list. "uses" is no thing of the process, but a cached one that must stay while the process lives."""

Entry = tuple[str, str]  # a kind, and the thing


def runs_folder() -> Path:
    """Return where this user's lists are."""
    return RUNS_ROOT / f"{PREFIX}runs-{os.geteuid()}"


class _List:
    """This process's list and the file behind it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.owner = this_process()
        self.entries: dict[Entry, None] = {}
        self.path = runs_folder() / f"{self.owner.pid}-{self.owner.start}{LIST_SUFFIX}"
        self._fd: int | None = None
        self._lines = 0

    def add(self, entry: Entry) -> None:
        if entry not in self.entries:
            self._write("made", entry)
            self.entries[entry] = None

    def drop(self, entry: Entry) -> None:
        if entry not in self.entries:
            return
        del self.entries[entry]
        if not self.entries:
            self.close()
        else:
            self._write("gone", entry)

    def close(self) -> None:
        """Remove the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others' lists are there, or it is gone
                self.path.parent.rmdir()

    def _write(self, word: str, entry: Entry) -> None:
        if self._fd is None:
            self._fd = _create(self.path)
            os.write(self._fd, f"{self.owner.text()}\n".encode())
            self._lines = 0
        elif self._lines > LINES_MAX + 2 * len(self.entries):
            self._shorten()
        os.write(self._fd, _line(word, entry))
        self._lines += 1

    def _shorten(self) -> None:
        partial = self.path.with_suffix(PARTIAL_SUFFIX)
        partial.unlink(missing_ok=True)
        fd = _create(partial)
        lines = [f"{self.owner.text()}\n".encode(), *(_line("made", entry) for entry in self.entries)]
        os.write(fd, b"".join(lines))
        partial.replace(self.path)
        assert self._fd is not None
        os.close(self._fd)
        self._fd, self._lines = fd, len(self.entries)


def _line(word: str, entry: Entry) -> bytes:
    return json.dumps([word, *entry]).encode() + b"\n"


def _create(path: Path) -> int:
    for _ in range(ATTEMPTS):
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        require_own(path.parent)
        # Whoever removed the last list removed the folder too.
        with contextlib.suppress(FileNotFoundError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(path, flags, 0o600)
    raise ServerError(f'could not make "{path}": its folder vanishes again and again')


def require_own(folder: Path) -> None:
    """Raise ServerError if somebody else could write to this user's lists; fine if there are none."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return
    if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise ServerError(
            f'cannot keep the list of what this run makes in "{folder}"',
            detail=f"It has to be a folder of uid {os.geteuid()} that nobody else can write to.",
            hint="Remove it, or have its owner remove it.",
        )


_lock = threading.RLock()
_list: _List | None = None


def _forget_parent() -> None:
    global _lock, _list
    _lock, _list = threading.RLock(), None


os.register_at_fork(after_in_child=_forget_parent)


def _mine() -> _List:
    global _list
    if _list is None or _list.pid != os.getpid():
        _list = _List()
    return _list


def note(kind: Kind, what: str) -> None:
    """Put a thing on this process's list. Call it before the thing is made.

    Raises:
        ServerError: there is no place for the list.
    """
    with _lock:
        try:
            _mine().add((kind, what))
        except OSError as error:
            raise ServerError(f'could not write "{_mine().path}": {error.strerror}') from error


def forget(kind: str, what: str) -> None:
    """Take a thing that is gone off the list; nothing if it is not on this process's own."""
    with _lock:
        if _list is not None and _list.pid == os.getpid():
            _list.drop((kind, what))


def listed() -> list[Entry]:
    """Return what is on this process's list."""
    with _lock:
        return list(_list.entries) if _list is not None and _list.pid == os.getpid() else []


def uses(cached: Path) -> None:
    """Note that this process needs a cached thing until its end."""
    note("uses", str(cached))


@atexit.register
def _no_longer_uses() -> None:
    with _lock:
        if _list is not None and _list.pid == os.getpid():
            for kind, what in list(_list.entries):
                if kind == "uses":
                    _list.drop((kind, what))


def labels() -> dict[str, str]:
    """Return the labels of a container, volume or network that this process makes."""
    with _lock:
        return {"crashlab": "1", LABEL: _mine().owner.text()}


def make_folder(parent: Path | None = None, prefix: str = PREFIX) -> Path:
    """Make a new folder of mode 0700 that `remove_folder` removes; below the temporary folder by default.

    Raises:
        OSError: it cannot be made there.
        ServerError: there is no place for the list of what this process makes.
    """
    assert prefix.startswith(PREFIX)
    # Without links, so that whoever removes it later finds what was made and nothing else.
    path = Path(os.path.realpath(parent or tempfile.gettempdir())) / f"{prefix}{os.urandom(6).hex()}"
    note("folder", str(path))
    try:
        path.mkdir(mode=0o700)
        fd = os.open(path / MARKER, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, labels()[LABEL].encode())
        finally:
            os.close(fd)
    except OSError:
        remove_folder(path)
        raise
    return path


def remove_folder(path: Path) -> bool:
    """Remove a folder that `make_folder` made, and take it off the list; idempotent. False: not all of it went."""
    clear_folder(path)
    if os.path.lexists(path):
        return False
    forget("folder", str(path))
    return True


def clear_folder(path: Path, made_by: Owner | None = None) -> None:
    """Remove a folder as far as that is possible; what says whose it is goes last, lest a kill leave it nobody's.

    Args:
        made_by: remove only what this process has made, even if somebody puts another folder in its place meanwhile.
    """
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if made_by is not None and not is_of(fd, made_by):
                return
            _clear(fd)
        finally:
            os.close(fd)
        path.rmdir()


def _clear(fd: int) -> None:
    names = os.listdir(fd)
    for name in names:
        if name == MARKER:
            continue
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=fd)
        else:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=fd)
    if os.listdir(fd) == [MARKER]:
        os.unlink(MARKER, dir_fd=fd)


def is_of(folder: int, owner: Owner) -> bool:
    """Say whether an open folder was made by a process: its own file says so, or the process never got to write it."""
    said = owner_of(folder)
    if said is not None:
        return said.same(owner)
    status = os.fstat(folder)
    names = os.listdir(folder)
    unwritten = names == [MARKER] and os.stat(MARKER, dir_fd=folder, follow_symlinks=False).st_size == 0
    return status.st_uid == os.geteuid() and (not names or unwritten)


def owner_of(folder: int) -> Owner | None:
    """Return who made an open folder, as a file in it says that no other user could have written; None: none does."""
    try:
        fd = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            return None
        return Owner.parse(file.read(MARKER_CHARACTERS_MAX))


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Make a folder for as long as the context lasts. Raises as `make_folder`."""
    folder = make_folder(parent, prefix)
    try:
        yield folder
    finally:
        remove_folder(folder)
