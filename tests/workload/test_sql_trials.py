"""Is a user's own application judged like crashlab's own workload, and are its mistakes told from the server's?"""

from collections.abc import Callable
from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.campaign import judge_folder, replay
from crashlab.errors import CrashlabError, ProfileError, UsageProblem
from crashlab.history import REFUSED, read_ledger
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import TrialResult
from crashlab.server import Server, ServerChoice
from crashlab.trial import setup as trial_setup
from crashlab.trial.live import BeforeRecovery, run_trial
from tests.overrides import kill_after
from tests.running import RunRequest, plan_of, run_profile

pytestmark = pytest.mark.server

Run = Callable[..., TrialResult]
UNFOLLOWED = "ALTER TABLE orders DISABLE TRIGGER ALL; ALTER TABLE item DISABLE TRIGGER ALL;"


def request(out: Path, profile: str, *overrides: str, trials: int = 1) -> RunRequest:
    """A request for a profile on a local server; a live one kills not by the clock, but after enough has happened."""
    kill = () if profile.endswith("power-loss") else (kill_after(100),)
    return RunRequest(
        profile=load_profile(profile, overrides=[*kill, *overrides]),
        seed=11,
        trials=trials,
        time_limit_s=None,
        server=ServerChoice(kind="local"),
        out=out,
        keep="all",
    )


def codes(result: TrialResult) -> list[str]:
    """The codes of a trial's findings."""
    return [finding.code for finding in result.verdict.findings]


def tampered(sql: str, said: list[str]) -> BeforeRecovery:
    """Run a statement on the recovered server, behind everybody's back, and stop it cleanly; note what it returns."""

    def before_recovery(server: Server) -> None:
        server.start()
        with server.connect(autocommit=True) as connection:
            connection.execute(UNFOLLOWED)
            row = connection.execute(sql).fetchone()
            said.append(str(row[0]) if row else "")
        server.stop("fast")

    return before_recovery


def test_an_honest_application_survives_a_kill(tmp_path: Path) -> None:
    """Its transactions are acknowledged, some are refused by its own constraints, and nobody is accused."""
    result = run_profile(request(tmp_path, "own-application", kill_after(400), trials=3))
    for trial in result.trials:
        assert trial.verdict.promise is PromiseStatus.KEPT, trial.verdict.findings
        assert trial.verdict.counts.acked_sync > 20
        assert trial.verdict.counts.acked_async > 0
        history = read_ledger(trial.folder / evidence.LEDGER)
        reasons = (trial.folder / evidence.LEDGER).read_text()
        assert REFUSED in history.state
        assert '"sqlstate":"23514"' in reasons
        observation = evidence.load_observation(trial.folder)
        assert {read.relation for read in observation.relations} == {"part", "public.item", "public.orders"}
        assert [one.observed for one in observation.invariants] == ["no rows"] * 3
        assert observation.wal is not None


def test_an_honest_application_survives_the_loss_of_power(tmp_path: Path) -> None:
    """Every state keeps the invariants; a stored state can be replayed, and the evidence judged again."""
    result = run_profile(request(tmp_path / "run", "own-application-power-loss", trials=16))
    assert len(result.trials) == 16
    assert {trial.verdict.promise for trial in result.trials} == {PromiseStatus.KEPT}
    for trial in result.trials:
        observation = evidence.load_observation(trial.folder)
        assert len(observation.relations) == 3
        assert [one.observed for one in observation.invariants] == ["no rows"] * 3
    (judged,) = judge_folder(tmp_path / "run")
    assert [trial.verdict for trial in judged.trials] == [trial.verdict for trial in result.trials]
    again = replay(result.trials[3].folder, out=tmp_path / "again", server=ServerChoice())
    assert again.trials[0].verdict.counts == result.trials[3].verdict.counts


ORDER = (
    "UPDATE item SET stock = stock - 1, sold = sold + 1 WHERE id = :item; "
    "INSERT INTO orders (id, item_id, quantity) VALUES (:tx, :item, 1)"
)


@pytest.mark.parametrize(
    ("sql", "code", "named"),
    [
        ("SELECT 'nothing'", None, "nothing"),
        (
            "DELETE FROM orders WHERE id = (SELECT max(id) FROM orders) RETURNING id",
            "MISSING-ROW",
            "public.orders key [{}]",
        ),
        ("UPDATE item SET stock = 0 WHERE id = 7 RETURNING id", "WRONG-VALUE", "public.item key [{}]"),
        ("INSERT INTO orders VALUES (0, 1, 1) RETURNING id", "INVARIANT", "what is sold is ordered"),
    ],
)
def test_damage_is_found_with_its_table_and_key(tmp_path: Path, sql: str, code: str | None, named: str) -> None:
    """A row that is gone, changed or new although no transaction did it; without damage there is no finding."""
    said: list[str] = []
    asked = request(
        tmp_path, "own-application", 'workload.sql.transactions=["UPDATE item SET price = 1 WHERE id = :item"]'
    )
    if code is not None:
        asked = request(tmp_path, "own-application", f'workload.sql.transactions=["{ORDER}"]')  # a loss may excuse
    result = run_trial(plan_of(asked), 0, tmp_path, before_recovery=tampered(sql, said))
    found = codes(result)
    if code is None:
        assert (result.verdict.outcome, found) == (Outcome.INTACT, [])
        return
    assert f"CORRUPT-{code}" in found
    assert "CORRUPT-INVARIANT" in found
    text = next(one.explanation for one in result.verdict.findings if one.code == f"CORRUPT-{code}")
    for word in named.format(said[0]).split():
        assert word in text


