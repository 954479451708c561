"""What does a run show while it goes on? A bar on a terminal, elsewhere a line a trial."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from crashlab.campaign.events import Event, ProfileBegan, RecordedAgain, TaskBegan, TrialDone
from crashlab.report.console import trial_line
from crashlab.results import TrialResult


class Watch:
    """Progress while trials run; a context manager around the whole run."""

    def __init__(self, target: Console, total: int | None, before: Mapping[str, int]) -> None:
        """Begin when the context is entered.

        Args:
            total: trials of all profiles; None: not known before.
            before: how many of each an earlier run has done.
        """
        self._before = before
        self._console = target
        self._of: dict[str, int | None] = {}
        self._done: dict[str, int] = {}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=target,
            disable=not target.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, completed=sum(before.values()))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def handle(self, event: Event) -> None:
        """Show what has happened."""
        if isinstance(event, ProfileBegan):
            self._of[event.profile] = event.trials
            self._done[event.profile] = self._before.get(event.profile, 0)
        elif isinstance(event, TaskBegan):
            self._bar.update(self._task, description=f"{event.task.job}: {event.task}")
        elif isinstance(event, TrialDone):
            self._trial(event.profile, event.result)
        elif isinstance(event, RecordedAgain):
            said = f"{event.profile}: the recording has no more states to offer; recording again with another seed"
            self._console.print(said, soft_wrap=True)

    def _trial(self, profile: str, trial: TrialResult) -> None:
        self._bar.advance(self._task)
        self._done[profile] += 1
        if not self._console.is_terminal:
            of = f" of {self._of[profile]}" if self._of[profile] is not None else ""
            said = f"{profile}:{trial.trial}, {self._done[profile]}{of} done: {trial_line(trial)}"
            self._console.print(said, soft_wrap=True)
