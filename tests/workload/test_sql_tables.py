"""Is every change of a watched table noted, whoever made it, and nothing else?"""

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from crashlab.errors import UsageProblem
from crashlab.server import Server
from crashlab.workload.relations import TEXT_SETTINGS
from crashlab.workload.tables import OPENING, Tables

pytestmark = pytest.mark.server

SCHEMA = """
CREATE SCHEMA crashlab;
CREATE TABLE parent (id numeric PRIMARY KEY, note text);
CREATE TABLE child (a integer, b text, parent numeric REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE,
                    PRIMARY KEY (b, a));
CREATE TABLE "Odd ""name" ("Odd ""name" text PRIMARY KEY, crashlab_keys text, keys text, tg_op text);
CREATE TABLE late (id integer PRIMARY KEY, changes integer NOT NULL DEFAULT 0);
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE TABLE spelled (at timestamptz, during tsrange, every interval, share float8, how mood, raw bytea,
                      PRIMARY KEY (at, during, every, share, how, raw));
INSERT INTO spelled SELECT '2026-03-04 05:06+00', '[2026-05-06,2026-07-08)', '-1 day -2:03', n / 3.0, 'wild', '\\xff'
    FROM generate_series(1, 3) n;
INSERT INTO parent VALUES (1.0, 'one'), (2, 'two'), (3, 'three');
INSERT INTO child VALUES (1, 'x', 1), (2, 'y', 1), (3, 'z', 2);
INSERT INTO late VALUES (0);
CREATE FUNCTION count_late() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE late SET changes = changes + 1; RETURN NULL; END';
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON child DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION count_late();
"""
TABLES = ("parent", "spelled", "child", '"Odd ""name"', "public.late")
CHANGES = {
    "insert": "INSERT INTO parent VALUES (10, NULL), (11, 'x')",
    "update": "UPDATE parent SET note = 'changed' WHERE id < 3",
    "delete": "DELETE FROM child WHERE a = 3",
    "cascade": "DELETE FROM parent WHERE id = 1",
    "key change, with a cascade": "UPDATE parent SET id = 50 WHERE id = 1",
    "a key that is equal and spelled differently": "UPDATE parent SET id = 3.00 WHERE id = 3",
    "upsert": "INSERT INTO parent VALUES (2, 'again'), (12, '') ON CONFLICT (id) DO UPDATE SET note = excluded.note",
    "deferred trigger": "INSERT INTO child VALUES (7, 'late', 2)",
    "odd names": """INSERT INTO "Odd ""name" VALUES ('it''s', 'a', 'b', 'c'), (E'two\\nlines ', '', '', '')""",
    "many rows": "INSERT INTO parent SELECT n, repeat('x', n % 50) FROM generate_series(100, 20000) n",
    "truncate": "TRUNCATE parent CASCADE",
    "kept part": "SAVEPOINT s; INSERT INTO parent VALUES (13, ''); RELEASE SAVEPOINT s",
    "block with an exception": """DO $$ BEGIN BEGIN UPDATE parent SET note = 'undone'; RAISE 'no';
        EXCEPTION WHEN raise_exception THEN UPDATE parent SET note = 'kept' WHERE id = 2; END; END $$""",
    "silenced client": "SET LOCAL client_min_messages = error; UPDATE parent SET note = 'quiet' WHERE id = 2",
    "replica": "SET LOCAL session_replication_role = replica; UPDATE parent SET note = 'replica' WHERE id = 2",
    "other search path": "SET LOCAL search_path = pg_temp; UPDATE public.parent SET note = 'path' WHERE id = 2",
    "spelled otherwise": """SET LOCAL TimeZone = 'Asia/Kolkata'; SET LOCAL DateStyle = 'SQL, DMY';
        SET LOCAL IntervalStyle = sql_standard; SET LOCAL extra_float_digits = -9; SET LOCAL bytea_output = escape;
        SET LOCAL search_path = pg_temp; DELETE FROM public.spelled WHERE share < 0.4;
        UPDATE public.spelled SET raw = '' WHERE share = 1; INSERT INTO public.spelled
        SELECT now(), '[2026-01-02,2026-02-03)', '1 day', 0.1::float8 + 0.2, 'calm', 'a'""",
    "asynchronous": "SET LOCAL synchronous_commit = off; UPDATE parent SET note = 'later' WHERE id = 2",
}


