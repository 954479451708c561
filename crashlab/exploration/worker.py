"""Where is a crash state recovered? In a folder that holds one state after the other, by a server of its own.

The server is a build of this machine, or a container that mounts the folder.

materialise, start the server (`recovery.recover`), `unchanged`, observe, kill: then the folder is dirty, and the next
materialise repairs it. One worker to a process; workers share nothing.
"""

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Self

from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.operations import root_label
from crashlab.exploration.images import ImageFolder
from crashlab.exploration.unchanged import BaseRelations
from crashlab.recording.base import BaseImage, copy_tree
from crashlab.recording.logbytes import LogBytes
from crashlab.server import owned, registry
from crashlab.server.base import Restartable, ServerSpec
from crashlab.server.builds import Build
from crashlab.server.local import LocalServer
from crashlab.server.privileges import make_searchable
from crashlab.workload.databases import LINK


class Worker(registry.Disposable):
    """A folder for crash states and a server on it. Use it as a context manager: leaving removes both."""

    def __init__(self, folder: Path, images: ImageFolder, server: Restartable) -> None:
        """Take over what `local` or `container` made."""
        self.folder = folder
        self.images = images
        self.server = server
        server.keep_session = True  # a connection costs what a small check does
        registry.add(self)
        try:
            self._relations = BaseRelations(images)
        except BaseException:
            self.dispose()
            raise

    @classmethod
    def local(cls, base: BaseImage, log: LogBytes, folder: Path, build: Build, spec: ServerSpec) -> Self:
        """Recover with a build of this machine.

        Args:
            log: notes every operation that the disk model has applied.
            folder: made if need be; must be empty, and within reach of the server's user.
            spec: its settings are those of the recorded server.

        Raises:
            RecordingError: the folder is not empty.
            ServerError: the server's user cannot reach it.
        """
        images = ImageFolder(base, log, folder / "state")
        try:
            server = LocalServer(spec, build, work=folder, data_directory=images.data_directory)
        except BaseException:
            images.dispose()
            raise
        return cls(folder, images, server)

    @classmethod
    def container(
        cls, base: BaseImage, log: LogBytes, folder: Path, spec: ServerSpec, recorded_roots: Sequence[PurePath]
    ) -> Self:
        """Recover in one container, of the image that `spec` names.

        Args:
            log, folder, spec: see `local`.
            recorded_roots: the recorded directories as the recorded server saw them.

        Raises:
            ServerError: no Docker engine or no such image, or not as root on one machine.
        """
        # Not above: testcontainers is slow to import, and not needed for a local server.
        from crashlab.server.statecontainer import StateContainer

        assert spec.image is not None
        make_searchable(folder)
        server = StateContainer(spec, spec.image, folder)
        try:
            states = server.home / "state"
            images = ImageFolder(
                base,
                log,
                states,
                user=server.owner,
                recorded_roots=recorded_roots,
                seen_as=server.seen(states),
                same_kernel=False,  # a container may be a virtual machine
            )
        except BaseException:
            server.dispose()
            raise
        server.data_directory = images.data_directory
        return cls(folder, images, server)

    def materialise(self, model: DiskModel, state: CrashState) -> int:
        """See ImageFolder.materialise."""
        assert not self.server.running()
        return self.images.materialise(model, state)

    def keep_data(self, target: Path) -> None:
        """Copy the data directory, once its server is killed; its tablespaces lie in it then, and no link leads out.

        Raises:
            RecordingError: it cannot be copied.
        """
        assert not self.server.running()
        copy_tree(self.images.data_directory, target)
        (target / "postmaster.pid").unlink(missing_ok=True)
        places, link = self.images.image / root_label(1), target / LINK
        if link.is_symlink() and places.is_dir():  # the tablespaces are named through the link
            link.unlink()
            copy_tree(places, link)

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
            self.images.dispose()
            owned.remove_folder(self.folder)
            registry.remove(self)
