"""Which settings decide what PostgreSQL promises after a crash, and what is promised for each combination of them?

A cell is one combination and one kind of crash. It becomes a profile like any other, made from one base: a short
recorded run. The cells that differ in nothing but the kind of crash examine the same recording.

Choices:
    wal_sync_method: the values that Linux has; fsync_writethrough is for other systems.
    synchronous_commit: without standbys "the only meaningful settings are on and off" (manual), so the others are tried
    only if asked for.
    Few rows and many checkpoints, so that many cuts fall into a checkpoint, where pages are torn.
    Two states of each crash point after a power cut: the first one has kept nothing but what was flushed, the other one
    is a mixture, where pages are torn and writes are out of order.

Source: PostgreSQL manual, "Write Ahead Log: Settings" and "Reliability"; `contract` cites the pages.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from typing import Any, Self

from crashlab.contract import contract_for
from crashlab.errors import UsageProblem
from crashlab.model import Contract, CrashClass, Outcome
from crashlab.profile import Profile, did_you_mean, parse_profile
from crashlab.results import ProfileFacts

AXES: dict[str, tuple[str, ...]] = {
    "fsync": ("on", "off"),
    "synchronous_commit": ("on", "off", "local", "remote_write", "remote_apply"),
    "full_page_writes": ("on", "off"),
    "wal_sync_method": ("fsync", "fdatasync", "open_sync", "open_datasync"),
    "data_checksums": ("on", "off"),
    "crash_class": ("process_crash", "power_loss"),
}
"""What can be asked for; the kind of crash comes last, so that cells of one recording follow one another."""
ONLY_IF_ASKED = ("local", "remote_write", "remote_apply")
STATES = 10
"""Crash states of a cell, unless more are asked for."""
_PREFIX = "matrix"
BASE: dict[str, Any] = {
    "workload": {
        "kinds": ["transfer", "register", "append", "indexed"],
        "checkpoint_every": "40ms",
        "acked_min": 20,
    },
    "power_loss": {"acks": 150, "states_per_point": 2},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination; each value is spelled as SHOW prints it."""

    fsync: str
    synchronous_commit: str
    full_page_writes: str
    wal_sync_method: str
    data_checksums: str
    crash_class: str

    @property
    def name(self) -> str:
        """That of the cell's profile, and of its folder."""
        return "-".join(
            [
                f"{_PREFIX}-fsync_{self.fsync}",
                f"commit_{self.synchronous_commit}",
                f"pages_{self.full_page_writes}",
                self.wal_sync_method,
                f"checksums_{self.data_checksums}",
                self.crash_class,
            ]
        )

    @classmethod
    def of(cls, facts: ProfileFacts) -> Self | None:
        """Return the cell that a profile stands for; None: it is no cell."""
        if not facts.name.startswith(f"{_PREFIX}-"):
            return None
        try:
            settings = facts.resolved["server"]["settings"]
            (commit,) = facts.resolved["workload"]["synchronous_commit"]
            cell = cls(
                fsync=settings["fsync"],
                synchronous_commit=commit,
                full_page_writes=settings["full_page_writes"],
                wal_sync_method=settings["wal_sync_method"],
                data_checksums="off" if "--no-data-checksums" in facts.resolved["server"]["initdb"] else "on",
                crash_class=facts.resolved["crash_class"],
            )
        except (KeyError, TypeError, ValueError):
            return None
        return cell if cell.name == facts.name else None

    @property
    def contract(self) -> Contract:
        """What is documented for it, on a disk that keeps what it says."""
        settings = {"fsync": self.fsync, "full_page_writes": self.full_page_writes}
        return contract_for(settings, CrashClass(self.crash_class))


@dataclass(frozen=True)
class Promised:
    """What the documentation promises for one cell, in a word or two and in a sentence."""

    word: str
    says: str
    outcomes: tuple[Outcome, ...]  # that may be seen while the promise is not broken


