"""What does a signal that interrupts do, where a first one only asks for an end?"""

import os
import signal

import pytest

from crashlab.cli.signals import first_one_asks, signals_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_asks_and_the_second_one_interrupts(number, capfd):
    """Afterwards each is answered as before."""
    plainly = (
        signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    )  # another test may have ignored it
    earlier = signal.signal(number, plainly)
    seen: list[object] = []

    def ask_twice() -> None:
        with signals_interrupt(), first_one_asks("it ends") as asked:
            seen.append(asked())
            os.kill(os.getpid(), number)
            seen.append(asked())
            os.kill(os.getpid(), number)
            seen.append("not interrupted")

    try:
        with pytest.raises(KeyboardInterrupt):
            ask_twice()
        assert seen == [False, True]
        assert "it ends" in capfd.readouterr().err
        assert signal.getsignal(number) is plainly
    finally:
        signal.signal(number, earlier)


def test_a_signal_that_was_ignored_stays_so():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_interrupt(), first_one_asks("it ends") as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)
