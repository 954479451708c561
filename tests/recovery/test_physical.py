"""Is damage found that no query meets: in the visibility map, in a page's LSN, in a page that nobody reads?"""

import contextlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crashlab.model import Observation
from crashlab.oracle.physical import code_of
from crashlab.recovery.checksums import add_checksums
from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover
from crashlab.server import ServerSpec
from crashlab.server.builds import Build, find_builds
from crashlab.server.local import LocalServer

pytestmark = pytest.mark.server

PAGE = 8192
ALL_VISIBLE_AND_FROZEN = 3  # of the first page; two bits a page, from byte 24 on
READING = Reading(relations=[], invariants=[], xids=[], sequences=(), marker_table="marker")
SET_UP = """
CREATE EXTENSION amcheck; CREATE EXTENSION pg_visibility; CREATE EXTENSION pageinspect;
CREATE TABLE marker (tx bigint PRIMARY KEY, client integer, xid bigint);
CREATE TABLE half (n integer, spot point, tags text[]);
INSERT INTO half SELECT n, point(n, n), ARRAY['tag' || n] FROM generate_series(1, 500) n;
CREATE INDEX spots ON half USING gist (spot);
CREATE INDEX tags ON half USING gin (tags) WITH (fastupdate = off);
CREATE INDEX buckets ON half USING hash (n);
CREATE UNLOGGED TABLE fleeting (spot point);
CREATE INDEX fleeting_spot ON fleeting USING gist (spot);
INSERT INTO fleeting SELECT point(n, n) FROM generate_series(1, 500) n;
CREATE MATERIALIZED VIEW empty AS SELECT 1 AS n WITH NO DATA;
"""
NAMES = ("half", "spots", "tags", "buckets", "pg_proc_oid_index")
Damage = Callable[[Path, dict[str, Path]], None]


def builds() -> list[Build]:
    """The first build of each major version."""
    found: dict[int, Build] = {}
    for build in find_builds():
        found.setdefault(build.version.major, build)
    return list(found.values())


def look(
    build: Build, damage: Damage, *, checksums: bool = False, more: str = "SELECT", names: Sequence[str] = NAMES
) -> Observation:
    """Fill, vacuum, change, stop, damage, start, read, stop and check the files."""
    option = "--data-checksums" if checksums else "--no-data-checksums"
    with LocalServer(ServerSpec(kind="local", initdb=(option,), settings={"autovacuum": "off"}), build) as server:
        server.start()
        with contextlib.closing(server.connect(autocommit=True)) as session:
            session.execute(SET_UP)
            session.execute(more)
            session.execute("VACUUM (FREEZE) half")
            session.execute("DELETE FROM half WHERE n = 5")
            files = {
                name: Path(session.execute("SELECT pg_relation_filepath(%s)", (name,)).fetchall()[0][0])
                for name in names
            }
        server.stop("fast")
        assert server.data_directory is not None
        damage(server.data_directory, files)
        recovery = recover(server, restart=True, log_position=server.log_position())
        observation = observe(lambda name: server.connect(autocommit=True, dbname=name), READING, recovery)
        return add_checksums(server, observation)


def found(observation: Observation) -> set[tuple[str, str, str | None]]:
    """Each complaint's check, object and code."""
    return {(one.check, one.object, code_of(one)) for one in observation.complaints}


