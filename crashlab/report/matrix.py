"""What did the matrix of promises show: promised beside observed, cell by cell?

Choices:
    A cell contradicts the documentation if a promise was broken in any of its states: what the oracle says of each
    trial, whose contract is that of the settings that were read back, and, for an asynchronous commit, of that commit.
    Where nothing is promised nothing can contradict it: that such a cell looks well proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crashlab.matrix import AXES, Cell, Promised, promised
from crashlab.model import Outcome
from crashlab.report.statistics import statistics
from crashlab.report.summary import promise, tally
from crashlab.results import ProfileResult

HEADS = ("fsync", "commit", "pages", "wal sync", "sums", "crash", "promised", "states", "observed")
"""Of the table's columns: the axes in their order, shortened, then what it is about."""
_CRASHES = {"process_crash": "process", "power_loss": "power"}


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One cell and what came of it."""

    result: ProfileResult
    cell: Cell
    promised: Promised
    promise: str  # kept, broken, void, inconclusive: of all its states together
    states: int
    observed: str

    @property
    def contradicts(self) -> bool:
        """Whether something was seen that is promised not to happen."""
        return self.promise == "broken"

    @property
    def row(self) -> tuple[str, ...]:
        """The cells of the table, as `HEADS` names them."""
        cell = self.cell
        return (
            *(cell.fsync, cell.synchronous_commit, cell.full_page_writes, cell.wal_sync_method, cell.data_checksums),
            *(_CRASHES[cell.crash_class], self.promised.word, str(self.states), self.observed),
        )


def cell_results(results: Sequence[ProfileResult]) -> list[CellResult]:
    """Return what came of each cell of a run, in its order; other profiles are left out."""
    found = ((result, Cell.of(result.profile)) for result in results)
    return [_cell_result(result, cell) for result, cell in found if cell is not None]


def as_json(result: ProfileResult) -> dict[str, Any] | None:
    """Return a profile's part of the matrix for programs; None: it is no cell."""
    cell = Cell.of(result.profile)
    if cell is None:
        return None
    told = _cell_result(result, cell)
    return {
        "cell": {axis: getattr(cell, axis) for axis in AXES},
        "promised": told.promised.word,
        "promised_outcomes": [str(outcome) for outcome in told.promised.outcomes],
        "observed": told.observed,
        "states": told.states,
        "distinct_states": statistics(result).distinct_states,
        "contradicts": told.contradicts,
    }


def legend(told: Sequence[CellResult]) -> list[str]:
    """Say what the words in the column "promised" mean, those that are there."""
    words = {one.promised.word: one.promised.says for one in told}
    return [f"{word}: {says}" for word, says in words.items()]


def matrix_line(told: Sequence[CellResult]) -> str:
    """Say in one line what the matrix came to."""
    contradict = sum(one.contradicts for one in told)
    open_ = sum(one.promise == "inconclusive" for one in told)
    states = sum(one.states for one in told)
    parts = [
        f"{len(told)} cell{'s' if len(told) != 1 else ''}, {states} crash states",
        "no cell contradicts its promise" if not contradict else f"{contradict} CONTRADICT what is promised",
    ]
    if open_:
        parts.append(f"{open_} could not be judged, or not fully")
    return "; ".join(parts)


def _cell_result(result: ProfileResult, cell: Cell) -> CellResult:
    contracts = [trial.contract for trial in result.trials if trial.contract is not None]
    return CellResult(
        result=result,
        cell=cell,
        promised=promised(contracts[0] if contracts else cell.contract, cell.synchronous_commit),
        promise=promise(result),
        states=len(result.trials),
        observed=_observed(result),
    )


def _observed(result: ProfileResult) -> str:
    """Say how many states showed what, worst last; a contradiction in capital letters, not only in a colour."""
    if not result.trials:
        return "not run"
    counts = tally(result)
    seen = ", ".join(f"{number} {outcome}" for outcome in Outcome if (number := getattr(counts, outcome)))
    if counts.broken:
        return f"CONTRADICTS in {counts.broken}: {seen}"
    return f"{seen} ({counts.void} void)" if counts.void else seen
