"""What does a kind of fault say about itself, and what does it tell when it has happened?

Nothing here or in `targets` needs a driver: profiles are checked against these declarations.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Protocol

from crashlab.server import Server


@dataclass(kw_only=True)
class Effect:
    """What a fault did, before its receipt is written."""

    pid: int | None
    pids: list[int]
    confirmed: bool
    proof: list[str] = field(default_factory=list)
    crashed: bool | None = None  # whether the server has to recover, where only the effect shows it
    nothing_due: bool = False  # the server had shut down before it could crash
    at_ns: int | None = None  # when it came, by the monotonic clock, where that was long after it began


class Asked(Protocol):
    """What a profile says about a fault."""

    @property
    def kind(self) -> str:
        """The name of a kind of fault."""

    @property
    def target(self) -> str | None:
        """One of that kind's targets."""

    @property
    def grace_ms(self) -> Sequence[int] | None:
        """Between a polite signal and SIGKILL: a time drawn from between these two."""

    @property
    def at(self) -> str | None:
        """SIGKILL comes in the checkpoint of the shutdown instead."""


class FaultKind(ABC):
    """One kind of fault. Stateless."""

    name: str  # in a profile
    summary: str  # one phrase, for profiles.md
    targets: tuple[str, ...] = ()  # what it can be aimed at, see `targets`; empty: it meets the whole server
    servers: tuple[str, ...] = ()  # the only kinds of server that it can meet; empty: all
    has_grace = False  # it ends the server politely first: `grace` or `at` says for how long
    settings: Mapping[str, str] = MappingProxyType({})  # added unless the profile sets them
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
    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        """Do it now, and wait until its consequences are complete.

        Raises:
            FaultError: there is nothing to do it to, such as a role that this version lacks.
            ServerError: the server could not be reached.
        """