@pytest.mark.parametrize("profile", ["own-application", "own-application-power-loss"])
def test_an_application_that_breaks_its_own_invariant_accuses_nobody(tmp_path: Path, profile: str) -> None:
    """What did not hold before the crash proves nothing after it: inconclusive, with the rows."""
    careless = 'workload.sql.transactions=["UPDATE item SET sold = sold + 1 WHERE id = :item"]'
    result = run_profile(request(tmp_path, profile, careless, trials=2))
    for trial in result.trials:
        assert (trial.verdict.outcome, trial.verdict.promise) == (Outcome.INCONCLUSIVE, None)
        assert set(codes(trial)) <= {"INCONCLUSIVE-INVARIANT-BEFORE", "LOSS-ASYNC-WINDOW"}
        texts = [one.explanation for one in trial.verdict.findings if one.code == "INCONCLUSIVE-INVARIANT-BEFORE"]
        assert len(texts) == 2
        assert any('"sold": ' in text and "goods are in stock or sold" in text for text in texts)


def test_the_last_look_before_the_fault_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application breaks its invariant after the first look, and no other comes in time but that one."""
    monkeypatch.setattr(trial_setup, "INVARIANTS_EVERY_MS", 600_000.0)
    never = 'workload.sql.transactions=["UPDATE item SET sold = sold + 1 WHERE id = 1 AND :tx > 60"]'
    (trial,) = run_profile(request(tmp_path, "own-application", never)).trials
    assert (trial.verdict.outcome, trial.verdict.promise) == (Outcome.INCONCLUSIVE, None)
    assert "INCONCLUSIVE-INVARIANT-BEFORE" in codes(trial)


@pytest.mark.parametrize(
    ("override", "error", "says"),
    [
        (
            'transactions=["UPDAT item SET stock = 1"]',
            ProfileError,
            'sql.transactions.0: syntax error at or near "UPDAT"',
        ),
        (
            'transactions=["SELECT", "UPDATE goods SET x = 1"]',
            ProfileError,
            'transactions.1: relation "goods" does not',
        ),
        (
            'transactions=["UPDATE item SET stock = 1; COMMIT"]',
            ProfileError,
            'transactions.0.sql: "COMMIT" has no place',
        ),
        ('transactions=["UPDATE item SET stock = 1; RESET ALL"]', UsageProblem, "it ended, or its settings were reset"),
        ('transactions=["ALTER TABLE item ADD x integer"]', UsageProblem, "its columns or its triggers changed"),
        ('transactions=["VACUUM item"]', ProfileError, "cannot run inside a transaction block"),
        ('transactions=["COPY item FROM STDIN"]', ProfileError, "transactions.0: "),
        ('setup="CREATE TABLE"', ProfileError, "cannot use workload.sql.setup: syntax error"),
        ('tables=["stock"]', UsageProblem, 'cannot record rows of "stock": no such table'),
    ],
)
def test_a_mistake_in_the_sql_is_an_error_of_the_profile(
    tmp_path: Path, override: str, error: type[CrashlabError], says: str
) -> None:
    """Found at set-up, before anything is crashed, with the key and the server's words."""
    with pytest.raises(error) as raised:
        run_trial(plan_of(request(tmp_path, "own-application", f"workload.sql.{override}")), 0, tmp_path)
    assert says in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT * FROM nowhere", 'cannot use invariant "x": relation "nowhere" does not exist'),
        ("DELETE FROM item", "cannot use invariant"),
        ("SELECT set_config('a.b', '', false), nextval('crashlab.ticket')", "read-only transaction"),
    ],
)
def test_a_mistake_in_an_invariant_is_an_error_of_the_profile(tmp_path: Path, sql: str, says: str) -> None:
    """It cannot be run, or it would change something."""
    asked = request(tmp_path, "own-application", f'invariants=[{{ name = "x", sql = """{sql}""" }}]')
    with pytest.raises(ProfileError) as raised:
        run_trial(plan_of(asked), 0, tmp_path)
    assert says in str(raised.value)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_serialization_failures_are_refusals(tmp_path: Path, isolation: str) -> None:
    """They are part of such an application's life: the sessions and the invariants go on, and nobody is accused.

    After the crash the prepared transactions, which nobody knows enough about any more, would refuse every reader.
    """
    busy = [
        kill_after(60),
        "clients=8",
        "two_phase=0.5",
        "max_prepared_transactions=20",
        "workload.sql.variables.item={ between = [1, 3] }",
        f"default_transaction_isolation={isolation}",
    ]
    result = run_profile(request(tmp_path, "own-application", *busy, trials=2))
    for trial in result.trials:
        assert trial.verdict.promise is PromiseStatus.KEPT, trial.verdict.findings
        assert '"sqlstate":"40001"' in (trial.folder / evidence.LEDGER).read_text()
