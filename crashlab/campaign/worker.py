"""What does a process of the pool do? Take a task, do it, answer; until its parent says so, or is gone.

Run as `python -m crashlab.campaign.worker FD PARENT`: a process of its own, small and without threads, so that to start
a server from it is cheap, and so that it can be killed at no other cost than its own task.
"""

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from crashlab.campaign.executor import WorkerFailed
from crashlab.campaign.runner import Runner
from crashlab.errors import CrashlabError
from crashlab.server import dispose_all
from crashlab.server.owner import serve

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve one parent over an inherited socket."""
    descriptor, parent_pid = map(int, sys.argv[1:])
    os.set_inheritable(descriptor, False)  # a server that holds it would hide this process's death
    parent = Connection(descriptor)
    serve(parent_pid)
    # Ctrl-C reaches the whole process group; the parent decides what it means. An exec'd server has it as default.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it was held back until now
    signal.signal(signal.SIGTERM, _end)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:
        return  # it died before it could be asked for a signal
    with contextlib.suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError):
        _serve(parent)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    dispose_all()
    sys.stdout.flush()
    os._exit(0)  # nothing is left to be done; threads of drivers must not hold it up


def _end(number: int, frame: object) -> None:
    """Give up the task; a parent that ends may say so twice, and tidying up is not to be cut short."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _serve(parent: Connection) -> None:
    with Runner(parent.recv()) as runner:
        while (task := parent.recv()) is not None:
            try:
                answer: object = runner.run(task)
            except CrashlabError as error:
                answer = error
            except Exception:
                answer = WorkerFailed(traceback.format_exc())
            parent.send(answer)


if __name__ == "__main__":
    main()
