"""Which profile is meant, and what does it come to after `extends` and `--set`?

A profile is a TOML file, found by path or by name. Every mistake in it is reported at once, with its file and line.

Choices:
    A table in a child profile is merged into its parent's, key by key; a list, and the shares of `synchronous_commit`,
    replace the parent's. The name is never inherited.
    The text of workload.sql.setup_file takes the place of `setup`, so that a loaded profile needs no other file.
    In `--set`, a bare key that is neither a profile's nor a workload's is the name of a PostgreSQL setting, unless it
    looks like a misspelt key.

Source: design.md "Profiles", "Bad input".
"""

import copy
import errno
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ValidationError

from crashlab.errors import ProfileError, did_you_mean
from crashlab.layers import Layers
from crashlab.profile_schema import (
    Expect,
    Fault,
    Jitter,
    PowerLoss,
    Profile,
    ServerSettings,
    SqlApplication,
    SqlTransaction,
    UserInvariant,
    When,
    Workload,
)
from crashlab.toml_text import KeyPath, write_toml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "Expect",
    "Fault",
    "Jitter",
    "PowerLoss",
    "Profile",
    "ServerSettings",
    "StoredProfile",
    "When",
    "Workload",
    "change_profile",
    "did_you_mean",
    "expand",
    "find_profile",
    "list_profiles",
    "load_profile",
    "parse_profile",
    "stored_profile",
    "to_toml",
]

SET = "--set"
TEXT_BYTES_MAX = 64 << 20
_SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Profile,
    ("server",): ServerSettings,
    ("workload",): Workload,
    ("workload", "sql"): SqlApplication,
    ("workload", "sql", "transactions"): SqlTransaction,
    ("invariants",): UserInvariant,
    ("power_loss",): PowerLoss,
    ("jitter",): Jitter,
    ("faults",): Fault,
    ("faults", "when"): When,
    ("expect",): Expect,
}


def load_profile(
    name_or_path: str, overrides: Sequence[str] = (), *, spelt: Mapping[str, str] = MappingProxyType({})
) -> Profile:
    """Load one profile, or one tour, with `--set` overrides of the form "key=value".

    A name is looked for in ./fault_profiles, then among the shipped ones; anything with a "/" or ".toml" is a path.

    Args:
        spelt: of overrides that nobody wrote with `--set`, how they were written.

    Raises:
        ProfileError: not found, not TOML, or any mistake in it; the detail has one "file:line: key: message" a line.
    """
    layers = _read(name_or_path, ())
    for override in overrides:
        path, value = _override(override)
        layers.put(path, value, spelt.get(override, f"--set {override}"))
    _read_setup(layers.values, Path(SET), replaces=True)
    return _validate(layers)


def parse_profile(table: dict[str, Any]) -> Profile:
    """Build a profile from what `Profile.table` gave. Raises ProfileError with every mistake."""
    return _validate(Layers(table))


class StoredProfile(NamedTuple):
    """A profile that an older or newer crashlab stored, and what of it means nothing today."""

    profile: Profile
    ignored: list[str]  # keys, with the tables that they stand in: "workload.kinky"


def stored_profile(table: dict[str, Any]) -> StoredProfile:
    """Build a profile from what evidence holds, to run it again: unknown keys are left out, missing ones have defaults.

    Raises:
        ProfileError: a value means nothing today; the detail has every mistake.
    """
    values = copy.deepcopy(table)
    values.setdefault("name", "stored")
    values.setdefault("description", values["name"])
    ignored: list[str] = []
    while True:
        try:
            return StoredProfile(Profile.model_validate(values), ignored)
        except ValidationError as error:
            unknown = [item["loc"] for item in error.errors() if item["type"] == "extra_forbidden"]
            if not unknown:
                raise _profile_error(Layers(values), error) from None
        for path in unknown:
            _remove(values, path)
            ignored.append(".".join(str(part) for part in path))


def _remove(table: Any, path: KeyPath) -> None:
    for part in path[:-1]:
        table = table[part]
    del table[path[-1]]


