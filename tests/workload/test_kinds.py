"""Does every kind of transaction say truthfully what it wrote?

Whether damage to it would be seen: tests/power/damage_kinds.py.
"""

import contextlib
import re
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashlab.fault.targets import titled_processes
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.recordtypes import MAJORS, record_types
from crashlab.results import TrialResult
from crashlab.server import Server, ServerChoice
from crashlab.trial.live import run_trial
from crashlab.workload.kind import record_types_of
from crashlab.workload.kinds import KINDS
from tests.overrides import kill_after
from tests.running import RunRequest, plan_of

pytestmark = pytest.mark.server
USER_DEFINED = {"sql"}
UNLOGGED = {"ddl_unlogged", "unlogged"}
SETTINGS = ("wal_level=logical", "track_commit_timestamp=on")
"""Some kinds are of no use without."""


def run_kinds(folder: Path, kinds: list[str], *, seed: int = 4, acks: int = 150) -> TrialResult:
    """Run one trial of these kinds."""
    request = RunRequest(
        profile=load_profile("objects", overrides=[f"workload.kinds={kinds}", kill_after(acks), *SETTINGS]),
        seed=seed,
        trials=1,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=folder,
        keep="none",
    )
    trial = folder / "trial"
    trial.mkdir()
    return run_trial(plan_of(request), 0, trial)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - USER_DEFINED - UNLOGGED))
def test_each_kind_is_intact_after_a_crash(tmp_path: Path, kind: str) -> None:
    """What a kind notes in the ledger is what its tables hold, and enough of it happens to mean something."""
    result = run_kinds(tmp_path, [kind], acks=60 if record_types_of(KINDS[kind]()) else 150)
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    assert result.verdict.promise is PromiseStatus.KEPT
    assert result.verdict.counts.acked > 20


@pytest.mark.parametrize("kind", sorted(UNLOGGED))
def test_unlogged_tables_are_intact_unless_the_server_stumbles_over_its_own_file(tmp_path: Path, kind: str) -> None:
    """PostgreSQL 14 to 18 fail one start in four here, with one message; see the track record (track-record.md)."""
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        verdict = run_kinds(folder, [kind], seed=seed).verdict
        if verdict.outcome is Outcome.INTACT:
            assert verdict.promise is PromiseStatus.KEPT
            assert verdict.counts.acked > 20
            return
        (finding,) = verdict.findings
        assert finding.code == "NO-START"
        assert re.search(r'could not create file "base/.*": File exists', finding.explanation)
    pytest.fail("no start in eight succeeded")


def test_every_kind_that_names_record_types_names_some_that_there_are() -> None:
    """In at least one major version; and together they name most of what the general kinds seldom reach."""
    tables = [types for major in MAJORS if (types := record_types(major)) is not None]
    known = {name for types in tables for name in types.names.values()}
    named = {name for kind in KINDS.values() for name in record_types_of(kind)}
    assert named - known == set()
    assert len(named) > 75


FORCED = {
    "DROP TABLE": ("CREATE TABLE t (n integer)", "DROP TABLE t"),
    "DROP INDEX": ("CREATE TABLE t (n integer PRIMARY KEY); CREATE INDEX i ON t (n)", "DROP INDEX i"),
    "DROP of an unlogged table": ("CREATE UNLOGGED TABLE t (n integer)", "DROP TABLE t"),
    "TRUNCATE": ("CREATE TABLE t (n integer)", "TRUNCATE t"),
    "REFRESH MATERIALIZED VIEW": ("CREATE MATERIALIZED VIEW t AS SELECT 1", "REFRESH MATERIALIZED VIEW t"),
    "REINDEX": ("CREATE TABLE t (n integer PRIMARY KEY)", "REINDEX TABLE t"),
}
NOT_FORCED = {
    "CREATE TABLE": ("SELECT", "CREATE TABLE t (n integer)"),
    "CREATE INDEX": ("CREATE TABLE t (n integer)", "CREATE INDEX ON t (n)"),
    "INSERT": ("CREATE TABLE t (n integer)", "INSERT INTO t VALUES (1)"),
    "DROP of a temporary table": ("CREATE TEMPORARY TABLE t (n integer)", "DROP TABLE t"),
}


@pytest.mark.parametrize("what", [*FORCED, *NOT_FORCED])
def test_which_commits_are_flushed_whatever_synchronous_commit_says(local_server: Server, what: str) -> None:
    """With walwriter stopped nobody else flushes: the log is on disk after the answer only if the commit forced it."""
    before, statement = (FORCED | NOT_FORCED)[what]
    (walwriter,) = [process.pid for process in titled_processes(local_server) if process.role == "walwriter"]
    with contextlib.closing(local_server.connect(autocommit=True)) as connection:
        connection.execute(before)
        connection.execute("SET synchronous_commit = off")
        connection.execute("CHECKPOINT")
        local_server.signal(walwriter, signal.SIGSTOP)
        try:
            flushed = _commit_and_look(connection, statement)
        finally:
            local_server.signal(walwriter, signal.SIGCONT)
    assert flushed is (what in FORCED)


def _commit_and_look(connection: psycopg.Connection[Any], statement: str) -> bool:
    with connection.transaction():
        connection.execute("SELECT pg_current_xact_id()")
        connection.execute(statement)
        (inserted,) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchone()  # type: ignore[misc]
    row = connection.execute("SELECT pg_current_wal_flush_lsn() >= %s", (inserted,)).fetchone()
    assert row is not None
    return bool(row[0])
