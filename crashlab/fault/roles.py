"""Which process does a target name, and why is there none?"""

import time
from random import Random

from crashlab.errors import FaultError
from crashlab.server import Process, Server
from crashlab.server.roles import STARTING

ROLE_OF_TARGET = {"backend": "client backend"}
SINCE_MAJOR = {"io worker": 18, "walsummarizer": 17}
UNTIL_MAJOR = {"stats collector": 14}
NEEDS = {
    "io worker": "io_method=worker",
    "autovacuum launcher": "autovacuum=on",
    "archiver": "archive_mode=on",
    "logger": "logging_collector=on",
    "logical replication launcher": "max_logical_replication_workers above 0",
    "walsummarizer": "summarize_wal=on",
    "backend": "a session that is connected",
}


TITLES_TIMEOUT_S = 2.0
POLL_S = 0.005


def titled_processes(server: Server) -> list[Process]:
    """List the processes once each has its title: a server may take connections before its last child has one."""
    deadline = time.monotonic() + TITLES_TIMEOUT_S
    while True:
        processes = server.processes()
        if time.monotonic() > deadline or all(process.role != STARTING for process in processes):
            return processes
        time.sleep(POLL_S)


def find_target(server: Server, target: str, processes: list[Process], rng: Random) -> Process:
    """Return the process to signal; one of several is drawn from `rng`.

    Raises:
        FaultError: this version has no such role, or the server runs none.
    """
    role = ROLE_OF_TARGET.get(target, target)
    found = sorted((process for process in processes if process.role == role), key=lambda process: process.pid)
    if found:
        return rng.choice(found)
    major = server.version.major
    if major < SINCE_MAJOR.get(role, 0) or major > UNTIL_MAJOR.get(role, major):
        raise FaultError(
            f"cannot signal the {target}: not available in PostgreSQL {major}",
            hint=f"Use a build of PostgreSQL {SINCE_MAJOR.get(role, UNTIL_MAJOR.get(role))}, or another target.",
        )
    raise FaultError(
        f"cannot signal the {target}: the server runs none",
        detail=f"It runs {', '.join(sorted({process.role for process in processes})) or 'nothing'}.",
        hint=f"It takes {NEEDS[target]}." if target in NEEDS else None,
    )
