"""What was `run` asked for?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crashlab.profile import Profile
    from crashlab.results import Keep
    from crashlab.server import ServerChoice


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that `run` was asked for, resolved."""

    profiles: list["Profile"]
    seed: int
    trials: int | None  # None: each profile's own number
    time_limit_s: float | None
    server: "ServerChoice"
    keep: "Keep"
    fail_fast: bool
    again: str = ""  # the command that repeats it
    recording: Path | None = None  # examine this recording instead of running servers

    def trials_of(self, profile: "Profile") -> int:
        """Return how many trials of a profile are to be run."""
        return self.trials or profile.trials
