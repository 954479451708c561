"""How are files read and written in a folder that may come from a stranger?

Evidence is handed around: a folder may hold links to anywhere, pipes that nobody writes to, files of any size. So no
link is followed, nothing but a regular file is opened, and what is written is a new file of a name that nobody could
know before, which then takes the place of whatever bears the final name.

Choices: the folder that a user names may itself be reached through links (`.crashlab/latest` is one); below it none is.
    An error is an OSError whose strerror says what is wrong, so that callers tell it as they tell any other.
"""

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

WHOLE_BYTES_MAX = 1 << 30
"""Of a file that is read whole; the largest observation seen had some MB."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not be waited for
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LINK = "it is a symbolic link, and none is followed"


def open_file(path: Path | str, *, folder: int | None = None) -> int:
    """Return a descriptor of a regular file, to read it.

    Args:
        folder: descriptor of the folder that the path starts in.

    Raises:
        OSError: it is missing, cannot be read, or is anything else, such as a link or a pipe.
    """
    try:
        fd = os.open(path, _READ, dir_fd=folder)
    except OSError as error:
        raise _told(error, path) from error
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        os.close(fd)
        number = errno.EISDIR if stat.S_ISDIR(kind) else errno.EINVAL
        raise OSError(number, "it is a folder" if stat.S_ISDIR(kind) else "it is not a regular file", str(path))
    return fd


def open_below(folder: Path, path: str) -> int:
    """Return a descriptor of a regular file below a folder; no folder on the way, nor the first, may be a link.

    Raises:
        OSError: as `open_file`; the path leads out of the folder.
    """
    if not leads_below(path):
        raise OSError(errno.EINVAL, "it leads out of its folder", path)
    *way, name = path.split("/")
    fd = _open_folder(folder, None)
    try:
        for part in way:
            inner = _open_folder(part, fd)
            os.close(fd)
            fd = inner
        return open_file(name, folder=fd)
    finally:
        os.close(fd)


def leads_below(path: str) -> bool:
    """Say whether a relative path, followed by its words alone, stays below where it starts."""
    parts = path.split("/")
    return "\0" not in path and not any(part in ("", ".", "..") for part in parts)


def opened(path: Path, *, buffering: int = -1) -> BinaryIO:
    """Open a regular file to read its bytes. Raises OSError as `open_file`."""
    return os.fdopen(open_file(path), "rb", buffering)


def read_whole(path: Path, *, bytes_max: int = WHOLE_BYTES_MAX) -> bytes:
    """Return a file's bytes. Raises OSError: as `open_file`, or it is larger."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > bytes_max:
            raise OSError(errno.EFBIG, f"it has more than {bytes_max >> 20} MB", str(path))
        return file.read(bytes_max)


def is_file(path: Path) -> bool:
    """Say whether a regular file is there; a link is none."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Say whether a folder is there; a link is none."""
    return stat.S_ISDIR(_mode(path))


def write_whole(path: Path, content: bytes) -> None:
    """Put a file into a folder, whole or not at all; whatever had its name before is replaced, a link too.

    Raises:
        OSError: the folder cannot be written, or holds a folder of that name.
    """
    partial = _new_name(path)
    fd = os.open(partial, _NEW, 0o644)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def move_in(file: Path, path: Path) -> None:
    """Give a file that a server's user may own its place in a folder, as `write_whole`; raises as that."""
    os.chown(file, os.geteuid(), os.getegid(), follow_symlinks=False)
    file.chmod(0o644)
    try:
        file.replace(path)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    partial = _new_name(path)
    try:
        with opened(file) as source, os.fdopen(os.open(partial, _NEW, 0o644), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    file.unlink()


def _new_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}.partial")  # decides nothing: no seed is to make it


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except (OSError, ValueError):
        return 0


def _open_folder(path: Path | str, folder: int | None) -> int:
    try:
        return os.open(path, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _told(error, path) from error


def _told(error: OSError, path: Path | str) -> OSError:
    """Say in words what O_NOFOLLOW met: ELOOP, and with O_DIRECTORY ENOTDIR."""
    if error.errno == errno.ELOOP:
        return OSError(errno.ELOOP, _LINK, str(path))
    return error
