"""Is a server that somebody else has started crashed on its own files, and left running?"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from crashlab.errors import UsageProblem
from crashlab.server import owned
from crashlab.server.builds import find_build
from crashlab.server.privileges import server_user
from crashlab.testing import Crash
from tests.testing.shop import Shop

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.server
ORDERS = "SELECT id FROM orders"


@dataclass
class Executor:
    """What pytest-postgresql's has of interest."""

    datadir: Path
    port: int
    user: str = "me"
    password: str | None = None


@pytest.fixture
def theirs() -> Iterator[Executor]:
    """Started as pytest-postgresql does: initdb, then pg_ctl with -F and a folder for its socket."""
    build = find_build()
    assert build is not None
    folder = owned.make_folder(Path("/tmp"))
    server_user().own(folder)

    def run(program: str, *words: str) -> None:
        subprocess.run(
            [str(build.bindir / program), *words], check=True, stdout=subprocess.DEVNULL, **server_user().credentials()
        )

    data = folder / "data"
    run("initdb", "-D", str(data), "-U", "me", "--auth=trust", "--no-sync")
    options = f"-F -p 6543 -c listen_addresses='' -c unix_socket_directories='{folder}'"
    run("pg_ctl", "start", "-w", "-D", str(data), "-o", options, "-l", str(folder / "log"))
    yield Executor(data, 6543)
    run("pg_ctl", "stop", "-D", str(data), "-m", "fast")  # it runs, and is theirs
    owned.remove_folder(folder)


def test_a_server_that_pg_ctl_started(theirs):
    """Killed twice on its own files; its address stays, and it is left running."""
    with Crash(container=theirs, points="commits") as crash:  # dies at the end of each block
        Shop(crash.url).create_tables()
        for block in range(2):
            shop = Shop(crash.url)
            with crash:
                for number in range(5):
                    crash.told(shop.order(10 * block + number))
        assert [verdict.outcome for verdict in crash.check(ORDERS)] == ["intact", "intact"]
        assert crash.observed.crashes[0].injections[0].confirmed
        fsync = crash.connect().execute("SHOW fsync").fetchone()
    assert fsync == ("off",)  # -F of its own command line
    with psycopg.connect(host=str(theirs.datadir.parent), port=theirs.port, user="me", dbname="postgres") as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (10,)


def test_handed_over_by_a_fixture(theirs, pytester: pytest.Pytester):
    """`crash` takes what `crashlab_own_server` gives, with its seed and its line to run it again."""
    pytester.makeconftest(f"""
import pytest
from types import SimpleNamespace
@pytest.fixture
def crashlab_own_server():
    return SimpleNamespace(datadir={str(theirs.datadir)!r}, user="me", password=None)
""")
    pytester.makepyfile("""
from tests.testing.shop import Shop
def test_orders(crash):
    shop = Shop(crash.url).create_tables()
    with crash:
        for number in range(5):
            shop.insert(number)
            crash.told(number + 100)
            shop.connection.commit()
    crash.check("SELECT id FROM orders")
""")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--crashlab-seed=5")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TOLD-*", "*reproduce: pytest *test_orders* --crashlab-seed=5"])


def test_what_cannot_be_handed_over(theirs, tmp_path):
    """A folder in which nothing runs; a server that lets nobody in, which runs on."""
    with pytest.raises(UsageProblem, match="no server runs there"):
        Crash(container=tmp_path).start()
    with pytest.raises(UsageProblem, match='role "postgres" does not exist'):
        Crash(container=theirs.datadir).start()
    for nothing in ("", 5, [theirs]):
        with pytest.raises(UsageProblem, match="neither a container nor a data directory"):
            Crash(container=nothing).start()
