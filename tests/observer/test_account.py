"""Is the account of a conversation true, and would a false one be seen?"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from crashlab.observer.account import Conversation
from tests.observer import talks
from tests.observer.scene import OBSERVED, Scene, started
from tests.observer.talks import Held, Talk

pytestmark = pytest.mark.server

SHORT = 40
"""`python tests/power/conversations.py` is the long form."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with started() as server:
        made = Scene(server, tmp_path_factory.mktemp("scene"))
        yield made
        made.close()


def test_random_conversations(scene: Scene):
    """The client hears what it hears without the observer, and the account is what the database says."""

    @seed(2026)
    @settings(max_examples=SHORT, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(talks.talk)
    def examine(drawn: Talk) -> None:
        found = scene.examine(drawn)
        assert not found, "\n".join(found)

    examine()
    assert len(scene.ids) > SHORT / 3
    assert scene.wal_differences() == []


TALK: Talk = (
    [
        (0, ("simple", talks.INSERT)),
        (0, ("extended", [["BEGIN", talks.INSERT], ["COMMIT"]])),
        (1, ("simple", "BEGIN")),
        (1, ("simple", talks.INSERT)),
        (1, ("simple", "ROLLBACK")),
    ],
    True,
)


def test_a_false_account_is_seen(scene: Scene):
    """Each way of being wrong, beside the account as it was."""

    def wrong(account: Conversation, held: Held, way: str) -> list[str]:
        transactions = account.transactions
        first, second, third = transactions
        if way == "outcome":
            first.outcome = "rolled back"
        elif way == "rolled back":
            third.outcome, third.xid = "committed", second.xid
        elif way == "id":
            first.xid, second.xid = second.xid, first.xid
        elif way == "missing":
            transactions.remove(second)
        elif way == "nothing written":
            first.xid = None
        elif way == "answer":
            account.steps[0].tags = ["INSERT 0 2"]
        return talks.differences(account, held, scene.controls[OBSERVED])

    for way in ("", "outcome", "rolled back", "id", "missing", "nothing written", "answer"):
        _, held, account = scene.hold(TALK)
        assert [one.outcome for one in account.transactions] == ["committed", "committed", "rolled back"]
        assert bool(wrong(account, held, way)) == bool(way), way
    _, _, account = scene.hold(TALK)
    assert account.transactions[0].xid is not None
    assert account.transactions[2].xid is None
    scene.ids = {account.transactions[0].xid: "rolled back"}
    assert len(scene.wal_differences()) == 1
    scene.ids = {account.transactions[0].xid: "committed"}
    assert scene.wal_differences() == []
