"""Where in a TOML text does a key stand, and how is a table written as TOML?

`tomllib` reads values without positions and does not write; both are needed for errors that name a line and for
profiles that survive being written and read again.

Choices:
    Positions are found line by line: a key inside an inline table or array is found at the line of the outer key.
"""

import re
from typing import Any

KeyPath = tuple[str | int, ...]
"""A key's place: ("faults", 0, "when")."""

_PART = r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'"""
_DOTTED = rf"(?:{_PART})(?:\s*\.\s*(?:{_PART}))*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the 1-based line of each key and table header in a TOML document."""
    lines: dict[KeyPath, int] = {}
    array_sizes: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _inside_arrays(_parts(header[2]), array_sizes)
            if header[1] == "[[":
                index = array_sizes.get(table, 0)
                array_sizes[table] = index + 1
                lines.setdefault(table, number)
                table = (*table, index)
            lines[table] = number
        elif key := _KEY.match(line):
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(dotted: str) -> KeyPath:
    return tuple(part.strip("\"'") for part in re.findall(_PART, dotted))


def _inside_arrays(parts: KeyPath, array_sizes: dict[KeyPath, int]) -> KeyPath:
    """Insert the current index after each array of tables but the last part: [faults.when] is ("faults", 0, "when")."""
    path: KeyPath = ()
    for part in parts[:-1]:
        path = (*path, part)
        if path in array_sizes:
            path = (*path, array_sizes[path] - 1)
    return (*path, parts[-1])


def write_toml(table: dict[str, Any]) -> str:
    """Write a table of strings, booleans, finite numbers, lists and tables as a TOML document."""
    return "\n".join(_document(table, ())).lstrip("\n") + "\n"


def _document(table: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _own_section(value)]
    for key, value in table.items():
        if not _own_section(value):
            continue
        name = ".".join(_key(part) for part in (*path, key))
        if isinstance(value, dict):
            lines += ["", f"[{name}]", *_document(value, (*path, key))]
        else:
            for item in value:
                lines += ["", f"[[{name}]]", *(f"{_key(inner)} = {_value(item[inner])}" for inner in item)]
    return lines


def _own_section(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + " }"
    assert isinstance(value, int | float), f"no TOML for {type(value).__name__}"
    return repr(value)


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'
