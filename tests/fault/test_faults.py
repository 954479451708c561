"""Does each fault really happen, and does its receipt prove it?"""

import os
import signal
import threading
from pathlib import Path

import pytest

from crashlab.campaign import Asked, Plan
from crashlab.cli.dry_run import print_plan
from crashlab.errors import FaultError
from crashlab.fault import TARGETS, inject
from crashlab.ledger import LedgerWriter
from crashlab.profile import Fault, When, load_profile
from crashlab.recovery import recover
from crashlab.seeds import stream
from crashlab.server import Server, ServerChoice, ServerSpec, create_server

pytestmark = pytest.mark.server

CRASHING = (
    "postmaster",
    "backend",
    "checkpointer",
    "walwriter",
    "background writer",
    "autovacuum launcher",
    "archiver",
    "io worker",
    "logical replication launcher",
    "all",
)
NOW = When(acks=0)
STOPS = 40


def started(**settings: str) -> Server:
    """A running server of the default local build."""
    server = create_server(ServerSpec(kind="local", settings={"autovacuum": "off", **settings}))
    server.start()
    return server


def fault(kind: str, target: str | None = None) -> Fault:
    """A fault that is due at once."""
    return Fault.model_validate({"kind": kind, "target": target, "when": {"acks": 0}})


@pytest.mark.parametrize("target", CRASHING)
def test_killed_process_is_gone_and_the_server_recovers(target: str, tmp_path: Path) -> None:
    """The receipt is confirmed, its pid is dead, committed data survive, and the log tells of a recovery."""
    with started(**TARGETS[target].settings) as server:
        with server.connect(autocommit=True) as setup:
            setup.execute("CREATE TABLE t AS SELECT 1 AS n")
        session = server.connect(autocommit=True)
        ledger = LedgerWriter(tmp_path / "ledger", seed=1)
        position = server.log_position()
        receipt = inject(server, fault("kill", target), ledger, stream(1))
        session.close()
        assert receipt.confirmed
        assert receipt.crashes_server
        assert receipt.proof
        assert not [pid for pid in receipt.pids if server.wait_gone([pid], 0)]
        recovery = recover(server, restart=not server.running(), log_position=position)
        assert recovery.started
        assert recovery.ran
        with server.connect() as connection:
            assert connection.execute("SELECT n FROM t").fetchone() == (1,)


def test_killed_logger_is_replaced_without_a_crash(tmp_path: Path) -> None:
    """The logger is respawned only: the innocent twin of the others."""
    with started(**TARGETS["logger"].settings) as server:
        position = server.log_position()
        receipt = inject(server, fault("kill", "logger"), LedgerWriter(tmp_path / "l", seed=1), stream(1))
        assert receipt.confirmed
        assert not receipt.crashes_server
        assert not recover(server, restart=False, log_position=position).ran


def test_stopped_walwriter_is_frozen_and_voids_the_window(tmp_path: Path) -> None:
    """SIGSTOP leaves the process there, in state T, and the soft bound void."""
    with started() as server:
        receipt = inject(server, fault("stop", "walwriter"), LedgerWriter(tmp_path / "l", seed=1), stream(1))
        assert receipt.confirmed
        assert not receipt.bounds_window
        assert receipt.pid is not None
        assert Path(f"/proc/{receipt.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


def test_a_walwriter_is_stopped_without_a_lock(tmp_path: Path) -> None:
    """Busy, it is caught between two of its turns: else nobody could commit any more. Stopped blindly, it was not."""
    with started(wal_writer_delay="1ms", synchronous_commit="off") as server, server.connect(autocommit=True) as mine:
        mine.execute("CREATE TABLE busy (n integer)")
        busy, ledger = threading.Event(), LedgerWriter(tmp_path / "l", seed=1)
        thread = threading.Thread(target=_insert_until, args=(server, busy))
        thread.start()
        try:
            for _ in range(STOPS):
                receipt = inject(server, fault("stop", "walwriter"), ledger, stream(1))
                assert receipt.pid is not None
                where = mine.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (receipt.pid,))
                assert where.fetchone() == ("WalWriterMain",)
                server.signal(receipt.pid, signal.SIGCONT)
        finally:
            busy.set()
            thread.join()


def _insert_until(server: Server, done: threading.Event) -> None:
    with server.connect(autocommit=True) as connection:
        while not done.is_set():
            connection.execute("INSERT INTO busy SELECT generate_series(1, 1000)")


def test_the_plan_shows_the_contract_of_the_receipt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A stopped checkpointer leaves the window bounded, a stopped walwriter does not: before the run and after it."""
    for target, bounded in (("checkpointer", True), ("walwriter", False)):
        overrides = ["faults.0.kind=stop", f"faults.0.target={target}"]
        plan = Plan(
            asked=[Asked(profile=load_profile("kill9-all", overrides))],
            seed=1,
            trials=1,
            time_limit_s=None,
            server=ServerChoice(kind="local"),
            keep="none",
            fail_fast=False,
        )
        print_plan(plan)
        assert ("no bound on the age" in capsys.readouterr().out) is not bounded
        with started() as server:
            ledger = LedgerWriter(tmp_path / target, seed=1)
            assert inject(server, fault("stop", target), ledger, stream(1)).bounds_window is bounded


def test_immediate_shutdown_is_a_crash(tmp_path: Path) -> None:
    """The server's own log confirms it, and the next start has to recover."""
    with started() as server:
        position = server.log_position()
        receipt = inject(server, fault("shutdown"), LedgerWriter(tmp_path / "l", seed=1), stream(1))
        assert receipt.confirmed
        assert not server.running()
        assert recover(server, restart=True, log_position=position).ran


def test_clean_stop_needs_no_recovery() -> None:
    """The innocent twin of all crashes."""
    with started() as server:
        position = server.log_position()
        server.stop("fast")
        recovery = recover(server, restart=True, log_position=position)
        assert recovery.started
        assert not recovery.ran


def test_missing_roles_are_refused_with_a_reason(tmp_path: Path) -> None:
    """A role that the settings switch off, or that the version lacks, is an error and nothing is signalled."""
    ledger = LedgerWriter(tmp_path / "l", seed=1)
    with started() as server:
        with pytest.raises(FaultError, match="the server runs none"):
            inject(server, fault("kill", "archiver"), ledger, stream(1))
        with pytest.raises(FaultError, match="is a local one"):
            inject(server, fault("container_kill"), ledger, stream(1))
        assert server.running()


def test_io_worker_is_not_available_before_18(tmp_path: Path) -> None:
    """The message names the version."""
    bindir = Path("/usr/lib/postgresql/15/bin")
    if not bindir.is_dir():
        pytest.skip("no PostgreSQL 15 in /usr/lib/postgresql")
    with create_server(ServerSpec(kind="local", pg_bindir=bindir)) as server:
        server.start()
        with pytest.raises(FaultError, match="not available in PostgreSQL 15"):
            inject(server, fault("kill", "io worker"), LedgerWriter(tmp_path / "l", seed=1), stream(1))


def test_a_kill_that_does_nothing_is_not_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kill removed there is no receipt: sent is not happened."""
    monkeypatch.setattr("crashlab.fault.kinds.kill.LOG_TIMEOUT_S", 0.2)
    monkeypatch.setattr("crashlab.fault.kinds.kill.GONE_TIMEOUT_S", 0.2)
    with started() as server:
        monkeypatch.setattr(server, "signal", lambda pid, sig: os.kill(os.getpid(), 0))
        with pytest.raises(FaultError, match="could not confirm"):
            inject(server, fault("kill", "walwriter"), LedgerWriter(tmp_path / "l", seed=1), stream(1))
