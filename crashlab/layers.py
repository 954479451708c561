"""When tables are laid over one another, which value wins, and where was it written?

Later layers win. Tables are merged key by key, everything else is replaced; each key remembers the file and line, or
the option, that it came from.
"""

import copy
from typing import Any

from crashlab.toml_text import KeyPath, key_lines

REPLACED_TABLES: set[KeyPath] = {("workload", "synchronous_commit")}
"""Tables that make sense only as a whole: shares that add up to 1."""


class Layers:
    """A table made of several, with the origin of each key."""

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.values: dict[str, Any] = copy.deepcopy(values) if values else {}
        self._origins: dict[KeyPath, str] = {}
        self._put: set[KeyPath] = set()  # those that an option put there
        self._last_file = ""

    def merge(self, table: dict[str, Any], text: str, file: str) -> None:
        """Lay a parsed TOML document over what is there; `text` is its source, for the line numbers."""
        self._last_file = file
        self._merge(self.values, table, ())
        self._origins |= {path: f"{file}:{line}" for path, line in key_lines(text).items()}

    def put(self, path: KeyPath, value: Any, origin: str) -> None:
        """Set one value, making tables on the way; what names no place becomes an unknown key, an error later."""
        holder: Any = self.values
        for part in path[:-1]:
            if isinstance(holder, dict) and not isinstance(holder.get(part), dict | list):
                holder[part] = {}
            holder = holder[part] if _has(holder, part) else None
        if not isinstance(holder, dict) and not _has(holder, path[-1]):
            holder, path = self.values, (".".join(str(part) for part in path),)
        holder[path[-1]] = value
        self._forget(path)
        self._origins[path] = origin
        self._put.add(path)

    def where(self, path: KeyPath) -> str:
        """Return "file:line" of a key, of the nearest table around it, or the last file.

        What is wrong with a table as a whole may be so by an option: each that put something into it is named beside
        the file, and alone where no file has that table.
        """
        for length in range(len(path), 0, -1):
            origin, options = self._origins.get(path[:length]), self._options_below(path[:length])
            if origin and length < len(path):
                return origin
            if origin or options:
                return " with ".join(part for part in (origin, options) if part)
        return " with ".join(part for part in (self._last_file, self._options_below(())) if part)

    def _options_below(self, path: KeyPath) -> str:
        found = [self._origins[one] for one in self._origins if one in self._put and one[: len(path)] == path != one]
        return ", ".join(dict.fromkeys(found))

    def _merge(self, under: dict[str, Any], over: dict[str, Any], path: KeyPath) -> None:
        for key, value in over.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(under.get(key), dict) and here not in REPLACED_TABLES:
                self._merge(under[key], value, here)
            else:
                self._forget(here)
                under[key] = copy.deepcopy(value)

    def _forget(self, path: KeyPath) -> None:
        for known in [known for known in self._origins if known[: len(path)] == path]:
            del self._origins[known]
            self._put.discard(known)


def _has(holder: Any, part: str | int) -> bool:
    if isinstance(holder, list):
        return isinstance(part, int) and part < len(holder)
    return isinstance(holder, dict) and part in holder
