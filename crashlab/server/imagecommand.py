"""What does an image's own command say about its server, and how is it kept?

An image for an application often is an official one with another CMD: `postgres -c shared_preload_libraries=...`, or
`-c config_file=...`. Such settings are put in force unless a profile asks for another value, and hold for crash states
as well. What else the command has, a wrapper before `postgres`
or an option such as -B, stays as it is.

Choices: a command that does not name postgres cannot be given a setting, so it is refused. Where the server listens and
    which port it has is crashlab's to say.
Source: PostgreSQL manual, "postgres", options -c and --name=value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from crashlab.errors import ServerError
from crashlab.server.settings import MANAGED_SETTINGS

OURS = frozenset({"listen_addresses", "port"})
CONFIG_FILE = "config_file"


@dataclass(frozen=True)
class ImageCommand:
    """An image's command, taken apart."""

    words: list[str] = field(default_factory=lambda: ["postgres"])  # without the settings
    settings: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)  # settings that no profile may have, such as hba_file
    config_file: str | None = None


def read_command(image: str, command: Sequence[str] | None) -> ImageCommand:
    """Take the command of an image apart; None: it has none.

    Raises:
        ServerError: it does not start postgres by itself.
    """
    if not command:
        return ImageCommand()
    starts = [number for number, word in enumerate(command) if PurePosixPath(word).name == "postgres"]
    if not starts and not command[0].startswith("-"):  # options alone are the entry point's to complete
        raise ServerError(
            f'cannot use the image "{image}": its command does not name postgres',
            detail=f"It is {list(command)}.",
            hint='Give it one like CMD ["postgres", "-c", "shared_buffers=256MB"].',
        )
    first = starts[0] + 1 if starts else 0
    words, found = list(command[:first]), dict[str, str]()
    rest = iter(command[first:])
    for word in rest:
        text = next(rest, "") if word == "-c" else word[2:] if word.startswith(("-c", "--")) else ""
        name, equals, value = text.partition("=")
        if equals:
            found[name.lower().replace("-", "_")] = value
        else:
            words += [word, text] if word == "-c" else [word]
    config_file = found.pop(CONFIG_FILE, None)
    places = {name: value for name, value in found.items() if name in MANAGED_SETTINGS - OURS}
    settings = {name: value for name, value in found.items() if name not in MANAGED_SETTINGS}
    return ImageCommand(words, settings, places, config_file)
