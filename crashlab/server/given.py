"""Which kind of server is it that somebody hands over, to be crashed where it is?"""

import os
from typing import Any

from crashlab.server.base import Server


def given_server(given: Any) -> Server:
    """Take over a server that runs, and that is left running at disposal.

    Args:
        given: a container's name or id, docker's or testcontainers' container; or a data directory (a path that
            is no bare name), or what has one as `datadir`.

    Raises:
        ServerError, UsageProblem: it cannot be crashed.
    """
    directory = isinstance(given, os.PathLike) or (isinstance(given, str) and os.sep in given)
    if directory or hasattr(given, "datadir"):
        from crashlab.server.givenprocess import GivenProcess

        return GivenProcess(given)
    from crashlab.server.givencontainer import GivenContainer  # Docker's modules are slow to import

    return GivenContainer(given)