def change_profile(profile: Profile, overrides: Sequence[str]) -> Profile:
    """Lay `--set` overrides over a profile. Raises ProfileError with every mistake."""
    layers = Layers(profile.table())
    for override in overrides:
        path, value = _override(override)
        layers.put(path, value, f"--set {override}")
    return _validate(layers)


def to_toml(profile: Profile) -> str:
    """Return the whole profile as a TOML document, which loads as an equal profile."""
    return write_toml(profile.table())


def expand(name_or_path: str, overrides: Sequence[str] = ()) -> list[Profile]:
    """Load a profile, or all profiles of a tour, in the tour's order and with its number of trials.

    Raises:
        ProfileError: as `load_profile`, or a tour within a tour.
    """
    if "tour" not in _read(name_or_path, ()).values:
        return [load_profile(name_or_path, overrides)]
    tour = load_profile(name_or_path)
    trials = [f"trials={tour.trials}"] if "trials" in tour.model_fields_set else []
    members = [load_profile(member, [*trials, *overrides]) for member in tour.tour]
    nested = [member.name for member in members if member.tour]
    if nested:
        raise ProfileError(
            f'cannot use profile "{tour.name}"', detail=f"A tour cannot hold a tour: {', '.join(nested)}."
        )
    return members


def list_profiles() -> dict[str, Path]:
    """Return each profile that can be named, and its file; one in ./fault_profiles hides a shipped one."""
    files = [file for folder in _folders() if folder.is_dir() for file in sorted(folder.glob("*.toml"))]
    found: dict[str, Path] = {}
    for file in files:
        found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def find_profile(name_or_path: str) -> Path:
    """Return a profile's file. Raises ProfileError if there is none."""
    return _find(name_or_path, None)


def _folders() -> list[Path]:
    package = Path(__file__).parent
    installed = package / "fault_profiles"
    return [Path("fault_profiles"), installed if installed.is_dir() else package.parent / "fault_profiles"]


def _find(name_or_path: str, beside: Path | None) -> Path:
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if beside is not None:
            path = beside / path
        if path.is_dir():
            hint = "Give one of its files, or the name of a shipped profile: crashlab profiles."
            raise ProfileError(f'"{path}" is a folder, not a profile file', hint=hint)
        if not path.is_file():
            raise ProfileError(f'could not find profile file "{path}"')
        return path
    for folder in _folders():
        if os.path.lexists(path := folder / f"{name_or_path}.toml"):
            return path
    near = did_you_mean(name_or_path, list_profiles())
    raise ProfileError(
        f'unknown profile "{name_or_path}"',
        detail=f"Looked for {name_or_path}.toml in ./fault_profiles and among the shipped profiles.",
        hint=f"{near + ' ' if near else ''}See crashlab profiles.",
    )


