"""Is a server in a stock container recorded as a local one is, and do its crash states recover in that image?"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashlab.disk.contract import disk_contract
from crashlab.disk.model import DiskModel
from crashlab.disk.states import everything
from crashlab.errors import RecordingError, ServerError
from crashlab.exploration import record as recorder
from crashlab.exploration.recording import Recording
from crashlab.exploration.worker import Worker
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import load_profile
from crashlab.recording import iolog
from crashlab.recording.logbytes import LogBytes
from crashlab.recording.recorder import Recorder
from crashlab.recovery.restart import copy_settings
from crashlab.server import ServerChoice, ServerSpec, create_server, owned
from crashlab.server.container import LIST_PROCESSES
from crashlab.server.statecontainer import StateContainer
from tests.overrides import kill_after
from tests.running import RunRequest, plan_of, run_profile

IMAGE = "postgres:17"
CHOICE = ServerChoice(kind="container", image=IMAGE)
SMALL = ("power_loss.acks=200",)


def request(name: str, out: Path, trials: int) -> RunRequest:
    """A run of a shipped profile in a container, made short."""
    profile = load_profile(name, SMALL)
    return RunRequest(profile=profile, seed=1, trials=trials, time_limit_s=None, server=CHOICE, out=out)


def mounted_from(folder: Path) -> list[str]:
    """Containers that see something below a folder of this machine."""
    import docker

    client = docker.from_env()
    try:
        return [
            str(container.name)
            for container in client.containers.list(all=True, ignore_removed=True)
            for mount in container.attrs["Mounts"]
            if mount.get("Source", "").startswith(str(folder))
        ]
    finally:
        client.close()


def unused_volumes() -> set[str]:
    import docker

    client = docker.from_env()
    try:
        return {str(volume.name) for volume in client.volumes.list(filters={"dangling": True})}
    finally:
        client.close()


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that takes every temporary folder of this module."""
    tmp_path_factory.getbasetemp()  # stays where it is
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="crashlab-test-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def recording(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording of power-loss, made in a container."""
    folder = tmp_path_factory.mktemp("recordings") / "recording"
    return recorder.make(plan_of(request("power-loss", folder.parent, 0)), folder)


@pytest.mark.container
def test_self_check_passes(recording: Recording) -> None:
    """The log of a server in a container leads to its data directory, byte for byte, and begins with the server."""
    record = recording.record
    assert record.differences == []
    assert record.workload_errors == []
    assert record.server.source == IMAGE
    programs = [record.payload for record in iolog.records(recording.log) if record.kind == iolog.START]
    assert any(program.endswith(b"/postgres") for program in programs)
    assert record.end_bytes > record.first_bytes > 100_000


@pytest.mark.container
@pytest.mark.parametrize(("name", "trials"), [("power-loss", 20), ("fsync-off-power-loss", 10)])
def test_states_recover_in_the_same_image(
    name: str, trials: int, recording: Recording, temporary: Path, tmp_path: Path
) -> None:
    """Power loss harms nothing with fsync on and nearly everything without; nothing is left behind.

    Without fsync it is also recorded here, in one go.
    """
    volumes = unused_volumes()
    given = recording.folder if name == "power-loss" else None
    result = run_profile(request(name, tmp_path, trials), recording=given)
    outcomes = [trial.verdict.outcome for trial in result.trials]
    promises = {trial.verdict.promise for trial in result.trials}
    assert len(outcomes) == trials
    if name == "power-loss":
        assert set(outcomes) == {Outcome.INTACT}
        assert promises == {PromiseStatus.KEPT}
    else:
        assert Outcome.INCONCLUSIVE not in outcomes
        assert outcomes.count(Outcome.INTACT) <= trials // 10
        harmed = {trial.verdict.promise for trial in result.trials if trial.verdict.outcome is not Outcome.INTACT}
        assert harmed == {PromiseStatus.VOID}  # what is intact kept even what nobody promised
    assert list(temporary.iterdir()) == []
    assert mounted_from(temporary) == []
    assert unused_volumes() <= volumes


