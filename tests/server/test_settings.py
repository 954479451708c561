"""Are settings compared as PostgreSQL compares them?"""

import pytest

from crashlab.errors import ServerError
from crashlab.server.settings import Setting, require_in_force, same_value


@pytest.mark.parametrize(
    ("wanted", "value", "unit", "vartype"),
    [
        ("10s", "10000", "ms", "integer"),
        ("0.5min", "30000", "ms", "integer"),
        ("200", "200", "ms", "integer"),
        ("4MB", "512", "8kB", "integer"),
        ("1GB", "1024", "MB", "integer"),
        ("1MB", "1048576", "B", "integer"),
        ("0x10", "16", None, "integer"),
        ("-1", "-1", "kB", "integer"),
        ("0.5", "0.5", None, "real"),
        ("1", "on", None, "bool"),
        ("OFF", "off", None, "enum"),
        ("Remote_Write", "remote_write", None, "enum"),
        ("cp %p /x/%f", "cp %p /x/%f", None, "string"),
    ],
)
def test_equal_values_in_other_spellings(wanted: str, value: str, unit: str | None, vartype: str) -> None:
    """Units, cases and words of truth do not matter."""
    assert same_value(wanted, Setting(value, value, unit, vartype, "command line"))


@pytest.mark.parametrize(
    ("wanted", "value", "unit", "vartype"),
    [
        ("10s", "10", "ms", "integer"),
        ("4MB", "4", "8kB", "integer"),
        ("4s", "4", "kB", "integer"),
        ("ten", "10", None, "integer"),
        ("on", "off", None, "bool"),
        ("local", "on", None, "enum"),
        ("A", "a", None, "string"),
    ],
)
def test_other_values_are_told_apart(wanted: str, value: str, unit: str | None, vartype: str) -> None:
    """A value of another size, unit or case (of a string) is another value."""
    assert not same_value(wanted, Setting(value, value, unit, vartype, "command line"))


def test_every_difference_is_named() -> None:
    """The error names each setting with wanted and found, and those that do not exist."""
    found = {
        "fsync": Setting("on", "on", None, "bool", "default"),
        "wal_buffers": Setting("4MB", "512", "8kB", "integer", "override"),
    }
    require_in_force({"wal_buffers": "-1", "fsync": "yes"}, found)
    with pytest.raises(ServerError) as caught:
        require_in_force({"wal_buffers": "-1", "fsync": "off", "fsink": "on"}, found)
    assert caught.value.detail == (
        '"fsync": wanted "off", found "on" (source: default)\n"fsink": wanted "on", found no such setting'
    )
