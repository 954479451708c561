"""The observer's own process; `observer.py` starts it."""

import asyncio
import gc
import os
import socket
import sys
from pathlib import Path

import uvloop

from crashlab.observer.proxy import Proxy, serve


def main(words: list[str]) -> int:
    """Serve: descriptor of the parent's socket, parent's id, host and port of the server, conversation, sockets."""
    control, parent, host, port, conversation, sockets = words
    if os.getppid() != int(parent):
        return 1
    gc.freeze()  # what has been imported stays
    # With uvloop's loop the observer adds half of what it adds with asyncio's own (tests/benchmarks/bench_observer.py).
    with socket.socket(fileno=int(control)) as own, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(own, Proxy((host, int(port)), Path(conversation)), Path(sockets), int(parent)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
