"""Does an index of each access method that lost its last rows give itself away, and no sound one ever?"""

import contextlib

import pytest

from crashlab.model import CheckRun, IndexRead
from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover
from crashlab.server import ServerSpec
from crashlab.server.builds import Build, find_builds
from crashlab.server.local import LocalServer
from crashlab.workload.relations import Relation

pytestmark = pytest.mark.server

TABLE = '"Odd place"."The ""table"'
FIRST, ALL = 300, 305
INDEXES = {
    "primary": "",
    "falling": "btree (lower(word) DESC NULLS FIRST, n)",
    "partial": "btree (word) WHERE n > 100",
    "hash": "hash (word)",
    "array": "gin (tags)",
    "json": "gin (data jsonb_path_ops)",
    "document": "gin (doc)",
    "many": "gin ((data || '{}'), (tags || '{z}'::text[]))",
    "range": "gist (span)",
    "covering": "gist (spot) INCLUDE (n)",
    "quad": "spgist (place)",
    "prefix": 'spgist (code COLLATE "C")',
    "block": "brin (amount)",
    "bounds": "brin (area)",
    "bloom": "bloom ((word || 'x'), code)",
    "half": "hash ((1000 / (n - 10))) WHERE n > 50",  # the expression fails for a row outside
}
SET_UP = f"""
CREATE EXTENSION bloom; CREATE EXTENSION amcheck;
CREATE SCHEMA "Odd place";
CREATE DOMAIN "Odd place".code AS varchar(20);
CREATE TABLE {TABLE} (n bigint, word text, tags text[], data jsonb, doc tsvector, span int4range, place point,
  spot point, area box, code "Odd place".code, amount numeric);
"""
FILL = """
INSERT INTO {table} SELECT n, CASE WHEN n % 50 > 0 THEN 'Word ''' || n END,
  CASE n % 20 WHEN 0 THEN '{{}}' WHEN 1 THEN '{{NULL}}' WHEN 2 THEN NULL ELSE ARRAY['a' || n % 7, 'b' || n] END,
  jsonb_build_object('n', n, 'half', n / 2), ('''it''''s'' ''back\\\\slash'' n' || n)::tsvector,
  CASE n % 20 WHEN 0 THEN 'empty' WHEN 1 THEN NULL ELSE int4range(n, n + 5) END,
  CASE WHEN n % 30 > 0 THEN point(n % 17 + 1e-7 * n, n) END,
  point(n, -n), box(point(n, n), point(n + 1, n + 1)), 'C' || n % 100 || repeat(' ', n % 3), n * 1.0
FROM generate_series({first}, {last}) n
"""
FILES = f"SELECT pg_relation_filepath(indexrelid) FROM pg_index WHERE indrelid = '{TABLE}'::regclass"
READING = Reading(
    relations=[Relation("t", TABLE, "n::text, 1::bigint, 1::bigint, word")],
    invariants=[],
    xids=[],
    sequences=(),
    marker_table="pg_database",
)


def builds() -> list[Build]:
    """The first build of each major version."""
    found: dict[int, Build] = {}
    for build in find_builds():
        found.setdefault(build.version.major, build)
    return list(found.values())


def look(build: Build, *, stale: bool) -> tuple[dict[str, IndexRead], CheckRun]:
    """Read a table whose indexes are sound, or as they were before the last rows came."""
    with LocalServer(ServerSpec(kind="local", settings={"autovacuum": "off"}), build) as server:
        server.start()
        with contextlib.closing(server.connect(autocommit=True)) as session:
            session.execute(SET_UP)
            session.execute(FILL.format(table=TABLE, first=1, last=FIRST))
            session.execute(f"ALTER TABLE {TABLE} ADD PRIMARY KEY (n)")
            for name, definition in INDEXES.items():
                if definition:
                    session.execute(f'CREATE INDEX "the {name}" ON {TABLE} USING {definition}')
            files = [row[0] for row in session.execute(FILES)]
        server.stop("fast")
        data = server.data_directory
        assert data is not None
        before = {file: (data / file).read_bytes() for file in files}
        server.start()
        with contextlib.closing(server.connect(autocommit=True)) as session:
            session.execute(FILL.format(table=TABLE, first=FIRST + 1, last=ALL))
        server.stop("fast")
        for file, content in before.items() if stale else ():
            (data / file).write_bytes(content)
        recovery = recover(server, restart=True, log_position=server.log_position())
        observation = observe(lambda name: server.connect(autocommit=True, dbname=name), READING, recovery)
    names = {name: f'"Odd place"."the {name}"' for name in INDEXES} | {"primary": '"Odd place"."The ""table_pkey"'}
    reads = {read.index: read for read in observation.indexes}
    assert [one for one in observation.complaints if one.check == "index_read"] == []
    return {name: reads[index] for name, index in names.items() if index in reads}, observation.checks["index_read"]


@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_an_index_without_the_last_rows_is_found_whatever_its_method(build: Build) -> None:
    """Each index is put back to what it was before five rows; each sound twin is read, and is not accused."""
    sound, run = look(build, stale=False)
    assert run.status == "ran"
    assert set(sound) == set(INDEXES), run.detail
    for name, read in sound.items():
        assert (read.only_in_heap, read.only_in_index, read.heap_rows) == ([], [], read.index_rows), name
        assert read.heap_rows > 50, name
    stale, _ = look(build, stale=True)
    last = {f"{n} at " for n in range(FIRST + 1, ALL + 1)}
    for name in INDEXES:
        missing = {one.split("(")[0] for one in stale[name].only_in_heap}
        assert missing, name
        assert missing <= last, (name, missing)
        assert stale[name].index_rows < stale[name].heap_rows, name


def test_what_cannot_be_read_is_named_and_not_counted(local_server) -> None:
    """A second index on the same column, no operator for the type, NaN, rows that no value finds, a broken operator."""
    with contextlib.closing(local_server.connect(autocommit=True)) as session:
        session.execute("CREATE TABLE t (n integer PRIMARY KEY, p point, f point, tags text[], m integer)")
        session.execute(
            "INSERT INTO t SELECT n, point(n, 'NaN'), point(n, n), CASE WHEN n % 2 > 0 THEN '{x}'::text[] END, n"
            " FROM generate_series(1, 50) n"
        )
        for definition in ("gist (p)", "btree (n)", "gin (tags)", "hash (m)", "hash (m)"):
            session.execute(f"CREATE INDEX ON t USING {definition}")
    reading = Reading([], [], [], "t", ())
    recovery = recover(local_server, restart=False, log_position=0)
    observation = observe(lambda name: local_server.connect(autocommit=True, dbname=name), reading, recovery)
    run = observation.checks["index_read"]
    names = [read.index for read in observation.indexes]
    assert run.count == len(names)
    assert "t_p_idx (it holds NaN)" in run.detail
    assert "t_tags_idx (25 of 50 rows)" in run.detail
    assert len({"t_pkey", "t_n_idx"} & set(names)) == 1
    assert len({"t_m_idx", "t_m_idx1"} & set(names)) == 1
    assert run.detail.count("the planner chose") == 2
