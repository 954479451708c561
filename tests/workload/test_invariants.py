"""Is it known what a user's query reads that a crash empties, and is nothing accused for it?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashlab.model import Outcome
from crashlab.server import ServerSpec, create_server
from crashlab.trial.live import run_trial
from crashlab.workload.invariants import reads_volatile
from crashlab.workload.relations import InvariantQuery
from tests.running import plan_of
from tests.workload.test_sql_trials import codes, request

pytestmark = pytest.mark.server

TABLES = """
CREATE TABLE item (id integer PRIMARY KEY);
CREATE UNLOGGED TABLE cache AS SELECT 1 AS id;
CREATE VIEW cached AS SELECT id FROM cache;
CREATE VIEW cached_twice AS SELECT id FROM cached;
CREATE MATERIALIZED VIEW kept AS SELECT id FROM cache;
CREATE TABLE parted (id integer) PARTITION BY RANGE (id);
CREATE UNLOGGED TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE FUNCTION in_sql() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM cache';
CREATE FUNCTION in_plpgsql() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM cached_twice); END';
CREATE FUNCTION dynamic() RETURNS bigint LANGUAGE plpgsql
  AS 'DECLARE n bigint; BEGIN EXECUTE ''SELECT count(*) FROM cache'' INTO n; RETURN n; END';
CREATE FUNCTION counted() RETURNS bigint LANGUAGE plpgsql
  AS 'BEGIN RETURN pg_stat_get_tuples_inserted(''item''::regclass); END';
"""


@pytest.fixture(scope="module")
def connection() -> Iterator["psycopg.Connection[Any]"]:
    """A session on a server with these tables, as a look at a recovered server has it."""
    with create_server(ServerSpec(kind="local")) as server:
        server.start()
        with server.connect(autocommit=True) as session:
            session.execute(TABLES)
            session.execute("SET default_transaction_read_only = on")
            yield session


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT id FROM item WHERE id NOT IN (SELECT id FROM cache)", ["unlogged table cache"]),
        ("SELECT id FROM item WHERE false AND EXISTS (SELECT FROM cache)", ["unlogged table cache"]),
        ("SELECT id FROM cached_twice WHERE id > 5", ["unlogged table cache"]),
        ("SELECT 1 WHERE in_sql() = 0", ["unlogged table cache"]),
        ("SELECT 1 WHERE in_plpgsql() = 0", ["unlogged table cache"]),
        ("SELECT 1 WHERE dynamic() = 0", ["unlogged table cache"]),
        ("SELECT id FROM parted WHERE id > 3", ["unlogged table low"]),
        ("SELECT id FROM parted WHERE id > 13", []),
        ("SELECT id FROM kept WHERE id > 5", []),
        ("SELECT id FROM item WHERE id = 3;", []),
        ("SELECT attname FROM pg_stats WHERE false", []),  # of the planner: a catalog
        ("SELECT 1 WHERE pg_stat_get_tuples_inserted('item'::regclass) < 0", ["the cumulative statistics"]),
        ("SELECT 1 WHERE counted() < 0", ["the cumulative statistics"]),
    ],
)
def test_what_a_crash_empties_is_found_whatever_it_is_read_through(connection, sql, reads):
    """Views, functions of any language, partitions; what a crash leaves alone is not named."""
    if "statistics" in "".join(reads) and connection.info.server_version < 150000:
        pytest.skip("before 15 a session does not know that it has looked")
    assert reads_volatile(connection, InvariantQuery("x", sql, None)) == reads


def test_the_views_of_the_statistics_are_known_by_name(connection):
    """On each version."""
    query = InvariantQuery("x", "SELECT relid FROM pg_stat_user_tables WHERE n_tup_ins < 0", None)
    assert {"the view pg_stat_user_tables"} <= set(reads_volatile(connection, query))


@pytest.mark.parametrize(("persistence", "found"), [("UNLOGGED", ["INCONCLUSIVE-INVARIANT-EMPTIED"]), ("", [])])
def test_an_invariant_over_an_unlogged_table_accuses_nobody(tmp_path: Path, persistence: str, found: list[str]) -> None:
    """The crash empties it, as documented: inconclusive, with its name. Over a logged one it is judged."""
    setup = "CREATE TABLE item AS SELECT n AS id, 0 AS v FROM generate_series(1, 20) n;"
    setup += f"ALTER TABLE item ADD PRIMARY KEY (id); CREATE {persistence} TABLE cache AS SELECT id FROM item"
    sql = [
        f'setup="{setup}"',
        'tables=["item"]',
        'transactions=["UPDATE item SET v = v + 1 WHERE id = :item"]',
        "variables={item={between=[1, 20]}}",
    ]
    cached = '{name="every item is cached", sql="SELECT id FROM item WHERE id NOT IN (SELECT id FROM cache)"}'
    asked = request(
        tmp_path,
        "kill9-all",
        'workload.kinds=["sql"]',
        *(f"workload.sql.{one}" for one in sql),
        f"invariants=[{cached}]",
    )
    result = run_trial(plan_of(asked), 0, tmp_path)
    assert codes(result) == found, result.verdict.findings
    assert result.verdict.outcome is (Outcome.INCONCLUSIVE if found else Outcome.INTACT)
    if found:
        assert "reads unlogged table cache, which a crash empties" in result.verdict.findings[0].explanation
