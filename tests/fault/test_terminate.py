"""Is a server that is asked to stop, and killed once the grace is over, judged for what really happened to it?"""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from crashlab.errors import ProfileError, ServerError
from crashlab.fault import inject
from crashlab.ledger import LedgerWriter
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import Fault, load_profile
from crashlab.recovery import recover
from crashlab.results import TrialResult, make_trial_folder
from crashlab.seeds import stream
from crashlab.server import Server, ServerChoice, ServerSpec, create_server
from crashlab.server.engine import signal_of
from crashlab.server.local import LocalServer
from crashlab.trial.judged import result_of
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.power.test_known_bugs import build

pytestmark = pytest.mark.server
LONG = ["60s", "60s"]
WALWRITER_STOPPED = '{ kind = "stop", target = "walwriter", when = { acks = 40 } }, '


def terminate(server: Server, out: Path, **keys: Any):
    """Inject it into a running server, and return its receipt."""
    fault = Fault.model_validate({"kind": "terminate", "when": {"acks": 0}, **keys})
    out.mkdir(exist_ok=True)
    ledger = LedgerWriter(out / "ledger", seed=1)
    try:
        return inject(server, fault, ledger, stream(1))
    finally:
        ledger.close()


def written(release: str) -> Server:
    """A running server with a table."""
    settings = {"autovacuum": "off", "log_checkpoints": "on"}
    server = create_server(ServerSpec(kind="local", pg_bindir=build(release) if release else None, settings=settings))
    server.start()
    with server.connect(autocommit=True) as session:
        session.execute("CREATE TABLE t AS SELECT n FROM generate_series(1, 1000) n")
    return server


def rows(server: Server) -> int:
    """Count them."""
    with server.connect() as session:
        return len(session.execute("SELECT n FROM t").fetchall())


@pytest.mark.parametrize("release", ["14.23", "15.18", "16.14", "17.10", ""])
def test_the_grace_ends_inside_the_checkpoint_of_the_shutdown(tmp_path: Path, release: str) -> None:
    """In each release, however short the checkpoint is; the next start has to recover."""
    with written(release) as server:
        position = server.log_position()
        receipt = terminate(server, tmp_path, at="shutdown-checkpoint")
        recovery = recover(server, restart=True, log_position=position)
        assert receipt.confirmed
        assert receipt.proof[1:] == [
            "how far the shutdown had come: in the checkpoint of the shutdown",
            "postmaster killed by signal 9 (SIGKILL)",
        ]
        assert receipt.crashes_server
        assert not receipt.nothing_due
        assert recovery.ran
        assert rows(server) == 1000


def test_it_is_asked_to_stop_once_its_checkpointer_is_stepped(tmp_path: Path, monkeypatch) -> None:
    """However late that is: the checkpoint of an idle server would be over before."""
    step = LocalServer.step_until

    def late(*args: Any) -> bool | None:
        time.sleep(0.5)
        return step(*args)

    monkeypatch.setattr(LocalServer, "step_until", late)
    with written("") as server:
        assert terminate(server, tmp_path, at="shutdown-checkpoint").confirmed


def test_a_shutdown_that_ends_in_time_is_no_crash(tmp_path: Path) -> None:
    """The innocent twin: a receipt of what happened, no recovery, and so says the receipt."""
    with written("") as server:
        position = server.log_position()
        receipt = terminate(server, tmp_path, grace=LONG)
        assert receipt.confirmed
        assert not receipt.crashes_server
        assert receipt.nothing_due
        assert receipt.proof == [
            "SIGINT to the postmaster, no SIGKILL: it ended in time",
            "how far the shutdown had come: it had shut down",
            "postmaster exited with status 0",
        ]
        assert not recover(server, restart=True, log_position=position).ran
        assert rows(server) == 1000


def test_one_that_ended_in_time_though_aimed_at_has_tested_nothing(tmp_path: Path) -> None:
    """Without the line that it waits for it comes too late, and there is no proof of what was asked for."""
    with create_server(ServerSpec(kind="local", settings={"log_checkpoints": "off"})) as server:
        server.start()
        assert not terminate(server, tmp_path, at="shutdown-checkpoint").confirmed


@pytest.mark.parametrize("grace", ["0ms", "30ms", "100ms"])
def test_the_receipt_says_what_the_next_start_does(tmp_path: Path, grace: str) -> None:
    """However far the shutdown comes on this machine: the control file decides both."""
    with written("") as server:
        position = server.log_position()
        receipt = terminate(server, tmp_path, grace=[grace, grace])
        assert receipt.confirmed
        assert receipt.crashes_server == recover(server, restart=True, log_position=position).ran
        assert rows(server) == 1000


def trial(out: Path, grace: list[str], *, before: str = "") -> TrialResult:
    """Run a trial whose commits are all asynchronous."""
    faults = f'faults=[{before}{{ kind = "terminate", grace = {grace}, when = {{ acks = 100 }} }}]'
    overrides = [faults, 'workload.synchronous_commit={ "off" = 1.0 }', "server.settings.wal_writer_delay=10s"]
    plan = TrialPlan(profile=load_profile("docker-stop", overrides), run_seed=5, server=ServerChoice(kind="local"))
    return run_trial(plan, 0, make_trial_folder(out, 0))


def test_what_waits_for_a_walwriter_that_stands_still_is_lost(tmp_path: Path) -> None:
    """The shutdown cannot go on without it, so the newest asynchronous commits go with SIGKILL: seen, and permitted."""
    result = trial(tmp_path, ["100ms", "100ms"], before=WALWRITER_STOPPED)
    assert result.verdict.outcome is Outcome.LOSS, result.verdict.findings
    assert result.verdict.promise is PromiseStatus.KEPT
    assert result.verdict.counts.lost
    assert not result.proves_nothing
    assert "ending the sessions" in result.injections[-1].proof[1]


def test_a_shutdown_that_ends_in_time_keeps_asynchronous_commits(tmp_path: Path) -> None:
    """Its innocent twin: all of them are in the checkpoint of the shutdown."""
    result = trial(tmp_path, LONG)
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    assert result.verdict.counts.lost == 0
    assert result.verdict.counts.acked_async
    assert result.proves_nothing
    assert result_of(result.folder, verdict=result.verdict).proves_nothing


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ('kind = "terminate"', "needs exactly one of grace and at"),
        ('kind = "terminate", at = "shutdown-checkpoint", grace = ["0ms", "1ms"]', "needs exactly one of grace and at"),
        ('kind = "terminate", grace = ["2ms", "1ms"]', "the shorter time first"),
        ('kind = "shutdown", grace = ["0ms", "1ms"]', "it ends nothing politely"),
    ],
)
def test_only_a_polite_fault_has_a_grace(keys: str, says: str) -> None:
    """One of two ways to say how long, and none for the others."""
    with pytest.raises(ProfileError, match=says):
        load_profile("docker-stop", [f"faults=[{{ {keys}, when = {{ acks = 1 }} }}]"])


def test_the_stop_signal_of_an_image_has_a_name_or_a_number() -> None:
    """As Docker reads it."""
    assert [signal_of(text) for text in ("SIGINT", "int", "2")] == [signal.SIGINT] * 3
    assert signal_of("SIGTERM") is signal.SIGTERM
    for text in ("SIGNONE", "400"):
        with pytest.raises(ServerError, match=f'its STOPSIGNAL is "{text}"'):
            signal_of(text)
