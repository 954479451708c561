"""Is a container killed in its very first start, and told what its users get then?"""

import re

import pytest

from crashlab import evidence
from crashlab.errors import ProfileError
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import make_trial_folder
from crashlab.server import ServerChoice
from crashlab.trial import firststart
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.overrides import kill_after

ATTEMPTS = 5
"""On a busy machine 8 of 8 were met in initdb, which takes a second there."""


def run(out, profile):
    """Run one trial in a container."""
    plan = TrialPlan(
        profile=load_profile(profile, [kill_after(40), "afterlife=0.0"]),
        run_seed=3,
        server=ServerChoice(kind="container", image="postgres:17"),
    )
    return run_trial(plan, 0, make_trial_folder(out, 0))


def codes(result):
    return [finding.code for finding in result.verdict.findings]


@pytest.mark.container
def test_init_scripts_that_were_killed_are_never_run_again(tmp_path):
    """The server runs as if nothing were missing, keeps what clients were told, and the finding says what is."""
    result = run(tmp_path, "init-scripts-killed")
    assert codes(result) == ["INIT-SCRIPTS-SKIPPED"], result.verdict.findings
    assert (result.verdict.outcome, result.verdict.promise) == (Outcome.LOSS, PromiseStatus.KEPT)
    first, crash = result.injections
    killed_in = re.search(r"in the init script crashlab-(\d)\.sql", first.proof[0])
    assert first.confirmed
    assert killed_in is not None
    (witness,) = result.verdict.findings[0].evidence["witnesses"]
    left = range(int(killed_in[1]), 4)
    assert witness["unfinished"] == [f"crashlab-{number}.sql" for number in left]
    assert witness["missing"] == [f"public.crashlab_init_{number}" for number in left]
    assert crash.crashes_server
    assert result.verdict.counts.acked + result.verdict.counts.read_only >= 40  # some read only


@pytest.mark.container
def test_what_a_killed_initdb_leaves_is_told_and_is_nobodys_broken_promise(tmp_path):
    """A server that cannot be had, or one without the scripts' tables."""
    for attempt in range(ATTEMPTS):
        result = run(tmp_path / str(attempt), "initdb-killed")
        if result.injections[0].confirmed:
            break
        assert result.verdict.outcome is Outcome.INCONCLUSIVE
    assert "in initdb, " in result.injections[0].proof[0]
    assert codes(result) in (["INIT-NO-START"], ["INIT-SCRIPTS-SKIPPED"]), result.verdict.findings
    assert result.verdict.promise is PromiseStatus.KEPT


@pytest.mark.container
def test_a_kill_that_came_too_late_accuses_nobody(tmp_path, monkeypatch):
    """The innocent twin: everything was made before, so nothing is missing, and nothing was tested."""
    monkeypatch.setattr(firststart, "in_initdb", lambda server: False)
    result = run(tmp_path, "initdb-killed")
    assert codes(result) == ["INCONCLUSIVE-INJECTION-UNCONFIRMED"], result.verdict.findings
    assert result.injections[0].proof[0] == "how far it had come: everything was done"
    observation = evidence.load_observation(result.folder)
    assert observation.first_start is not None
    assert observation.first_start.scripts == [f"crashlab-{number}.sql" for number in (1, 2, 3)]
    assert (observation.first_start.unfinished, observation.first_start.missing) == ([], {})


def test_only_a_container_has_a_first_start():
    """A local server's data directory is crashlab's own, and so is that of a recording."""
    with pytest.raises(ProfileError, match="first_start needs"):
        load_profile("kill9-all", ["first_start.during=initdb"])
