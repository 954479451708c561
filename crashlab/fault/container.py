"""What happens on `docker kill`? Every process dies at once; the page cache, and so every write, lives on."""

from crashlab.errors import FaultError
from crashlab.fault.effect import Effect
from crashlab.server import Server


def inject(server: Server) -> Effect:
    """Kill the whole container."""
    if server.kind != "container":
        raise FaultError(
            "cannot kill the container: the server is a local one",
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
