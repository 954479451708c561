"""Is damage that was there before the fault told as that, and is the same damage accused if it was not?

The damage: an index over a function that is called immutable and is not, as applications have them by mistake.
"""

from pathlib import Path

import pytest

from crashlab.model import Outcome, PromiseStatus, Verdict
from crashlab.results import TrialResult
from crashlab.server import Server
from crashlab.trial.live import run_trial
from tests.running import plan_of, run_profile
from tests.workload.test_sql_trials import codes, request

pytestmark = pytest.mark.server

INDEXED = """
CREATE TABLE factor AS SELECT 1 AS n;
CREATE FUNCTION scaled(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql
  AS 'BEGIN RETURN $1 * (SELECT n FROM public.factor); END';
CREATE TABLE item (id integer PRIMARY KEY, v integer NOT NULL);
INSERT INTO item SELECT n, 0 FROM generate_series(1, 20) n;
CREATE INDEX item_scaled ON item USING {method} (scaled(id));
"""
BREAK = "UPDATE public.factor SET n = 2"
ALSO_INDEXED = "CREATE TABLE plain (n integer); CREATE INDEX plain_n ON plain (n);"
READY = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'plain_n'::regclass"
"""Whether an INSERT has to make an entry."""
PROFILES = [("kill9-all", 1), ("own-application-power-loss", 4)]


def overrides(setup: str) -> list[str]:
    """A profile's own application that works on these tables."""
    sql = [
        f'setup="""{setup}"""',
        'tables=["item"]',
        'transactions=["UPDATE item SET v = v + 1 WHERE id = :item"]',
        "variables={item={between=[1, 20]}}",
    ]
    return ['workload.kinds=["sql"]', "invariants=[]", *(f"workload.sql.{one}" for one in sql)]


def trials(tmp_path: Path, profile: str, count: int, method: str, more: str) -> list[TrialResult]:
    """Run an application whose set-up ends with more SQL."""
    asked = request(tmp_path, profile, *overrides(INDEXED.format(method=method) + more), trials=count)
    return run_profile(asked).trials


@pytest.mark.parametrize(("profile", "count"), PROFILES)
@pytest.mark.parametrize("method", ["btree", "hash"])
def test_an_index_that_the_set_up_broke_accuses_no_crash(tmp_path: Path, profile: str, count: int, method: str) -> None:
    """Live and recorded: inconclusive, with what was found then. amcheck knows the one, only a reading the other."""
    for trial in trials(tmp_path, profile, count, method, BREAK):
        assert set(codes(trial)) - {"LOSS-ASYNC-WINDOW"} == {"INCONCLUSIVE-BROKEN-BEFORE"}, trial.verdict.findings
        assert (trial.verdict.outcome, trial.verdict.promise) == (Outcome.INCONCLUSIVE, None)
        (found,) = [one for one in trial.verdict.findings if one.code == "INCONCLUSIVE-BROKEN-BEFORE"]
        assert "item_scaled" in found.summary
        assert "so before the fault" in found.explanation


@pytest.mark.parametrize(("profile", "count"), PROFILES)
def test_a_sound_index_of_that_kind_is_judged(tmp_path: Path, profile: str, count: int) -> None:
    """The same tables, and nothing is broken before or after."""
    for trial in trials(tmp_path, profile, count, "btree", ""):
        assert trial.verdict.promise is PromiseStatus.KEPT, trial.verdict.findings


def broken_later(tmp_path: Path, method: str, *statements: str) -> Verdict:
    """Run a trial in which statements, each in a session of its own, come between the crash and the reading."""

    def break_it(server: Server) -> None:
        server.start()
        for statement in statements:
            with server.connect(autocommit=True) as connection:
                connection.execute(statement)
        server.stop("fast")

    asked = request(tmp_path, "kill9-all", *overrides(INDEXED.format(method=method) + ALSO_INDEXED))
    return run_trial(plan_of(asked), 0, tmp_path, before_recovery=break_it).verdict


def test_an_index_that_breaks_after_the_fault_is_corruption(tmp_path: Path) -> None:
    """Nobody had found it before, and PostgreSQL alone computes what is in it: the crash is accused."""
    verdict = broken_later(
        tmp_path, "btree", READY.format("false"), "INSERT INTO plain VALUES (1)", READY.format("true")
    )
    (found,) = verdict.findings
    assert found.code == "CORRUPT-INDEX-AMCHECK"
    assert "plain_n" in found.summary
    assert verdict.promise is PromiseStatus.BROKEN


@pytest.mark.parametrize("method", ["btree", "hash"])
def test_one_that_computes_with_somebodys_own_function_is_not(tmp_path: Path, method: str) -> None:
    """Its innocent twin: what the function says now is not what it said when the entries were made."""
    verdict = broken_later(tmp_path, method, BREAK)
    (found,) = verdict.findings
    assert found.code == "INCONCLUSIVE-OWN-FUNCTION"
    assert "item_scaled" in found.summary
    assert "function scaled(integer)" in found.explanation
    assert verdict.promise is None
