"""Is it seen what an application does to its data after the recovery, and who is blamed for it?"""

import time

import psycopg
import pytest

from crashlab.testing import CrashFailure
from tests.testing.shop import Shop

pytestmark = pytest.mark.server


@pytest.mark.parametrize(("phase", "careful"), [("unheard", False), ("unheard", True), ("before", False)])
def test_done_twice_because_the_answer_was_lost(dying, phase, careful):
    """Whoever tries again harms nobody with a key, or where nothing had been done."""
    crash = dying(f"1:commit:1:{phase}")
    Shop(crash.url).connection.close()
    crash.connect(autocommit=True).execute("CREATE TABLE wanted (request text, at float8 PRIMARY KEY)")
    if careful:
        crash.connect(autocommit=True).execute("CREATE UNIQUE INDEX once ON wanted (request)")
    crash.invariant("no order twice", "SELECT request FROM wanted GROUP BY request HAVING count(*) > 1")

    def order(request: str) -> None:
        for _ in range(1000):
            try:
                with psycopg.connect(crash.url, cursor_factory=psycopg.ClientCursor) as connection:
                    values = [request, time.time()]
                    connection.execute("INSERT INTO wanted VALUES (%s, %s) ON CONFLICT DO NOTHING", values)
                return
            except psycopg.OperationalError:
                time.sleep(0.02)

    with crash:
        order("a")
        order("b")
    if phase == "before" or careful:
        crash.check()
        return
    with pytest.raises(CrashFailure, match=r"(?s)APPLICATION-DONE-TWICE: .*no order twice.* asked for the same later"):
        crash.check()
    assert [one.code for one in crash.judged[1].findings] == ["APPLICATION-DONE-TWICE"]


def test_an_invariant_that_the_application_breaks_afterwards(dying):
    """It goes on from what it has in memory; nobody repeated anything. Also if another block begins."""
    crash = dying()
    shop = Shop(crash.url).create_tables()
    crash.invariant("numbers follow each other", "SELECT FROM orders HAVING max(id) - min(id) + 1 <> count(*)")
    with crash:
        shop.order(1)
    crash.check()
    Shop(crash.url).order(3)
    with crash:
        Shop(crash.url).order(4)
    with pytest.raises(CrashFailure, match="APPLICATION-AFTERWARDS"):
        crash.check()
    assert crash.judged[2].outcome == "inconclusive"  # it did not hold as that block began
