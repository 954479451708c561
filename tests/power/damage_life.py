"""What does only one step of the afterlife show? For each a damage that reading cannot find, and no other step.

A server with two prepared transactions is killed, recovers and is stopped cleanly. Then its files are damaged, so that
no redo repairs that and no buffer hides it; it starts, is read, and lives on. What a server reads once and never again
is damaged while it runs.

Choices:
    Damage of several steps is planted side by side, at objects of their own: `BATCH`. What each step says must be
    exactly about its own. A step that is left out must leave its damage unseen; that is asked for half of them at once.
    A stop writes a checkpoint, and each of two steps starts the server: what a checkpoint or a start meets is met
    again where its own step is left out (`Shown.also`).

Source of the layouts: PostgreSQL 14 .. 18, twophase.c (TwoPhaseFileHeader, TwoPhaseRecordOnDisk), lock.c
    (TwoPhaseLockRecord), ginblock.h (GinMetaPageData), pg_node_tree as text.
"""

import contextlib
import struct
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from google_crc32c import value as crc32c

from crashlab.model import Afterlife, Observation, Recovery
from crashlab.recovery import afterlife, observe
from crashlab.recovery.afterlife import live_on
from crashlab.recovery.restart import copy_settings
from crashlab.recovery.session import Reading
from crashlab.server import Server, ServerSpec, create_server
from crashlab.server.builds import find_build
from tests.power.damage_tables import page_with_one_row

PAGE = 8192
READING = Reading(relations=[], invariants=[], xids=[], marker_table="marker", sequences=())
SET_UP = """
CREATE EXTENSION amcheck;
CREATE TABLE marker (tx bigint, client integer, xid bigint);
CREATE TABLE a (n integer PRIMARY KEY, t text);
CREATE TABLE b (n integer PRIMARY KEY, t text);
CREATE TABLE c (n bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, t text);
CREATE TABLE g (n integer, words integer[]);
CREATE UNLOGGED TABLE u (n integer);
CREATE SEQUENCE s;
INSERT INTO a SELECT n, 'a' || n FROM generate_series(1, 500) n;
INSERT INTO b SELECT n, 'b' || n FROM generate_series(1, 500) n;
INSERT INTO c (t) SELECT 'c' || n FROM generate_series(1, 500) n;
DELETE FROM c WHERE n > 490;
CREATE INDEX g_gin ON g USING gin (words) WITH (fastupdate = on);
INSERT INTO g SELECT n, ARRAY[n, n + 1] FROM generate_series(1, 20) n;
SELECT nextval('s');
SET allow_system_table_mods = on;
ALTER TABLE pg_rewrite ALTER ev_action SET STORAGE EXTERNAL;
CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM c;
"""
"""The entries of g_gin stay in its pending list; a vacuum of c has something to do, whoever wrote before it; the view's
query is not compressed, so that it is found in a file."""
FILES = """
SELECT c.relname, pg_relation_filepath(c.oid), c.oid::integer FROM pg_class c
WHERE pg_relation_filepath(c.oid) IS NOT NULL
UNION ALL
SELECT 'toast of ' || c.relname, pg_relation_filepath(c.reltoastrelid), c.reltoastrelid::integer FROM pg_class c
WHERE c.reltoastrelid <> 0
"""
SETTINGS = {"max_prepared_transactions": "5"}
WAIT_MS = 100
"""For a lock that a prepared transaction holds where nobody decides it."""


