"""Do drivers, unchanged, work through the observer as they do without it, and is every commit of theirs seen?"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest

from crashlab.observer import Conversation, Observer, read_conversation
from crashlab.server import Server
from tests.observer import scene

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with scene.started() as started:
        with started.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE t (v int PRIMARY KEY)")
            connection.execute("CREATE ROLE scram LOGIN PASSWORD 'secret'")
        yield started


@pytest.fixture
def observer(server: Server, tmp_path: Path) -> Iterator[Observer]:
    with server.connect(autocommit=True) as connection:
        connection.execute("TRUNCATE t")
    with Observer(scene.upstream_of(server), tmp_path / "conversation.jsonl", folder=tmp_path) as observer:
        yield observer


def url_of(server: Server, observer: Observer) -> str:
    with server.connect() as connection:
        return observer.url(connection.info.user, connection.info.dbname)


def account(tmp_path: Path) -> Conversation:
    return read_conversation(tmp_path / "conversation.jsonl")


def holds(server: Server, conversation: Conversation, commits: int) -> None:
    """So many transactions have written, and each is committed, with an id that the server knows as such."""
    wrote = [one for one in conversation.transactions if one.xid is not None]
    assert [one.outcome for one in wrote] == ["committed"] * commits
    assert all(one.sync == "on" and not one.unknown and one.lsn for one in wrote)
    with server.connect() as connection:
        for one in wrote:
            status = connection.execute("SELECT pg_xact_status(%s::text::xid8)", [str(one.xid)]).fetchone()
            assert status == ("committed",)


def test_psycopg(server: Server, observer: Observer, tmp_path: Path):
    """Simple and extended protocol, pipelines, COPY, two-phase commit, server-side cursors, prepared statements."""
    with psycopg.connect(url_of(server, observer)) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
        for value in range(2, 10):  # prepared from the fifth on
            connection.execute("INSERT INTO t VALUES (%s)", [value])
        connection.commit()
        with connection.pipeline():
            connection.execute("INSERT INTO t VALUES (%s)", [10])
            connection.execute("INSERT INTO t VALUES (%s)", [11])
            connection.commit()
        with connection.cursor("server_side") as reader:
            reader.execute("SELECT v FROM t ORDER BY v")
            assert [row[0] for row in reader] == list(range(1, 12))
        with connection.cursor() as cursor, cursor.copy("COPY t FROM STDIN") as copy:
            copy.write_row([12])
        connection.commit()
        connection.tpc_begin(connection.xid(1, "global", "branch"))
        connection.execute("INSERT INTO t VALUES (13)")
        connection.tpc_prepare()
        connection.tpc_commit()
        connection.autocommit = True
        connection.execute("INSERT INTO t VALUES (14)")
        connection.execute("INSERT INTO t VALUES (%s)", [15])
        connection.execute("INSERT INTO t VALUES (16); INSERT INTO t VALUES (17)")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (17,)
        assert connection.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE 'crash%'").fetchall() == []
    holds(server, account(tmp_path), 8)


def test_asyncpg(server: Server, observer: Observer, tmp_path: Path):
    """Prepared statements by name, executemany, COPY, a transaction, and many connections at a time."""

    async def work(url: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO t VALUES (1)")
        await connection.execute("INSERT INTO t VALUES ($1)", 2)
        async with connection.transaction():
            await connection.executemany("INSERT INTO t VALUES ($1)", [(3,), (4,)])
        await connection.copy_records_to_table("t", records=[(5,)])
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO t VALUES ($1)", 2)
        await connection.close()
        async with asyncpg.create_pool(url, min_size=3, max_size=3) as pool:
            await asyncio.gather(*(pool.execute("INSERT INTO t VALUES ($1)", value) for value in range(6, 26)))
            assert await pool.fetchval("SELECT count(*) FROM t") == 25

    asyncio.run(work(url_of(server, observer)))
    holds(server, account(tmp_path), 24)


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_sqlalchemy(server: Server, observer: Observer, tmp_path: Path, driver: str):
    """An engine's transactions and savepoints, with either driver below it."""
    import sqlalchemy  # takes a quarter of a second, which whoever only collects tests need not wait

    table = sqlalchemy.table("t", sqlalchemy.column("v"))
    url = url_of(server, observer).replace("postgresql:", f"postgresql+{driver}:")

    def work(connection: sqlalchemy.Connection) -> None:
        connection.execute(table.insert(), [{"v": 1}, {"v": 2}])
        nested = connection.begin_nested()
        connection.execute(table.insert().values(v=3))
        nested.rollback()

    async def work_async() -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine = create_async_engine(url)
        async with engine.begin() as connection:
            await connection.run_sync(work)
        await engine.dispose()

    if driver == "asyncpg":
        asyncio.run(work_async())
    else:
        engine = sqlalchemy.create_engine(url)
        with engine.begin() as connection:
            work(connection)
        engine.dispose()
    with server.connect() as control:
        assert scene.rows(control) == [1, 2]
    holds(server, account(tmp_path), 1)


def test_who_has_made_commits_asynchronous(server: Server, observer: Observer, tmp_path: Path):
    """synchronous_commit at each COMMIT, and the statement that set it; SET LOCAL ends with its transaction."""
    with psycopg.connect(url_of(server, observer)) as connection:
        for value, setting in enumerate(["SELECT 1", "SET LOCAL synchronous_commit TO off", "SELECT 2"], 1):
            connection.execute(setting)
            connection.execute("INSERT INTO t VALUES (%s)", [value])
            connection.commit()
        connection.execute("SET synchronous_commit = off")
        connection.rollback()
        connection.execute("SELECT set_config('synchronous_commit', 'off', false)")
        connection.commit()
        connection.execute("INSERT INTO t VALUES (4)")
        connection.commit()
    wrote = [one for one in account(tmp_path).transactions if one.xid is not None]
    assert [one.sync for one in wrote] == ["on", "off", "on", "off"]
    assert [one.sync_set_by.sql if one.sync_set_by else None for one in wrote] == [
        None,
        "SET LOCAL synchronous_commit TO off",
        None,
        "SELECT set_config('synchronous_commit', 'off', false)",
    ]


def test_passwords_go_through(tmp_path: Path):
    """SCRAM as the server offers it; a wrong password is refused as ever."""
    with scene.started() as server:
        with server.connect(autocommit=True) as connection:
            connection.execute("CREATE ROLE scram LOGIN PASSWORD 'secret'")
        assert server.data_directory is not None
        rules = server.data_directory / "pg_hba.conf"
        rules.write_text("local all scram scram-sha-256\n" + rules.read_text())
        with server.connect(autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
        with Observer(scene.upstream_of(server), tmp_path / "c.jsonl", folder=tmp_path) as observer:
            psycopg.connect(observer.url("scram", "postgres", "secret")).close()
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(observer.url("scram", "postgres", "wrong"))
        assert "secret" not in (tmp_path / "c.jsonl").read_text()