def rewrite(path: Path, offset: int, data: bytes) -> None:
    """Overwrite some bytes in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def nothing(data: Path, files: dict[str, Path]) -> None:
    """The innocent twin of all the others."""


def mark_the_changed_page(data: Path, files: dict[str, Path]) -> None:
    """Mark the first page as all-visible and all-frozen again, although a row on it was deleted."""
    path = data / f"{files['half']}_vm"
    byte = path.read_bytes()[24]
    assert byte & ALL_VISIBLE_AND_FROZEN == 0
    rewrite(path, 24, bytes([byte | ALL_VISIBLE_AND_FROZEN]))


def move_pages_ahead(data: Path, files: dict[str, Path]) -> None:
    """Give a page of two indexes, and one of the visibility map, an LSN that the log never had."""
    rewrite(data / files["spots"], PAGE, struct.pack("=II", 0, 0x7000_0000))
    rewrite(data / files["buckets"], PAGE, struct.pack("=II", 0, 0x7000_0000))
    rewrite(data / f"{files['half']}_vm", 0, struct.pack("=II", 1, 0))


def swap_entries(data: Path, files: dict[str, Path]) -> None:
    """Exchange the first two line pointers of a leaf of the GIN index's tree of keys."""
    path = data / files["tags"]
    content = path.read_bytes()
    for start in range(PAGE, len(content), PAGE):
        lower, _, special = struct.unpack_from("=HHH", content, start + 12)
        flags = struct.unpack_from("=H", content, start + special + 6)[0]
        if flags == 2 and lower >= 32:  # GIN_LEAF alone
            rewrite(path, start + 24, content[start + 28 : start + 32] + content[start + 24 : start + 28])
            return
    raise AssertionError("no leaf")


def flip_a_bit_of_an_index(data: Path, files: dict[str, Path]) -> None:
    """Flip a bit in the middle of a page."""
    rewrite(data / files["spots"], PAGE + 5000, bytes([(data / files["spots"]).read_bytes()[PAGE + 5000] ^ 1]))


def flip_a_bit_of_another_database(data: Path, files: dict[str, Path]) -> None:
    """Flip a bit of template0, which nobody can connect to, and one of a map of free space, which does no harm."""
    path = data / "base" / "4" / files["pg_proc_oid_index"].name
    if not path.exists():  # before 15 the number is not fixed
        path = next(one for one in sorted((data / "base").glob(f"1[0-9]*/{path.name}")) if one.parent.name != "1")
    rewrite(path, PAGE + 5000, bytes([path.read_bytes()[PAGE + 5000] ^ 1]))
    space = data / "base" / "1" / "1255_fsm"
    rewrite(space, 100, bytes([space.read_bytes()[100] ^ 1]))


@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_a_sound_server_is_not_accused(build: Build, checksums: bool) -> None:
    """All checks look, or say why they cannot, and none complains."""
    observation = look(build, nothing, checksums=checksums)
    assert found(observation) == set()
    runs = observation.checks
    assert {runs[name].status for name in ("visibility_map", "page_lsn", "amcheck_index")} == {"ran"}
    assert runs["visibility_map"].count > 50
    assert runs["page_lsn"].count > 200
    assert runs["amcheck_gin"].status == ("ran" if build.version.major >= 18 else "skipped")
    if not (build.bindir / "pg_checksums").exists():
        assert "no pg_checksums" in runs["checksums"].detail
    elif checksums:
        assert runs["checksums"].count > 1000
    else:
        assert "not enabled" in runs["checksums"].detail


@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_marks_and_pages_from_the_future_are_found(build: Build) -> None:
    """Each damage is met by its own check, under its own code, and by no other."""
    assert found(look(build, mark_the_changed_page)) == {
        ("visibility_map", "public.half", "CORRUPT-VISIBILITY-MAP"),
    }
    future = look(build, move_pages_ahead)
    assert found(future) == {
        ("page_lsn", "public.spots", "CORRUPT-FUTURE-LSN"),
        ("page_lsn", "public.buckets", "CORRUPT-FUTURE-LSN"),
        ("page_lsn", "public.half", "CORRUPT-FUTURE-LSN"),
    }
    assert [str(one.file).endswith("_vm") for one in future.complaints] == [True, False, False]


