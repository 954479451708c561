"""Where is a crash state recovered? In a folder that holds one state after the other, by a server of its own.

materialise, start the server (`recovery.recover`), `unchanged`, observe, kill: then the folder is dirty, and the next
materialise repairs it. One worker to a process; workers share nothing.
"""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from crashlab.recording.base import BaseImage
from crashlab.recording.diskmodel import CrashState, DiskModel
from crashlab.recording.images import ImageFolder
from crashlab.recording.logbytes import LogBytes
from crashlab.recording.unchanged import BaseRelations
from crashlab.server import registry
from crashlab.server.base import ServerSpec
from crashlab.server.builds import Build
from crashlab.server.local import LocalServer


class Worker:
    """A folder for crash states and a local server on it. Use it as a context manager: leaving removes both."""

    def __init__(self, base: BaseImage, log: LogBytes, folder: Path, build: Build, spec: ServerSpec) -> None:
        """Take over a folder, which is made if need be and must be empty; the server's user must be able to reach it.

        Args:
            log: notes every operation that the disk model has applied.
            spec: its settings are those of the recorded server.

        Raises:
            RecordingError: the folder is not empty.
            ServerError: the server's user cannot reach it.
        """
        self.folder = folder
        self.images = ImageFolder(base, log, folder / "state")
        registry.add(self)
        try:
            self._relations = BaseRelations(self.images)
            self.server = LocalServer(spec, build, work=folder, data_directory=self.images.data_directory)
        except BaseException:
            self._remove()
            raise

    def materialise(self, model: DiskModel, state: CrashState) -> int:
        """See ImageFolder.materialise."""
        assert not self.server.running()
        return self.images.materialise(model, state)

    def unchanged(self) -> frozenset[str]:
        """Return the relations that are still as in the base image; ask after recovery, before the first check."""
        return self._relations.unchanged()

    def kill(self) -> None:
        """Kill the server, running or not."""
        self.server.kill_all()

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """Kill the server and remove what was made; idempotent. Nothing is kept: a state can be made again."""
        try:
            self.server.dispose()
        finally:
            self._remove()

    def _remove(self) -> None:
        self.images.dispose()
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        registry.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dispose()
