"""Can Docker be used here, and what is wrong when it cannot?

Its client's errors become ServerErrors here, and nowhere else. Docker's modules are slow to import, so they are
imported when a container is asked for.
"""

import io
import signal as signals
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from crashlab.errors import ServerError

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

HOST = "127.0.0.1"
API_TIMEOUT_S = 60
PROBE_TIMEOUT_S = 5


def docker_problem() -> ServerError | None:
    """Say why containers cannot be used here, or None: they can."""
    import docker
    from docker.errors import DockerException

    try:
        docker.from_env(timeout=PROBE_TIMEOUT_S).close()
    except DockerException as error:
        return ServerError(
            "could not reach a Docker engine",
            detail=str(error),
            hint="Start Docker, set DOCKER_HOST, or use a local build (--server local).",
        )
    return None


def look_at_engine() -> tuple[bool, str, list[str]]:
    """Say whether there is an engine, which, or what is wrong with it, and which PostgreSQL images it has."""
    # slow to import, and a broken installation of it is an answer too
    try:
        import docker

        client = docker.from_env(timeout=PROBE_TIMEOUT_S)
    except Exception as error:
        return False, _first_line(error), []
    try:
        version = client.version()["Version"]
        tags = sorted(tag for image in client.images.list() for tag in image.tags if "postgres" in tag)
    except Exception as error:
        return False, _first_line(error), []
    finally:
        client.close()
    return True, f"Docker {version}, images: {', '.join(tags) if tags else 'none of PostgreSQL'}", tags


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def new_container(image: str) -> "DockerContainer":
    """Return testcontainers' description of a container, nothing made yet. Raises ServerError: no Docker engine."""
    problem = docker_problem()
    if problem is not None:
        raise problem
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    testcontainers_config.ryuk_disabled = True
    return DockerContainer(image, docker_client_kw={"timeout": API_TIMEOUT_S})


def inspect_image(docker: "DockerContainer", image: str) -> tuple[str, dict[str, str], str, list[str], str]:
    """Return an image's digest, environment variables, architecture ("amd64", "arm64"), command and stop signal.

    The image is fetched if it is not there.

    Raises:
        ServerError: no such image.
    """
    from docker.errors import DockerException, ImageNotFound

    images = docker.get_docker_client().client.images
    try:
        try:
            found = images.get(image)
        except ImageNotFound:
            found = images.pull(image, tag=None if ":" in image or "@" in image else "latest")
    except DockerException as error:
        raise ServerError(
            f'could not find the image "{image}"',
            detail=f"It is not on this machine, and fetching it failed: {error}",
            hint="`docker image ls` shows what is here; crashlab needs an image like postgres:17.",
        ) from error
    environment = dict(pair.split("=", 1) for pair in found.attrs["Config"]["Env"] or [])
    config = found.attrs["Config"]
    stop_signal = config.get("StopSignal") or "SIGTERM"
    return found.attrs["Id"], environment, found.attrs["Architecture"], config["Cmd"] or [], stop_signal


def signal_of(text: str) -> signals.Signals:
    """Return the signal that STOPSIGNAL names: "SIGINT", "INT", "2".

    Raises:
        ServerError: there is none of that name or number.
    """
    try:
        if text.isdigit():
            return signals.Signals(int(text))
        return signals.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
    except (ValueError, KeyError):
        raise ServerError(f'cannot stop a container of this image: its STOPSIGNAL is "{text}"') from None


@contextmanager
def docker_errors(primary: str) -> Iterator[None]:
    """Turn an error of the Docker client into a ServerError."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except APIError as error:
        if port_is_taken(error):
            raise ServerError(
                f"{primary}: its port on 127.0.0.1 is taken",
                detail=error.explanation,
                hint="End the program that uses the port, then try again.",
            ) from error
        hint = None
        if "bind source path does not exist" in str(error):
            hint = "A folder is shared with the container: run the Docker engine on this machine."
        raise ServerError(primary, detail=error.explanation or str(error), hint=hint) from error
    except (DockerException, RequestException) as error:
        raise ServerError(primary, detail=str(error)) from error


def port_is_taken(error: Exception) -> bool:
    """Say whether Docker could not publish a port because something listens there."""
    return "port is already allocated" in str(error) or "address already in use" in str(error)


def free_port() -> int:
    """Return a port of HOST that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class TarStream(io.RawIOBase):
    """Chunks of bytes as a file that tarfile can read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            try:
                self._rest = next(self._chunks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def tar_of(path: str, content: bytes) -> bytes:
    """Return a tar archive with one file, as `put_archive` takes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size = len(content)
        member.mode = 0o644
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
