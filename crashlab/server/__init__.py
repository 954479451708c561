"""Where does PostgreSQL run? On this machine or in a container, behind one interface."""

from crashlab.server.base import Process, Server, ServerSpec, StopMode, Version, last_words
from crashlab.server.choose import create_server
from crashlab.server.registry import dispose_all
from crashlab.server.spares import SpareDirectories

__all__ = [
    "Process",
    "Server",
    "ServerSpec",
    "SpareDirectories",
    "StopMode",
    "Version",
    "create_server",
    "dispose_all",
    "last_words",
]