@pytest.fixture
def cursor(local_server: Server) -> Iterator[psycopg.Cursor[tuple[object, ...]]]:
    """A cursor on a server with the tables of SCHEMA, in autocommit mode."""
    with contextlib.closing(local_server.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        for name, value in TEXT_SETTINGS.items():
            cursor.execute(f"SET {name} = '{value}'")
        yield cursor


def contents(cursor: psycopg.Cursor[tuple[object, ...]], tables: Tables) -> dict[tuple[str, object], object]:
    """Every row as the reader of a recovered server sees it: table and key -> value."""
    return {
        (relation.name, key): value
        for relation in tables.relations
        for key, _, _, value in cursor.execute(f"SELECT {relation.select_list} FROM ONLY {relation.table}").fetchall()
    }


def watched(cursor: psycopg.Cursor[tuple[object, ...]]) -> tuple[Tables, dict[tuple[str, str], str | None]]:
    """Watch all tables; return what was noted of them."""
    tables = Tables()
    cursor.execute("BEGIN")
    known = {(write.relation, write.key): write.value for name in TABLES for write in tables.watch(cursor, name)}
    cursor.execute("COMMIT")
    assert known == contents(cursor, tables) != {}
    return tables, known


def test_every_way_to_change_a_row_is_followed(cursor) -> None:
    """What was noted, laid over what was there, is what is there: after inserts, cascades, COPY, triggers, TRUNCATE."""
    tables, known = watched(cursor)
    for what, sql in CHANGES.items():
        cursor.execute(f"BEGIN; SELECT {OPENING}; {sql}")
        writes, sync = tables.close(cursor)
        after = dict(known)
        for write in writes:
            after.pop((write.relation, write.key), None)
            if write.value is not None:
                after[write.relation, write.key] = write.value
        assert after == contents(cursor, tables) != known, what
        assert sync == ("off" if what == "asynchronous" else "on")
        cursor.execute("ROLLBACK")
    with contextlib.suppress(psycopg.errors.SyntaxError):  # MERGE, since 15
        cursor.execute(f"BEGIN; SELECT {OPENING}")
        cursor.execute("MERGE INTO parent USING (VALUES (2)) v(n) ON id = n WHEN MATCHED THEN DELETE")
        assert ("public.parent", "[2]", None) in [(w.relation, w.key, w.value) for w in tables.close(cursor)[0]]
    cursor.execute(f"ROLLBACK; BEGIN; SELECT {OPENING}")
    with cursor.copy("COPY child FROM STDIN") as copy:
        copy.write("9\tcopied\t2\n")
    assert [write.key for write in tables.close(cursor)[0]] == ['["copied", 9]', "[0]"]
    cursor.execute("ROLLBACK")


def test_what_a_savepoint_undid_is_forgotten(cursor) -> None:
    """Its row locks are gone, so another transaction may change those rows: their order would be a guess."""
    tables, _ = watched(cursor)
    cursor.execute(f"BEGIN; SELECT {OPENING}; UPDATE parent SET note = 'kept' WHERE id = 3; SAVEPOINT s")
    cursor.execute("DELETE FROM child; INSERT INTO parent VALUES (77, ''); ROLLBACK TO SAVEPOINT s")
    assert [(write.relation, write.key) for write in tables.close(cursor)[0]] == [("public.parent", "[3]")]
    cursor.execute("ROLLBACK")


def test_versions_count_on(cursor) -> None:
    """Each change of a row counts, also one that was rolled back: a gap is harmless, a repetition is not."""
    tables, _ = watched(cursor)
    seen = []
    for end in ("COMMIT", "ROLLBACK", "COMMIT"):
        cursor.execute(f"BEGIN; SELECT {OPENING}; UPDATE parent SET note = 'n' WHERE id = 2")
        seen += [write.version for write in tables.close(cursor)[0]]
        cursor.execute(end)
    assert seen == [2, 3, 4]


@pytest.mark.parametrize(
    ("create", "reason"),
    [
        ("CREATE TABLE t (n integer)", "no primary key"),
        ("CREATE UNLOGGED TABLE t (n integer PRIMARY KEY)", "unlogged"),
        ("CREATE TEMPORARY TABLE t (n integer PRIMARY KEY)", "temporary"),
        ("CREATE TABLE t (n integer[] PRIMARY KEY)", "array"),
        ("CREATE TABLE t (n integer PRIMARY KEY) PARTITION BY RANGE (n)", "partitioned"),
        (
            "CREATE TABLE r (n integer PRIMARY KEY) PARTITION BY RANGE (n); CREATE TABLE t PARTITION OF r DEFAULT",
            "is a partition",
        ),
        ("CREATE TABLE t (n integer PRIMARY KEY); CREATE TABLE heir () INHERITS (t)", "inheritance"),
        ("CREATE VIEW t AS SELECT 1 AS n", "no table"),
        ("SELECT", "no such table"),
    ],
)
def test_a_table_that_cannot_be_followed_is_refused(cursor, create: str, reason: str) -> None:
    """Rather an error at the start than a row that nobody noted."""
    cursor.execute(f"BEGIN; {create}")
    with pytest.raises(UsageProblem, match=reason) as refused:
        Tables().watch(cursor, "t")
    assert reason == "no such table" or "an invariant can say" in str(refused.value.hint)


def test_what_would_go_unseen_is_an_error(cursor) -> None:
    """Changes outside of ledgered transactions, forgotten changes, other columns, missing triggers."""
    tables, known = watched(cursor)
    with pytest.raises(psycopg.errors.RaiseException, match="outside of a ledgered transaction"):
        cursor.execute("DELETE FROM child")
    cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    cursor.execute(f"SELECT {OPENING}")
    with pytest.raises(psycopg.errors.RaiseException, match="TRUNCATE"):
        cursor.execute("TRUNCATE child")
    cursor.execute(f"ROLLBACK; BEGIN; SELECT {OPENING}; DELETE FROM child; RESET ALL")
    with pytest.raises(UsageProblem, match="cannot tell what a transaction changed"):
        tables.close(cursor)
    cursor.execute("ROLLBACK")
    tables.check(cursor)
    for change in ("ALTER TABLE child ADD x int", "ALTER TABLE late DISABLE TRIGGER USER", "DROP TABLE child"):
        cursor.execute(f"BEGIN; {change}")
        with pytest.raises(UsageProblem, match="its columns or its triggers changed"):
            tables.check(cursor)
        cursor.execute("ROLLBACK")
    assert contents(cursor, tables) == known
