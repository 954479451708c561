"""Do shares, pieces of time and costs come out of the samples as they went in?"""

import msgspec
import pytest

from crashlab.observe.samples import (
    CLIENTS,
    Reading,
    Sample,
    Samples,
    Wait,
    cost_line,
    flushes,
    share_of,
    slots,
    wait_table,
)

MS = 1_000_000


def made(*samples: Sample, **more) -> Samples:
    """Samples of a made-up server."""
    whole = {"version_num": 160000, "every_ms": 50.0, "readings": [], "looking_s": 0.001, **more}
    return Samples(samples=list(samples), **whole)


def look(at_ms: int, *waits: Wait, lsn: int = 0) -> Sample:
    """One sample; half of the WAL is written, none flushed."""
    return Sample(at_ms * MS, 100 + lsn, 100 + lsn // 2, 100, list(waits))


def test_shares_are_of_what_was_not_idle_and_old_names_count_as_the_new_ones():
    """Three of four working clients waited for the disk; the idle ones are no part of the whole."""
    idle = Wait(CLIENTS, "Client", "ClientRead", True, 7)
    samples = made(
        look(0, Wait(CLIENTS, "IO", "WALSync", False, 2), idle),
        look(50, Wait(CLIENTS, "IO", "WalSync", False, 1), Wait(CLIENTS, "", "", False, 1), idle),
        look(100, Wait("walwriter", "Activity", "WalWriterMain", False, 1)),
    )
    assert share_of(samples, "WalSync") == 0.75
    assert [(row.backend, row.event, row.seen) for row in wait_table(samples)] == [
        (CLIENTS, "WalSync", 3),
        (CLIENTS, "running", 1),
        ("walwriter", "WalWriterMain", 1),
    ]
    assert share_of(samples, "WALInsert") == 0.0


@pytest.mark.parametrize("most", [1, 2, 3, 7, 100])
def test_pieces_hold_every_sample_once_and_follow_one_another(most):
    """However finely the time is cut: averages weighted by samples give the whole again, and WAL only grows."""
    times = [0, 3, 4, 50, 51, 120, 121]
    found = [look(at, Wait(CLIENTS, "LWLock", "WALInsert", False, at % 3), lsn=10 * at) for at in times]
    samples = made(*found)
    pieces = slots(samples, most)
    assert 1 <= len(pieces) <= most
    inside = [[one for one in found if piece.begin_ns <= one.at_ns < piece.end_ns] for piece in pieces]
    assert [one for piece in inside for one in piece] == found
    whole = sum(piece.waits["LWLock.WALInsert"] * len(some) for piece, some in zip(pieces, inside, strict=True))
    assert whole == pytest.approx(sum(at % 3 for at in times))
    assert all(piece.inserted >= piece.written >= piece.flushed for piece in pieces)
    assert (pieces[-1].inserted, pieces[-1].written, pieces[-1].flushed) == (1210, 605, 0)


def test_no_sample_is_no_figure():
    """A server that died before the first look: nothing is made up, and the line says why."""
    assert not slots(made())
    assert not wait_table(made())
    assert made().busy is None
    assert "too few" in cost_line(made())
    with pytest.raises(ValueError, match="one piece"):
        slots(made(), 0)


def test_what_looking_cost_is_said_and_so_is_that_it_went_slower():
    """The share is that of the looks; a period far beyond the one asked for is named."""
    quick = made(*(look(50 * number) for number in range(21)), looking_s=0.01)
    slow = made(*(look(500 * number) for number in range(3)), looking_s=0.01)
    assert "at most 1.0 % of one processor" in cost_line(quick)
    assert "asked for" not in cost_line(quick)
    assert "one every 500 ms; looking took at most 1.0 % of one processor (asked for one every 50 ms" in cost_line(slow)


def test_flushes_are_found_where_a_version_counts_them():
    """Up to 17 in pg_stat_wal; from 18 on the sum over all processes in pg_stat_io, of the WAL alone."""
    assert flushes({"pg_stat_wal.wal_sync": 5.0, "pg_stat_wal.wal_bytes": 1.0}) == 5.0
    assert (
        flushes(
            {
                "pg_stat_io.client backend.wal.normal.fsyncs": 4.0,
                "pg_stat_io.walwriter.wal.normal.fsyncs": 3.0,
                "pg_stat_io.checkpointer.relation.normal.fsyncs": 90.0,
            }
        )
        == 7.0
    )
    assert flushes({"pg_stat_io.client backend.wal.normal.writes": 4.0}) == 0.0  # fsync=off
    assert flushes({}) is None


def test_counters_that_appear_later_count_from_nothing_and_all_of_it_is_kept():
    """A row of pg_stat_io that was all zeros is not stored; what is read back is what was seen."""
    samples = made(look(0), readings=[Reading(0, {"a": 2.0, "c": 1.0}), Reading(1, {"a": 5.0, "b": 3.0, "c": 1.0})])
    assert samples.counted() == {"a": 3.0, "b": 3.0}
    assert msgspec.json.decode(msgspec.json.encode(samples), type=Samples) == samples
