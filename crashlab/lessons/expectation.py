"""Did what was read come as expected?

An expectation is an operator and a value: "> 0", "= kept", ">= acks", where a word may be the name of something read
before in the same lesson. "any" is a figure to look at, of which nothing is expected.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

Value = int | float | str
"""What a reading gives."""
ANY = "any"
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse(expected: str, known: Mapping[str, Value]) -> tuple[str, Value]:
    """Return operator and value. Raises ValueError: it is no expectation."""
    sign, _, word = expected.partition(" ")
    if sign not in OPERATORS or not word:
        raise ValueError(f'"{expected}" is no expectation')
    if word in known:
        return sign, known[word]
    try:
        return sign, float(word) if "." in word else int(word)
    except ValueError:
        return sign, word


def came(value: Value, expected: str, known: Mapping[str, Value]) -> bool | None:
    """Say whether a value is as expected; None: nothing was expected of it, or nothing could be read."""
    if expected == ANY:
        return None
    sign, other = parse(expected, known)
    if isinstance(value, str) != isinstance(other, str):
        return False
    return OPERATORS[sign](value, other)


def shown(value: Value) -> str:
    """Return a value as a reader sees it."""
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value
