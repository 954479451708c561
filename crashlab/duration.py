"""How is a time span written by people, and how is it held?

Written with a unit ("500ms", "2s", "10m", "1h"), held as whole milliseconds.
"""

import re
from fractions import Fraction

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")


def parse_ms(text: str) -> int:
    """Return the milliseconds of "500ms", "1.5s", "10m" or "1h".

    Raises:
        ValueError: no number with a known unit, or finer than a millisecond; the message completes "must ...".
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS_MS:
        raise ValueError(f'must be a number with one of the units ms, s, m, h, such as "500ms", not "{text}"')
    exact_ms = Fraction(match[1]) * _UNITS_MS[match[2]]
    if exact_ms.denominator != 1:
        raise ValueError(f'must be whole milliseconds, not "{text}"')
    return int(exact_ms)


def format_ms(value_ms: int) -> str:
    """Write milliseconds in the largest unit that needs no fraction."""
    for unit in ("h", "m", "s"):
        if value_ms and value_ms % _UNITS_MS[unit] == 0:
            return f"{value_ms // _UNITS_MS[unit]}{unit}"
    return f"{value_ms}ms"
