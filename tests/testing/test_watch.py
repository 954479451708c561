"""Does the last moment of a block count, although its client is told of it first?"""

from crashlab.observer import Moment, Reached
from crashlab.testing.watch import Outcome, Watch

REACHED = Reached(Moment(1, "commit", 1, "answered"), 1, 1)


class SlowObserver:
    """Says that the moment has come a little later than the client had its answer, as the real one may."""

    def __init__(self, comes: bool) -> None:
        self.comes = comes
        self.reached: Reached | None = None

    def settle(self) -> None:
        self.reached = REACHED if self.comes else None

    def wait_reached(self, timeout_s: float) -> Reached | None:
        return self.reached


def test_a_block_that_is_over_asks_once_more():
    """Its end is no end before the observer has said all; and without a moment it is one."""
    for comes in (True, False):
        outcomes: list[Outcome] = []
        watch = Watch(SlowObserver(comes), outcomes.append, armed=True, after_s=None, timeout_s=30)  # type: ignore[arg-type]
        assert watch.end(30)
        assert [one.why for one in outcomes] == ["moment" if comes else "end"]
