"""How does a server get a fresh data directory without half a second of initdb?

initdb runs once per (server binary, options, user) into the cache; each server copies that template. So does what many
servers are to hold from the beginning: SQL that the server's own single-user mode runs on a copy of that template.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from crashlab.errors import ServerError, UsageProblem
from crashlab.server import owned
from crashlab.server.base import DATABASE
from crashlab.server.builds import Build
from crashlab.server.locks import locked
from crashlab.server.privileges import ServerUser, cache_root, make_searchable, server_environment

INITDB_TIMEOUT_S = 120.0
BASE_OPTIONS = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
# A WAL folder elsewhere would be shared by all copies; the others are crashlab's to choose.
REFUSED_OPTIONS = (
    "-X",
    "--waldir",
    "-D",
    "--pgdata",
    "-U",
    "--username",
    "-A",
    "--auth",
    "--pwfile",
    "-W",
    "--pwprompt",
)


def copy_template(template: Path, target: Path) -> None:
    """Make `target`, which must not exist, a fresh data directory. Raises ServerError: the copying failed."""
    copied = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--", template, target], capture_output=True, text=True, timeout=INITDB_TIMEOUT_S
    )
    if copied.returncode != 0:
        raise ServerError(f'could not copy the template data directory to "{target}"', detail=last_lines(copied.stderr))


def last_lines(said: str) -> str:
    """Return the end of what a program said: of a full disk cp complains once a file."""
    return "\n".join(said.strip().splitlines()[-5:])


def refuse(options: tuple[str, ...]) -> None:
    """Raise UsageProblem for an initdb option that would escape the server's own folder or lock crashlab out."""
    for option in options:
        long = option.split("=")[0]
        if long in REFUSED_OPTIONS or (not option.startswith("--") and option[:2] in REFUSED_OPTIONS):
            raise UsageProblem(f'cannot use the initdb option "{option}"', detail="crashlab chooses it itself.")


def find_template(build: Build, options: tuple[str, ...], user: ServerUser, setup: str = "") -> Path:
    """Return the template for a build and initdb options, owned by `user`; made if there is none yet.

    Args:
        setup: SQL without blank lines that was run in it. Where it cannot be run, it is left out: whoever needs what
            it makes finds that it is not there, and says why that matters.

    Raises:
        ServerError: initdb failed; the detail holds what it said.
    """
    if build.version.major < 18:  # no checksums was the default, and had no option
        options = tuple(option for option in options if option != "--no-data-checksums")
    wanted = [build.identity(), BASE_OPTIONS, options, user.uid]
    plain = _cached(wanted, build, user, lambda data: _initdb(build, options, user, data))
    if not setup:
        return plain
    try:
        return _cached([*wanted, setup], build, user, lambda data: _set_up(build, user, plain, data, setup))
    except _SetUpError:
        return plain


def _cached(wanted: list[object], build: Build, user: ServerUser, make: Callable[[Path], None]) -> Path:
    key = f"{build.version.text}-{hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]}"
    templates = cache_root() / "templates"
    make_searchable(templates)
    template = templates / key
    owned.uses(template)
    if template.is_dir():
        return template
    with locked(templates / f"{key}.lock"):
        if not template.is_dir():
            # initdb needs a parent that its user can write, so it gets a folder of its own.
            with owned.temporary_folder(templates, "crashlab-initdb-") as scratch:
                user.own(scratch)
                make(scratch / "data")
                (scratch / "data").rename(template)
    return template


class _SetUpError(Exception):
    """The SQL could not be run."""


def _set_up(build: Build, user: ServerUser, plain: Path, target: Path, setup: str) -> None:
    copy_template(plain, target)
    # -j: a command ends with an empty line; -F: no flushes. It ends with a shutdown checkpoint, as any server does.
    command: list[str | Path] = [build.bindir / "postgres", "--single", "-j", "-F", "-D", target, DATABASE]
    try:
        done = subprocess.run(
            command,
            input=f"{setup.strip()}\n\n",
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            cwd=target,
            env=server_environment(),
            **user.credentials(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _SetUpError from error
    if done.returncode != 0 or "ERROR:" in done.stderr:  # an error alone changes no exit code there
        raise _SetUpError


def _initdb(build: Build, options: tuple[str, ...], user: ServerUser, target: Path) -> None:
    command: list[str | Path] = [build.bindir / "initdb", *BASE_OPTIONS, *options, "-D", target]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=INITDB_TIMEOUT_S,
            cwd=target.parent,
            env=server_environment(),
            **user.credentials(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f'could not run "{build.bindir / "initdb"}": {error}') from error
    if done.returncode != 0:
        raise ServerError(
            f'could not run initdb of PostgreSQL {build.version.text} with the options "{" ".join(options)}"',
            detail=last_lines(done.stderr or done.stdout),
        )
