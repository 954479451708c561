"""Is a process that hangs told from one that is slow?"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crashlab.server import standstill
from crashlab.server.standstill import Glance, judged, what_hangs

SLEEPS = Glance("S", "postgres: startup recovering 000000010000000000000003", 1.0, 1000, "ep_poll")


@contextmanager
def running(code: str) -> Iterator[int]:
    """A Python process that runs this code, once it says so."""
    with subprocess.Popen([sys.executable, "-c", f"print(flush=True)\n{code}"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_process_that_sleeps_and_one_in_a_circle_hang(monkeypatch):
    """With what it calls itself, and where it waits."""
    monkeypatch.setattr(standstill, "EVERY_S", 0.25)
    with running("import time; time.sleep(60)") as pid:
        said = what_hangs(pid)
    assert said is not None
    assert "the startup process sleeps as" in said
    told = judged([SLEEPS._replace(state="R"), SLEEPS._replace(state="R", cpu_s=2.9)], 3.0)
    assert told is not None
    assert "000000010000000000000003" in told
    assert "it used 1.9 s of CPU" in told


@pytest.mark.parametrize(
    "last",
    [
        SLEEPS._replace(moved_bytes=1001),
        SLEEPS._replace(title="postgres: startup recovering 000000010000000000000004"),
        SLEEPS._replace(state="D"),
        SLEEPS._replace(state="T"),
        SLEEPS._replace(state="R"),
        SLEEPS._replace(waits_in="request_wait_answer"),
    ],
)
def test_one_that_moves_or_is_kept_waiting_from_outside_does_not(last):
    """It reads or writes, goes on to the next file, waits for a disk, was stopped, or gets no CPU."""
    assert judged([SLEEPS, SLEEPS], 2.0) is not None
    assert judged([SLEEPS, last], 2.0) is None


def test_of_a_process_that_is_gone_nothing_is_said():
    """Between two looks."""
    with running("pass") as pid:
        pass
    assert what_hangs(pid) is None
