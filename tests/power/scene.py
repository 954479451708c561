"""Where is damage planted? In copies of one crashed data directory, and of what recovery made of it.

One server runs every kind of transaction, and is killed. From it come
    old      the data directory at an earlier checkpoint, while nobody wrote: what a lost write leaves is in it
    image    as the crash left it; recovery is still to come
    stopped  recovered and stopped cleanly, before anybody read it: no redo repairs what is planted here
A copy takes the damage, a server recovers and reads it, and the oracle judges it with the ledger and the receipt of
that run. Between two kinds of damage only the files that differ are put right.

Choices: what finds the places for damage is read from a copy of its own, since reading sets hint bits.
"""

import contextlib
import dataclasses
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec
import psycopg

from crashlab.contract import contract_for
from crashlab.fault import inject
from crashlab.fault.when import wait_until_due
from crashlab.history import read_ledger
from crashlab.ledger import Ack, Action, Intent, LedgerWriter, Prepared
from crashlab.model import Injection, Observation, Recovery, Verdict
from crashlab.oracle import judge
from crashlab.profile import parse_profile
from crashlab.profile_schema import When
from crashlab.recovery import observe, recover
from crashlab.recovery.checksums import add_checksums
from crashlab.recovery.restart import copy_settings
from crashlab.recovery.wal import read_wal
from crashlab.seeds import stream
from crashlab.server import Server, ServerSpec, create_server
from crashlab.server.builds import find_build
from crashlab.server.local import LocalServer
from crashlab.server.spares import make_equal
from crashlab.server.template import copy_template
from crashlab.trial.setup import make_workload, reading_of
from crashlab.workload.kinds.register import Register
from crashlab.workload.relations import MARKER_TABLE
from crashlab.workload.run import Workload
from crashlab.workload.session import OPENING

Variant = Literal["image", "stopped"]

PROFILE = parse_profile(
    {
        "name": "confusion",
        "description": "every kind of object, and the crash of all processes",
        "server": {"settings": {"checkpoint_timeout": "1h", "max_prepared_transactions": 8, "max_wal_size": "1GB"}},
        "workload": {
            "kinds": [
                *("transfer", "register", "append", "ddl", "toast", "large_object", "indexed", "partitioned"),
                *("booking", "matview", "copy", "locks", "nested", "beside"),
            ],
            "two_phase": 0.03,
        },
        "faults": [{"kind": "kill", "target": "all", "when": {"acks": 150}}],
    }
)
FEW_KINDS = ("transfer", "register", "indexed")
"""What most damage is planted into gets more transactions."""
LAST_KINDS = ("transfer", "register", "indexed", "append", "toast", "large_object", "copy", "locks", "nested", "beside")
"""At the end no command removes a file, and nothing is prepared but once: a log that is cut off is a loss alone."""
OLD_ACKS, MORE_ACKS = (400, 400), (600, 600)
"""Acknowledged transactions, of all kinds and of few, up to the old copy; and from there to the last checkpoint."""
TIMEOUT_S = 60.0
WAL_PAGE, WAL_SEGMENT = 8192, 1 << 20
STATEMENT_TIMEOUT_MS = 8_000
COMMIT_PREPARED: Action = "commit prepared"
ROLLBACK_PREPARED: Action = "rollback prepared"

PLACES = "crashlab_places"  # a tablespace in the data directory: a copy has its own
OTHER_DATABASE = "crashlab_other"
BESIDE_SQL = (
    f"CREATE TABLESPACE crashlab_space LOCATION '/proc/self/cwd/{PLACES}'",
    f"CREATE DATABASE {OTHER_DATABASE}",
)
OTHER_SQL = """
CREATE EXTENSION amcheck;
CREATE TABLE here AS SELECT n, md5(n::text) AS text FROM generate_series(1, 500) n;
CREATE TABLE there (n integer PRIMARY KEY) TABLESPACE crashlab_space;
INSERT INTO there SELECT generate_series(1, 500);
CREATE TABLE locked (n integer PRIMARY KEY, note text);
INSERT INTO locked SELECT n, 'old' FROM generate_series(1, 20) n;
"""

