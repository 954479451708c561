"""What does the judge have before him?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from crashlab.history import History
from crashlab.model import Clause, Contract, CrashClass, Injection, Observation


@dataclass(frozen=True)
class Case:
    """The evidence of one trial and what was promised; nothing in it is changed by judging."""

    history: History
    contract: Contract
    injections: Sequence[Injection]  # in the order of the faults
    observation: Observation

    @property
    def crashed(self) -> bool:
        """Whether the server had to recover, says its log or a receipt, or had recovered before and was cut off."""
        again = self.observation.first_survivors is not None
        return again or self.observation.recovery.ran or any(one.crashes_server for one in self.injections)

    @property
    def recorded(self) -> bool:
        """Whether the crash is a cut through a recording; then times count back from the last answer before it."""
        return any(injection.disk is not None for injection in self.injections)

    @cached_property
    def fault_ns(self) -> int:
        """When the last fault was sent that the server had to recover from, or else the last one; 0: there was none."""
        crashing = [one.at_ns for one in self.injections if one.crashes_server]
        return next(reversed(crashing or [one.at_ns for one in self.injections]), 0)

    def age_ms(self, at_ns: int) -> float | None:
        """Return how long before the fault something was; None: unknown."""
        return round((self.fault_ns - at_ns) / 1e6, 3) if self.fault_ns and at_ns else None

    @cached_property
    def weak_spot(self) -> Clause | None:
        """The clause because of which not even a synchronous commit is promised to survive; None: it is."""
        if self.contract.sync_commits_survive:
            return None
        fsync = self.clause("fsync")
        return fsync if fsync is not None and fsync.value == "off" else self.clause("disk") or fsync

    def clause(self, setting: str) -> Clause | None:
        """Return what a setting means here; None if it says nothing."""
        return next((clause for clause in self.contract.clauses if clause.setting == setting), None)

    @property
    def crash(self) -> str:
        """The crash class in words."""
        return "process crash" if self.contract.crash_class is CrashClass.PROCESS_CRASH else "power loss"
