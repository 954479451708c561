"""What does the recovered server hold?

Assumes: nobody writes. The statuses of the transactions are asked first, before anything could assign an xid: an xid
    that left no trace in the WAL is given out again, and would answer for another transaction.
Choices: a check that met an error keeps the error as a complaint and counts as run; a check that could not go on is
    `failed`, and its absence makes the trial inconclusive.
    A check is `contents` or `sweeps`: both ask for everything in few round trips, and part by part after an error.

Source: postgres-contract.md 7.5 (order of evidence), 6 (blind spots of each tool).
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import psycopg

from crashlab.model import CheckRun, Complaint, Observation, Recovery
from crashlab.recovery import checksums, contents, indexes, leftovers, physical, sweeps
from crashlab.recovery.patience import Patience
from crashlab.recovery.session import Facts, Looked, Reading, Skipped, complaint, note_zeroed
from crashlab.recovery.sweeps import Sweep, Sweeps
from crashlab.server.base import DATABASE
from crashlab.workload.relations import TEXT_SETTINGS
from crashlab.workload.roles import make_role

__all__ = ["CHECKS", "Reading", "observe"]

ConnectTo = Callable[[str], "psycopg.Connection[Any]"]


@dataclass(frozen=True)
class _Session:
    """What a check gets."""

    connection: "psycopg.Connection[Any]"
    sweeps: Sweeps
    reading: Reading
    facts: Facts
    connect_plain: Callable[[], "psycopg.Connection[Any]"] | None


Check = Callable[[_Session], int | Looked | Skipped]


def observe(
    connect: ConnectTo,
    reading: Reading,
    recovery: Recovery,
    *,
    unchanged: Collection[str] = (),
    only: Collection[str] | None = None,
    connect_plain: Callable[[], "psycopg.Connection[Any]"] | None = None,
) -> Observation:
    """Read everything that the oracle asks for.

    Args:
        connect: opens an autocommit connection to a database.
        recovery: what `recover` said; a server that did not start is not read.
        unchanged: relations, as pg_relation_filepath() names them, whose files are those of a base image that was
            checked; amcheck and the full read leave them out (`physical`).
        only: the names of the checks to run; None: all.
        connect_plain: opens an autocommit connection of `workload.roles.ROLE`, in which invariants are looked at; None:
            a superuser may.
    """
    facts = Facts()
    if recovery.started:
        try:
            with _connected(connect, DATABASE, reading, facts) as connection:
                _prepare(connection, unchanged, reading)
                session = _Session(connection, Sweeps(connection, unchanged), reading, facts, connect_plain)
                for name, check in CHECKS:
                    if only is not None and name not in only:
                        continue
                    _run_check(name, check, session)
                if reading.statistics and not recovery.ran and only is None:  # which throws them away
                    _run_check("statistics", _content(contents.statistics), session)
                facts.checks["checksums"] = checksums.NOT_STOPPED
                if reading.databases and only is None:
                    _run_check("databases", partial(_databases, connect, unchanged), session)
                _ask_who_computes(connection, facts)
        except psycopg.errors.QueryCanceled as error:
            facts.complaints.append(complaint("full_read", "session", None, error))
        except psycopg.OperationalError as error:
            facts.died = str(error).strip()
        except psycopg.Error as error:  # not even a SET works: a catalog that every statement needs is damaged
            facts.complaints.append(complaint("full_read", "session", None, error))
    return Observation(recovery=recovery, **vars(facts))


@contextlib.contextmanager
def _connected(
    connect: ConnectTo, database: str, reading: Reading, facts: Facts
) -> "Iterator[psycopg.Connection[Any]]":
    with (
        contextlib.closing(connect(database)) as connection,
        Patience(lambda: connect(database), connection, reading.statement_timeout_ms),
    ):
        connection.add_notice_handler(partial(note_zeroed, facts.complaints))
        yield connection


def _prepare(connection: psycopg.Connection[Any], unchanged: Collection[str], reading: Reading) -> None:
    to_see_damage = ["SET zero_damaged_pages = off", "SET ignore_checksum_failure = off"]
    connection.execute("; ".join([*_settings(reading), *to_see_damage, physical.leave_out(unchanged)]))


def _settings(reading: Reading) -> list[str]:
    settings = {
        "role": "none",  # a database may have another one, who may less
        "statement_timeout": str(reading.statement_timeout_ms),
        "default_transaction_read_only": "on",
        # Nobody writes any more. A prepared transaction that was serializable would refuse every serializable read.
        "default_transaction_isolation": "read committed",
        "client_min_messages": "notice",  # what the loops of `physical` speak in
        **TEXT_SETTINGS,
    }
    return [f"SET {name} = '{value}'" for name, value in settings.items()]


def _invariants(session: _Session) -> int | Looked:
    """Look at them in a session of who may do no harm; an older recording has no such role yet."""
    if session.connect_plain is None:
        return contents.invariants(session.connection, session.reading, session.facts)
    make_role(session.connection)
    with contextlib.closing(session.connect_plain()) as connection:
        connection.execute("; ".join(_settings(session.reading)))
        return contents.invariants(connection, session.reading, session.facts)


def _run_check(name: str, check: Check, session: _Session) -> None:
    connection, facts = session.connection, session.facts
    begun = time.monotonic()
    detail = ""
    count = unchanged = 0
    try:
        looked = check(session)
        status = "ran"
        if isinstance(looked, Skipped):
            status, detail = "skipped", looked.reason
        elif isinstance(looked, Looked):
            count, unchanged = looked.count, looked.unchanged
            detail = looked.detail or (f"{unchanged} relations are as in the base image" if unchanged else "")
        else:
            count = looked
    except psycopg.Error as error:
        if connection.broken or connection.closed:
            raise psycopg.OperationalError(f"while {name} was run: {error}") from error
        facts.complaints.append(complaint(name, name, None, error))
        status, detail = "failed", str(error).strip()
    except UnicodeDecodeError as error:  # of a catalog: rows and keys are read without it
        message = f"bytes that are not in the database's encoding: {error}"
        facts.complaints.append(Complaint(check=name, object=name, file=None, sqlstate="22021", message=message))
        status, detail = "failed", message
    except AssertionError as error:  # a check that looked elsewhere than it should has not looked
        status, detail = "failed", str(error)
    facts.checks[name] = CheckRun(
        status=status,  # type: ignore[arg-type]
        count=count,
        unchanged=unchanged,
        seconds=round(time.monotonic() - begun, 4),
        detail=detail,
    )


def _ask_who_computes(connection: psycopg.Connection[Any], facts: Facts) -> None:
    """Ask for the indexes that a function of somebody's own may make look damaged, where one does."""
    if facts.complaints or not all(read.agrees for read in facts.indexes):
        try:
            facts.own_functions |= indexes.own_functions(connection)
        except psycopg.Error:  # where a catalog is damaged nothing is excused
            if connection.broken:
                raise


