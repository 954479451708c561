"""What does the judge have before him?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from crashlab.history import History
from crashlab.model import Clause, Contract, CrashClass, Injection, Observation

SHOWN_MS = 0.1
"""The digit that is told of a time."""


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
    def _fault(self) -> Injection | None:
        """The last fault that the server had to recover from, or else the last one."""
        return next(reversed([one for one in self.injections if one.crashes_server] or self.injections), None)

    @property
    def fault_ns(self) -> int:
        """When that fault was sent; 0: there was none."""
        return self._fault.at_ns if self._fault is not None else 0

    def after_crash(self, at_ns: int) -> bool:
        """Whether a key was told after the server had crashed; a recording that is cut has none of those."""
        fault = self._fault
        return fault is not None and fault.crashes_server and not self.recorded and 0 < fault.at_ns < at_ns

    def age_ms(self, at_ns: int, line: int = 0) -> float | None:
        """Return how long before the fault something was; None: unknown.

        Args:
            line: of the ledger, where it stands. What stands there before the fault was not after it, whatever two
                threads read from the clock, or whatever the clock of a cut recording stood at.
        """
        if not self.fault_ns or not at_ns:
            return None
        age_ms = round((self.fault_ns - at_ns) / 1e6, 3)
        assert self._fault is not None
        return max(age_ms, 0.0) if 0 < line <= self._fault.ledger_position else age_ms

    def when(self, at_ns: int, line: int = 0) -> str:
        """Say it, as in "40.0 ms before the fault"; empty: unknown. Arguments as for `age_ms`."""
        age_ms = self.age_ms(at_ns, line)
        if age_ms is None:
            return ""
        if abs(age_ms) < SHOWN_MS / 2:
            return "right before the fault"
        return f"{age_ms:.1f} ms before the fault" if age_ms > 0 else f"{-age_ms:.1f} ms after the fault was sent"

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
