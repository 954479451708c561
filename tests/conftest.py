"""What does a test need from this machine, and does it have it?

A test marked `server` needs a local PostgreSQL build, one marked `container` a Docker engine and its image
(`container("postgres:15.3")`; without an argument IMAGE), one marked `kernel` root and a file system that can be
mounted and cut off (`kernel("ext4")`). Where that is missing the test is skipped with the reason, unless
CRASHLAB_REQUIRE names it (a comma list: "server,container,kernel"; "local" means "server"): then it fails.
"""

import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import hypothesis
import pytest

from crashlab.errors import RecordingError, ServerError
from crashlab.server import Server, ServerSpec, create_server

IMAGE = "postgres:17"

hypothesis.settings.register_profile("crashlab", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("crashlab")


@functools.cache
def missing_build() -> str | None:
    """Say why no local server can run here, or None."""
    from crashlab.server.builds import find_build

    try:
        return None if find_build() else "no PostgreSQL build on this machine"
    except ServerError as error:
        return str(error)


@functools.cache
def missing_image(image: str) -> str | None:
    """Say why no container of this image can run here without fetching it, or None."""
    from crashlab.server.engine import docker_problem

    problem = docker_problem()
    if problem is not None:
        return str(problem)
    import docker
    from docker.errors import ImageNotFound

    client = docker.from_env()
    try:
        client.images.get(image)
    except ImageNotFound:
        return f"no image {image} on this machine"
    finally:
        client.close()
    return None


@functools.cache
def missing_kernel(kind: Literal["ext4", "xfs"]) -> str | None:
    """Say why no file system of this kind can be mounted, cut off and mounted again here, or None."""
    from crashlab.recording.kernelcut import LoopDisk

    with tempfile.TemporaryDirectory() as folder:
        try:
            with LoopDisk(Path(folder) / "disk", kind) as disk:
                disk.cut()
                disk.remount()
        except RecordingError as error:
            return str(error)
    return None


def required() -> set[str]:
    """Return what CRASHLAB_REQUIRE says must not be skipped."""
    words = os.environ.get("CRASHLAB_REQUIRE", "").replace("local", "server").split(",")
    return {word.strip() for word in words if word.strip()}


def pytest_report_header() -> list[str]:
    """Say at once what this machine cannot run, and why; the kernel's file systems are tried only when needed."""
    problems = {"server": missing_build(), "container": missing_image(IMAGE)}
    if os.environ.get("CRASHLAB_TEST_BUILDS") is None:
        problems["old releases"] = "CRASHLAB_TEST_BUILDS does not name a folder of builds"
    return [
        f"crashlab: skipped are the tests that need {name}: {problem.splitlines()[0]}"
        for name, problem in problems.items()
        if problem is not None and name not in required()
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose server cannot run here."""
    for marker in item.iter_markers("server"):
        _demand("server", missing_build(), marker)
    for marker in item.iter_markers("container"):
        _demand("container", missing_image(marker.args[0] if marker.args else IMAGE), marker)
    for marker in item.iter_markers("kernel"):
        _demand("kernel", missing_kernel(marker.args[0]), marker)


def _demand(name: str, problem: str | None, marker: pytest.Mark) -> None:
    if problem is None:
        return
    if name in required():
        pytest.fail(f"CRASHLAB_REQUIRE names {name}, but: {problem}", pytrace=False)
    pytest.skip(problem)


@pytest.fixture
def local_server() -> Iterator[Server]:
    """A started local server of the build found first, disposed of afterwards."""
    with create_server(ServerSpec(kind="local")) as server:
        server.start()
        yield server


@pytest.fixture
def container_server() -> Iterator[Server]:
    """A started container of IMAGE, disposed of afterwards."""
    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        server.start()
        yield server
