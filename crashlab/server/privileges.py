"""As whom does a local server run?

PostgreSQL refuses uid 0. As root it runs as uid and gid 65534 ("nobody", in every passwd file: initdb looks its uid
up there), else as the caller. That uid has to be able to reach the build, the cache and the data.
"""

import functools
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from crashlab.errors import ServerError

NOBODY = 65534
KEPT_VARIABLES = ("PATH", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
"""What a build's programs get of this process's environment: where programs and libraries are. What else is in there,
such as a token, is no business of a server that runs the SQL and the commands of a profile."""


class Credentials(TypedDict, total=False):
    """Keyword arguments of subprocess.Popen."""

    user: int
    group: int
    extra_groups: Iterable[int]


@dataclass(frozen=True)
class ServerUser:
    """The user that owns the data directory and the processes."""

    uid: int
    gid: int
    switched: bool  # not the caller's own

    def credentials(self) -> Credentials:
        """Return what makes Popen start a process as this user."""
        return Credentials(user=self.uid, group=self.gid, extra_groups=[]) if self.switched else Credentials()

    def prefix(self) -> list[str] | None:
        """Return the words that, put before a command, run it as this user in the same process; None: nothing does.

        Popen copies this process to change the user itself, memory map and all, and starts others without a copy.
        """
        if not self.switched:
            return []
        program = setpriv()
        if program is None:
            return None
        return [program, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--"]

    def own(self, path: Path | str) -> None:
        """Give a file or folder to this user."""
        if self.switched:
            os.chown(path, self.uid, self.gid)

    def can_reach(self, path: Path) -> bool:
        """Say whether the user may search every folder on the way to a path and read its end."""
        if not self.switched:
            return os.access(path, os.R_OK)
        real = path.resolve()
        try:
            return all(self._may(folder, search=True) for folder in real.parents) and self._may(real)
        except FileNotFoundError:
            return False

    def _may(self, path: Path, *, search: bool = False) -> bool:
        status = path.stat()
        needed = stat.S_IXOTH if search else stat.S_IROTH
        if status.st_uid == self.uid:
            needed <<= 6
        elif status.st_gid == self.gid:
            needed <<= 3
        return bool(status.st_mode & needed)


@functools.cache
def setpriv() -> str | None:
    """Return the path of util-linux's setpriv; busybox has one that cannot change the user, which is None."""
    program = shutil.which("setpriv")
    if program is None:
        return None
    tried = subprocess.run([program, "--reuid=0", "--regid=0", "--clear-groups", "--", "true"], capture_output=True)
    return program if tried.returncode == 0 else None


def server_user() -> ServerUser:
    """Return the user that a local server runs as."""
    if os.geteuid() == 0:
        return ServerUser(NOBODY, NOBODY, switched=True)
    return ServerUser(os.geteuid(), os.getegid(), switched=False)


def server_environment() -> dict[str, str]:
    """Return the environment of a build's programs: nearly empty, in the C locale."""
    return {**{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}, "LC_ALL": "C"}


def cache_root() -> Path:
    """Return the folder for templates and copied builds, made if need be.

    CRASHLAB_CACHE_DIR, else /var/cache/crashlab as root, else $XDG_CACHE_HOME/crashlab or ~/.cache/crashlab.

    Raises:
        ServerError: it cannot be made, or the server's user cannot reach it.
    """
    user = server_user()
    if given := os.environ.get("CRASHLAB_CACHE_DIR"):
        root = Path(given)
    elif user.switched:
        root = Path("/var/cache/crashlab")
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crashlab"
    hint = "Set CRASHLAB_CACHE_DIR to a folder that can be written, and reached by the server's user."
    try:
        make_searchable(root)
    except OSError as error:
        raise ServerError(f'could not make the cache folder "{root}": {error.strerror}', hint=hint) from error
    if not user.can_reach(root):
        raise ServerError(f'cannot use the cache folder "{root}": uid {user.uid} cannot reach it', hint=hint)
    return root.resolve()


def make_searchable(folder: Path) -> None:
    """Make a folder and its missing parents with mode 0755, whatever the umask is."""
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