class Crashed:
    """A server that has recovered, and what its files are called."""

    def __init__(self, server: Server) -> None:
        """Set it up, and kill it once; it is running afterwards. Two transactions stay prepared."""
        self.server = server
        server.start()
        with server.connect(autocommit=True) as connection:
            connection.execute(SET_UP)
            connection.execute("BEGIN; UPDATE a SET t = 'prepared' WHERE n = 7; PREPARE TRANSACTION 'one'")
            connection.execute("BEGIN; UPDATE b SET t = 'prepared' WHERE n = 7; CREATE TABLE made (n integer)")
            (self.made,) = connection.execute("SELECT pg_relation_filepath('made')").fetchone() or ("",)
            connection.execute("PREPARE TRANSACTION 'two'")
        server.kill_all()
        self.start()
        with server.connect(autocommit=True) as connection:
            rows = connection.execute(FILES).fetchall()
        self.files: dict[str, str] = {name: file for name, file, _ in rows}
        self.oids: dict[str, int] = {name: oid for name, _, oid in rows}

    @property
    def data(self) -> Path:
        """The data directory."""
        assert self.server.data_directory is not None
        return self.server.data_directory

    def start(self) -> None:
        """Start it, with the settings of a copy."""
        self.server.start(overrides=copy_settings(self.server.version.major))

    def path(self, relation: str, fork: str = "") -> Path:
        """Return a relation's file."""
        return self.data / (self.files[relation] + fork)

    def prepared(self, gid: str) -> tuple[Path, bytearray]:
        """Return the file of a prepared transaction."""
        for file in (self.data / "pg_twophase").iterdir():
            content = bytearray(file.read_bytes())
            if gid.encode() + b"\0" in content:
                return file, content
        raise AssertionError(f"no file of prepared transaction {gid}")

    def put_prepared(self, file: Path, content: bytearray) -> None:
        """Write it back, with a checksum that holds."""
        struct.pack_into("<I", content, len(content) - 4, crc32c(bytes(content[:-4])))
        file.write_bytes(content)

    def live(self) -> Afterlife:
        """Use it, restart it and crash it."""
        return live_on(self.server, READING, overrides=copy_settings(self.server.version.major))

    def read(self) -> Observation:
        """Read it, as after any recovery."""
        recovery = Recovery(started=True, ran=True, seconds=0.0)
        return observe(lambda name: self.server.connect(autocommit=True, dbname=name), READING, recovery)


@contextlib.contextmanager
def crashed(pg_bindir: Path | None = None) -> Iterator[Crashed]:
    """Give a server that has recovered, and remove it."""
    build = find_build(pg_bindir)
    no_sums = ("--no-data-checksums",) if build is not None and build.version.major >= 18 else ()
    spec = ServerSpec(kind="local", pg_bindir=pg_bindir, settings=SETTINGS, initdb=no_sums)
    with create_server(spec) as server:
        yield Crashed(server)


class Shown(NamedTuple):
    """A damage, and what its step says."""

    plant: Callable[[Crashed], None]
    kind: str  # what is found: an error, a change of this kind, or no start
    named: str  # the object
    code: str
    running: bool = False  # it is planted while the server runs
    also: tuple[str, ...] = ()  # it ends the life, or where this step is left out, the start in these steps


DAMAGE: dict[str, Shown] = {}
"""Step -> what it alone shows."""
BATCH = ("locks", "decide", "use", "create", "vacuum", "crash")
"""Steps whose damage lets the life go on."""


def _shown(
    step: str, kind: str, named: str, code: str, *, running: bool = False, also: tuple[str, ...] = ()
) -> Callable[[Callable[[Crashed], None]], Callable[[Crashed], None]]:
    def note(plant: Callable[[Crashed], None]) -> Callable[[Crashed], None]:
        DAMAGE[step] = Shown(plant, kind, named, code, running, also)
        return plant

    return note


@_shown("locks", "lock", "one", "CORRUPT-PREPARED-UNLOCKED")
def locks_of_other_tables(crashed: Crashed) -> None:
    """The file of a prepared transaction names locks of tables that are not there: nobody waits for its own."""
    file, content = crashed.prepared("one")
    changed = 0
    for at in range(0, len(content) - 32, 8):
        length, manager, info = struct.unpack_from("<IBxH", content, at)
        database, relation, _, _, kind, method = struct.unpack_from("<IIIHBB", content, at + 8)
        if (length, manager, info, kind, method) == (20, 1, 0, 0, 1) and relation >= 16384 and database:
            struct.pack_into("<I", content, at + 12, relation + 1_000_000)
            changed += 1
    assert changed
    crashed.put_prepared(file, content)


@_shown("decide", "content", "b", "CORRUPT-AFTERLIFE-CHANGED")
def rolling_back_removes_another_table(crashed: Crashed) -> None:
    """The file of a prepared transaction that made a table has another one's file to be removed at its end."""
    file, content = crashed.prepared("two")
    database, made = map(int, crashed.made.split("/")[1:])
    at = content.index(struct.pack("<III", 1663, database, made))
    struct.pack_into("<I", content, at + 8, int(crashed.files["b"].split("/")[-1]))
    crashed.put_prepared(file, content)


