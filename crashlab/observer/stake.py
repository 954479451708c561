"""Has a commit of a change been answered yet, so that a crash could lose something?

Read from the end of a conversation that is still being written.
"""

from pathlib import Path
from typing import Any

import msgspec


class Stake:
    """One look after the other, from now on."""

    def __init__(self, conversation: Path) -> None:
        """Begin behind what is there."""
        self.there = False
        self._path = conversation
        self._at = conversation.stat().st_size if conversation.exists() else 0
        self._wrote: set[tuple[int, int]] = set()  # connection and step whose commit is one of a change

    def look(self) -> bool:
        """Read on; return whether one has been answered."""
        if not self.there and self._path.exists() and self._path.stat().st_size > self._at:
            with self._path.open("rb") as file:
                file.seek(self._at)
                *lines, _ = file.read().split(b"\n")
            self._at += sum(len(line) + 1 for line in lines)
            for line in lines:
                self._take(msgspec.json.decode(line, type=dict[str, Any]))
        return self.there

    def _take(self, record: dict[str, Any]) -> None:
        kind, step = record["kind"], (record.get("connection", 0), record.get("step", 0))
        # Where nobody knows whether a change was committed it may have been
        unknown = kind == "asked" and record["may_commit"] and record["unknown"]
        if unknown or (kind == "probed" and record["xid"] is not None):
            self._wrote.add(step)
        elif kind == "answered" and step in self._wrote:
            self._wrote.discard(step)
            committed = record["failure"] is None and "ROLLBACK" not in record["tags"]
            self.there = self.there or (committed and record["heard"])
