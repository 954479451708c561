"""How does a folder of this machine appear inside a container?

As a bind mount. That needs an engine on this machine that runs as root, and root here too: the files in it belong to
the image's user, and are read, written and compared from outside.
"""

import os
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from crashlab.errors import ServerError
from crashlab.server import owned
from crashlab.server.engine import docker_errors

if TYPE_CHECKING:
    from docker.types import Mount
    from testcontainers.core.container import DockerContainer


class SharedFolder:
    """A new folder of this machine and its place inside a container."""

    def __init__(self, parent: Path, inside: str) -> None:
        """Make the folder, searchable for all.

        Raises:
            ServerError: it cannot be made.
        """
        self.inside = PurePosixPath(inside)
        try:
            self.path = owned.make_folder(parent)
            self.path.chmod(0o755)
        except OSError as error:
            raise ServerError(f'could not make a folder in "{parent}": {error.strerror}') from error

    def mount(self) -> "Mount":
        """Describe it to Docker. Unlike a volume of that name, it is never made on another machine by mistake."""
        from docker.types import Mount

        return Mount(str(self.inside), str(self.path), type="bind")

    def seen(self, path: PurePath) -> PurePosixPath:
        """Return the path by which the container knows something in the folder."""
        return self.inside / path.relative_to(self.path)

    def remove(self) -> None:
        """Remove it with everything in it; idempotent."""
        owned.remove_folder(self.path)


def refuse_unless_root(docker: "DockerContainer") -> None:
    """Raise ServerError where the files of a container cannot be handled from outside."""
    hint = "Run crashlab and Docker as root on one machine, or use a local build (--server local)."
    if os.geteuid() != 0:
        raise ServerError(
            "cannot record in a container: crashlab does not run as root",
            detail="The server's files belong to a user of the image.",
            hint=hint,
        )
    with docker_errors("could not ask the Docker engine about itself"):
        options = docker.get_docker_client().client.info().get("SecurityOptions") or []
    for option in options:
        if "rootless" in option or "userns" in option:
            raise ServerError(
                "cannot record in a container: the Docker engine changes the owners of files",
                detail=f"It says: {option}.",
                hint=hint,
            )
