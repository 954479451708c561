"""How far has the first start of a container come, which initialises the data directory?

The official image's entry point runs initdb in an empty data directory, then each file of a folder on a server that
listens to nobody, then the server that counts. A data directory with a PG_VERSION is initialised, to it.

Source: docker-library/postgres, docker-entrypoint.sh: docker_process_init_files, _main.
"""

import re

from crashlab.errors import ServerError
from crashlab.server import owned
from crashlab.server.container import ContainerServer

SCRIPTS = "/docker-entrypoint-initdb.d"
SKIPS = "Skipping initialization"
COMPLETE = "PostgreSQL init process complete"
_INITDB = re.compile(r"(\S*/)?initdb")  # a command line that was read inside has lost what separates its words
_RUNNING = re.compile(rf"running {SCRIPTS}/(\S+)")


def begun_in(log: str) -> list[str]:
    """Return the init scripts that a start began, in their order."""
    return _RUNNING.findall(log)


def finished_in(log: str) -> list[str]:
    """Return those that it ran to the end, if it was killed in the last that it began."""
    return begun_in(log) if COMPLETE in log else begun_in(log)[:-1]


def scripts_of(server: ContainerServer) -> list[str]:
    """Return all init scripts of a container that was made, running or not, in their order."""
    with owned.temporary_folder(prefix="crashlab-files-") as folder:
        server.container.copy_out(f"{SCRIPTS}/.", folder, content=True)
        names = [path.name for path in folder.iterdir() if path.name != owned.MARKER]
    return sorted(names)


def in_initdb(server: ContainerServer) -> bool:
    """Say whether initdb is at work; not in a container that does not run, or not yet."""
    try:
        return any(_INITDB.match(title) for title in server.titles())
    except ServerError:
        return False


def has_version_file(server: ContainerServer) -> bool:
    """Say whether the data directory has the file by which the entry point knows an initialised one."""
    return bool(server.container.read_file(f"{server.pgdata}/PG_VERSION"))
