"""What does a crash take under each variation? Its profiles, as the matrix of promises has them, and what came of them.

Choices: the workload of the crashes is that of the matrix, with rows to be read back, and not the one of the figures:
    what is lost depends on the settings, and on the moment of the crash, more than on what is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from crashlab.contract import contract_for
from crashlab.matrix import BASE, Promised, promised
from crashlab.model import CrashClass, Outcome, PromiseStatus
from crashlab.profile import Profile, parse_profile
from crashlab.results import ProfileResult
from crashlab.tradeoff.plan import TradeoffPlan

DISKS = {CrashClass.PROCESS_CRASH: "process", CrashClass.POWER_LOSS: "linux"}
SETTINGS = {"min_wal_size": "2MB", "max_wal_size": "4MB"}
"""So that a short recording has many checkpoints. A variation's own sizes of the WAL are left out here: they
make a crash no other, but the recording long."""
NOT_IN_CRASHES = ("min_wal_size", "max_wal_size", "checkpoint_timeout", "autovacuum")


@dataclass(frozen=True, kw_only=True)
class Crashes:
    """What the crashes of one kind came to, under one variation."""

    variation: str
    crash_class: str
    trials: int
    outcomes: dict[str, int]
    lost_most: int  # acknowledged commits, in the worst trial
    broken: int  # trials that broke a promise
    promised: str  # in a word or two
    folder: str  # of the evidence

    @property
    def says(self) -> str:
        """In a few words: the worst first."""
        if not self.trials:
            return "not tried"
        told = [
            f"{self.outcomes[outcome]} {'does not start' if outcome == Outcome.NO_START else outcome}"
            for outcome in (Outcome.NO_START, Outcome.CORRUPTION, Outcome.LOSS, Outcome.INTACT, Outcome.INCONCLUSIVE)
            if self.outcomes.get(outcome)
        ]
        lost = f" (up to {self.lost_most} commits)" if self.lost_most else ""
        return f"{', '.join(told)}{lost}"


def profiles(plan: TradeoffPlan) -> Iterator[tuple[Profile, str | None]]:
    """Yield the profiles that try each variation, with the one whose recording each examines; None: its own."""
    for number, one in enumerate(plan.variation):
        settings = plan.settings_of(one.title)
        maker = _name(number, CrashClass.PROCESS_CRASH)
        for crash_class in DISKS:
            name = _name(number, crash_class)
            yield _profile(name, one.title, settings, crash_class, plan.states), None if name == maker else maker


def _name(number: int, crash_class: CrashClass) -> str:
    return f"tradeoff-{number}-{crash_class}"


def _promised(settings: dict[str, str], crash_class: CrashClass) -> Promised:
    commit = settings.get("synchronous_commit", "on")
    return promised(contract_for(settings, crash_class), commit)


def _profile(name: str, title: str, settings: dict[str, str], crash_class: CrashClass, states: int) -> Profile:
    may = _promised(settings, crash_class)
    own = {key: value for key, value in settings.items() if key not in (*NOT_IN_CRASHES, "synchronous_commit")}
    table: dict[str, Any] = {
        "name": name,
        "description": f"crashes under {title}",
        "trials": max(1, states),
        "crash_class": str(crash_class),
        "server": {"initdb": ["--wal-segsize=1"], "settings": {**SETTINGS, **own}},
        "workload": {**BASE["workload"], "synchronous_commit": settings.get("synchronous_commit", "on")},
        "power_loss": {**BASE["power_loss"], "disk": DISKS[crash_class]},
        "expect": {
            "outcomes": [str(outcome) for outcome in may.outcomes],
            "promise": ["kept"] if set(may.outcomes) <= {Outcome.INTACT, Outcome.LOSS} else ["kept", "void"],
        },
    }
    return parse_profile(table)


def crashes(plan: TradeoffPlan, results: list[ProfileResult]) -> list[Crashes]:
    """Return what each variation's crashes came to, in the plan's order."""
    found = {result.profile.name: result for result in results}
    told = []
    for number, one in enumerate(plan.variation):
        for crash_class in DISKS:
            result = found.get(_name(number, crash_class))
            verdicts = [trial.verdict for trial in result.trials] if result is not None else []
            told.append(
                Crashes(
                    variation=one.title,
                    crash_class=str(crash_class),
                    trials=len(verdicts),
                    outcomes={outcome: sum(verdict.outcome == outcome for verdict in verdicts) for outcome in Outcome},
                    lost_most=max((verdict.counts.lost for verdict in verdicts), default=0),
                    broken=sum(verdict.promise is PromiseStatus.BROKEN for verdict in verdicts),
                    promised=_promised(plan.settings_of(one.title), crash_class).word,
                    folder=_name(number, crash_class),
                )
            )
    return told
