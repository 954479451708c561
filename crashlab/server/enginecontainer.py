"""What can be done with one container, whatever runs in it?

testcontainers makes it; its own helper container (ryuk) stays off, since it would be fetched even offline. The host
port is chosen once and kept: Docker would give a new one at every start. It is published on 127.0.0.1 only.

Source of the traps: environment.md "Containers".
"""

import contextlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crashlab.errors import ServerError
from crashlab.server import owned
from crashlab.server.engine import (
    API_TIMEOUT_S,
    HOST,
    TarStream,
    docker_errors,
    free_port,
    inspect_image,
    new_container,
    port_is_taken,
    tar_of,
)
from crashlab.server.imagecommand import read_command
from crashlab.server.sharedfolder import SharedFolder, refuse_unless_root

if TYPE_CHECKING:
    from docker.models.containers import Container

PORT_ATTEMPTS = 5


class EngineContainer:
    """A container of an image, from before it is made until it is removed."""

    def __init__(self, image: str) -> None:
        """Find Docker and the image (fetched only if it is not there); make nothing yet.

        Raises:
            ServerError: no Docker engine, no such image, or its own command starts no PostgreSQL.
        """
        self.image = image
        self.name = f"crashlab-{os.urandom(6).hex()}"
        self.port = 0  # of this machine, once one is published
        self._docker = new_container(image)
        try:
            self.image_id, self.environment, self.machine, command, self.stop_signal = inspect_image(
                self._docker, image
            )
            self.command = read_command(image, command)
        except BaseException:
            self.close()
            raise

    # Life cycle

    def create(
        self,
        *,
        folders: Sequence[SharedFolder] = (),
        variables: dict[str, str] | None = None,
        command: Sequence[str] = (),
        files: dict[str, bytes] | None = None,
        publish: int | None = None,
        **options: Any,
    ) -> None:
        """Create and start it.

        Args:
            folders: seen in it.
            variables: environment, over the image's own.
            files: path -> content, there before it starts.
            publish: this port of it, on `port` of this machine.
            options: as docker's `containers.run` takes them.
        """
        mounts = [folder.mount() for folder in folders]
        owned.note("container", self.name)
        self._docker.with_name(self.name).with_kwargs(labels=owned.labels(), mounts=mounts, **options)
        if command:
            self._docker.with_command(list(command))
        self._docker.env = dict(variables or {})
        for path, content in (files or {}).items():
            self._docker.with_copy_into_container(content, path)
        if publish is None:
            self._docker.start()
        else:
            self._start_published(publish)

    def _start_published(self, port: int) -> None:
        """Start. The port found free may be taken meanwhile: then another one."""
        from docker.errors import APIError

        for attempt in range(PORT_ATTEMPTS):
            self.port = free_port()
            self._docker.ports = {f"{port}/tcp": (HOST, self.port)}  # type: ignore[dict-item]
            try:
                self._docker.start()
                break
            except APIError as error:
                self.remove()
                if attempt + 1 == PORT_ATTEMPTS or not port_is_taken(error):
                    raise

    def kill(self, signal: str) -> None:
        """Signal its process 1 from outside."""
        self.existing().kill(signal)

    def wait(self, timeout_s: float) -> None:
        """Wait for its end. Not for longer than asked: Docker's own timeout is one of the HTTP socket."""
        from requests.exceptions import ConnectionError as Disconnected
        from requests.exceptions import ReadTimeout

        with docker_errors("could not wait for the container"), contextlib.suppress(Disconnected, ReadTimeout):
            self.existing().wait(timeout=max(timeout_s, 0.1))

    def remove(self) -> None:
        """Remove container and volume; what is gone already is no error."""
        from docker.errors import NotFound

        with docker_errors(f'could not remove the container "{self.name}"'), contextlib.suppress(NotFound):
            container = self.find()
            if container is not None:
                container.remove(force=True, v=True)
        owned.forget("container", self.name)
        self._docker._container = None

    def close(self) -> None:
        """Forget the engine."""
        self._docker.get_docker_client().client.close()

    # What it is

    def find(self) -> "Container | None":
        """The container by its name, which was chosen before it was made: an interrupted creation is found too."""
        from docker.errors import NotFound

        if self._docker._container is None:
            with contextlib.suppress(NotFound):
                self._docker._container = self._docker.get_docker_client().client.containers.get(self.name)
        return self._docker._container

    def existing(self) -> "Container":
        """The container. Raises ServerError: there is none."""
        container = self.find()
        if container is None:
            raise ServerError("could not reach the container: it is gone, or was never started")
        return container

    def state(self) -> dict[str, Any]:
        """What the engine says about it now; empty if there is none."""
        from docker.errors import NotFound

        container = self.find()
        if container is None:
            return {}
        with docker_errors("could not ask for the container's state"), contextlib.suppress(NotFound):
            container.reload()
            state: dict[str, Any] = container.attrs["State"]
            return state
        return {}

    def refuse_unless_root(self) -> None:
        """Raise ServerError where the files of a container cannot be handled from outside."""
        refuse_unless_root(self._docker)

    # What is in it

    def execute(self, script: str, *arguments: str, user: str = "") -> str:
        """Run a shell script in it and return what it printed. Raises ServerError: it failed."""
        with docker_errors("could not run a command in the container"):
            result = self.existing().exec_run(["sh", "-c", script, "sh", *arguments], user=user)
        assert isinstance(result.output, bytes)
        text = result.output.decode(errors="replace")
        if result.exit_code != 0:
            raise ServerError("could not run a command in the container", detail=text)
        return text

    def probe(self, *command: str) -> str:
        """Run a command in another container of the image, and return what it printed."""
        with docker_errors(f'could not run "{" ".join(command)}" in "{self.image}"'):
            containers = self._docker.get_docker_client().client.containers
            # Not `run(remove=True)`: that leaves the image's anonymous volume behind.
            name = f"{self.name}-probe"
            owned.note("container", name)
            other = containers.create(self.image, list(command), name=name, labels=owned.labels(), network_mode="none")
            try:
                other.start()
                other.wait(timeout=API_TIMEOUT_S)
                return other.logs().decode(errors="replace")
            finally:
                other.remove(force=True, v=True)
                owned.forget("container", name)

    def log(self) -> bytes:
        """Return what its process 1 printed; empty if there is no container."""
        container = self.find()
        if container is None:
            return b""
        with docker_errors("could not read the container's log"):
            return container.logs()

    def put_file(self, path: str, content: bytes) -> None:
        """Write a file into it."""
        self.existing().put_archive("/", tar_of(path, content))

    def read_file(self, path: str) -> bytes:
        """Return a file's content; empty if there is no such file."""
        from docker.errors import NotFound

        with docker_errors(f'could not read "{path}" in the container'), contextlib.suppress(NotFound):
            stream, _ = self.existing().get_archive(path)
            with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
                file = archive.extractfile(archive.getmembers()[0])
                return file.read() if file else b""
        return b""

    def copy_out(self, path: str, target: Path, *, content: bool = False) -> None:
        """Copy a file or folder of it into a folder; with `content`, only what is in that folder."""
        with docker_errors("could not copy files out of the container"):
            stream, _ = self.existing().get_archive(path)
            try:
                target.mkdir(parents=True, exist_ok=True)
                with tarfile.open(fileobj=TarStream(stream), mode="r|") as archive:
                    for member in _members(archive, content=content):
                        archive.extract(member, target, filter="tar")
            except OSError as error:
                raise ServerError(f'could not copy "{path}" to "{target}": {error.strerror}') from error


def _members(archive: tarfile.TarFile, *, content: bool) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if content:  # the archive's first folder is the one that was asked for
            member.name = member.name.partition("/")[2]
        if member.name:
            yield member
