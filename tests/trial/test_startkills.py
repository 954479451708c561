"""Is a start that is killed a receipt of what happened, and the trial judged as ever?"""

import re
import time
from collections.abc import Callable

import pytest

from crashlab import evidence
from crashlab.errors import ProfileError
from crashlab.fault.progress import BEFORE_THE_LOG, OF_A_START
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import make_trial_folder
from crashlab.seeds import stream
from crashlab.server import ServerChoice
from crashlab.trial import startkills
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.overrides import kill_after
from tests.power.test_known_bugs import build

pytestmark = pytest.mark.server
ATTEMPTS = 5
"""At load 13 on two cores 80 of 80 starts were met."""
AIMED = "aimed at the checkpoint at the end of recovery"
IN_THE_CHECKPOINT = "how far it had come: in the checkpoint at the end of recovery"
REACHED = [BEFORE_THE_LOG, *(words for _, words in OF_A_START)]


def run(tmp_path, *overrides: str, profile="kill9-all", bindir=None, before_recovery=None):
    """Run one trial in which starts are killed."""
    profile = load_profile(profile, overrides=[kill_after(60), *overrides])
    plan = TrialPlan(profile=profile, run_seed=5, server=ServerChoice(kind="local", pg_bindir=bindir))
    return run_trial(plan, 0, make_trial_folder(tmp_path, 0), before_recovery=before_recovery)


def test_starts_are_killed_at_drawn_times_and_the_last_one_counts(tmp_path):
    """Three receipts beside that of the crash; intact, and nothing is told twice."""
    result = run(tmp_path, "start_kills.times=3", "start_kills.between=['1ms', '120ms']")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    first, *kills = result.injections
    assert first.crashes_server
    assert len(kills) == 3
    assert all(kill.confirmed and kill.pids and not kill.crashes_server for kill in kills), kills
    assert all(kill.proof[1].removeprefix("how far it had come: ") in REACHED for kill in kills)
    rng = stream(result.seed, "start kills")
    assert [kill.proof[0] for kill in kills] == [f"{rng.uniform(1, 120):.1f} ms into a start" for _ in kills]
    assert (result.folder / evidence.SERVER_LOG).read_text().count("starting PostgreSQL") >= 2


def test_a_start_that_is_killed_late_had_recovered(tmp_path):
    """A second after the start it was ready; what it recovered is recovered again."""
    result = run(tmp_path, "start_kills.between=['3s', '3s']")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    assert result.injections[-1].proof[1] == "how far it had come: it was ready"


@pytest.mark.parametrize("release", ["14.23", "15.18", "16.14", "17.10", ""])
def test_a_start_is_killed_in_the_checkpoint_that_ends_its_recovery(tmp_path, release):
    """Twice, in each release, however short the checkpoint is; intact all the same."""
    bindir = build(release) if release else None
    for attempt in range(ATTEMPTS):
        result = run(tmp_path / str(attempt), profile="kill9-recovery-end", bindir=bindir)
        _, *kills = result.injections
        if all(kill.confirmed for kill in kills):
            break
        assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    assert [(kill.confirmed, kill.proof) for kill in kills] == [(True, [AIMED, IN_THE_CHECKPOINT])] * 2
    log = (result.folder / evidence.SERVER_LOG).read_text()
    assert len(re.findall("checkpoint starting: end-of-recovery", log)) >= 2


def test_a_kill_that_missed_the_checkpoint_is_no_proof(tmp_path, monkeypatch):
    """Its twin: whoever came too late has not tested what was asked for."""

    def come_late(*_: object, until: Callable[[], bool], **__: object) -> None:
        while not until():
            time.sleep(0.01)

    monkeypatch.setattr(startkills, "wait_said", come_late)
    result = run(tmp_path, profile="kill9-recovery-end")
    assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert {finding.code for finding in result.verdict.findings} == {"INCONCLUSIVE-INJECTION-UNCONFIRMED"}
    assert result.injections[1].proof == [AIMED, "how far it had come: it was ready"]


def test_what_is_damaged_before_the_killed_starts_is_found_after_them(tmp_path):
    """Whether the starts came as far as their kills or not, the verdict is about the data."""

    def remove_map(server):
        (server.data_directory / "global" / "pg_filenode.map").unlink()

    result = run(tmp_path, profile="kill9-recovery-end", before_recovery=remove_map)
    assert result.verdict.outcome is Outcome.NO_START
    assert result.verdict.promise is PromiseStatus.BROKEN
    assert "pg_filenode.map" in result.verdict.findings[0].explanation


@pytest.mark.parametrize("keys", ["{ at = 'end-of-recovery-checkpoint', between = ['1ms', '2ms'] }", "{ times = 2 }"])
def test_a_kill_has_one_moment(keys):
    """Neither two nor none."""
    with pytest.raises(ProfileError, match="exactly one of between and at"):
        load_profile("kill9-all", overrides=[f"start_kills={keys}"])


def test_a_recorded_run_has_none():
    """Its recoveries are recorded and cut."""
    with pytest.raises(ProfileError) as refused:
        load_profile("power-loss", overrides=["start_kills.between=['1ms', '2ms']"])
    assert "recovery_depth" in str(refused.value)
