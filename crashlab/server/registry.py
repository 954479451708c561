"""Which servers must not outlive this process?

Every server is here from before it makes anything until it has removed everything. `dispose_all` may be called from
anywhere and any number of times; a second Ctrl-C inside it leaves the rest for the call at exit.
"""

import atexit
import contextlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self


class Disposable(ABC):
    """Something that can remove all that it made, and does so where a `with` block on it ends."""

    @abstractmethod
    def dispose(self, keep_data_to: Path | None = None) -> None:
        """Remove everything; idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dispose()


_alive: dict[int, tuple[int, Disposable]] = {}  # id -> owner's process id, thing


def add(thing: Disposable) -> None:
    """Remember a thing that is about to make processes, containers or files."""
    _alive[id(thing)] = (os.getpid(), thing)


def remove(thing: Disposable) -> None:
    """Forget a thing that has removed everything."""
    _alive.pop(id(thing), None)


def dispose_all() -> None:
    """Dispose of every server that this process made. A forked child leaves its parent's servers alone."""
    # Twice: a server hands its folder to spares that may have been disposed of already.
    for _ in range(2):
        for owner, thing in list(_alive.values()):
            if owner == os.getpid():
                # One that fails must not keep the others from being disposed of.
                with contextlib.suppress(Exception):
                    thing.dispose()


atexit.register(dispose_all)