@_shown("use", "error", "g", "CORRUPT-AFTERLIFE-ERROR")
def end_of_a_pending_list(crashed: Crashed) -> None:
    """Who reads an index begins at the head of its pending list, and who inserts begins at its end."""
    content = bytearray(crashed.path("g_gin").read_bytes())
    head, tail = struct.unpack_from("<II", content, 24)
    assert 0 < head <= tail < len(content) // PAGE
    struct.pack_into("<I", content, 28, 4711)
    crashed.path("g_gin").write_bytes(content)


@_shown("create", "error", "m", "CORRUPT-AFTERLIFE-ERROR")
def query_of_a_materialized_view(crashed: Crashed) -> None:
    """What is made of other tables reads them only when it is made again: its query names one that is not there."""
    old = b":relid %d" % crashed.oids["c"]
    new = b":relid %s" % (b"9" * (len(old) - 7))
    changed = 0
    for path in (crashed.path("pg_rewrite"), crashed.path("toast of pg_rewrite")):
        content = path.read_bytes()
        changed += content.count(old)
        path.write_bytes(content.replace(old, new))
    assert changed


@_shown("vacuum", "error", "c", "CORRUPT-AFTERLIFE-ERROR")
def page_of_an_index_that_nothing_leads_to(crashed: Crashed) -> None:
    """Only a vacuum goes through all of an index; amcheck and scans follow its links."""
    path = crashed.path("c_pkey")
    page = bytearray(path.read_bytes()[-PAGE:])
    struct.pack_into("<H", page, 16, PAGE)  # where its special space begins: it has none
    path.write_bytes(path.read_bytes() + page)


@_shown("checkpoint", "error", "checkpoint", "CORRUPT-AFTERLIFE-ERROR", also=("restart",))
def folder_that_a_checkpoint_looks_into(crashed: Crashed) -> None:
    """A clean start has no need of it."""
    (crashed.data / "pg_logical/snapshots").rmdir()


@_shown("restart", "no start", "server", "NO-START-AGAIN", running=True, also=("crash",))
def version_file(crashed: Crashed) -> None:
    """Only a start reads it."""
    (crashed.data / "PG_VERSION").unlink()


@_shown("crash", "unlogged", "u", "CORRUPT-AFTERLIFE-CHANGED")
def empty_copy_of_an_unlogged_table(crashed: Crashed) -> None:
    """Recovery makes the table anew from it, and nothing else reads it: now it has a row."""
    path = crashed.path("u", "_init")
    assert path.read_bytes() == b""
    path.write_bytes(page_with_one_row(17))


@contextlib.contextmanager
def without(steps: Collection[str]) -> Iterator[None]:
    """Leave some steps out; locks that stay held are not waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(afterlife, "LOCK_TIMEOUT_MS", WAIT_MS)
        patch.setattr(afterlife, "STEPS", {name: do for name, do in afterlife.STEPS.items() if name not in steps})
        yield


class Lived(NamedTuple):
    """What was found."""

    read: Observation  # before the afterlife
    life: Afterlife


def lived(damaged: Collection[str], left_out: Collection[str] = (), pg_bindir: Path | None = None) -> Lived:
    """Plant the damage of some steps, read the server, and let it live on, without some steps."""
    with crashed(pg_bindir) as here, without(left_out):
        here.server.stop("fast")
        for step in damaged:
            if not DAMAGE[step].running:
                DAMAGE[step].plant(here)
        here.start()
        read = here.read()
        for step in damaged:
            if DAMAGE[step].running:
                DAMAGE[step].plant(here)
        return Lived(read, here.live())


Fact = tuple[str, str, str]
"""Step, what was found, object."""


def facts(life: Afterlife) -> list[Fact]:
    """Return what was found, in order: of each object the first, since what has gone wrong once stays so."""
    found = [(one.check, "error", one.object) for one in life.complaints]
    found += [(one.step, one.kind, one.object) for one in life.changes]
    for name, start in (("restart", life.restart), ("crash", life.second)):
        if start is not None and not start.started:
            found.append((name, "no start", "server"))
    first: dict[str, Fact] = {}
    for fact in sorted(found, key=lambda one: list(DAMAGE).index(one[0])):
        first.setdefault(fact[2].removeprefix("public.").removesuffix("_pkey"), fact)
    return list(first.values())


def wanted(steps: Collection[str]) -> list[Fact]:
    """Return what these steps say of their own damage."""
    return [(step, DAMAGE[step].kind, DAMAGE[step].named) for step in DAMAGE if step in steps]
