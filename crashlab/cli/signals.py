"""How do SIGTERM and SIGHUP end a run, and from when on is Ctrl-C answered?"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


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