def _read(name_or_path: str, chain: tuple[Path, ...]) -> Layers:
    path = _find(name_or_path, chain[-1].parent if chain else None)
    if path.resolve() in (seen.resolve() for seen in chain):
        circle = " -> ".join(str(step) for step in (*chain, path))
        raise _unusable(chain[0], f"Its extends form a circle: {circle}.")
    text = _text(path)
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise _unusable(path, f"{path}: nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r" \(at line (\d+), column \d+\)$", message)
        where = f"{path}:{at[1] if at else len(text.splitlines())}"
        reason = message[: at.start()] if at else message
        raise _unusable(path, f"{where}: {reason[:1].lower()}{reason[1:]}") from None
    _read_setup(table, path, replaces=False)
    parent = table.pop("extends", None)
    layers = Layers() if parent is None else _parent(parent, path, chain)
    layers.values.setdefault("name", path.stem)
    layers.merge(table, text, str(path))
    return layers


def _read_setup(table: dict[str, Any], profile: Path, *, replaces: bool) -> None:
    """Put the text of a set-up file in the place of its name, which is relative to the profile's file."""
    workload = table.get("workload")
    sql = workload.get("sql") if isinstance(workload, dict) else None
    if not isinstance(sql, dict) or not isinstance(sql.get("setup_file"), str):
        return
    if "setup" in sql and not replaces:
        raise _unusable(profile, f"{profile}: workload.sql: only one of setup and setup_file may be there")
    file = profile.parent / sql.pop("setup_file")
    try:
        sql["setup"] = _read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise _unusable(profile, f'{profile}: workload.sql.setup_file: could not read "{file}": {reason}') from error


def _parent(parent: Any, path: Path, chain: tuple[Path, ...]) -> Layers:
    if not isinstance(parent, str):
        raise _unusable(path, f"{path}: extends: must be one name or path")
    layers = _read(parent, (*chain, path))
    if "tour" in layers.values:
        raise _unusable(path, f'{path}: extends: "{parent}" is a tour')
    layers.values.pop("name", None)
    return layers


def _unusable(profile: str | Path, detail: str) -> ProfileError:
    return ProfileError(f'cannot use profile "{profile}"', detail=detail)


def _read_text(path: Path) -> str:
    """Read a text that somebody wrote. Raises OSError, UnicodeDecodeError: nobody did, such as of a pipe."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is no file" if path.exists() else "there is no such file", str(path))
    if path.stat().st_size > TEXT_BYTES_MAX:
        raise OSError(errno.EFBIG, f"it has more than {TEXT_BYTES_MAX >> 20} MB", str(path))
    return path.read_text(encoding="utf-8")


def _text(path: Path) -> str:
    try:
        return _read_text(path)
    except OSError as error:
        raise ProfileError(f'could not read profile "{path}": {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise _unusable(path, f"{path}: not UTF-8: {error.reason}") from error


def _override(override: str) -> tuple[KeyPath, Any]:
    """Split "workload.clients=8" into a place and a value."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ProfileError(f'cannot use --set "{override}"', hint="Write --set key=value, such as --set fsync=off.")
    if "." not in key and key not in _keys(Profile):
        near = did_you_mean(key, {*_keys(Profile), *_keys(Workload)})
        if near and key not in _keys(Workload):
            raise ProfileError(
                f'cannot use --set "{override}": unknown key "{key}"',
                hint=f"{near} A PostgreSQL setting of that name is written --set server.settings.{key}=...",
            )
        key = f"workload.{key}" if key in _keys(Workload) else f"server.settings.{key}"
    if key.startswith("server.settings."):
        return ("server", "settings", key.removeprefix("server.settings.")), text.strip()
    return tuple(int(part) if part.isdigit() else part for part in key.split(".")), _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return (
        table["value"]
        if len(table) == 1 and isinstance(table["value"], bool | int | float | str | list | dict)
        else text
    )


def _validate(layers: Layers) -> Profile:
    try:
        return Profile.model_validate(layers.values)
    except ValidationError as error:
        raise _profile_error(layers, error) from None


def _profile_error(layers: Layers, error: ValidationError) -> ProfileError:
    lines = [_mistake(layers, item) for item in error.errors()]
    name = layers.values.get("name", "?")
    return _unusable(name, "\n".join(dict.fromkeys(lines)))


def _mistake(layers: Layers, error: "ErrorDetails") -> str:
    loc: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    kind, message, given, bounds = error["type"], error["msg"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        section = _SECTIONS.get(tuple(str(part) for part in loc[:-1] if not isinstance(part, int)))
        near = did_you_mean(str(loc[-1]), _keys(section)) if section else ""
        message = f"unknown key; {near[:1].lower()}{near[1:]}" if near else "unknown key"
        if len(loc) == 1 and isinstance(given, dict) and layers.where(loc).startswith(SET):
            message += f"; a PostgreSQL setting is written {SET} server.settings.{loc[0]}.{next(iter(given), '')}=..."
    elif kind == "missing":
        message = "this key is needed"
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    elif kind in ("too_short", "too_long"):
        bound = bounds["min_length" if kind == "too_short" else "max_length"]
        values = f"{bound} value{'s' if bound != 1 else ''}"
        message = f"must have at {'least' if kind == 'too_short' else 'most'} {values}, not {given!r}"
    elif kind == "list_type":
        message = f"must be a list, written [..., ...], not {given!r}"
    else:
        message = f"{message[:1].lower()}{message[1:]}, not {given!r}"
    where = layers.where(loc)
    key = ".".join(str(part) for part in loc)
    return ": ".join(part for part in (where, key, message) if part)


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]