FILES_SQL = """
SELECT c.oid::regclass::text, pg_relation_filepath(c.oid) FROM pg_class c
WHERE pg_relation_filepath(c.oid) IS NOT NULL
UNION ALL
SELECT 'toast of ' || c.oid::regclass, pg_relation_filepath(c.reltoastrelid) FROM pg_class c WHERE c.reltoastrelid <> 0
UNION ALL
SELECT 'toast index of ' || c.oid::regclass, pg_relation_filepath(i.indexrelid)
FROM pg_class c JOIN pg_index i ON i.indrelid = c.reltoastrelid
"""
ROWS = {
    "crashlab.marker": "tx, client, xid",
    "crashlab.account": "key, version, writer, balance",
    "crashlab.register": "key, version, writer, value",
    "crashlab.indexed": "key, brin",
}
"""Tables whose rows are asked for, with their places."""


RELATION = re.compile(r"(base/\d+/\d+|global/\d+)(?:_[a-z]+)?(?:\.\d+)?")


def relations(data: Path) -> set[str]:
    """Return the files of all relations that are in no tablespace."""
    below = (path.relative_to(data) for top in ("base", "global") for path in (data / top).rglob("*"))
    return {str(path) for path in below if RELATION.fullmatch(str(path))}


def times(path: Path) -> tuple[int, int] | None:
    """Return when a file was written, and its size; None if it is not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the files of a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Place(NamedTuple):
    """Where a row is, and what it says."""

    block: int
    item: int  # number of its line pointer, from 1
    row: tuple[Any, ...]


def place(ctid: str, row: Sequence[Any]) -> Place:
    """Return the place that a ctid such as (0,1) is."""
    block, item = map(int, ctid.strip("()").split(","))
    return Place(block, item, tuple(row))


@dataclass(frozen=True)
class Facts:
    """What the recovered server says of itself."""

    files: dict[str, str]  # relation, with its schema unless it is a catalog -> file
    rows: dict[str, list[Place]]  # table -> its rows, in their order
    databases: dict[str, int]  # name -> oid
    next_xid: int


class Scene:
    """One crashed run, and a server to recover copies of it. Use it as a context manager: leaving removes all."""

    def __init__(self, *, checksums: bool, seed: int, pg_bindir: Path | None = None) -> None:
        """Run and crash a server; takes some seconds."""
        self.checksums = checksums
        build = find_build(pg_bindir)
        assert build is not None
        self._spec = ServerSpec(
            kind="local",
            pg_bindir=build.bindir,
            initdb=("--data-checksums" if checksums else "--no-data-checksums", "--wal-segsize=1"),
            settings=dict(PROFILE.server.settings),
        )
        self.folder = Path(tempfile.mkdtemp(prefix="crashlab-scene-"))
        self.folder.chmod(0o755)
        self._exits = contextlib.ExitStack()
        self._exits.callback(shutil.rmtree, self.folder, ignore_errors=True)
        try:
            self._crash(seed)
            self.server = LocalServer(self._spec, build, work=self.folder, data_directory=self.folder / "work")
            self._exits.callback(self.server.dispose)
            self.major = self.server.version.major
            self.facts = self._ask()
            self._first = self._stop_cleanly()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Scene":
        """Give this one."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove everything."""
        self.close()

    def close(self) -> None:
        """Remove everything."""
        self._exits.close()

    def folder_of(self, variant: Variant | Literal["old"]) -> Path:
        """Return an undamaged data directory."""
        return self.folder / variant

    def copy(self, variant: Variant) -> Path:
        """Return the one working directory, made equal to an undamaged one."""
        data = self.folder / "work"
        if data.exists():
            data.chmod(0o700)
            make_equal(self.folder_of(variant), data)
        else:
            copy_template(self.folder_of(variant), data)
        return data

    def look(self, variant: Variant, *, at_all: bool) -> Verdict:
        """Recover and read the working directory, kill the server, and judge what was found.

        Args:
            at_all: at every relation; False: amcheck and the full read leave out those whose files are as they were in
                the undamaged directory, which was looked at. So do recorded trials.
        """
        wal = read_wal(self.folder / "work") if variant == "image" else self.wal
        try:
            recovery = self._recover()
            if variant == "stopped":  # the log since the crash tells of two starts; the first one did the redo
                first = {name: getattr(self._first, name) for name in ("ran", "redo_start", "redo_end", "end_reason")}
                recovery = msgspec.structs.replace(recovery, **first)
            known = frozenset() if at_all else self._unchanged(self.folder_of(variant))
            observation = self._read(recovery, known)
            if self.checksums:
                observation = add_checksums(self.server, observation)
        finally:
            self.server.kill_all()
        return self.judge(msgspec.structs.replace(observation, wal=wal))

    def judge(self, observation: Observation) -> Verdict:
        """Judge with what the clients of this run were told and promised."""
        return judge(self.history, self.contract, [self.injection], observation, acked_min=20)

    def _read(self, recovery: Recovery, unchanged: frozenset[str]) -> Observation:
        reading = reading_of(PROFILE, self.history, [])
        reading = dataclasses.replace(reading, databases=True, statement_timeout_ms=STATEMENT_TIMEOUT_MS)

        def connect(database: str) -> psycopg.Connection[Any]:
            return self.server.connect(autocommit=True, dbname=database)

        return observe(connect, reading, recovery, unchanged=unchanged)

    def _unchanged(self, model: Path) -> frozenset[str]:
        """Return the relations whose files nobody wrote; none if the fate of a transaction may have changed."""
        work = self.folder / "work"
        if any(contents(work / folder) != contents(model / folder) for folder in ("pg_xact", "pg_multixact")):
            return frozenset()
        same: dict[str, bool] = {}
        for path in relations(work) | relations(model):
            name = RELATION.sub(r"\1", path)
            same[name] = same.get(name, True) and times(work / path) == times(model / path)
        return frozenset(name for name, kept in same.items() if kept)

    def _recover(self) -> Recovery:
        position = self.server.log_position()
        settings = copy_settings(self.major)
        return recover(self.server, restart=True, log_position=position, timeout_s=20.0, overrides=settings)

    def _crash(self, seed: int) -> None:
        """Crash once more if the log ends with its segment: some damage wants a page behind the end."""
        for attempt in range(3):
            self._crash_once(seed + 1000 * attempt)
            assert self.wal is not None
            if -(-self.wal.end // WAL_PAGE) * WAL_PAGE % WAL_SEGMENT:
                return
            for copied in ("old", "image"):
                shutil.rmtree(self.folder / copied)
            (self.folder / "ledger.jsonl").unlink()
        raise AssertionError("the log ended with its segment each time")

    def _crash_once(self, seed: int) -> None:
        ledger = LedgerWriter(self.folder / "ledger.jsonl", seed=seed)
        with create_server(self._spec) as server, contextlib.closing(ledger):
            data = server.data_directory
            assert data is not None
            (data / PLACES).mkdir(mode=0o700)
            server.own(data / PLACES)
            server.start()
            settings = server.read_settings()
            run = Run(server, ledger, seed)
            run.before_the_old_copy()
            copy_template(data, self.folder_of("old"))
            run.before_the_last_checkpoint()
            self.injection: Injection = run.up_to_the_crash()
            copy_template(data, self.folder_of("image"))
            self.contract = contract_for(settings, PROFILE.crash_class, version_num=server.version.num)
        self.history = read_ledger(ledger.path)
        self.wal = read_wal(self.folder_of("image"))

    def _ask(self) -> Facts:
        """Recover a copy, and ask where everything is."""
        self.copy("image")
        recovery = self._recover()
        assert recovery.started, recovery
        try:
            with self.server.connect(autocommit=True) as connection:
                rows = {}
                for table, columns in ROWS.items():
                    found = connection.execute(f"SELECT ctid::text, {columns} FROM {table} ORDER BY ctid").fetchall()
                    rows[table] = [place(ctid, row) for ctid, *row in found]
                [(next_xid,)] = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchall()
                return Facts(
                    files=dict(connection.execute(FILES_SQL).fetchall()),
                    rows=rows,
                    databases=dict(connection.execute("SELECT datname, oid::bigint FROM pg_database").fetchall()),
                    next_xid=int(next_xid),
                )
        finally:
            self.server.kill_all()

    def _stop_cleanly(self) -> Recovery:
        data = self.copy("image")
        recovery = self._recover()
        assert recovery.started, recovery
        self.server.stop("fast")
        copy_template(data, self.folder_of("stopped"))
        return recovery


class Run:
    """What the server of a scene goes through; some transactions stay prepared for a while."""

    def __init__(self, server: Server, ledger: LedgerWriter, seed: int) -> None:
        self.server = server
        self.ledger = ledger
        self.seed = seed
        self.prepared: dict[int, int] = {}  # client -> transaction

    def before_the_old_copy(self) -> None:
        """Fill the tables; one transaction is prepared before the checkpoint, so that its file is in the copy."""
        with self._connect() as connection:
            for statement in BESIDE_SQL:
                connection.execute(statement)
        with self._connect(OTHER_DATABASE) as connection:
            connection.execute(OTHER_SQL)
        self._work("all, first", OLD_ACKS[0], set_up=True)
        self._work("few, first", OLD_ACKS[1], FEW_KINDS)
        self._run("VACUUM")  # makes room, and a BRIN index knows only ranges that a VACUUM or its making has seen
        self._prepare(41)
        self._run("CHECKPOINT")

    def before_the_last_checkpoint(self) -> None:
        """Change them; that transaction is committed, and another one prepared."""
        self._decide(41, COMMIT_PREPARED)
        self._work("all, second", MORE_ACKS[0])
        self._run("VACUUM")
        self._run("VACUUM FULL pg_class")  # a new file: the relation map changes
        self._work("few, second", MORE_ACKS[1], FEW_KINDS)
        self._lock_and_change()
        self._prepare(42)
        self._run("CHECKPOINT")

    def up_to_the_crash(self) -> Injection:
        """Change them a little more, with one more transaction prepared, and kill everything meanwhile."""
        self._prepare(43)
        for client, action in ((44, COMMIT_PREPARED), (45, ROLLBACK_PREPARED)):
            self._prepare(client)
            self._decide(client, action)
        (fault,) = PROFILE.faults
        rng = stream(self.seed, "last")
        workload = self._workload(rng, LAST_KINDS, two_phase=0.0)
        workload.start()
        wait_until_due(fault.when, self.ledger, rng, running=lambda: workload.running, timeout_s=TIMEOUT_S)
        workload.expect_crash()
        injection = inject(self.server, fault, self.ledger, rng)
        assert workload.join(timeout_s=TIMEOUT_S)
        assert not workload.errors, workload.errors
        assert injection.confirmed
        return injection

    def _lock_and_change(self) -> None:
        """Change rows that another session has locked: the old versions then know both as a multixact; twice."""
        for some in ("n <= 10", "n > 10"):
            with self._connect(OTHER_DATABASE) as locking, self._connect(OTHER_DATABASE) as changing:
                locking.execute(f"BEGIN; SELECT FROM locked WHERE {some} FOR KEY SHARE")
                changing.execute(f"UPDATE locked SET note = 'new' WHERE {some}")
                locking.execute("COMMIT")

    def _work(self, name: str, acks: int, kinds: Sequence[str] = (), *, set_up: bool = False) -> None:
        rng = stream(self.seed, name)
        workload = self._workload(rng, kinds or PROFILE.workload.kinds)
        if set_up:
            workload.set_up()
        workload.start()
        when = When(acks=acks)
        wait_until_due(when, self.ledger, rng, running=lambda: workload.running, timeout_s=TIMEOUT_S)
        assert workload.finish(timeout_s=TIMEOUT_S)
        assert not workload.errors, workload.errors

    def _workload(self, rng: Random, kinds: Sequence[str], **changes: object) -> Workload:
        plan = PROFILE.workload.model_copy(update={"kinds": list(kinds), **changes})
        profile = PROFILE.model_copy(update={"workload": plan})
        return make_workload(profile, self.server, self.ledger, rng.getrandbits(32))

    def _connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return self.server.connect(autocommit=True, dbname=database, options="-c statement_timeout=60s")

    def _run(self, statement: str) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def _prepare(self, client: int) -> None:
        """Prepare a transaction and leave it so; no session has this number."""
        tx = self.ledger.begin(client)
        gid = f"crashlab-{tx}"
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            [opened] = cursor.execute(OPENING, ("on",)).fetchall()
            sync, xid, ticket, insert_lsn, write_lsn, flush_lsn = opened
            writes = tuple(Register().step(cursor, stream(self.seed, "prepared", client), tx, client).writes)
            cursor.execute(f"INSERT INTO {MARKER_TABLE} VALUES (%s, %s, %s)", (tx, client, xid))
            intent = Intent(
                tx=tx,
                client=client,
                at_ns=time.monotonic_ns(),
                action="prepare",
                sync=sync,
                forced=True,
                xid=xid,
                writes=writes,
                ticket=ticket,
                gid=gid,
                insert_lsn=insert_lsn,
                write_lsn=write_lsn,
                flush_lsn=flush_lsn,
            )
            self.ledger.record(intent)
            cursor.execute(f"PREPARE TRANSACTION '{gid}'")
            self.ledger.record(Prepared(tx=tx, client=client, at_ns=time.monotonic_ns()))
        self.prepared[client] = tx

    def _decide(self, client: int, action: Action) -> None:
        """Commit it, or roll it back."""
        tx = self.prepared[client]
        gid = f"crashlab-{tx}"
        self.ledger.record(Intent(tx=tx, client=client, at_ns=time.monotonic_ns(), action=action, gid=gid))
        self._run(f"{action.upper()} '{gid}'")
        self.ledger.record(Ack(tx=tx, client=client, at_ns=time.monotonic_ns(), tag=action.upper()))
