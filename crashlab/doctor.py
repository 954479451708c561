"""What can this machine run, and how is what it lacks to be had?

No image is pulled and no server started. A build that the server's user could not read is copied, as a run would do.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashlab.errors import CrashlabError
from crashlab.server.builds import find_builds
from crashlab.server.privileges import cache_root, server_user

INSTALL = "pip install 'crashlab[embedded]', apt install postgresql, or give --pg-bindir DIR"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    says: str
    hint: str | None = None
    runs_servers: bool = False


def examine() -> list[Check]:
    """Look at everything that a run may need."""
    return [_platform(), *_builds(), _docker(), _compiler(), _user(), _cache()]


def _platform() -> Check:
    ok = platform.system() == "Linux"
    says = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    return Check("platform", ok, says, None if ok else "Local servers need Linux; containers may work elsewhere.")


def _builds() -> Iterator[Check]:
    found = False
    try:
        for build in find_builds():
            found = True
            says = f"PostgreSQL {build.version.text}, {build.bindir} ({build.origin})"
            yield Check("local server", True, says, runs_servers=True)
    except CrashlabError as error:
        found = True
        yield Check("local server", False, error.primary, error.hint)
    if not found:
        yield Check("local server", False, "no PostgreSQL build found", f"{INSTALL}.")


def _docker() -> Check:
    # slow to import, and a broken installation of it must not end the report
    try:
        import docker

        client = docker.from_env(timeout=5)
    except Exception as error:
        return Check("containers", False, _first_line(error), "Start Docker, or set DOCKER_HOST.")
    try:
        version = client.version()["Version"]
        tags = sorted(tag for image in client.images.list() for tag in image.tags if "postgres" in tag)
    except Exception as error:
        return Check("containers", False, _first_line(error), "Start Docker, or set DOCKER_HOST.")
    finally:
        client.close()
    says = f"Docker {version}, images: {', '.join(tags) if tags else 'none of PostgreSQL'}"
    return Check("containers", True, says, None if tags else "docker pull postgres:17", True)


def _compiler() -> Check:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler:
        return Check("C compiler", True, compiler)
    return Check("C compiler", False, "none; only recordings need one", "apt install gcc")


def _user() -> Check:
    user = server_user()
    says = f"uid {os.geteuid()}"
    if user.switched:
        says += f"; PostgreSQL refuses root, so local servers run as uid {user.uid}"
    return Check("user", True, says)


def _cache() -> Check:
    try:
        root = cache_root()
    except CrashlabError as error:
        return Check("cache folder", False, error.primary, error.hint)
    return Check("cache folder", True, f"{root}, {_size_bytes(root) / 1_000_000:.0f} MB")


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # another run may be cleaning up
            continue
    return total


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
