"""How do parallel runs share the cache?

One advisory lock file per cached thing; the kernel releases it when its holder ends, however it ends.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crashlab.errors import ServerTimeout

LOCK_TIMEOUT_S = 120.0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, made if need be. Raises ServerTimeout: another run holds it for too long."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with path.open("a") as file:
        while True:
            try:
                # flock has no timeout of its own.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ServerTimeout(
                        f'could not lock "{path}" within {LOCK_TIMEOUT_S:g} s',
                        hint="Another crashlab run is making the same template or build copy.",
                    ) from None
                time.sleep(0.02)
        yield
