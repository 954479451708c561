"""Which processes can a fault be aimed at, what do they need to be there, and why is there none?"""

import time
from dataclasses import dataclass, field
from random import Random

from crashlab.errors import FaultError
from crashlab.server import Process, Server
from crashlab.server.roles import CLIENT_BACKEND, POSTMASTER, STARTING

TITLES_TIMEOUT_S = 2.0
POLL_S = 0.005
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Target:
    """One process of a server, by its role, or all of them."""

    name: str  # in a profile
    role: str = ""  # as the server gives it; empty: the same
    since_major: int = 0  # not in earlier versions
    needs: str = ""  # without it there is no such process
    settings: dict[str, str] = field(default_factory=dict)  # ... so these are added unless the profile sets them
    respawned_only: bool = False  # the postmaster starts it again, and nothing else


TARGETS = {
    target.name: target
    for target in (
        Target(name=POSTMASTER),
        Target(name="backend", role=CLIENT_BACKEND, needs="a session that is connected"),
        Target(name="checkpointer"),
        Target(name="walwriter"),
        Target(name="background writer"),
        Target(
            name="autovacuum launcher",
            needs="autovacuum=on",
            # a naptime so long that no worker ever starts: workers take xids and flush WAL (contract 7.5)
            settings={"autovacuum": "on", "autovacuum_naptime": "1d"},
        ),
        Target(
            name="archiver",
            needs="archive_mode=on",
            settings={"archive_mode": "on", "archive_command": "true"},
        ),
        Target(
            name="logger",
            needs="logging_collector=on",
            settings={"logging_collector": "on"},
            respawned_only=True,
        ),
        Target(name="io worker", since_major=18, needs="io_method=worker"),
        Target(name="logical replication launcher", needs="max_logical_replication_workers above 0"),
        Target(name=ALL),
    )
}
"""All of them, by name."""


def titled_processes(server: Server) -> list[Process]:
    """List the processes once each has its title: a server may take connections before its last child has one."""
    deadline = time.monotonic() + TITLES_TIMEOUT_S
    while True:
        processes = server.processes()
        if time.monotonic() > deadline or all(process.role != STARTING for process in processes):
            return processes
        time.sleep(POLL_S)


def find_target(server: Server, target: Target, processes: list[Process], rng: Random) -> Process:
    """Return the process to signal; one of several is drawn from `rng`.

    Raises:
        FaultError: this version has no such role, or the server runs none.
    """
    role = target.role or target.name
    found = sorted((process for process in processes if process.role == role), key=lambda process: process.pid)
    if found:
        return rng.choice(found)
    if server.version.major < target.since_major:
        raise FaultError(
            f"cannot signal the {target.name}: not available in PostgreSQL {server.version.major}",
            hint=f"Use a build of PostgreSQL {target.since_major}, or another target.",
        )
    raise FaultError(
        f"cannot signal the {target.name}: the server runs none",
        detail=f"It runs {', '.join(sorted({process.role for process in processes})) or 'nothing'}.",
        hint=f"It takes {target.needs}." if target.needs else None,
    )
