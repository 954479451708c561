"""Is it known, while a conversation is written, whether a crash could lose something by now?"""

import json

import pytest

from crashlab.observer.stake import Stake

COMMIT = {"kind": "asked", "connection": 1, "step": 3, "may_commit": True, "unknown": ""}
PROBED = {"kind": "probed", "connection": 1, "step": 3, "xid": 700}
ANSWERED = {"kind": "answered", "connection": 1, "step": 3, "failure": None, "tags": ["COMMIT"], "heard": True}


@pytest.mark.parametrize(
    ("records", "there"),
    [
        ([COMMIT, PROBED, ANSWERED], True),
        ([COMMIT, PROBED], False),
        ([COMMIT, PROBED | {"xid": None}, ANSWERED], False),  # it changed nothing
        ([COMMIT, PROBED, ANSWERED | {"failure": ["ERROR", "23505", "duplicate"]}], False),
        ([COMMIT, PROBED, ANSWERED | {"tags": ["ROLLBACK"]}], False),
        ([COMMIT, PROBED, ANSWERED | {"heard": False}], False),
        ([COMMIT, PROBED, ANSWERED | {"step": 4}], False),
        ([COMMIT | {"unknown": "the transaction begins and ends in one message"}, ANSWERED], True),
    ],
)
def test_an_answered_commit_of_a_change(tmp_path, records, there):
    """Whoever else answered, failed or only read puts nothing at stake; a line that is not whole is waited for."""
    path = tmp_path / "conversation.jsonl"
    path.write_text(json.dumps(ANSWERED) + "\n")
    stake = Stake(path)
    text = "".join(json.dumps(record) + "\n" for record in records)
    with path.open("a") as file:
        file.write(text[:-1])
    assert not stake.look()
    with path.open("a") as file:
        file.write("\n")
    assert stake.look() == there