def _content(check: Callable[["psycopg.Connection[Any]", Reading, Facts], int | Looked]) -> Check:
    return lambda session: check(session.connection, session.reading, session.facts)


def _sweep(sweep: Sweep, function: str, missing: str) -> Check:
    def check(session: _Session) -> Looked | Skipped:
        if not session.sweeps.has(function):
            return Skipped(f"the database has no {missing}")
        return session.sweeps.check(sweep, session.facts.complaints)

    return check


def _amcheck_index(session: _Session) -> int | Looked | Skipped:
    unique = session.sweeps.has("unique")
    sweep = sweeps.AMCHECK_INDEX_UNIQUE if unique else sweeps.AMCHECK_INDEX
    return _sweep(sweep, "unique" if unique else "amcheck", "extension amcheck")(session)


def _visibility_map(session: _Session) -> int | Looked | Skipped:
    if session.sweeps.has("visibility") and (reason := physical.horizon_may_move_back(session.connection)):
        return Skipped(f"before PostgreSQL 17 its answer cannot be relied on: {reason}")
    return _sweep(sweeps.VISIBILITY_MAP, "visibility", "extension pg_visibility")(session)


def _full_read(session: _Session) -> Looked:
    return session.sweeps.check(sweeps.FULL_READ, session.facts.complaints)


def _databases(connect: ConnectTo, unchanged: Collection[str], session: _Session) -> Looked:
    """Read every other database that lets sessions in; an interrupted DROP DATABASE leaves one that does not."""
    connection, reading, facts = session.connection, session.reading, session.facts
    query = """
        SELECT datname, CASE dattablespace WHEN 1663 THEN 'base/' || oid END FROM pg_database
        WHERE datallowconn AND datconnlimit <> -2 AND datname <> current_database() ORDER BY oid
    """
    count = same = 0
    for name, folder in connection.execute(query).fetchall():
        try:
            with _connected(connect, name, reading, facts) as other:
                _prepare(other, unchanged, reading)
                looked = _read_database(Sweeps(other, unchanged), name, facts.complaints)
                _ask_who_computes(other, facts)
        except psycopg.Error as error:
            connection.execute("SELECT")  # raises if it is the whole server that is gone
            facts.complaints.append(complaint("databases", f"database {name}", folder, error))
            continue
        count, same = count + looked.count, same + looked.unchanged
    return Looked(count, same)


def _read_database(known: Sweeps, name: str, complaints: list[Complaint]) -> Looked:
    checks = [sweeps.FULL_READ]
    if known.has("amcheck"):
        checks += [sweeps.AMCHECK_INDEX, sweeps.AMCHECK_HEAP]
    found: list[Complaint] = []
    count = same = 0
    for sweep in checks:
        looked = known.check(sweep, found)
        count, same = count + looked.count, same + looked.unchanged
    complaints += [msgspec.structs.replace(one, object=f"{name}: {one.object}") for one in found]
    return Looked(count, same)


CHECKS: Iterable[tuple[str, Check]] = (
    ("xact_status", _content(contents.xact_status)),
    # first: a scan may prune a page, which gives it another LSN
    ("page_lsn", _sweep(sweeps.PAGE_LSN, "pages", "extension pageinspect")),
    ("heap_read", _content(contents.heap_read)),
    ("index_read", _content(contents.index_read)),
    ("amcheck_index", _amcheck_index),
    ("amcheck_heap", _sweep(sweeps.AMCHECK_HEAP, "amcheck", "extension amcheck")),
    (
        "amcheck_gin",
        _sweep(sweeps.AMCHECK_GIN, "gin", "gin_index_check, which comes with amcheck 1.5 (PostgreSQL 18)"),
    ),
    ("full_read", _full_read),
    ("visibility_map", _visibility_map),
    ("sequences", _content(contents.sequences)),
    ("prepared", _content(contents.prepared)),
    ("invariants", _invariants),
    ("leftovers", lambda session: leftovers.look(session.connection, session.facts, session.sweeps.files())),
)
"""In the order in which they run; the names are those of model.REQUIRED_CHECKS and some more."""
