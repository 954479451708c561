"""Which settings are really in force?

Asked of the server itself: a command line or a file only says what was wanted. Values are compared as the server
compares them, in the setting's own unit.

Source: PostgreSQL manual, "Setting Parameters" (units, case, boolean words) and "pg_settings".
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from crashlab.errors import ServerError

if TYPE_CHECKING:
    import psycopg

MANAGED_SETTINGS = frozenset(
    {
        "config_file",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "port",
        "unix_socket_directories",
    }
)
"""crashlab decides these, no profile can: a server must be reachable, alone, and its own."""

PROGRAM_SETTINGS = frozenset(
    {
        *("archive_command", "archive_library", "archive_cleanup_command", "recovery_end_command", "restore_command"),
        *("shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"),
        *("dynamic_library_path", "extension_control_path", "jit_provider", "oauth_validator_libraries"),
        "ssl_passphrase_command",
    }
)
"""The server runs a command, or loads a library, because one of these names it."""

ALWAYS = (
    "archive_mode",
    "autovacuum",
    "block_size",
    "checkpoint_timeout",
    "commit_delay",
    "commit_siblings",
    "data_checksums",
    "data_sync_retry",
    "fsync",
    "full_page_writes",
    "io_method",
    "max_prepared_transactions",
    "max_wal_size",
    "recovery_init_sync_method",
    "restart_after_crash",
    "server_version_num",
    "shared_buffers",
    "synchronous_commit",
    "synchronous_standby_names",
    "track_commit_timestamp",
    "wal_block_size",
    "wal_buffers",
    "wal_compression",
    "wal_init_zero",
    "wal_level",
    "wal_log_hints",
    "wal_recycle",
    "wal_segment_size",
    "wal_skip_threshold",
    "wal_sync_method",
    "wal_writer_delay",
    "wal_writer_flush_after",
)
"""Read whatever their source: what a durability promise depends on (postgres-contract.md section 1.3)."""

TRUE_WORDS = {"on", "true", "yes", "1"}
FALSE_WORDS = {"off", "false", "no", "0"}
ALIASES = {("wal_compression", "on"): "pglz"}
"""A setting and a value that it takes -> how it shows that value, where that is neither a number nor a yes or no."""
UNIT_BYTES = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
UNIT_MICROSECONDS = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}


class Setting(NamedTuple):
    """One row of pg_settings."""

    shown: str  # as SHOW prints it
    value: str  # in `unit`
    unit: str | None  # "8kB", "ms", ...
    vartype: str  # bool, integer, real, enum, string
    source: str


QUERY = """
SELECT name, current_setting(name), setting, unit, vartype, source
FROM pg_settings
WHERE source NOT IN ('default', 'client', 'session') OR name = ANY(%s)
ORDER BY name
"""


def read_settings(connection: "psycopg.Connection", wanted: Mapping[str, str]) -> dict[str, Setting]:
    """Read all settings that are not default, those of ALWAYS and the wanted ones, by name."""
    rows = connection.execute(QUERY, [[*ALWAYS, *wanted]]).fetchall()
    found = {row[0].lower(): Setting(*row[1:]) for row in rows}
    # The unloaded extensions' settings are not in pg_settings, yet they are set.
    for name in wanted.keys() - found.keys():
        row = connection.execute("SELECT current_setting(%s, true)", [name]).fetchone()
        if row is not None and row[0] is not None:
            found[name] = Setting(row[0], row[0], None, "string", "placeholder")
    return found


def require_in_force(wanted: Mapping[str, str], found: Mapping[str, Setting]) -> None:
    """Compare what was asked for with what the server says.

    Raises:
        ServerError: a setting differs; the detail names each with wanted and found.
    """
    wrong = []
    for name, value in wanted.items():
        setting = found.get(name)
        if setting is None:
            wrong.append(f'"{name}": wanted "{value}", found no such setting')
        elif not (
            _is_ours(setting) or same_value(value, setting) or setting.value == ALIASES.get((name, _word(value)))
        ):
            wrong.append(f'"{name}": wanted "{value}", found "{setting.shown}" (source: {setting.source})')
    if wrong:
        raise ServerError(
            "could not put the requested settings in force",
            detail="\n".join(wrong),
            hint="Write a value as SHOW prints it, and leave out what a session sets for itself.",
        )


def _is_ours(setting: Setting) -> bool:
    """Say whether a value is the requested one in the server's own words: -1 computed, "German" as "German, DMY"."""
    return setting.source == "override" or (setting.vartype == "string" and setting.source == "command line")


def same_value(wanted: str, setting: Setting) -> bool:
    """Say whether a value as written in postgresql.conf means the value that pg_settings holds."""
    wanted = wanted.strip()
    if setting.vartype in ("integer", "real"):
        number = in_unit(wanted, setting.unit)
        return number is not None and abs(number - float(setting.value)) <= (0.5 if setting.vartype == "integer" else 0)
    if setting.vartype in ("bool", "enum"):
        return _word(wanted) == _word(setting.value)
    return wanted == setting.value


def is_on(text: str) -> bool:
    """Say whether a boolean setting's value means on."""
    return _word(text) == "on"


def collects_log(settings: Mapping[str, str]) -> bool:
    """Say whether a logging collector runs and where its file goes was left to crashlab."""
    elsewhere = {"log_directory", "log_filename"} & settings.keys()
    return is_on(settings.get("logging_collector", "off")) and not elsewhere


def _word(text: str) -> str:
    lowered = text.lower()
    if lowered in TRUE_WORDS:
        return "on"
    return "off" if lowered in FALSE_WORDS else lowered


def in_unit(text: str, unit: str | None) -> float | None:
    """Return a number as written in postgresql.conf in a setting's own unit; None: it is none, or in no such unit."""
    match = re.fullmatch(r"([+-]?(?:0[xX][0-9a-fA-F]+|[0-9.]+(?:[eE][+-]?\d+)?))\s*([a-zA-Z]*)", text)
    if match is None:
        return None
    try:
        number = float(int(match[1], 16)) if "x" in match[1].lower() else float(match[1])
    except ValueError:
        return None
    if not match[2]:
        return number
    # The unit of pg_settings may carry a factor: "8kB", "16MB".
    base = re.fullmatch(r"(\d*)([a-zA-Z]+)", unit or "")
    for scale in (UNIT_BYTES, UNIT_MICROSECONDS):
        if base is not None and base[2] in scale and match[2] in scale:
            return number * scale[match[2]] / (int(base[1] or 1) * scale[base[2]])
    return None
