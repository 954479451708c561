"""A server with an observer in front of it, for tests that hold one conversation after the other."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from crashlab.observer import Conversation, Observer, Upstream
from crashlab.observer.answers import SYNTAX_ERROR
from crashlab.observer.conversation import conversation_of, read_records
from crashlab.server import Server, ServerSpec, create_server
from crashlab.server.local import LocalServer
from tests.observer import talks
from tests.observer.talks import Held, Holder, Talk

SETTINGS = {
    "max_prepared_transactions": "10",
    "fsync": "off",
    "autovacuum": "off",
    "log_line_prefix": "%p|%e|",
    "wal_keep_size": "4GB",  # all of it is read at the end
}
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
        self.ids: dict[int, str] = {}  # of all conversations -> what their accounts say
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
        control = self.controls[database]
        return Holder(Path(host), port, self.user, database, self.talks * 1000, f"g{self.talks}", control)

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
        position = self.server.log_position()
        direct, held, account = self.hold(drawn)
        if seen is not None:
            seen.update(f"{one.outcome}{', id unknown' if one.unknown else ''}" for one in account.transactions)
        found = talks.differences(account, held, self.controls[OBSERVED])
        found += log_differences(account, self.server.log_since(position))
        self.ids.update({one.xid: one.outcome for one in account.transactions if one.xid is not None})
        self.clear(OBSERVED)
        for number, (one, other) in enumerate(zip(direct.heard, held.heard, strict=True), 1):
            if one != other:
                same = next((n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
                found.append(f"connection {number}: directly {one[same:]}, through the observer {other[same:]}")
        return found

    def wal_differences(self) -> list[str]:
        """Say where the accounts are not what all of the WAL says."""
        assert isinstance(self.server, LocalServer)
        assert self.server.data_directory is not None
        row = (
            self.controls[DIRECT]
            .execute("SELECT lsn, pg_walfile_name(lsn) FROM pg_current_wal_flush_lsn() lsn")
            .fetchone()
        )
        assert row is not None
        wal = self.server.data_directory / "pg_wal"
        first = min(file.name for file in wal.iterdir() if len(file.name) == 24)
        program = str(self.server.build.bindir / "pg_waldump")
        command = [program, "-p", str(wal), "-r", "Transaction", "-e", str(row[0]), first, str(row[1])]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
        done = {
            int(match[2] or match[1])
            for match in re.finditer(r"tx: +(\d+),.*desc: COMMIT(?:_PREPARED)?(?: (\d+):)? ", listed)
        }
        found = [f"{xid} is {outcome}, the WAL has no commit of it" for xid, outcome in self.ids.items()
                 if outcome == "committed" and xid not in done]  # fmt: skip
        return found + [f"{xid} is {outcome}, the WAL has a commit of it" for xid, outcome in self.ids.items()
                        if outcome in ("rolled back", "open") and xid in done]  # fmt: skip

    def close(self) -> None:
        """Close our own connections."""
        self.observer.close()
        for control in self.controls.values():
            control.close()


def log_differences(account: Conversation, log: str) -> list[str]:
    """Say whose errors are others in the server's own log than in the account."""
    found = []
    for connection in account.connections.values():
        logged = re.findall(rf"^{connection.process}\|(\w+)\|ERROR: ", log, re.MULTILINE)
        told = [step.failure[1] for step in connection.steps if step.failure is not None and step.message != "CopyDone"]
        # A statement without its end was refused with our addition first, and then alone.
        if _once(logged) != _once(told):
            found.append(f"the log has the errors {logged} of process {connection.process}, the account {told}")
    return found


def _once(codes: list[str]) -> list[str]:
    return [code for code, later in zip(codes, [*codes[1:], ""], strict=False) if not code == later == SYNTAX_ERROR]


def rows(connection: psycopg.Connection[tuple[object, ...]]) -> list[object]:
    """The values in the table."""
    return [row[0] for row in connection.execute("SELECT v FROM t ORDER BY v")]
