"""What does a kind of fault say about itself, and what does it tell when it has happened?

Nothing here or in `targets` needs a driver: profiles are checked against these declarations.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from random import Random

from crashlab.server import Server


@dataclass(kw_only=True)
class Effect:
    """What a fault did, before its receipt is written."""

    pid: int | None
    pids: list[int]
    confirmed: bool
    proof: list[str] = field(default_factory=list)


class FaultKind(ABC):
    """One kind of fault. Stateless."""

    name: str  # in a profile
    summary: str  # one phrase, for profiles.md
    targets: tuple[str, ...] = ()  # what it can be aimed at, see `targets`; empty: it meets the whole server
    servers: tuple[str, ...] = ()  # the only kinds of server that it can meet; empty: all
    ends_sessions = True  # a client that loses its connection from now on has met no error

    def crashes_server(self, target: str | None) -> bool:
        """Say whether the server has to recover; a logger, for one, is only started again."""
        return True

    def bounds_window(self, target: str | None, server_kind: str) -> bool:
        """Say whether walwriter could do its work until the crash, so that 3 x wal_writer_delay holds.

        The one place that decides: the contract shown before a run and that of the judge both ask here.
        """
        return True

    def let_go(self, server: Server, target: str | None, pid: int | None) -> bool:
        """Take it back where that is possible, and say whether it was: a process that was stopped goes on.

        Raises:
            ServerError: the process is gone.
        """
        return False

    @abstractmethod
    def inject(self, server: Server, target: str | None, rng: Random) -> Effect:
        """Do it now, and wait until its consequences are complete.

        Raises:
            FaultError: there is nothing to do it to, such as a role that this version lacks.
            ServerError: the server could not be reached.
        """
