"""What can this machine run, and how is what it lacks to be had?

No image is pulled and no server started. What each kind of server needs is looked at where the kind is declared.
"""

import os
import platform

from crashlab.errors import CrashlabError
from crashlab.recording.build import library
from crashlab.server.kinds import SERVER_KINDS, Check
from crashlab.server.leftovers import folder_bytes
from crashlab.server.privileges import cache_root, server_user


def examine() -> list[Check]:
    """Look at everything that a run may need."""
    servers = [check for kind in SERVER_KINDS.values() for check in kind.examine()]
    return [_platform(), *servers, _recorder(), _user(), _cache()]


def _platform() -> Check:
    ok = platform.system() == "Linux"
    says = f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    return Check("platform", ok, says, None if ok else "Local servers need Linux; containers may work elsewhere.")


def _recorder() -> Check:
    try:
        return Check("recorder", True, str(library()))
    except CrashlabError as error:
        return Check("recorder", False, f"{error.primary}; only recorded runs need it", error.hint)


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
    return Check("cache folder", True, f"{root}, {folder_bytes(root) / 1_000_000:.0f} MB")
