"""What was on disk when the recording began?

A base image is a folder: `image/pgdata` and `image/tblspc0`, ... are copies of the recorded roots, `base.json` lists
every file in them by number and path. All of it counts as durable, so take it from a stopped server.
Symbolic links keep their content: a tablespace's link still leads to the live directory.
"""

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from crashlab import files, sealed
from crashlab.disk.operations import BaseFile, root_label
from crashlab.errors import RecordingError
from crashlab.recording.filenumbers import FileNumbers

SCHEMA = 1
_MANIFEST = "base.json"
_COPY_SECONDS_MAX = 600
_READ_BYTES = 1 << 20


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = SCHEMA
    roots: list[str]
    files: list[BaseFile]


class BaseImage(msgspec.Struct, frozen=True, kw_only=True):
    """The copy of the recorded roots that a recording starts from."""

    folder: Path
    roots: list[Path]  # the live directories as this machine sees them, the data directory first
    files: list[BaseFile]

    @property
    def image(self) -> Path:
        """The folder that holds one directory a root, named as in the operations' paths."""
        return self.folder / "image"

    def live(self, label: str) -> Path:
        """Return the live directory of "pgdata", "tblspc0", ..."""
        labels = [root_label(index) for index in range(len(self.roots))]
        return self.roots[labels.index(label)]


def take(roots: Sequence[Path], folder: Path) -> BaseImage:
    """Copy the data directory and, after it, the directories of its tablespaces.

    Raises:
        RecordingError: a root is missing, inside another one, or cannot be copied.
    """
    real = [Path(os.path.realpath(root)) for root in roots]
    for index, root in enumerate(real):
        if any(index != other and root.is_relative_to(outer) for other, outer in enumerate(real)):
            raise RecordingError(f'the recorded directory "{root}" lies inside another one')
    image = folder / "image"
    image.mkdir(parents=True)
    for index, root in enumerate(real):
        copy_tree(root, image / root_label(index))
    base = BaseImage(folder=folder, roots=real, files=list_files(image))
    manifest = _Manifest(roots=[str(root) for root in real], files=base.files)
    try:
        files.write_whole(folder / _MANIFEST, sealed.sealed(manifest)[0])
    except OSError as error:
        raise RecordingError(f'could not write the base image "{folder}": {error.strerror}') from error
    return base


def load(folder: Path) -> BaseImage:
    """Read a base image that was taken before. Raises RecordingError: it is missing, damaged or of another schema."""
    path = folder / _MANIFEST
    try:
        data = files.read_whole(path)
        sealed.check(data)
        manifest = msgspec.json.decode(data, type=_Manifest)
    except OSError as error:
        raise RecordingError(f'could not read the base image "{path}": {error.strerror}') from error
    except sealed.PROBLEMS as error:
        raise RecordingError(f'damaged base image "{path}": {error}') from error
    if manifest.schema != SCHEMA:
        raise RecordingError(f'cannot read base image "{path}": schema {manifest.schema} is not {SCHEMA}')
    try:
        FileNumbers(manifest.files)
    except RecordingError as error:
        raise RecordingError(f'damaged base image "{path}": its files are no tree', detail=error.detail) from error
    return BaseImage(folder=folder, roots=[Path(root) for root in manifest.roots], files=manifest.files)


def digest(base: BaseImage) -> str:
    """Return a text that is equal only for equal images: their list of files and every byte of these.

    Raises:
        RecordingError: a file is gone or cannot be read.
    """
    found = hashlib.sha256(msgspec.json.encode(base.files))
    for entry in base.files:
        if entry.kind == "file":
            try:
                with os.fdopen(open_file(base, entry.path), "rb", 0) as file:
                    if os.fstat(file.fileno()).st_size != entry.size:
                        raise OSError(errno.EIO, "its size is another one", entry.path)
                    while block := file.read(_READ_BYTES):
                        found.update(block)
            except OSError as error:
                raise RecordingError(
                    f'damaged base image "{base.folder}": could not read "{entry.path}": {error.strerror}'
                ) from error
    return found.hexdigest()


def open_file(base: BaseImage, path: str) -> int:
    """Return a descriptor of one of an image's files. Raises OSError: it is not there, or a link leads to it."""
    return files.open_below(base.folder, f"{base.image.name}/{path}")


def copy_part(base: BaseImage, part: str, target: Path) -> None:
    """Copy what an image lists at and below a path into a folder that holds the parents of it.

    Raises:
        RecordingError: a file is gone or cannot be read.
    """
    for entry in base.files:
        if entry.path != part and not entry.path.startswith(f"{part}/"):
            continue
        copy = target / entry.path
        if entry.kind == "dir":
            copy.mkdir()
        elif entry.kind == "link":
            copy.symlink_to(entry.link)
        else:
            try:
                with os.fdopen(open_file(base, entry.path), "rb", 0) as file, copy.open("xb") as written:
                    shutil.copyfileobj(file, written, _READ_BYTES)
            except OSError as error:
                raise RecordingError(f'could not copy "{entry.path}" of the base image: {error.strerror}') from error


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory with owners, modes and links, sharing blocks where the file system can.

    Raises:
        RecordingError: `cp` could not copy all of it.
    """
    command = ["cp", "-a", "--reflink=auto", "--no-target-directory", str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COPY_SECONDS_MAX)
    if done.returncode != 0:
        raise RecordingError(f'could not copy "{source}" to "{target}"', detail=done.stderr.strip())


def list_files(image: Path) -> list[BaseFile]:
    """List what an image holds, in the order of paths, a directory before its entries; numbers start at 1.

    Sockets and pipes are left out: a server makes its own.
    """
    numbers: dict[tuple[int, int], int] = {}
    files: list[BaseFile] = []
    for path in sorted(_walk(str(image))):
        status = os.lstat(path)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            continue
        entry = BaseFile(
            file=numbers.setdefault((status.st_dev, status.st_ino), len(numbers) + 1),
            path=os.path.relpath(path, image),
            kind=kind,
            size=status.st_size if kind == "file" else 0,
            mode=stat.S_IMODE(status.st_mode),
            link=str(Path(path).readlink()) if kind == "link" else "",
        )
        files.append(entry)
    return files


_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}


def _walk(folder: str) -> list[str]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found.append(entry.path)
            if entry.is_dir(follow_symlinks=False):
                found += _walk(entry.path)
    return found