@pytest.mark.container
def test_one_container_for_many_starts(recording: Recording, temporary: Path, tmp_path: Path) -> None:
    """A server in the container stops, ends by itself, is killed with all it has, and each time starts again.

    Its data can be kept.
    """
    record = recording.record
    log = LogBytes(recording.log)
    spec = ServerSpec(kind="container", image=IMAGE, settings=dict(record.server.requested))
    roots = [Path(root) for root in record.roots]
    with Worker.container(recording.base, log, temporary / "worker", spec, roots) as worker:
        server = worker.server
        assert isinstance(server, StateContainer)
        model = DiskModel(recording.base.files, disk_contract("linux"))
        worker.materialise(model, everything(model))
        overrides = copy_settings(17)
        server.start(overrides=overrides)
        with server.connect() as connection:
            assert connection.execute("SHOW unix_socket_directories").fetchone() == ("/crashlab-sockets",)
        server.stop("fast")
        assert server.postmaster_exit() == "exited with status 0"
        assert "database system is shut down" in server.log_since(0)

        position = server.log_position()
        with pytest.raises(ServerError, match="it ended before it was ready") as refused:
            server.start(overrides=overrides | {"shared_buffers": "it's\nno 'number"})
        assert "shared_buffers" in str(refused.value.detail)
        assert server.log_since(position).count("FATAL") == 1

        server.start(overrides=overrides)
        connection = server.connect(autocommit=True)
        assert server.kill_all() == [1]
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert server.postmaster_exit() == "killed by signal 9 (SIGKILL)"
        assert [line for line in server.container.execute(LIST_PROCESSES).splitlines() if "postgres" in line] == []
        assert server.kill_all() == []
        server.start(overrides=overrides)
        assert server.running()
        worker.kill()
        worker.keep_data(tmp_path / "kept")
        assert (tmp_path / "kept" / "PG_VERSION").read_text() == "17\n"
    assert not (temporary / "worker").exists()
    assert mounted_from(temporary) == []


@pytest.mark.container
def test_a_server_that_cannot_record_says_so(temporary: Path) -> None:
    """A log that is not there in the container ends the server at once, with the reason."""
    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        server.share_data()
        assert server.data_directory is not None
        library = Recorder.install(server.data_directory.parent / "recorder", server.machine).library
        recorder = Recorder(server.seen(Path(library)))
        missing = server.seen(server.data_directory.parent / "io.log")
        server.environment.update(recorder.environment(missing, [server.seen(server.data_directory)]))
        with pytest.raises(ServerError, match="it ended before it was ready") as failed:
            server.start()
        assert "134" in str(failed.value.detail)
        assert "could not open the log named by CRASHLAB_RECORD_LOG" in str(failed.value.detail)
    assert list(temporary.iterdir()) == []


@pytest.mark.container
def test_not_without_root(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    """Who cannot read the files of an image's user is told so, and nothing is made."""
    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ServerError, match="does not run as root"):
            server.share_data()
    assert list(temporary.iterdir()) == []


@pytest.mark.container
def test_an_engine_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    """An engine that changes owners, and one that does not see our folder, are named as the reason."""
    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        client: Any = server.container._docker.get_docker_client().client  # type: ignore[attr-defined]
        monkeypatch.setattr(client, "info", lambda: {"SecurityOptions": ["name=seccomp", "name=rootless"]})
        with pytest.raises(ServerError, match="changes the owners") as refused:
            server.share_data()
        assert "name=rootless" in str(refused.value.detail)
        monkeypatch.undo()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        real = owned.make_folder
        monkeypatch.setattr(owned, "make_folder", lambda *parent: _gone(real(*parent)))
        monkeypatch.setattr(Path, "chmod", lambda *_: None)
        with pytest.raises(ServerError, match="could not start a container") as refused:
            server.share_data()
        assert "run the Docker engine on this machine" in str(refused.value.hint)


def _gone(folder: Path) -> Path:
    owned.remove_folder(folder)
    return folder


def test_a_log_without_the_server_is_refused(tmp_path: Path) -> None:
    """An entry point that records is not enough: the server itself must be in the log."""
    log = tmp_path / "io.log"
    for program, is_server in ((b"/bin/bash", False), (b"/usr/lib/postgresql/17/bin/postgres", True)):
        log.unlink(missing_ok=True)
        record = iolog.encode(iolog.Record(kind=iolog.START, payload=program))
        log.write_bytes(iolog.header(iolog.PAGE_BYTES + len(record)) + record)
        if is_server:
            recorder.require_recording(log)
        else:
            with pytest.raises(RecordingError, match="it runs without the recorder"):
                recorder.require_recording(log)


@pytest.mark.container
def test_a_live_server_in_a_container_is_held(temporary: Path, tmp_path: Path) -> None:
    """It gets the library without being recorded, and nothing is left behind."""
    overrides = ["jitter.hold=['after write of wal']", "jitter.share=0.5", "afterlife=0", kill_after(40)]
    profile = load_profile("kill9-all", overrides)
    (trial,) = run_profile(
        RunRequest(profile=profile, seed=1, trials=1, time_limit_s=None, server=CHOICE, out=tmp_path, keep="none")
    ).trials
    assert trial.verdict.outcome is Outcome.INTACT, trial.verdict.findings
    (held,) = trial.held
    assert held.met > held.held > 5
    assert mounted_from(temporary) == []
