"""Is it said when answered commits were not looked for, and are those that PostgreSQL never flushes no promise?"""

import psycopg
import pytest

from crashlab.observer import probe, read_conversation
from crashlab.server import Server
from crashlab.testing import CrashFailure
from tests.testing.shop import Shop

pytestmark = pytest.mark.server
PROCEDURE = """
    CREATE PROCEDURE order_all(n integer) LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO orders VALUES (n, 'x');
      COMMIT;
    END $$
"""
UNSEEN = [
    "BEGIN; INSERT INTO orders VALUES ({n}, 'x'); COMMIT",
    "CALL order_all({n})",
    "DO $$ BEGIN INSERT INTO orders VALUES ({n}, 'x'); COMMIT; END $$",
]
SEEN = ["INSERT INTO orders VALUES ({n}, 'x')", "SET synchronous_commit = on; INSERT INTO orders VALUES ({n}, 'x')"]
NEVER_FLUSHED = [
    "UPDATE cache SET n = n + 1",
    "SELECT txid_current()",
    "CREATE TEMPORARY TABLE IF NOT EXISTS passing ()",
]
SHOP = "CREATE TABLE orders (id integer PRIMARY KEY, item text); CREATE UNLOGGED TABLE cache AS SELECT 1 AS n;"
SHOP += "CREATE SEQUENCE tickets CACHE 50;"


def _sell(crash, statement, *, told):
    """Five times, behind one plain commit."""
    with psycopg.connect(crash.url, autocommit=True) as shop:
        shop.execute(SHOP + PROCEDURE)
    with crash, psycopg.connect(crash.url, autocommit=True) as shop:
        shop.execute("INSERT INTO orders VALUES (0, 'x')")
        for n in range(1, 6):
            shop.execute(statement.format(n=n))
            if told:
                crash.told(n)


@pytest.mark.parametrize("statement", UNSEEN)
def test_a_commit_of_an_unknown_transaction_is_not_passed_over(dying, statement):
    """Where no query looks for what it did."""
    crash = dying()
    _sell(crash, statement, told=False)
    with pytest.raises(CrashFailure, match=r"INCONCLUSIVE-CHECK-NOT-RUN[^!]*Of 5 commits"):
        crash.check()


@pytest.mark.parametrize("statement", UNSEEN)
def test_what_the_test_itself_looks_for_is_looked_for(dying, statement):
    """The innocent twin: the test says what was told, and asks for it."""
    crash = dying()
    _sell(crash, statement, told=True)
    crash.check("SELECT id FROM orders")


@pytest.mark.parametrize("statement", SEEN)
def test_a_commit_of_a_known_transaction_needs_no_query(dying, statement):
    """The innocent twin."""
    crash = dying()
    _sell(crash, statement, told=False)
    crash.check()


@pytest.mark.parametrize("statement", NEVER_FLUSHED)
def test_a_commit_that_nobody_flushes_is_no_lost_promise(dying, statement):
    """It has an id and an answer, and the crash takes it: synchronous_commit says nothing about it."""
    crash = dying()
    with psycopg.connect(crash.url, autocommit=True) as shop:
        shop.execute(SHOP)
    with crash, psycopg.connect(crash.url, autocommit=True) as shop:
        for n in range(5):
            shop.execute("INSERT INTO orders VALUES (%s, 'x')", (n,))
            crash.told(n)
            shop.execute(statement)
            shop.execute(statement)
    crash.check("SELECT id FROM orders")


WROTE = {
    "INSERT INTO orders VALUES (1, 'x')": True,
    "WITH new AS (INSERT INTO orders VALUES (2, 'x') RETURNING id) SELECT id FROM new": True,
    "UPDATE orders SET item = 'y' WHERE id = 1": True,
    "CREATE TABLE more (n integer)": True,
    "TRUNCATE orders": True,
    "SELECT lo_from_bytea(0, 'abc')": True,
    "UPDATE cache SET n = n + 1": False,
    "INSERT INTO cache VALUES (2)": False,
    "TRUNCATE cache": False,
    "CREATE TEMPORARY TABLE passing AS SELECT 1 AS n": False,
    "SELECT txid_current()": False,
    "SELECT count(*) FROM orders": None,
}


def test_the_probe_knows_who_has_written_what_is_logged(local_server: Server):
    """The same statement is asked as the observer asks it, in each transaction."""
    with local_server.connect(autocommit=True) as connection:
        connection.execute(SHOP)
        found = {}
        for statement in WROTE:
            with connection.transaction():
                connection.execute(statement)
                row = connection.execute(probe.SQL).fetchone()
                assert row is not None
                found[statement] = row[3]
    assert found == WROTE


CHANGES_CATALOGS = {
    "CREATE FUNCTION one() RETURNS integer LANGUAGE sql AS 'SELECT 1'": True,
    "GRANT SELECT ON orders TO PUBLIC": True,
    "COMMENT ON FUNCTION one() IS 'of it there is one'": True,
    "CREATE SCHEMA other": True,
    "ALTER FUNCTION one() COST 7": True,
    "DROP FUNCTION one()": True,
    "CREATE UNLOGGED TABLE IF NOT EXISTS cache (n integer); INSERT INTO cache VALUES (3)": False,
    "INSERT INTO cache VALUES (2)": False,
}


def test_a_change_of_catalogs_is_one_of_what_is_logged(dying):
    """Though no lock of them is left: else a commit of it could be lost without a word."""
    crash = dying()
    with crash, psycopg.connect(crash.url, autocommit=True) as shop:
        shop.execute(SHOP)
        for statement in CHANGES_CATALOGS:
            shop.execute(statement)
    made = read_conversation(crash.folder / "conversation.jsonl").transactions
    wrote = [one.wrote for one in made[-len(CHANGES_CATALOGS) :]]
    assert dict(zip(CHANGES_CATALOGS, wrote, strict=True)) == CHANGES_CATALOGS
    crash.check()


def test_what_is_told_of_an_unlogged_table_is_lost_all_the_same(dying):
    """No promise is broken, and the application has told its user too much."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    shop.connection.execute("CREATE UNLOGGED TABLE cache (n integer)")
    shop.connection.commit()
    with crash:
        for number in range(5):
            shop.connection.execute("INSERT INTO cache VALUES (%s)", (number,))
            shop.connection.commit()
            crash.told(number)
    with pytest.raises(CrashFailure, match="TOLD-") as caught:
        crash.check("SELECT n FROM cache")
    assert "LOSS-SYNC-COMMIT" not in str(caught.value)
