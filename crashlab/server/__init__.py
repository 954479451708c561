"""Where does PostgreSQL run? On this machine or in a container, behind one interface."""

from crashlab.server.base import Process, Restartable, Server, ServerChoice, ServerSpec, StopMode, Version, last_words
from crashlab.server.choose import create_server
from crashlab.server.kinds import SERVER_KINDS, ServerKind
from crashlab.server.registry import dispose_all
from crashlab.server.spares import SpareDirectories

__all__ = [
    "SERVER_KINDS",
    "Process",
    "Restartable",
    "Server",
    "ServerChoice",
    "ServerKind",
    "ServerSpec",
    "SpareDirectories",
    "StopMode",
    "Version",
    "create_server",
    "dispose_all",
    "last_words",
]
