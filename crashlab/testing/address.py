"""Under which addresses do an application, its processes and the test itself reach the server?"""

from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from crashlab.observer import Observer, Upstream


class Address:
    """Where a server is, as its superuser reaches it."""

    def __init__(self, conninfo: str) -> None:
        """Take a libpq connection string."""
        parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
        self._host, self._port, self._user = parts["host"], parts["port"], parts["user"]
        self._database, self._password = parts["dbname"], parts.get("password")

    @property
    def upstream(self) -> Upstream:
        """For an observer."""
        return Upstream(self._host, int(self._port))

    def url(self, observer: Observer) -> str:
        """Return it as seen through an observer."""
        return observer.url(self._user, self._database, self._password)

    @property
    def direct_url(self) -> str:
        """As it is; a folder of sockets stands behind the question mark, where every driver looks for one."""
        who = quote(self._user, safe="")
        who += f":{quote(self._password, safe='')}" if self._password is not None else ""
        name = quote(self._database, safe="")
        if self._host.startswith("/"):
            return f"postgresql://{who}@/{name}?host={quote(self._host, safe='')}&port={self._port}"
        return f"postgresql://{who}@{self._host}:{self._port}/{name}"

    def env(self, observer: Observer) -> dict[str, str]:
        """Return what libpq, and those who do as it does, read from the environment."""
        env = {
            "PGHOST": observer.address.host,
            "PGPORT": str(observer.address.port),
            "PGUSER": self._user,
            "PGDATABASE": self._database,
            "DATABASE_URL": self.url(observer),
        }
        return env if self._password is None else {**env, "PGPASSWORD": self._password}
