"""Does a process stand still at the very system call at which something was seen, and go on unharmed where not?"""

import signal
import subprocess
import sys
import time

import pytest

from crashlab.server.processes import state, wait_stopped
from crashlab.server.stepping import step_until

LINES = 200
WRITER = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: os.write(fd, b"signal\\n"))
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    os.write(fd, b"line %d\\n" % number)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that writes its lines as fast as it can once it is told to, and their file."""
    file = tmp_path / "lines"
    command = [sys.executable, "-c", WRITER, str(file), str(LINES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        yield process, file
        process.kill()


def too_late(seconds: float = 20.0):
    """Say when it is."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline


def go(process):
    """Tell it to write."""
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("line", [0, 57, LINES - 1])
def test_it_stands_still_right_after_what_was_seen(writer, line):
    """It has written that line and not one more, though the next would have come within microseconds."""
    process, file = writer
    seen = f"line {line}\n"
    begin = iter([lambda: go(process)])  # once it is stepped

    def is_seen() -> bool:
        next(begin, lambda: None)()
        return seen in file.read_text()

    assert step_until(process.pid, is_seen, over=too_late()) is True
    assert wait_stopped(process.pid, 5)
    assert file.read_text().endswith(seen)
    process.send_signal(signal.SIGCONT)
    assert process.wait(20) == 0
    assert len(file.read_text().splitlines()) == LINES


def test_a_signal_reaches_it_meanwhile(writer):
    """What it is sent while it is stepped is not kept from it."""
    process, file = writer
    process.send_signal(signal.SIGUSR1)
    assert step_until(process.pid, lambda: "signal" in file.read_text(), over=too_late()) is True
    process.kill()


def test_when_it_is_over_it_goes_on_alone(writer):
    """It was never seen: the process is let go, in the middle of its sleep, and ends as ever."""
    process, file = writer
    assert step_until(process.pid, lambda: False, over=too_late(0.2)) is False
    assert state(process.pid) not in ("T", "t")
    go(process)
    assert process.wait(20) == 0
    assert len(file.read_text().splitlines()) == LINES


def test_who_asks_and_fails_lets_it_go(writer):
    """The error comes through, and the process goes on."""
    process, file = writer

    def fail():
        raise LookupError

    with pytest.raises(LookupError):
        step_until(process.pid, fail, over=too_late())
    go(process)
    assert process.wait(20) == 0
    assert len(file.read_text().splitlines()) == LINES


def test_one_that_ends_was_not_seen(writer):
    """No wait for what cannot come any more; and one that is gone cannot be stepped at all."""
    process, _ = writer
    go(process)
    assert not step_until(process.pid, lambda: False, over=too_late())
    process.wait(20)
    assert step_until(process.pid, lambda: True, over=too_late()) is None
