"""At which moment of a conversation does the server die?

A moment names a round trip and one of its three phases:

    before     the server never sees the message
    unheard    the server has done it, and the answer never arrives
    answered   the client has the answer, and nothing else is served any more

The round trip is named relative to the conversation, counted from when the moment was armed: the connection in order
of appearance, and which of its commits, statements or messages it is. So it means the same in another run even if the
connections before it, or reads in between, are others; where an application does something else each time, another
message may come to be the nth.

    commit      COMMIT of a transaction with a transaction id, PREPARE TRANSACTION, COMMIT PREPARED, and what commits
                on its own: a Query with a statement that writes by its text, or the Sync behind one that has written
    statement   Query, Execute, FunctionCall
    message     every message that is answered, from the first behind the login
"""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from crashlab.errors import UsageProblem

Unit = Literal["message", "statement", "commit"]
Phase = Literal["before", "unheard", "answered"]
UNITS: tuple[Unit, ...] = get_args(Unit)
PHASES: tuple[Phase, ...] = get_args(Phase)
WORDS = {
    "before": "before the server sees it",
    "unheard": "done but unheard",
    "answered": "answered, and nothing after it",
}


@dataclass(frozen=True, order=True)
class Moment:
    """One phase of one round trip. `str` and `parse` are each other's inverse: "2:commit:17:unheard"."""

    connection: int  # from 1, in order of appearance
    unit: Unit
    nth: int  # from 1, on that connection
    phase: Phase

    def __str__(self) -> str:
        return f"{self.connection}:{self.unit}:{self.nth}:{self.phase}"

    @classmethod
    def parse(cls, text: str) -> "Moment":
        """Read what `str` wrote. Raises UsageProblem."""
        match = re.fullmatch(rf"([1-9]\d*):({'|'.join(UNITS)}):([1-9]\d*):({'|'.join(PHASES)})", text)
        if match is None:
            raise UsageProblem(
                f'cannot read "{text}" as a moment',
                detail="It is CONNECTION:UNIT:NUMBER:PHASE, as in 2:commit:17:unheard.",
                hint=f"Units are {', '.join(UNITS)}; phases are {', '.join(PHASES)}.",
            )
        unit = next(word for word in UNITS if word == match[2])
        phase = next(word for word in PHASES if word == match[4])
        return cls(int(match[1]), unit, int(match[3]), phase)

    def words(self, what: str = "") -> str:
        """Return it in words; `what` says what the message asks for ("COMMIT of transaction 17")."""
        return f"connection {self.connection}, {what or f'{self.unit} {self.nth}'}, {WORDS[self.phase]}"


@dataclass
class Counter:
    """What one connection has asked since the moment was armed."""

    connection: int  # in order of appearance
    numbers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(UNITS, 0))


class Gate:
    """Which moment is waited for, and has it come? One for all connections of an observer."""

    def __init__(self) -> None:
        self.armed: Moment | None = None
        self.epoch = 0  # how often it was armed
        self.stopped = False  # nothing is passed on, on no connection
        self._counters: dict[int, Counter] = {}
        self._connections = 0

    def next_connection(self) -> int:
        """Number a new connection, over the observer's whole life."""
        self._connections += 1
        return self._connections

    def arm(self, moment: Moment | None) -> None:
        """Wait for a moment from now on; None: count only."""
        self.armed, self.epoch, self._counters = moment, self.epoch + 1, {}

    def count(self, connection: int, unit: Unit) -> tuple[int, int]:
        """Count one more of a connection; return its place in order of appearance, and the number."""
        counter = self._counters.get(connection)
        if counter is None:
            counter = self._counters[connection] = Counter(len(self._counters) + 1)
        counter.numbers[unit] += 1
        return counter.connection, counter.numbers[unit]

    def phase(self, connection: int, unit: Unit, nth: int) -> Phase | None:
        """Return the phase in which to stop at what was just counted; None: go on."""
        if self.armed is None or (self.armed.unit, self.armed.nth) != (unit, nth):
            return None
        counter = self._counters.get(connection)
        return self.armed.phase if counter is not None and counter.connection == self.armed.connection else None

    def watches_commits(self) -> bool:
        """Say whether it has to be known before a commit which one it is."""
        return self.armed is not None and self.armed.unit == "commit"

    def stop(self) -> None:
        """The moment has come."""
        self.stopped, self.armed = True, None
