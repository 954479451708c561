"""What does a real kernel leave after the power is cut?

The check of the disk model against the thing itself. A LoopDisk is a file system of its own in a loop-mounted file;
`cut` shuts it down in the middle of whatever runs on it, without writing anything more; after `remount`, which replays
the journal, CutRecording says what of the recorded directories the model would not have allowed.

Choices:
    The crash point is the end of the log. After the cut every call fails, and a failed call leaves no record, so once
    the recorded processes have ended by themselves the log holds all that happened, and at most that. What they were
    told of flushes counts only up to the log's tail just before the cut: caught in the middle of it, ext4 was seen to
    report an O_DSYNC write as done that it then lost.
    What the server wrote through stdio, unseen by the recorder, is exempt as in the self-check (`replay.EXCEPTIONS`).
What it does not show:
    A device that loses or reorders what it was sent: the loop file keeps all of it. Hence all differences found are
    the file system's own, and torn sectors are not among them. btrfs, whose kernels have no such call yet.

Source: Linux fs/ext4/ioctl.c (EXT4_IOC_SHUTDOWN), fs/xfs/xfs_fsops.c (XFS_IOC_GOINGDOWN); xfstests "shutdown" group.
"""

import fcntl
import os
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

import msgspec

from crashlab.disk.allowed import allows
from crashlab.disk.contract import DiskContract, disk_contract
from crashlab.disk.model import DiskModel
from crashlab.disk.operations import Kind, Operation, root_label
from crashlab.disk.states import nothing_extra
from crashlab.errors import RecordingError
from crashlab.recording.base import BaseImage
from crashlab.recording.decoder import Decoder
from crashlab.recording.replay import EXCEPTIONS

FileSystem = Literal["ext4", "xfs"]

SIZE_BYTES_DEFAULT = 512 << 20  # xfs wants 300 MB; the file is sparse
_SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125  # _IOR('X', 125, __u32)
_LOG_FLUSH, _NO_LOG_FLUSH = 1, 2
_COMMAND_SECONDS_MAX = 60
_BUSY_SECONDS_MAX = 5


class LoopDisk:
    """A mounted file system in a file; as a context manager it makes `folder` for them, and removes all of it."""

    def __init__(self, folder: Path, kind: FileSystem, size_bytes: int = SIZE_BYTES_DEFAULT) -> None:
        self.kind = kind
        self.mount = folder / "mount"
        self._folder, self._image, self._size_bytes = folder, folder / "disk", size_bytes
        self._mounted = False

    def __enter__(self) -> "LoopDisk":
        """Make and mount it.

        Raises:
            RecordingError: this machine cannot: not root, no program or kernel support for it, no loop device.
        """
        if os.geteuid() != 0:
            raise RecordingError(f"cannot mount {self.kind}: only root may")
        if shutil.which(f"mkfs.{self.kind}") is None:
            package = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}[self.kind]
            raise RecordingError(f"could not find mkfs.{self.kind}", hint=f"Install {package}.")
        try:
            self._folder.mkdir()
        except OSError as error:
            raise RecordingError(f'could not make the folder "{self._folder}": {error.strerror}') from error
        try:
            self.mount.mkdir()
            with self._image.open("wb") as image:
                image.truncate(self._size_bytes)
            self._run(f"mkfs.{self.kind}", "-q", str(self._image))
            self._mount()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unmount it, which frees the loop device, and remove the folder."""
        self._remove()

    def cut(self, *, log_flush: bool = False) -> None:
        """End the file system now: nothing more reaches the disk, every call on it fails from here on.

        Args:
            log_flush: let the journal be written out first, but no data: names survive that the data do not.

        Raises:
            RecordingError: the kernel refused.
        """
        fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("=I", _LOG_FLUSH if log_flush else _NO_LOG_FLUSH))
        except OSError as error:
            raise RecordingError(f"could not cut off {self.kind}: {error.strerror}") from error
        finally:
            os.close(fd)

    def remount(self) -> None:
        """Unmount and mount again, which replays the journal; every process must have left it before."""
        self._unmount()
        self._mount()

    def sync(self) -> None:
        """Make everything on it durable."""
        self._run("sync", "-f", str(self.mount))

    def _mount(self) -> None:
        self._mounted = True  # a failed one too: nobody knows how far it came
        self._run("mount", "-t", self.kind, "-o", "loop,nodev,nosuid", str(self._image), str(self.mount))

    def _unmount(self) -> None:
        """Unmount and wait for the loop device to go.

        Whoever looks into it at that moment, such as a run that looks for what dead ones left, keeps it busy. And a
        container that starts meanwhile has copies of all mounts for a moment. Until they are gone, a new mount would
        find the old one, still shut down.
        """
        busy_until = time.monotonic() + _BUSY_SECONDS_MAX
        while self._mounted:
            try:
                self._run("umount", str(self.mount))
            except RecordingError:
                if time.monotonic() > busy_until:
                    raise
                time.sleep(0.05)
            else:
                self._mounted = False
        end = time.monotonic() + _COMMAND_SECONDS_MAX
        while self._run("losetup", "--associated", str(self._image)):
            if time.monotonic() > end:
                raise RecordingError(f'could not release "{self._image}": another mount namespace has it')
            time.sleep(0.01)

    def _remove(self) -> None:
        if self._mounted:
            try:
                self._unmount()
            except RecordingError:  # somebody still has it open: then it goes with the last of them
                subprocess.run(["umount", "--lazy", str(self.mount)], capture_output=True, timeout=_COMMAND_SECONDS_MAX)
        shutil.rmtree(self._folder)

    def _run(self, *command: str) -> str:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS_MAX)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RecordingError(f'could not run "{command[0]}" for {self.kind}: {error}') from error
        if done.returncode != 0:
            raise RecordingError(f'could not run "{" ".join(command)}"', detail=done.stderr.strip())
        return done.stdout


class FoundDisk:
    """The recorded directories as they are after the cut: the ObservedDisk that `allowed.allows` judges."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._at = {root_label(index): root for index, root in enumerate(roots)}

    def paths(self) -> Mapping[str, str]:
        """Return every path with its kind; pipes and sockets are left out, as in a base image."""
        found: dict[str, str] = {}
        for label, root in self._at.items():
            waiting = [(label, root)] if root.is_dir() else []
            while waiting:
                name, folder = waiting.pop()
                found[name] = "dir"
                with os.scandir(folder) as entries:
                    for entry in entries:
                        path = f"{name}/{entry.name}"
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((path, Path(entry.path)))
                        elif kind := _KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)):
                            found[path] = kind
        return found

    def link(self, path: str) -> str:
        """Return a symbolic link's content."""
        return str(self._real(path).readlink())

    def read(self, path: str) -> bytes:
        """Return a regular file's bytes."""
        return self._real(path).read_bytes()

    def _real(self, path: str) -> Path:
        label, _, rest = path.partition("/")
        return self._at[label] / rest