@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_what_makes_a_hash_index_longer_is_on_disk_before_its_log(build: Build) -> None:
    """PostgreSQL writes it so, says there that it is unused, and makes it anew before use: nobody is accused of it.

    The log is written out by nobody but by chance: by the walwriter, after ten seconds.
    """
    ahead = """
        SELECT count(*) FROM generate_series(0, pg_relation_size('buckets') / 8192 - 1) block
        WHERE (page_header(get_raw_page('buckets', block::integer))).lsn > pg_current_wal_insert_lsn()"""
    settings = {"autovacuum": "off", "wal_writer_delay": "10s", "wal_buffers": "64MB", "max_wal_size": "4GB"}
    for _ in range(5):
        with LocalServer(ServerSpec(kind="local", settings=settings), build) as server:
            server.start()
            with contextlib.closing(server.connect(autocommit=True)) as session:
                session.execute(SET_UP + "CHECKPOINT")
            with contextlib.closing(server.connect()) as session:
                session.execute("INSERT INTO half (n) SELECT generate_series(501, 50000)")
                server.kill_all()
            recovery = recover(server, restart=True, log_position=server.log_position())
            observation = observe(lambda name: server.connect(autocommit=True, dbname=name), READING, recovery)
            with contextlib.closing(server.connect(autocommit=True)) as session:
                pages = session.execute(ahead).fetchall()[0][0]
        assert found(observation) == set()
        if pages:
            return
    pytest.fail("five crashes, and no page was written before its log")


def test_a_gin_index_out_of_order_is_found() -> None:
    """amcheck's own message is the finding."""
    build = next((build for build in builds() if build.version.major >= 18), None)
    if build is None:
        pytest.skip("no build of PostgreSQL 18 or later")
    assert found(look(build, swap_entries)) == {("amcheck_gin", "public.tags", "CORRUPT-INDEX-AMCHECK")}


def test_a_page_that_no_query_reads_is_read() -> None:
    """A flipped bit of an index page in this database, and one in a database that lets nobody in."""
    build = next((build for build in builds() if (build.bindir / "pg_checksums").exists()), None)
    if build is None:
        pytest.skip("no build with pg_checksums")
    observation = look(build, flip_a_bit_of_an_index, checksums=True)
    assert {one[::2] for one in found(observation)} == {
        ("page_lsn", "CORRUPT-UNREADABLE"),
        ("checksums", "CORRUPT-UNREADABLE"),
    }
    files = {one.file for one in observation.complaints}
    assert len(files) == 1
    (only,) = look(build, flip_a_bit_of_another_database, checksums=True).complaints
    assert (only.check, code_of(only)) == ("checksums", "CORRUPT-UNREADABLE")
    assert only.file is not None
    assert only.file.startswith("base/")
    assert "block 1" in only.message


@pytest.mark.parametrize("damaged", [False, True])
def test_a_virtual_column_that_fails_on_a_row_keeps_no_other_from_being_read(damaged: bool) -> None:
    """It is on no page. What is there is read all the same: also where the page is damaged, and that is found."""
    build = next((build for build in builds() if build.version.major >= 18), None)
    if build is None:
        pytest.skip("no build of PostgreSQL 18, which has virtual columns first")
    virtual = """
    CREATE TABLE ratios (gone integer, n integer, "One/n" numeric GENERATED ALWAYS AS (1 / n) VIRTUAL, note text);
    INSERT INTO ratios (n, note) VALUES (1, 'one'), (0, repeat('none', 3));
    ALTER TABLE ratios DROP COLUMN gone;
    CREATE TABLE nothing_else (n integer GENERATED ALWAYS AS (5) VIRTUAL);
    INSERT INTO nothing_else DEFAULT VALUES;
    """

    def damage(data: Path, files: dict[str, Path]) -> None:
        if damaged:
            rewrite(data / files["ratios"], 12, b"\xff\xff")  # pd_lower

    observation = look(build, damage, more=virtual, names=("ratios",))
    assert observation.checks["full_read"].status == "ran"
    said = {one.object for one in observation.complaints if one.check == "full_read"}
    assert said == ({"public.ratios"} if damaged else set())
