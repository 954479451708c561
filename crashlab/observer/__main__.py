"""The observer's own process; `observer.py` starts it."""

import asyncio
import gc
import os
import socket
import sys
from pathlib import Path

from crashlab.observer.proxy import Proxy, serve


def main(words: list[str]) -> int:
    """Serve: descriptor of the parent's socket, parent's id, host and port of the server, conversation, sockets."""
    control, parent, host, port, conversation, sockets = words
    if os.getppid() != int(parent):
        return 1
    gc.freeze()  # what has been imported stays
    with socket.socket(fileno=int(control)) as own:
        asyncio.run(serve(own, Proxy((host, int(port)), Path(conversation)), Path(sockets), int(parent)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
