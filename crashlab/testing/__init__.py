"""How does a project test its own application, unchanged, against crashes of its database?

    from crashlab.testing import Crash

    with Crash(profile="kill9-all") as crash:      # the outermost `with` is the server's life
        shop = Shop(crash.url)
        with crash:                                # somewhere in here it dies
            for n in range(20):
                crash.told(shop.order(n))
        crash.check("SELECT id FROM orders")

In pytest the fixture `crash` is such a server that is up.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crashlab.testing.crash import Crash
    from crashlab.testing.failure import CrashFailure

__all__ = ["Crash", "CrashFailure"]


def __getattr__(name: str) -> Any:
    """Import what needs a driver when it is asked for: the pytest plugin is loaded with every run of pytest."""
    if name == "Crash":
        from crashlab.testing.crash import Crash

        return Crash
    if name == "CrashFailure":
        from crashlab.testing.failure import CrashFailure

        return CrashFailure
    raise AttributeError(name)
