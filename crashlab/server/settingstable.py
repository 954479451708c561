"""Is a setting's value one that PostgreSQL takes? Without a server, by a table of what servers say themselves.

The table beside this module is pg_settings of 14 to 18: type, unit, range and words of each setting, and in which of
these versions it is so. `tests/server/settings_table.py` writes it from real servers, and a test holds the server that
is here against it.

Checks: that it is a boolean, a number with a unit that fits and within the range, or one of the words.
Does not check: text; names that no version has, for an extension or a newer version may have them; what a server looks
    at beyond that, such as two settings that exclude each other.
Choices: without a version, what one version takes is good.
Source: PostgreSQL manual, "Setting Parameters"; guc_tables.c for words that are taken and not shown.
"""

import functools
from pathlib import Path

import msgspec

from crashlab.errors import did_you_mean
from crashlab.server.settings import FALSE_WORDS, TRUE_WORDS, in_unit

NEARLY = 0.85
"""How alike a misspelt name is to the right one; those of two settings are hardly ever so."""
HARDLY = 0.6
"""... where it is certain that the name is wrong: five letters, of which two are."""
TABLE = Path(__file__).with_suffix(".json")
_BOOLEAN = [*TRUE_WORDS, *FALSE_WORDS]
_HIDDEN = {"debug1": ["debug"], "on": _BOOLEAN, "pglz": _BOOLEAN}
"""Words of an enumeration that are taken, too, if it has the first one."""
_OLD_WAL_LEVELS = ["archive", "hot_standby"]


class Row(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What some versions say about one setting."""

    majors: list[int]
    vartype: str  # bool, integer, real, enum, string
    unit: str | None = None
    low: int | float | None = None
    high: int | float | None = None
    words: list[str] = []  # of an enumeration
    internal: bool = False  # nobody can set it


@functools.cache
def table() -> dict[str, list[Row]]:
    """Return the table: a setting's name, in lower case -> its rows, newest versions last."""
    return msgspec.json.decode(TABLE.read_bytes(), type=dict[str, list[Row]])


def wrong_with(name: str, value: str, major: int | None = None) -> str | None:
    """Say why a value cannot be that of a setting, or None: it can, or nothing is known.

    Args:
        major: of the server; None, or one that is not in the table: any.
    """
    rows = table().get(name.lower(), [])
    rows = [row for row in rows if major in row.majors] or rows
    wrong = [_wrong(row, name, value) for row in rows]
    return None if None in wrong or not wrong else wrong[-1]


def has(name: str, major: int) -> bool | None:
    """Say whether a version has a setting; None: it is an extension's, or the version is not in the table."""
    if "." in name or not any(major in row.majors for rows in table().values() for row in rows):
        return None
    return any(major in row.majors for row in table().get(name.lower(), []))


def nearest(name: str, major: int) -> str:
    """Return 'Did you mean "fsync"?' for a name that a version is known not to have, or ""."""
    known = [one for one, rows in table().items() if any(major in row.majors for row in rows)]
    return did_you_mean(name.lower(), known, HARDLY)


def meant(name: str, alike: float = NEARLY) -> str:
    """Return 'Did you mean "fsync"?' for a name that no version has and that is nearly one that some have, or ""."""
    return "" if name.lower() in table() or "." in name else did_you_mean(name.lower(), table(), alike)


def _wrong(row: Row, name: str, value: str) -> str | None:
    value = value.strip()
    if row.internal:
        return "nobody can set it: it is a fact about the server"
    if row.vartype == "bool":
        return None if _is_bool(value) else f'must be on or off, not "{value}"'
    if row.vartype == "enum":
        more = _OLD_WAL_LEVELS if name == "wal_level" else []
        more = [*more, *(word for shown, hidden in _HIDDEN.items() if shown in row.words for word in hidden)]
        return None if value.lower() in (*row.words, *more) else f'must be one of {", ".join(row.words)}, not "{value}"'
    if row.vartype in ("integer", "real"):
        return _wrong_number(row, value)
    return None


def _is_bool(value: str) -> bool:
    """Say whether it is one: any beginning of a word that is no beginning of another one (bool.c, parse_bool)."""
    value = value.lower()
    whole = value in ("1", "0") or (len(value) > 1 and any(word.startswith(value) for word in ("on", "off")))
    return whole or (value != "" and any(word.startswith(value) for word in ("true", "false", "yes", "no")))


def _wrong_number(row: Row, value: str) -> str | None:
    number = in_unit(value, row.unit)
    factor, unit = _unit(row)
    if number is None:
        return f'must be a number{f", with a unit such as {unit}" if unit else " without a unit"}, not "{value}"'
    if row.vartype == "integer":
        number = round(number)
    if row.low is not None and row.high is not None and not row.low <= number <= row.high:
        return f'must be within {row.low * factor}{unit} and {row.high * factor}{unit}, not "{value}"'
    return None


def _unit(row: Row) -> tuple[int, str]:
    """Return a unit as factor and name: "8kB" is (8, "kB")."""
    name = (row.unit or "").lstrip("0123456789")
    return int((row.unit or "").removesuffix(name) or 1), name
