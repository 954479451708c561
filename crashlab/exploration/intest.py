"""What does a test of an unchanged application ask of each crash state of its recording?

Its recording has a file more, `told.json`: every key that was told, each with the length of the I/O log at that time,
and the query that finds them. So any state of it can be asked, by the test itself and by a replay.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import psycopg

from crashlab import evidence
from crashlab.errors import CrashlabError
from crashlab.exploration.recording import InTest, Recording
from crashlab.history import History
from crashlab.model import Told
from crashlab.recovery import Reading
from crashlab.trial.toldquery import CANNOT_RUN, first_column
from crashlab.workload.relations import InvariantQuery

Connect = Callable[[str], "psycopg.Connection[Any]"]


def told_until(recording: Recording, io_bytes: int) -> Told | None:
    """Return what had been told when the I/O log was that long; None: the recording is not one of a test."""
    if recording.record.in_test is None:
        return None
    path = recording.folder / evidence.TOLD
    told = evidence.load(path, Told) if path.exists() else Told(observed=True)
    return msgspec.structs.replace(told, keys=[key for key in told.keys if key.io <= io_bytes])


def ask(connect: Connect, told: Told) -> Told:
    """Ask the test's query on a recovered server; one that cannot be run on what came back has found nothing."""
    if told.query is None:
        return told
    try:
        with contextlib.closing(connect(told.database)) as connection:
            return msgspec.structs.replace(told, found=first_column(told.query, connection))
    except (CrashlabError, psycopg.Error) as error:
        said = error.primary if isinstance(error, CrashlabError) else str(error).strip().splitlines()[0]
        return msgspec.structs.replace(told, found=[], failed=said.removeprefix(CANNOT_RUN))


def reading_in_test(in_test: InTest, history: History) -> Reading:
    """Return what is to be read of a server whose tables are the application's own."""
    return Reading(
        relations=[],
        invariants=[InvariantQuery(name, sql, None) for name, sql in in_test.invariants],
        xids=[xid for xid in history.xid if xid],
        sequences=(),
        databases=in_test.databases,
        statistics=False,
        invariants_may_lack=True,
    )
