"""At which crash points does one flush count?"""

from crashlab.disk.fileclass import FileClass
from crashlab.disk.operations import Kind, Operation
from crashlab.exploration.points import Flush, Survey, candidates, flushes_of

PATHS = {1: "pgdata/pg_wal/000000010000000000000001", 2: "pgdata/base/5/1259", 3: "pgdata/pg_wal/xlogtemp.7"}


class Log(list[Operation]):
    """Operations, each one byte long, and where their files are."""

    def path(self, file: int) -> str:
        return PATHS[file]


def log(*steps: tuple[Kind, int, int]) -> Log:
    """Each step is a kind, a file and a token; a write with a token is its own flush."""
    return Log(
        Operation(position=at, kind=kind, file=file, token=token, durable=kind is Kind.WRITE and token > 0, log_end=at)
        for at, (kind, file, token) in enumerate(steps)
    )


def found(operations: Log, first_bytes: int = -1) -> list[Flush]:
    return flushes_of(operations, first_bytes, {FileClass.WAL})  # type: ignore[arg-type]


BEGIN, END, WRITE = Kind.FSYNC_BEGIN, Kind.FSYNC_END, Kind.WRITE


def test_a_flush_counts_from_its_end_to_that_of_the_next_one_of_its_file() -> None:
    """Other files, and other classes, end nothing; the last one counts to the end."""
    steps = [(BEGIN, 1, 1), (END, 0, 1), (BEGIN, 2, 2), (END, 0, 2), (BEGIN, 3, 3), (BEGIN, 1, 4), (END, 0, 3)]
    operations = log(*steps, (END, 0, 4), (WRITE, 1, 0))
    assert found(operations) == [Flush(0, PATHS[1], 2, 7), Flush(4, PATHS[3], 7, 9), Flush(5, PATHS[1], 8, 9)]
    assert [flush.position for flush in found(operations, 1)] == [4, 5]


def test_only_a_flush_that_began_later_covers_it() -> None:
    """One that began before and ends after covers less; one whose successor has ended already does not count."""
    operations = log((BEGIN, 1, 1), (BEGIN, 1, 2), (END, 0, 2), (END, 0, 1), (WRITE, 1, 0))
    assert found(operations) == [Flush(1, PATHS[1], 3, 5)]


def test_a_write_that_is_its_own_flush_counts_until_a_flush() -> None:
    """As with wal_sync_method = open_datasync."""
    operations = log((WRITE, 1, 1), (WRITE, 1, 1), (BEGIN, 1, 2), (END, 0, 2), (WRITE, 1, 0))
    assert found(operations) == [Flush(0, PATHS[1], 1, 3), Flush(1, PATHS[1], 2, 3), Flush(2, PATHS[1], 4, 5)]


def test_the_power_is_cut_where_the_flush_counts() -> None:
    """Every point lies between, whatever the aim."""
    survey = Survey(first=3, end=90, flushes=[5, 20, 21, 60])
    flush = Flush(18, PATHS[1], 20, 25)
    assert list(candidates(survey, "any", flush)) == list(range(20, 26))
    assert candidates(survey, "flush", flush) == [20, 21]
    assert candidates(survey, "end", flush) == []
