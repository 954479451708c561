"""What happens on `docker kill`? Every process dies at once; the page cache, and so every write, lives on."""

from random import Random

from crashlab.errors import FaultError
from crashlab.fault.kind import Asked, Effect, FaultKind
from crashlab.server import Server


class ContainerKill(FaultKind):
    """Kill the whole container from outside."""

    name = "container_kill"
    summary = "`docker kill` of the server's container"
    servers = ("container",)

    def inject(self, server: Server, asked: Asked, rng: Random) -> Effect:
        """See FaultKind.inject."""
        if server.kind not in self.servers:
            raise FaultError(
                f"cannot kill the container: the server is a {server.kind} one",
                hint='Run with --server container, or use kind = "kill" with target = "all".',
            )
        pids = server.kill_all()
        exit_status = server.postmaster_exit() or ""
        return Effect(
            pid=None,
            pids=pids,
            confirmed="137" in exit_status or "signal 9" in exit_status,
            proof=[f"container {exit_status}", f"all {len(pids)} processes ended with it"],
        )


FAULT = ContainerKill()
