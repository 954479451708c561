"""At which moment of a recording, and with what lost, may an example look?

    @given(crash_states("recorded"))
    def test_money_adds_up(state):
        with recovered(state) as database:
            assert total(database.url) == 0

A state shrinks towards the earliest crash point, and there towards nothing lost: number 0 keeps all that was written,
as after kill -9; number n is the address `position.n-1` of an exploration, whose first one keeps only what was durable.

Choices: one folder and one server for all examples of a recording, as for all states of an exploration. The recording
    that is asked for next takes their place, and the end of the process removes them.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from crashlab.disk.model import CrashState
from crashlab.disk.states import everything
from crashlab.errors import ServerError
from crashlab.exploration.addresses import Address
from crashlab.exploration.conditions import Conditions, conditions_of
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.recording import Recording, find
from crashlab.history import History
from crashlab.ledgercursor import LedgerCursor
from crashlab.profile import Profile, stored_profile
from crashlab.recovery import recover
from crashlab.recovery.restart import copy_settings
from crashlab.server.registry import Disposable, add, remove
from crashlab.strategies.spare import url_of


@dataclass(frozen=True)
class RecordedState:
    """One crash state of a recording."""

    recording: Path
    position: int  # the crash point
    number: int  # 0: nothing was lost; n: the n-th state that an exploration tries there, or its last one


@dataclass(frozen=True)
class Recovered:
    """A server that has recovered from a crash state; it goes with the end of the context."""

    url: str  # postgresql://
    note: str  # what the crash took, in words
    history: History  # what the workload's clients had been told by then


def crash_points(recording: str | Path) -> st.SearchStrategy[int]:
    """Draw positions at which the recording's own profile may cut the power; the earliest is the simplest.

    The recording is opened with the first example. Raises RecordingError then: there is none, or it is damaged.
    """
    return st.deferred(lambda: st.sampled_from(_opened(Path(recording)).conditions.points))


def crash_states(recording: str | Path) -> st.SearchStrategy[RecordedState]:
    """Draw crash states of a recording for `recovered`. Raises as `crash_points`."""

    def states() -> st.SearchStrategy[RecordedState]:
        opened = _opened(Path(recording))
        return states_among(opened.recording.folder, opened.conditions.points, opened.numbers)

    return st.deferred(states)


def states_among(folder: Path, points: Sequence[int], numbers: int) -> st.SearchStrategy[RecordedState]:
    """Draw states of these points, ascending, each with a number below `numbers`."""
    # The order in which they are drawn is that in which they shrink
    return st.builds(RecordedState, st.just(folder), st.sampled_from(points), st.integers(0, numbers - 1))


@contextlib.contextmanager
def recovered(state: RecordedState) -> Iterator[Recovered]:
    """Recover a crash state; the server dies with the end of the context.

    Raises:
        RecordingError: the recording is gone or damaged.
        ServerError: the server does not start on this state; the detail says why.
    """
    spare = _spare_for(state.recording)
    with spare.on(state) as database:
        yield database


@dataclass(frozen=True)
class _Opened:
    recording: Recording
    profile: Profile
    conditions: Conditions

    @property
    def numbers(self) -> int:
        """How many states a point is asked for: nothing lost, and those of one lap of an exploration."""
        return 1 if self.conditions.contract.everything_survives else 1 + self.conditions.states_per_point


@functools.lru_cache(maxsize=4)
def _opened(path: Path) -> _Opened:
    recording = find(path)
    profile = stored_profile(recording.record.profile_resolved).profile
    assert profile.power_loss is not None
    return _Opened(recording, profile, conditions_of(recording, profile.power_loss, recording.record.run_seed))


class _Spare(Disposable):
    """An explorer that stays ready for the next example."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._explorer: Explorer | None = None
        add(self)
        try:
            opened = _opened(folder)
            self._ledger = LedgerCursor(opened.recording.ledger)
            self._explorer = Explorer(opened.recording, opened.profile).__enter__()
        except BaseException:
            self.dispose()
            raise

    @contextlib.contextmanager
    def on(self, state: RecordedState) -> Iterator[Recovered]:
        """Make a state real and recover it."""
        explorer = self._explorer
        assert explorer is not None
        crash = _crash_state(explorer, state)
        explorer.make_real(crash)
        server = explorer.worker.server
        try:
            position = server.log_position()
            recovery = recover(
                server, restart=True, log_position=position, overrides=copy_settings(server.version.major)
            )
            if not recovery.started:
                raise ServerError(
                    f"could not start the server on crash state {state.number} of point {state.position}: {crash.note}",
                    detail="\n".join(recovery.fatal) or recovery.tool_fault,
                )
            yield Recovered(url_of(server), crash.note, self._ledger.history(explorer.ledger_io()))
        finally:
            explorer.worker.kill()

    def dispose(self, keep_data_to: Path | None = None) -> None:
        """Remove the folder and the server."""
        if self._explorer is not None:
            self._explorer.dispose()
        remove(self)


def _crash_state(explorer: Explorer, state: RecordedState) -> CrashState:
    """Return what a state means; a number beyond the last state of its point is the last one."""
    for number in range(state.number - 1, -1, -1):
        found = explorer.state(Address(state.position, number))
        if found is not None:
            return found
    return everything(explorer.walk.to(state.position))


_spares: list[_Spare] = []


def _spare_for(folder: Path) -> _Spare:
    if not _spares or _spares[0].folder != folder:
        dispose_spare()
        _spares.append(_Spare(folder))
    return _spares[0]


def dispose_spare() -> None:
    """Remove the folder and the server that wait for the next example, if there are any."""
    while _spares:
        _spares.pop().dispose()
