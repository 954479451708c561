"""Is what a container of one image left recovered by another image, on the same volume?"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.campaign import replay
from crashlab.errors import UsageProblem
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.results import TrialResult, make_trial_folder
from crashlab.server import ServerChoice
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.overrides import kill_after

pytestmark = pytest.mark.container
IMAGE = "postgres:17"
LOGGED = "ENV CRASHLAB_TEST=1"
LOSES = '#!/bin/sh\\nrm $PGDATA/global/pg_filenode.map\\nexec docker-entrypoint.sh "$@"\\n'
BREAKS = f"""RUN printf '{LOSES}' >/breaks && chmod 755 /breaks
ENTRYPOINT ["/breaks"]
CMD ["postgres"]"""


def all_things() -> set[str]:
    """Containers and volumes of this engine."""
    import docker

    client = docker.from_env()
    try:
        return {str(one.id) for one in [*client.containers.list(all=True), *client.volumes.list()]}
    finally:
        client.close()


def run(out: Path, choice: ServerChoice, *overrides: str) -> TrialResult:
    """Crash a container of IMAGE, and let another one recover."""
    plan = TrialPlan(
        profile=load_profile("kill9-all", [kill_after(40), "afterlife=0.0", *overrides]),
        run_seed=3,
        server=ServerChoice(kind="container", image=IMAGE),
        recover_with=choice,
    )
    return run_trial(plan, 0, make_trial_folder(out, 0))


def recovers(image: str) -> ServerChoice:
    return ServerChoice(kind="container", image=image)


def test_another_image_recovers_what_a_container_left(tmp_path, image_with):
    """It does, the verdict is right, the record says which, a replay does the same, and nothing of either is left."""
    other, before = image_with(LOGGED), all_things()
    result = run(tmp_path, recovers(other), "server.settings.logging_collector=on")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    record = evidence.load_trial(result.folder)
    assert record.server.source == IMAGE
    assert record.recovered_with == evidence.RecoveredWith(version=record.server.version, source=other)
    log = (result.folder / evidence.SERVER_LOG).read_text()
    assert log.count("starting PostgreSQL 17") >= 2
    assert "not properly shut down" in log.split("starting PostgreSQL 17")[-1]
    assert all_things() == before
    again = replay(result.folder, out=tmp_path / "again", server=ServerChoice(), trust=True)
    assert evidence.load_trial(again.trials[0].folder).recovered_with == record.recovered_with


def test_what_the_other_image_breaks_is_found(tmp_path, image_with):
    """The guilty twin: its entry point loses a file."""
    result = run(tmp_path, recovers(image_with(BREAKS)))
    assert result.verdict.outcome is Outcome.NO_START
    assert result.verdict.promise is PromiseStatus.BROKEN
    assert "pg_filenode.map" in result.verdict.findings[0].explanation


def test_another_major_version_and_a_folder_are_refused(tmp_path, image_with):
    """Clearly, and nothing is left behind."""
    older, before = image_with("ENV PG_VERSION=16.4"), all_things()
    with pytest.raises(UsageProblem, match=r"cannot recover PostgreSQL 17\.\d+ with 16\.4"):
        run(tmp_path / "major", recovers(older))
    with pytest.raises(UsageProblem, match="cannot recover a container with"):
        run(tmp_path / "folder", ServerChoice(kind="local", pg_bindir=tmp_path))
    assert all_things() == before
