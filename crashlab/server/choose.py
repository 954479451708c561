"""Which kind of server is it to be?"""

import re
from pathlib import Path

from crashlab.errors import CrashlabError, ServerError, UsageProblem, Warn
from crashlab.server.base import Server, ServerChoice, ServerSpec, Version
from crashlab.server.kinds import AUTO, SERVER_KINDS, Foreseen, ServerKind
from crashlab.server.spares import SpareDirectories

_VERSION = re.compile(r"\d+(\.\d+)?((beta|rc|devel)\d*)?")


def create_server(spec: ServerSpec, *, work: Path | None = None, spares: SpareDirectories | None = None) -> Server:
    """Choose a server and prepare its data directory or container; do not start it.

    `auto` means: the kind whose own field is given, such as a container for an image, else the first that is there.

    Args:
        work: where a local server's data directory is made; the server's user must be able to reach it.
        spares: for many local servers in a row: used data directories, made fresh again instead of new ones.

    Raises:
        UsageProblem: the wishes contradict each other.
        ServerError: there is no build, no Docker, no such image, or no data directory could be made.
    """
    first, *others = candidates(spec)
    server = first.create(spec, work=work, spares=spares)
    if server is not None:
        return server
    why = []
    for kind in others:
        try:
            server = kind.create(spec, work=work, spares=spares)
        except ServerError as error:
            why.append(f"Neither is there {kind.noun}: {error.primary}.")
            continue
        if server is not None:
            return server
    raise first.missing(" ".join(why))


def foresee(choice: ServerChoice, *, fetch: bool = True) -> Foreseen | None:
    """Say which server `create_server` would choose, and make none; None: this machine has none of them.

    Args:
        fetch: whether what has to be fetched for that may be; if not, it is as though this machine could not.

    Raises:
        UsageProblem, ServerError: as `create_server`.
    """
    kinds = [kind for kind in candidates(choice) if fetch or not kind.fetches]
    return next((found for kind in kinds if (found := kind.foresee(choice)) is not None), None)


def candidates(choice: ServerChoice) -> list[ServerKind]:
    """Return the kinds that may serve, the first that is there to be taken. Raises UsageProblem: a contradiction."""
    given = [kind for kind in SERVER_KINDS.values() if getattr(choice, kind.field) is not None]
    if choice.kind == AUTO and not given:
        return list(SERVER_KINDS.values())
    wanted = given[0] if choice.kind == AUTO else SERVER_KINDS[choice.kind]
    for kind in given:
        if kind is not wanted:
            raise UsageProblem(f'cannot use the {kind.field_noun} "{getattr(choice, kind.field)}" for {wanted.noun}')
    return [wanted]


def choice_again(
    choice: ServerChoice,
    kind: str,
    source: str,
    version: Version,
    *,
    trust: bool = False,
    warn: Warn | None = None,
) -> ServerChoice:
    """Return the server that runs stored evidence again: the one asked for, or one of this machine's own like it.

    Args:
        kind, source, version: which server it was, as evidence says.
        trust: run the very one that it names.
        warn: is told if it is one of another release, which nobody asked for.

    Raises:
        UsageProblem: a server of another kind is asked for.
        ServerError: this machine has none like it.
    """
    known = SERVER_KINDS.get(kind)
    if known is None:
        raise ServerError(f'cannot run a server of the kind "{kind}"', detail="The evidence names it.")
    if any(getattr(choice, one.field) is not None for one in SERVER_KINDS.values()):
        candidates(choice)
        return choice
    if choice.kind in (AUTO, kind):
        choice = known.again(source, version) if trust else known.like(source, version)
    if warn is not None:
        taken = foresee(choice)
        if taken is not None and taken.version.text != version.text:
            warn(_another_release(taken, source, version, trust=trust))
    return choice


def _another_release(taken: Foreseen, source: str, version: Version, *, trust: bool) -> CrashlabError:
    """Return what is told of a server that takes the place of one of another release."""
    hint = f"Give one with {taken.kind.option} {taken.kind.metavar}"
    return ServerError(
        f"PostgreSQL {taken.version.text} takes the place of {version.text}",
        detail=f'The evidence names {version.text} in "{source}"; what runs now is {taken.version.text} in '
        f'"{taken.source}", and what is found is true of that one.',
        hint=f"{hint}." if trust else f"{hint}; or run the one that the evidence names, with --trust.",
    )


def folder_or_image(text: str) -> ServerChoice:
    """Return the server that one word means: a build in a folder that there is, else an image.

    Raises:
        UsageProblem: it is neither: a path that leads to no folder, or a bare version.
    """
    folder = Path(text)
    if folder.is_dir():
        return ServerChoice(kind="local", pg_bindir=folder.resolve())
    if text.startswith(("/", ".", "~")):  # no image's name does
        raise UsageProblem(
            f'cannot recover with "{text}": {"it is no folder" if folder.exists() else "there is no such folder"}',
            hint="Give the folder that holds postgres and initdb, such as /usr/lib/postgresql/17/bin, or an image.",
        )
    if _VERSION.fullmatch(text):
        major = re.split(r"\D", text)[0]
        raise UsageProblem(
            f'cannot tell which server "{text}" is: it is a version, and neither a folder nor an image',
            hint=f"Give the folder that holds its postgres and initdb, such as /usr/lib/postgresql/{major}/bin, or an "
            f"image, such as postgres:{text}.",
        )
    return ServerChoice(kind="container", image=text)


def options_of(choice: ServerChoice) -> list[str]:
    """Return the words of a command line that make this choice."""
    for kind in SERVER_KINDS.values():
        given = getattr(choice, kind.field)
        if given is not None:
            return [kind.option, str(given)]
    return [] if choice.kind == AUTO else ["--server", choice.kind]
