"""Is a place in the log dated only as closely as the ledger allows?"""

from pathlib import Path

import msgspec
import pytest

from crashlab.errors import LedgerError
from crashlab.exploration.logclock import LogClock
from crashlab.ledger import Ack, Begin, Header, Intent


def clock(tmp_path: Path, *events: object) -> LogClock:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in (Header(schema=1, seed=1), *events)))
    return LogClock(path)


def test_a_place_lies_between_two_events(tmp_path: Path) -> None:
    """After the last answer that was noted before it, before the first begin that was noted behind it."""
    found = clock(
        tmp_path,
        Begin(1, 1, 100, io=10),
        Intent(1, 1, 200, io=20),
        Ack(1, 1, 300, io=30),
        Begin(2, 1, 400, io=40),
        Intent(2, 1, 500, io=50),
    )
    assert found.bounds_ns(25) == (200, 400)
    assert found.bounds_ns(31) == (300, 400)
    assert found.bounds_ns(30) == (200, 400), "the ack's own time was taken before its position"
    assert found.bounds_ns(40) == (300, 400)
    assert found.bounds_ns(41) == (300, None)
    assert found.bounds_ns(5) == (None, 100)


def test_clients_that_note_out_of_order_do_not_narrow_it(tmp_path: Path) -> None:
    """Each bound is the best that any event proves, whatever the order of the lines."""
    found = clock(
        tmp_path,
        Begin(1, 1, 90, io=50),
        Ack(1, 1, 60, io=12),
        Ack(2, 2, 70, io=11),
        Begin(3, 3, 80, io=60),
    )
    assert found.bounds_ns(20) == (70, 80)


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    """The error tells which file."""
    with pytest.raises(LedgerError, match="nowhere"):
        LogClock(tmp_path / "nowhere")
