"""A server with an observer in front of it, for tests that hold one conversation after the other."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from crashlab.observer import Conversation, Observer, Upstream
from crashlab.observer.conversation import conversation_of, read_records
from crashlab.server import Server, ServerSpec, create_server
from tests.observer import talks
from tests.observer.talks import Held, Holder, Talk

SETTINGS = {"max_prepared_transactions": "10", "fsync": "off", "autovacuum": "off"}
DIRECT, OBSERVED = "direct", "observed"


def upstream_of(server: Server) -> Upstream:
    """Where a server listens."""
    with server.connect() as connection:
        return Upstream(connection.info.host, connection.info.port)


@contextmanager
def started(**settings: str) -> Iterator[Server]:
    """A server with a user of crashlab's own."""
    with create_server(ServerSpec(kind="local", settings=SETTINGS | settings)) as server:
        server.start()
        yield server


class Scene:
    """Two databases alike on one server: one is talked to directly, one through an observer."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.talks = server, folder, 0
        self.upstream = upstream_of(server)
        with server.connect(autocommit=True) as connection:
            self.user = connection.info.user
            connection.execute(f"CREATE DATABASE {DIRECT}")
            with server.connect(dbname=DIRECT, autocommit=True) as first:
                first.execute(talks.SETUP)
            connection.execute(f"CREATE DATABASE {OBSERVED} TEMPLATE {DIRECT}")  # the tables have the same numbers
        self.controls = {name: server.connect(dbname=name, autocommit=True) for name in (DIRECT, OBSERVED)}
        self._path = folder / "conversation.jsonl"
        self._read = 0
        self.observer = Observer(self.upstream, self._path, folder=folder)

    def hold(self, drawn: Talk) -> tuple[Held, Held, Conversation]:
        """Hold a conversation with the server, and again through a new observer."""
        self.talks += 1
        for control in self.controls.values():
            control.execute("TRUNCATE t; INSERT INTO t VALUES (0)")
        direct = self._holder(self.upstream.host, self.upstream.port, DIRECT).hold(drawn)
        self.clear(DIRECT)
        self.observer.arm(None)
        address = self.observer.address
        held = self._holder(str(address.sockets), address.port, OBSERVED).hold(drawn)
        self.wait_alone(OBSERVED)
        records = read_records(self._path)[self._read :]
        self._read += len(records)
        return direct, held, conversation_of(records)

    def _holder(self, host: str, port: int, database: str) -> Holder:
        return Holder(Path(host), port, self.user, database, self.talks * 1000, f"g{self.talks}")

    def wait_alone(self, database: str) -> None:
        """Wait until the clients' sessions have ended, and with them what they left open."""
        alone = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        for _ in range(10_000):
            if self.controls[database].execute(alone, [database]).fetchone() == (True,):
                return
        raise AssertionError("a session did not end")

    def clear(self, database: str) -> None:
        """Remove what a conversation left prepared."""
        self.wait_alone(database)
        for (gid,) in self.controls[database].execute(
            "SELECT gid FROM pg_prepared_xacts WHERE database = %s", [database]
        ):
            self.controls[database].execute(f"ROLLBACK PREPARED '{gid}'")

    def examine(self, drawn: Talk, seen: Counter[str] | None = None) -> list[str]:
        """Hold a conversation both ways and say what is wrong; count in `seen` how transactions ended."""
        direct, held, account = self.hold(drawn)
        if seen is not None:
            seen.update(f"{one.outcome}{', id unknown' if one.unknown else ''}" for one in account.transactions)
        found = talks.differences(account, held, self.controls[OBSERVED])
        self.clear(OBSERVED)
        for number, (one, other) in enumerate(zip(direct.heard, held.heard, strict=True), 1):
            if one != other:
                same = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
                found.append(f"connection {number}: directly {one[same:]}, through the observer {other[same:]}")
        return found

    def close(self) -> None:
        """Close our own connections."""
        self.observer.close()
        for control in self.controls.values():
            control.close()


def rows(connection: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    """The values in the table."""
    return [row[0] for row in connection.execute("SELECT v FROM t ORDER BY v")]
