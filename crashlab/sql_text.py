"""Where in a piece of SQL do variables stand, and what does it read like with their values in place?

A variable is written :name, as in psql. In quotes, dollar quotes and comments a colon means nothing, and :: is a cast.
A slice of an array by a variable-like name needs a blank: [1: n].
"""

import re
from collections.abc import Mapping

_TOKEN = re.compile(
    r"""
      [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
    | (?P<dollars>\$(?:[A-Za-z_]\w*)?\$).*?(?P=dollars)
    | --[^\n]* | /\*.*?\*/ | ::
    | :(?P<name>[A-Za-z_]\w*)
    """,
    re.VERBOSE | re.DOTALL,
)


def variables_in(text: str) -> set[str]:
    """Return the names of all variables in a piece of SQL."""
    return {token["name"] for token in _TOKEN.finditer(text) if token["name"]}


def fill_in(text: str, values: Mapping[str, int | float | str]) -> str:
    """Put literals in the places of all variables. Raises KeyError: a variable has no value."""
    return _TOKEN.sub(lambda token: _literal(values[token["name"]]) if token["name"] else token[0], text)


def _literal(value: int | float | str) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"({value})" if value < 0 else str(value)
