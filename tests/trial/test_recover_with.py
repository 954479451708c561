"""Is what one release left recovered by another one, and a recovery that hangs told as such?"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.campaign import replay
from crashlab.errors import UsageProblem
from crashlab.model import Outcome
from crashlab.profile import load_profile
from crashlab.recovery import recover
from crashlab.results import make_trial_folder
from crashlab.server import Server, ServerChoice, ServerSpec, create_server
from crashlab.server.choose import folder_or_image
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.overrides import kill_after
from tests.power.test_known_bugs import build
from tests.running import RunRequest, run_profile

pytestmark = pytest.mark.server


def live(profile: str, crashed: str, recovers: str, out: Path):
    """Run one live trial."""
    plan = TrialPlan(
        profile=load_profile(profile, overrides=[kill_after(40)] if profile == "kill9-all" else []),
        run_seed=3,
        server=ServerChoice(kind="local", pg_bindir=build(crashed)),
        recover_with=ServerChoice(kind="local", pg_bindir=build(recovers)),
    )
    return run_trial(plan, 0, make_trial_folder(out, 0))


@pytest.mark.parametrize(("crashed", "recovers"), [("15.4", "15.18"), ("15.18", "15.4")])
def test_a_live_trial_is_recovered_by_another_minor_release(tmp_path, crashed, recovers):
    """The one crashed and the other recovered, the verdict is right, and a replay does the same."""
    result = live("kill9-all", crashed, recovers, tmp_path)
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    record = evidence.load_trial(result.folder)
    assert record.server.version == crashed
    assert record.recovered_with is not None
    assert (record.recovered_with.version, record.recovered_with.source) == (recovers, str(build(recovers)))
    log = (result.folder / evidence.SERVER_LOG).read_text()
    assert log.index(f"starting PostgreSQL {crashed} ") < log.index(f"starting PostgreSQL {recovers} ")
    again = replay(result.folder, out=tmp_path / "again", server=ServerChoice(), trust=True)
    other = evidence.load_trial(again.trials[0].folder)
    assert other.recovered_with == record.recovered_with


def test_states_of_a_recording_are_recovered_by_another_minor_release(tmp_path):
    """Recorded with 15.4, recovered with 15.18; so says each trial."""
    request = RunRequest(
        profile=load_profile("power-loss", overrides=["power_loss.acks=60"]),
        seed=3,
        trials=4,
        time_limit_s=None,
        server=ServerChoice(kind="local", pg_bindir=build("15.4")),
        out=tmp_path / "run",
        keep="all",
    )
    recorded = run_profile(request)
    assert all(evidence.load_trial(trial.folder).recovered_with is None for trial in recorded.trials)
    assert recorded.recovered_with == []
    newer = ServerChoice(kind="local", pg_bindir=build("15.18"))
    again = replay(recorded.trials[0].folder, out=tmp_path / "again", server=newer)
    record = evidence.load_trial(again.trials[0].folder)
    assert again.trials[0].verdict.outcome is Outcome.INTACT
    assert record.recovered_with is not None
    assert (record.server.version, record.recovered_with.version) == ("15.4", "15.18")
    assert again.recovered_with == [record.recovered_with]
    with pytest.raises(UsageProblem, match=r"cannot recover PostgreSQL 15\.4 with 16\.14"):
        replay(
            recorded.trials[0].folder,
            out=tmp_path / "wrong",
            server=ServerChoice(kind="local", pg_bindir=build("16.14")),
        )


def test_another_major_version_and_a_server_that_recovers_by_itself_are_refused(tmp_path):
    """Clearly, with what to do."""
    with pytest.raises(UsageProblem, match=r"cannot recover PostgreSQL 15\.4 with 16\.14"):
        live("kill9-all", "15.4", "16.14", tmp_path / "major")
    with pytest.raises(UsageProblem, match="its server restarts by itself"):
        live("kill9-backend", "15.4", "15.18", tmp_path / "backend")


def test_a_word_is_a_folder_or_an_image(tmp_path):
    """What is a folder is a build."""
    assert folder_or_image(str(tmp_path)) == ServerChoice(kind="local", pg_bindir=tmp_path.resolve())
    assert folder_or_image("postgres:17") == ServerChoice(kind="container", image="postgres:17")


@pytest.mark.parametrize("word", ["18", "18.6", "19beta3"])
def test_a_bare_version_is_neither_and_the_hint_names_both(tmp_path, monkeypatch, word):
    """Unless there is a folder of that name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageProblem) as refused:
        folder_or_image(word)
    assert refused.value.hint is not None
    assert "/usr/lib/postgresql/1" in refused.value.hint
    assert f"postgres:{word}" in refused.value.hint
    (tmp_path / word).mkdir()
    assert folder_or_image(word).pg_bindir == tmp_path / word


@pytest.fixture
def crashed():
    """A server that was killed."""
    with create_server(ServerSpec(kind="local")) as server:
        server.start()
        server.kill_all()
        yield server


def wait_for_wal(server: Server, command: str) -> None:
    """Let the next start fetch WAL by a command."""
    assert server.data_directory is not None
    signal = server.data_directory / "recovery.signal"
    signal.touch()
    server.own(signal)
    with (server.data_directory / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = '{command}'\n")


def test_a_recovery_that_hangs_is_a_failed_start_with_what_it_does(crashed):
    """The startup process waits for a command that never ends."""
    wait_for_wal(crashed, "sleep 600")
    recovery = recover(crashed, restart=True, log_position=crashed.log_position(), timeout_s=4.0)
    assert not recovery.started
    assert recovery.tool_fault is None
    (said,) = recovery.fatal
    assert "could not reach the server within 4 s: the startup process sleeps as" in said
    assert not crashed.running()


def test_a_recovery_that_is_slow_is_not(crashed):
    """It goes on all the time: nothing is said of the database."""
    wait_for_wal(crashed, "sleep 0.2; test ! -e /nothing && touch %p.tried; false")
    recovery = recover(crashed, restart=True, log_position=crashed.log_position(), timeout_s=60.0)
    assert recovery.started, recovery
