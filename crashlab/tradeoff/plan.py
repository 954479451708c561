"""Which settings are compared, with which workload, how often and for how long?

A plan is a TOML file, or the name of a shipped one. The first variation is the one that all others are held against.
A cell is one variation at one number of sessions.
"""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from crashlab.errors import UsageProblem, did_you_mean
from crashlab.server.settings import MANAGED_SETTINGS
from crashlab.server.settingstable import meant, wrong_with

FOLDER = Path(__file__).parent / "plans"
DEFAULT = "quick"
BLOCKS_MIN = 3
SESSIONS_MAX = 90
"""Some below max_connections, as it is without a word about it."""

WORKLOADS: dict[str, str] = {
    "commit": (
        "\\set id random(1, 100000)\n"
        "UPDATE crashlab_account SET balance = balance + 1, changed = changed + 1 WHERE id = :id;\n"
    ),
    "bulk": ("INSERT INTO crashlab_bulk SELECT i, repeat('x', 200) FROM generate_series(1, 1000) AS i;\n"),
}
"""Name -> the script that pgbench runs, each statement a transaction of its own. `commit`: one row among 100,000, so
that the flush is what costs. `bulk`: a quarter of a megabyte of WAL a transaction, so that the WAL buffers do."""


class Variation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One set of settings, beside those of the whole plan."""

    settings: dict[str, str] = {}
    name: str = ""

    @property
    def title(self) -> str:
        """Its name, or its settings."""
        return self.name or ", ".join(f"{name}={value}" for name, value in self.settings.items()) or "defaults"


class TradeoffPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be measured."""

    name: str = ""
    description: str = ""
    workload: Literal["commit", "bulk"] = "commit"
    sessions: list[int] = msgspec.field(default_factory=lambda: [4])
    seconds: int = 2  # of each run; pgbench takes whole ones
    blocks: int = 5  # each has every cell once, in an order of its own
    states: int = 10  # crash states of each variation and kind of crash; 0: none
    settings: dict[str, str] = {}  # of all variations
    variation: list[Variation]

    def cells(self) -> "Iterator[Cell]":
        """Yield every cell, those of one variation together."""
        for one in self.variation:
            for sessions in self.sessions:
                yield Cell(one.title, sessions)

    def settings_of(self, title: str) -> dict[str, str]:
        """Return all settings of a variation."""
        one = next(one for one in self.variation if one.title == title)
        return {**self.settings, **one.settings}

    @property
    def baseline(self) -> str:
        """The title of the variation that the others are held against."""
        return self.variation[0].title


class Cell(msgspec.Struct, frozen=True):
    """One variation at one number of sessions."""

    variation: str  # its title
    sessions: int

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.variation}, {self.load}"

    @property
    def load(self) -> str:
        """How many sessions, in words."""
        return f"{self.sessions} session{'' if self.sessions == 1 else 's'}"


def shipped() -> dict[str, Path]:
    """Return the plans that come with crashlab, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load_plan(name: str) -> TradeoffPlan:
    """Return a shipped plan by its name, or one from a file.

    Raises:
        UsageProblem: there is no such plan, or it has a mistake.
    """
    plans, path = shipped(), Path(name)
    if name in plans:
        path = plans[name]
    elif not path.is_file():
        near = did_you_mean(name, plans)
        raise UsageProblem(
            f'unknown plan "{name}"', hint=f"{near + ' ' if near else ''}It is a TOML file, or {', '.join(plans)}."
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        plan = msgspec.convert({"name": name, **_texts(table)}, type=TradeoffPlan)
    except OSError as error:
        raise UsageProblem(f'could not read plan "{path}": {error.strerror}') from error
    except (ValueError, msgspec.ValidationError, RecursionError) as error:
        raise UsageProblem(f'cannot use plan "{path}": {error}') from error
    return checked(plan)


def _texts(table: dict[str, Any]) -> dict[str, Any]:
    """Write numbers and booleans among the settings as postgresql.conf has them."""
    told = dict(table)
    for one in [told, *told.get("variation", [])]:
        if isinstance(one.get("settings"), dict):
            one["settings"] = {name.lower(): _text(value) for name, value in one["settings"].items()}
    return told


def _text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def checked(plan: TradeoffPlan) -> TradeoffPlan:
    """Return the plan if it can be measured. Raises UsageProblem with every mistake."""
    wrong = [
        said
        for holds, said in (
            (bool(plan.variation), "variation: there is none"),
            (plan.blocks >= BLOCKS_MIN, f"blocks: at least {BLOCKS_MIN}, for fewer say next to nothing about the next"),
            (plan.seconds >= 1, "seconds: at least 1"),
            (plan.states >= 0, "states: not below 0"),
            (bool(plan.sessions), "sessions: there are none"),
            (all(1 <= one <= SESSIONS_MAX for one in plan.sessions), f"sessions: from 1 to {SESSIONS_MAX}"),
        )
        if not holds
    ]
    titles = [one.title for one in plan.variation]
    wrong += [f'variation: "{title}" is there twice' for title in sorted(set(titles)) if titles.count(title) > 1]
    for settings in (plan.settings, *(one.settings for one in plan.variation)):
        for name, value in settings.items():
            said = "crashlab chooses it" if name in MANAGED_SETTINGS else wrong_with(name, value)
            said = said or (f"no release has such a setting. {near}" if (near := meant(name)) else None)
            wrong += [f"{name}: {said}"] if said else []
    if wrong:
        raise UsageProblem(f'cannot use plan "{plan.name}"', detail="\n".join(dict.fromkeys(wrong)))
    return plan