_KINDS = {stat.S_IFREG: "file", stat.S_IFLNK: "link"}


class CutRecording:
    """A recording whose disk was cut off, against what is there after the remount."""

    def __init__(self, base: BaseImage, log: Path, tail_bytes: int) -> None:
        """Take what belongs together.

        Args:
            base: what the recording began with, durable on the disk at that time.
            log: of processes that have ended since the cut.
            tail_bytes: where the log ended just before the cut (`iolog.LogPosition`).
        """
        self.found = FoundDisk(base.roots)
        self._base, self._log, self._tail_bytes = base, log, tail_bytes
        self._paths = {entry.file: base.image / entry.path for entry in base.files}

    def objections(
        self,
        contract: DiskContract | None = None,
        altered: Callable[[Operation], Operation] = lambda operation: operation,
    ) -> list[str]:
        """Say why what is on the disk now is none of the states that the contract allows; nothing if it is one.

        Args:
            contract: `linux` by default.
            altered: changes each operation first, to see the model object.

        Raises:
            RecordingError: the log is damaged, or does not belong to the base image.
        """
        model, data = self._model(contract or disk_contract(), altered)
        return allows(model, self.found, data.__getitem__, self._base_bytes, unseen=EXCEPTIONS)

    def something_extra(self) -> bool:
        """Whether anything survived that was not durable: if never, the cuts show little about the model."""
        model, data = self._model(disk_contract(), lambda operation: operation)
        state = nothing_extra(model)
        paths = model.paths(state.names)
        return paths.keys() != self.found.paths().keys() or any(
            model.image(state, number).read(data.__getitem__, self._base_bytes) != self.found.read(path)
            for path, number in paths.items()
            if number in model.files and not EXCEPTIONS.fullmatch(path)
        )

    def _model(
        self, contract: DiskContract, altered: Callable[[Operation], Operation]
    ) -> tuple[DiskModel, list[bytes]]:
        model = DiskModel(self._base.files, contract)
        data: list[bytes] = []
        for logged in Decoder(self._log, self._base.files):
            operation = altered(logged)
            data.append(bytes(operation.data))
            if operation.log_end > self._tail_bytes:
                if operation.kind in (Kind.FSYNC_END, Kind.SYNCFS_END):
                    continue
                operation = msgspec.structs.replace(operation, durable=False)
            model.apply(operation)
        return model, data

    def _base_bytes(self, file: int, offset: int, length: int) -> bytes:
        with self._paths[file].open("rb") as image:
            return os.pread(image.fileno(), length, offset)
