"""How do SIGTERM and SIGHUP end a run, from when on is Ctrl-C answered, and what may it only ask for?"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def answer_interrupts() -> None:
    """Let Ctrl-C through, which is held back at first: an import that it cuts off may say so on stderr."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end a run as Ctrl-C does, from now on: with a report and without leftovers."""
    answer_interrupts()
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP on purpose
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def first_one_asks(says: str) -> Iterator[Callable[[], bool]]:
    """Let a first signal that interrupts only ask for an end, and a second one interrupt.

    Args:
        says: what is told on stderr when the first one comes.

    Yields:
        whether the end was asked for.
    """
    asked = False

    def answer(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        os.write(2, f"\n{says}\n".encode())  # no file object may be written to from here

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.default_int_handler
    ]
    for number in numbers:
        signal.signal(number, answer)
    try:
        yield lambda: asked
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
