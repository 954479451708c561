"""What of that which is asked for is refused before any server is made?

Choices: where it is not known which server it will be, nothing is refused: what is wrong is said when it is made.
"""

from collections.abc import Iterable, Iterator

from crashlab.errors import ProfileError, ServerError
from crashlab.profile import Profile
from crashlab.server import ServerChoice
from crashlab.server.base import require_same_major
from crashlab.server.choose import foresee
from crashlab.server.kinds import Foreseen
from crashlab.trial.setup import server_spec
from crashlab.trial.vary import SEGMENT


def refuse_recoverer(profiles: Iterable[Profile], choice: ServerChoice, wanted: ServerChoice) -> None:
    """Hold the server that is to recover against those that are to crash.

    Raises:
        UsageProblem: it cannot recover what they leave.
        ServerError: there is no such server.
    """
    for server in dict.fromkeys(_foreseen(profile, choice) for profile in profiles):
        if server is not None:
            other = server.kind.recoverer(wanted)
            require_same_major(server.version, other.version, other.source)


def refuse_settings(profiles: Iterable[Profile], choice: ServerChoice, *, fetch: bool = True) -> None:
    """Hold each setting of the profiles against the server that they will run on. Raises ProfileError: it has others.

    Settings of extensions are let pass: only their server, once it has loaded them, knows those.

    Args:
        fetch: whether an image that is not there may be fetched for that; if not, nothing is known of an image.
    """
    for profile in profiles:
        server = _foreseen(profile, choice, fetch=fetch)
        wrong = [] if server is None else list(_wrong(profile, server))
        if wrong:
            raise ProfileError(f'cannot use profile "{profile.name}"', detail="\n".join(wrong))


def _wrong(profile: Profile, server: Foreseen) -> Iterator[str]:
    for place, name, value in given_settings(profile):
        if name != SEGMENT and (said := server.wrong_with(name, value)) is not None:
            yield f"{place}.{name}: {said}"


def given_settings(profile: Profile) -> Iterator[tuple[str, str, str]]:
    """Yield the table, the name and the value of each setting; one that is left open has several values."""
    for name, value in profile.server.settings.items():
        yield "server.settings", name, value
    for name, values in profile.vary.items():
        for value in values:
            yield "vary", name, value


def _foreseen(profile: Profile, choice: ServerChoice, *, fetch: bool = True) -> Foreseen | None:
    try:
        return foresee(server_spec(profile, choice), fetch=fetch)
    except ServerError:
        return None
