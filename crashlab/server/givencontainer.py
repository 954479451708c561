"""How is a server crashed that runs in somebody else's container: testcontainers', or a service of compose?

It is killed and started again where it is, with its own settings and files, and never removed: at the end it runs, as
it did before. What is looked at lies in its own database, beside the application's tables: a schema and an extension.

Assumes: an image with the official entry point's variables; the user that they name is a superuser.
Choices: Docker may publish another port at each start, so it is asked each time. Without a published port the
    container's own address is used, which a process on a Linux machine can reach.
"""

from typing import TYPE_CHECKING, Any

from crashlab.errors import ServerError, UsageProblem
from crashlab.server import registry
from crashlab.server.base import CLIENT_DEFAULTS, DATABASE, Restartable, ServerSpec, Version
from crashlab.server.container import DEFAULT_PGDATA, ContainerServer
from crashlab.server.engine import HOST, docker_errors, docker_problem
from crashlab.server.enginecontainer import EngineContainer
from crashlab.server.imagecommand import ImageCommand

if TYPE_CHECKING:
    import psycopg
    from docker.models.containers import Container

PORT = "5432/tcp"


class GivenContainer(ContainerServer):
    """A server in a container that somebody else made and removes."""

    is_given = True

    def __init__(self, given: Any) -> None:
        """Take a container that runs.

        Args:
            given: its name or id, one of docker's, or one of testcontainers'.

        Raises:
            ServerError: no Docker engine, or no such container.
            UsageProblem: a kill would take its files, or there is no PostgreSQL in it.
        """
        container = _found(given)
        Restartable.__init__(self, ServerSpec(kind="container"))
        self._engine = _Engine(container)
        self.container = self._engine
        variables = self.container.environment
        self._user = variables.get("POSTGRES_USER") or "postgres"
        self._password = variables.get("POSTGRES_PASSWORD") or ""
        self.database = variables.get("POSTGRES_DB") or self._user
        self.source = self.container.image
        self.machine = ""
        self._begin()
        self._image = ImageCommand()
        self._pgdata = variables.get("PGDATA", DEFAULT_PGDATA)
        self._started = True
        try:
            _refuse_if_a_kill_takes_its_files(container, self._pgdata)
            if not self.running():
                raise UsageProblem(f'cannot use the container "{container.name}": it does not run')
        except BaseException:
            registry.remove(self)
            raise

    def _launch(self, settings: dict[str, str], deadline: float) -> None:
        self._in_force = {}  # nobody can give it a setting
        with docker_errors(f'could not start the container "{self.container.name}"'):
            self.container.existing().start()

    @property
    def version(self) -> Version:
        """What the server says of itself."""
        if self._version is None:
            with self.connect() as connection:
                self._version = Version.parse(connection.info.parameter_status("server_version") or "")
            self._version.refuse_if_too_old(self.source)
        return self._version

    def conninfo(self) -> str:
        """See Server.conninfo: of the container's own user and database."""
        from psycopg.conninfo import make_conninfo

        return make_conninfo("", dbname=self.database, user=self._user, **CLIENT_DEFAULTS, **self._address())

    def connect(self, **kwargs: Any) -> "psycopg.Connection":
        """See Server.connect; the database that every cluster has is its own here."""
        if kwargs.get("dbname") == DATABASE:
            kwargs = {**kwargs, "dbname": self.database}
        return super().connect(**kwargs)

    def _address(self) -> dict[str, str]:
        host, port = self._engine.address()
        return {"host": host, "port": port, "password": self._password}

    def dispose(self, keep_data_to: object = None) -> None:
        """Leave it as it was found: running."""
        try:
            if not self.running():
                self.start(timeout_s=60.0)
        finally:
            registry.remove(self)


class _Engine(EngineContainer):
    """The same things done with a container that is there."""

    def __init__(self, container: "Container") -> None:
        self._given = container
        config = container.attrs["Config"]
        self.image = config["Image"]
        self.image_id = container.attrs["Image"]
        self.name = container.name or container.id or ""
        self.environment = dict(pair.split("=", 1) for pair in config["Env"] or [] if "=" in pair)

    def find(self) -> "Container":
        return self._given

    def remove(self) -> None:
        """It is somebody else's."""

    def close(self) -> None:
        """So is its client."""

    def address(self) -> tuple[str, str]:
        """Return host and port, as they are now. Raises ServerError: it has none."""
        with docker_errors("could not ask for the container's address"):
            self._given.reload()
        network = self._given.attrs["NetworkSettings"]
        for published in network["Ports"].get(PORT) or []:
            host = published["HostIp"]
            return HOST if host in ("", "0.0.0.0", "::") else host, published["HostPort"]
        for one in network["Networks"].values():
            if one.get("IPAddress"):
                return one["IPAddress"], PORT.partition("/")[0]
        raise ServerError(
            f'could not reach the container "{self.name}"', detail="It has neither a published port nor an address."
        )


def _found(given: Any) -> "Container":
    """Return docker's own object. Raises ServerError: no engine, or no such container."""
    if hasattr(given, "get_wrapped_container"):
        given = given.get_wrapped_container()
        if given is None:
            raise UsageProblem("cannot use the container: it has not been started")
    if given == "" or not (isinstance(given, str) or hasattr(given, "reload")):
        raise UsageProblem(
            f"cannot crash {given!r}: it is neither a container nor a data directory",
            hint="Hand over a container, its name or id, a data directory as a Path, or `postgresql_proc`.",
        )
    if not isinstance(given, str):
        found: Container = given
        found.reload()
        return found
    problem = docker_problem()
    if problem is not None:
        raise problem
    import docker
    from docker.errors import NotFound

    try:
        return docker.from_env().containers.get(given)
    except NotFound as error:
        raise ServerError(
            f'could not find a container "{given}"', hint="`docker ps` shows the names of those that run."
        ) from error


def _refuse_if_a_kill_takes_its_files(container: "Container", data: str) -> None:
    host = container.attrs["HostConfig"]
    mounts = [one["Destination"] for one in container.attrs["Mounts"] if one["Type"] == "tmpfs"]
    for place in [*(host.get("Tmpfs") or {}), *mounts]:
        if data == place or data.startswith(f"{place.rstrip('/')}/"):
            raise UsageProblem(
                f'cannot crash the container "{container.name}": "{place}" is a tmpfs, and its end takes all files',
                hint="Leave the data directory in the container or on a volume.",
            )
    if host.get("AutoRemove"):
        raise UsageProblem(
            f'cannot crash the container "{container.name}": it was started with --rm, and its end removes it'
        )
