"""Is a container that somebody else made crashed where it is, with what he set, and left running?"""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from crashlab.errors import ServerError, UsageProblem
from crashlab.server import ServerChoice
from crashlab.testing import Crash, CrashFailure
from tests.testing.shop import Shop

pytestmark = pytest.mark.container
ORDERS = "SELECT id FROM orders"


@pytest.fixture(scope="module")
def theirs() -> Iterator[Any]:
    """As in the manual of testcontainers."""
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.core.config import testcontainers_config

    testcontainers_config.ryuk_disabled = True
    with PostgresContainer("postgres:17", driver=None) as container:
        yield container


def sell(crash: Crash, numbers: range, *, early: bool = False) -> None:
    shop = Shop(crash.url)
    with crash:
        for number in numbers:
            if early:
                crash.told(number)
            crash.told(shop.order(number))


def test_a_container_of_testcontainers(theirs):
    """Its own user and database; killed twice, and the address of the application stays."""
    with Crash(container=theirs, points="commits") as crash:
        Shop(crash.url).create_tables()
        url = crash.url
        sell(crash, range(5))
        sell(crash, range(5, 10))
        verdicts = crash.check(ORDERS)
    assert [verdict.outcome for verdict in verdicts] == ["intact", "intact"]
    assert url.startswith("postgresql://test:test@")
    assert url.endswith("/test")
    with psycopg.connect(theirs.get_connection_url()) as connection:  # theirs again, where Docker has it now
        assert connection.execute("SELECT count(*) > 0 FROM orders").fetchone() == (True,)


def test_by_its_name_and_guilty(theirs):
    """As a service of compose is named; told before COMMIT, at the moment in between."""
    name = theirs.get_wrapped_container().name
    with contextlib.closing(Crash(container=name, points="commits", point="1:commit:2:before")) as crash:
        crash.start()
        shop = Shop(crash.url)
        shop.connection.execute("DROP TABLE IF EXISTS orders, lines")
        shop.create_tables()
        with crash:
            for number in range(3):
                shop.insert(number)
                crash.told(number)
                shop.connection.commit()
        with pytest.raises(CrashFailure, match="TOLD-BEFORE-COMMIT"):
            crash.check(ORDERS)


def test_left_running_however_a_test_ends(theirs):
    """Also if it was killed for good."""
    with contextlib.closing(Crash(container=theirs, block_timeout_s=0.5)) as crash:
        crash.start()
        shop = Shop(crash.url)
        with pytest.raises(CrashFailure, match="the application hangs"), crash:
            shop.connection.execute("SELECT pg_sleep(600)")
        assert not crash.server.running()
    with psycopg.connect(theirs.get_connection_url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_what_cannot_be_handed_over(theirs):
    """No such container; what would lose its files; what it cannot be given."""
    with pytest.raises(ServerError, match='could not find a container "nobody"'):
        Crash(container="nobody").start()
    with pytest.raises(UsageProblem, match="cannot cut its power"):
        Crash("power-loss", container=theirs).start()
    with pytest.raises(UsageProblem, match="cannot set full_page_writes"):
        Crash(container=theirs, settings={"full_page_writes": False}).start()
    client = theirs.get_docker_client().client
    options = {"environment": {"POSTGRES_PASSWORD": "x"}, "detach": True}
    in_memory = client.containers.create("postgres:17", tmpfs={"/var/lib/postgresql/data": ""}, **options)
    try:
        with pytest.raises(UsageProblem, match="is a tmpfs, and its end takes all files"):
            Crash(container=in_memory).start()
    finally:
        in_memory.remove(force=True, v=True)


def test_the_power_of_a_container_of_crashlabs_own(tmp_path):
    """Recorded it is another container, with another port; nothing is lost at any state."""
    choice = ServerChoice(image="postgres:17")
    with contextlib.closing(Crash("power-loss", choice=choice, states=6, folder=tmp_path, seed=7)) as crash:
        Shop(crash.start().url).create_tables()
        sell(crash, range(8))
        verdicts = crash.check(ORDERS)
    assert [verdict.outcome for verdict in verdicts] == ["intact"] * 7