_ALL = Promised("intact", "what was acknowledged is there, and nothing is damaged", (Outcome.INTACT,))
_NOT_THE_NEWEST = Promised(
    "intact or loss", "the newest commits may be missing, and nothing is damaged", (Outcome.INTACT, Outcome.LOSS)
)
_TORN = Promised(
    "intact or torn",
    "no acknowledged commit is lost, but a page that the crash tears stays torn: corruption or a failed start",
    (Outcome.INTACT, Outcome.CORRUPTION, Outcome.NO_START),
)
_TORN_NOT_THE_NEWEST = Promised(
    "loss or torn",
    "the newest commits may be missing, and a page that the crash tears stays torn: corruption or a failed start",
    (Outcome.INTACT, Outcome.LOSS, Outcome.CORRUPTION, Outcome.NO_START),
)
_NOTHING = Promised(
    "nothing",
    "nothing is promised: loss, corruption and a failed start are all possible",
    (Outcome.INTACT, Outcome.LOSS, Outcome.CORRUPTION, Outcome.NO_START),
)


def promised(contract: Contract, synchronous_commit: str) -> Promised:
    """Return what a contract comes to for clients that all commit in one way."""
    if not contract.sync_commits_survive:
        return _NOTHING
    if synchronous_commit == "off":
        return _NOT_THE_NEWEST if contract.corruption_excluded else _TORN_NOT_THE_NEWEST
    return _ALL if contract.corruption_excluded else _TORN


def cells(only: Sequence[str] = ()) -> list[Cell]:
    """Return the cells of the matrix, or of a part of it.

    Args:
        only: each "KEY=VALUE"; several of one key are all taken.

    Raises:
        UsageProblem: an unknown key or value.
    """
    wanted: dict[str, list[str]] = {}
    for text in only:
        key, _, value = text.partition("=")
        wanted.setdefault(_known(text, key.strip(), AXES, "key"), []).append(
            _known(text, value.strip(), AXES[key.strip()], f"value of {key.strip()}")
        )
    axes = [
        [value for value in values if (value in wanted[key] if key in wanted else value not in ONLY_IF_ASKED)]
        for key, values in AXES.items()
    ]
    return [Cell(**dict(zip(AXES, values, strict=True))) for values in product(*axes)]


def _known(text: str, word: str, known: Sequence[str] | dict[str, Any], what: str) -> str:
    if word in known:
        return word
    near = did_you_mean(word, known)
    raise UsageProblem(
        f'cannot use --only "{text}": unknown {what} "{word}"',
        hint=f"{near + ' ' if near else ''}It is one of {', '.join(known)}.",
    )


def profile_of(cell: Cell, states: int = STATES) -> Profile:
    """Return the profile that tries a cell."""
    may = promised(cell.contract, cell.synchronous_commit)
    process = cell.crash_class == CrashClass.PROCESS_CRASH
    settings = {name: getattr(cell, name) for name in ("fsync", "full_page_writes", "wal_sync_method")}
    sums = "--data-checksums" if cell.data_checksums == "on" else "--no-data-checksums"
    says = ", ".join(f"{field.name}={value}" for field, value in zip(fields(cell), astuple(cell), strict=True))
    return parse_profile(
        {
            "name": cell.name,
            "description": f"a cell of the matrix of promises: {says}",
            "trials": states,
            "crash_class": cell.crash_class,
            "server": {
                "initdb": ["--wal-segsize=1", sums],
                "settings": {"min_wal_size": "2MB", "max_wal_size": "4MB", **settings},
            },
            "workload": {**BASE["workload"], "synchronous_commit": cell.synchronous_commit},
            "power_loss": {**BASE["power_loss"], "disk": "process" if process else "linux"},
            "expect": {
                "outcomes": [str(outcome) for outcome in may.outcomes],
                "promise": ["kept"] if set(may.outcomes) <= {Outcome.INTACT, Outcome.LOSS} else ["kept", "void"],
                "note": f"Promised: {may.says}.",
            },
        }
    )
