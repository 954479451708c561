"""Is the server of a run that is resumed still the release that its trials were made on?

A path, an image's name, and this machine's own search say where a server is, and not which: a package may have been
upgraded since. Trials of two releases would then be counted as if they were of one.

Does not check: a build of the same number with other content; what the workers of a cluster have.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from crashlab.campaign.plan import Plan
from crashlab.errors import ServerError
from crashlab.results import ProfileResult
from crashlab.server import create_server
from crashlab.trial.setup import server_spec


def require_same_server(folder: Path, plan: Plan, earlier: Mapping[str, ProfileResult]) -> None:
    """Compare the release that the plan leads to now with that of each profile's trials.

    Raises:
        ServerError: it is another one, or there is no server.
    """
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for one in plan.asked:
        result = earlier.get(one.profile.name)
        if result is None or result.server is None or not result.trials:
            continue
        kinds = tuple(one.profile.server.kinds)
        if kinds not in found:
            with create_server(server_spec(one.profile, plan.server)) as server:
                found[kinds] = str(server.version), server.source
        version, source = found[kinds]
        if version != result.server.version:
            again = f", or run all of it again: {plan.again}" if plan.again else ""
            raise ServerError(
                f'cannot resume "{folder}": its trials were made on PostgreSQL {result.server.version},'
                f' and "{source}" is {version} by now',
                detail="Trials of two releases would be counted as if they were of one.",
                hint=f"Have that release there again{again}. What is there can be judged: "
                f"crashlab judge {shlex.quote(str(folder))}",
            )
