"""What does a build of this machine say about a setting's value, without being started?

`postgres -C` reads its command line as the server does, tells one setting, and ends: 30 ms.
"""

import functools
import subprocess

from crashlab.server.builds import Build
from crashlab.server.privileges import server_environment, server_user
from crashlab.server.template import find_template

TIMEOUT_S = 20.0


@functools.cache
def refusal(build: Build, name: str, value: str) -> str | None:
    """Return why a build does not take a value, in its own words; None: it does.

    Raises:
        ServerError: initdb failed, which makes the folder that it has to be shown.
    """
    user = server_user()
    folder = find_template(build, (), user)
    done = subprocess.run(
        [build.bindir / "postgres", "-C", "port", "-D", folder, "-c", f"{name}={value}"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd="/",
        env=server_environment(),
        **user.credentials(),
    )
    if done.returncode == 0:
        return None
    said = [line.partition(":  ")[2].strip() for line in done.stderr.splitlines() if ":  " in line]
    return "; ".join(said) or f"postgres -C ended with {done.returncode}"
