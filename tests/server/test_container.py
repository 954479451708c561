"""Does a container live, die and come back as a local server does?"""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from crashlab.errors import ServerError, ServerTimeout
from crashlab.server import Server, ServerSpec, create_server
from crashlab.server.container import ContainerServer
from crashlab.server.imagecommand import ImageCommand, read_command

IMAGE = "postgres:17"


def remaining(server: Server) -> list[str]:
    """Containers and volumes of this server that still exist."""
    import docker

    assert isinstance(server, ContainerServer)
    client = docker.from_env()
    try:
        return [str(found.name) for found in client.containers.list(all=True, filters={"name": server.container.name})]
    finally:
        client.close()


def own_volumes(server: Server) -> set[str]:
    """Names of the volumes of a started container."""
    assert isinstance(server, ContainerServer)
    return {mount["Name"] for mount in server.container.existing().attrs["Mounts"]}


def all_volumes() -> set[str]:
    import docker

    client = docker.from_env()
    try:
        return {str(volume.name) for volume in client.volumes.list()}
    finally:
        client.close()


@pytest.mark.container
def test_life_of_a_container() -> None:
    """Start, read back, SIGKILL, restart with other settings on the same data and port, role kill, stop, disposal."""
    spec = ServerSpec(
        kind="container",
        image=IMAGE,
        initdb=("--data-checksums",),
        settings={"wal_writer_delay": "10s", "cluster_name": "it's"},
    )
    with create_server(spec) as server:
        server.start()
        assert server.version.major == 17
        found = server.read_settings()
        assert (found["wal_writer_delay"], found["data_checksums"], found["fsync"]) == ("10s", "on", "on")
        assert _published_on(server) == {"127.0.0.1"}
        own = own_volumes(server)
        assert len(own) == 1
        assert own <= all_volumes()
        with server.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        address = server.conninfo()

        position = server.log_position()
        assert server.kill_all() == [1]
        assert not server.running()
        assert server.postmaster_exit() == "container exit code 137: killed by signal 9 (SIGKILL)"
        assert server.processes() == []
        server.start(overrides={"fsync": "off"})
        assert server.conninfo() == address
        assert server.read_settings()["fsync"] == "off"
        assert "automatic recovery in progress" in server.log_since(position)
        assert (
            "automatic recovery in progress"
            not in server.log_since(0)[: len(server.log_since(0)) - len(server.log_since(position))]
        )

        _role_kill(server)
        with server.connect(), pytest.raises(ServerTimeout, match=r"could not stop the server within 0\.2 s"):
            server.stop("smart", timeout_s=0.2)
        server.stop("fast")
        assert server.postmaster_exit() == "container exit code 0: exited with status 0"
        server.start()
        with server.connect() as connection:
            assert connection.execute("SELECT value FROM kept").fetchall() == [(1,)]
        server.stop("immediate")
    assert remaining(server) == []
    assert own.isdisjoint(all_volumes())
    server.dispose()


def _role_kill(server: Server) -> None:
    """SIGKILL of the walwriter from inside: the postmaster lives and restarts the others."""
    before = {process.role: process.pid for process in server.processes()}
    assert {"postmaster", "checkpointer", "background writer", "walwriter"} <= before.keys()
    position = server.log_position()
    assert not server.wait_stopped(before["walwriter"], 0.05)
    server.signal(before["walwriter"], signal.SIGSTOP)
    assert server.wait_stopped(before["walwriter"])
    server.signal(before["walwriter"], signal.SIGKILL)
    assert server.wait_gone([before["walwriter"], before["checkpointer"]]) == []
    server.wait_ready()
    after = {process.role: process.pid for process in server.processes()}
    assert after["postmaster"] == before["postmaster"] == 1
    assert after["walwriter"] != before["walwriter"]
    assert "was terminated by signal 9" in server.log_since(position)
    assert server.wait_gone([after["walwriter"]], 0.1) == [after["walwriter"]]
    assert not server.wait_stopped(before["walwriter"])
    with pytest.raises(ServerError, match="could not signal process"):
        server.signal(before["walwriter"], signal.SIGKILL)


def _published_on(server: Server) -> set[str]:
    assert isinstance(server, ContainerServer)
    container = server.container.existing()
    container.reload()
    return {binding["HostIp"] for binding in container.attrs["NetworkSettings"]["Ports"]["5432/tcp"]}


@pytest.mark.container("postgres:15.3")
def test_logging_collector_is_in_the_log_and_data_can_be_kept(tmp_path: Path) -> None:
    """With a logging collector inside, log_since still shows what the server says; the data directory can be kept."""
    spec = ServerSpec(kind="container", image="postgres:15.3", settings={"logging_collector": "on"})
    server = create_server(spec)
    assert server.version.text == "15.3"
    server.start()
    position = server.log_position()
    assert "logger" in {process.role for process in server.processes()}
    with server.connect() as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM nowhere")
    assert 'relation "nowhere" does not exist' in server.log_since(position)
    server.dispose(keep_data_to=tmp_path / "kept")
    assert (tmp_path / "kept/global/pg_control").stat().st_size == 8192
    assert remaining(server) == []


@pytest.mark.container
def test_container_that_does_not_start() -> None:
    """A refused setting, then a taken port: each told in plain words; nothing is left."""
    with create_server(ServerSpec(kind="container", image=IMAGE, settings={"wal_level": "nonsense"})) as server:
        with pytest.raises(ServerError) as caught:
            server.start()
        assert caught.value.detail is not None
        assert 'invalid value for parameter "wal_level": "nonsense"' in caught.value.detail
    assert remaining(server) == []

    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        server.start()
        server.kill_all()
        assert isinstance(server, ContainerServer)
        with (
            socket.create_server(("127.0.0.1", server.container.port)),
            pytest.raises(ServerError, match=r"port on 127\.0\.0\.1 is taken"),
        ):
            server.start()
        server.start()
        server.signal(1, signal.SIGSTOP)
        with pytest.raises(ServerTimeout, match="could not reach the server"):
            server.wait_ready(0.1)
    assert remaining(server) == []


@pytest.mark.container
def test_container_removed_by_somebody_else() -> None:
    """A container that vanished is not running, and disposing of it is no error."""
    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        server.start()
        assert isinstance(server, ContainerServer)
        server.container.existing().remove(force=True, v=True)
        assert not server.running()
        assert server.processes() == []
        assert server.kill_all() == []


@pytest.mark.container
def test_image_that_does_not_exist() -> None:
    """An image that is neither here nor to be had is named, with a hint."""
    with pytest.raises(ServerError, match='could not find the image "crashlab-no-such-image:1"') as caught:
        create_server(ServerSpec(kind="container", image="crashlab-no-such-image:1"))
    assert caught.value.hint is not None


def test_no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a Docker engine the error comes at once, with a hint."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(ServerError, match="could not reach a Docker engine") as caught:
        create_server(ServerSpec(kind="container", image=IMAGE))
    assert caught.value.hint is not None


@pytest.mark.container
def test_the_settings_of_an_images_own_command_are_kept(image_with: Callable[[str], str]) -> None:
    """In force and told, unless asked for otherwise, also after a restart; its configuration file is read, too."""
    image = image_with(
        "RUN printf \"work_mem = '6MB'\\nlog_min_messages = 'info'\\n\" >/etc/own.conf && chmod 644 /etc/own.conf\n"
        'CMD ["postgres", "-c", "config_file=/etc/own.conf", "-cwal_writer_delay=10s", "--log-statement=ddl",'
        ' "-c", "port=7777", "-B", "2048", "-c", "checkpoint_timeout=1h"]'
    )
    with create_server(ServerSpec(kind="container", image=image, settings={"checkpoint_timeout": "2h"})) as server:
        server.start()
        server.kill_all()
        server.start(overrides={"fsync": "off"})
        found = server.read_settings()
    expected = {"work_mem": "6MB", "wal_writer_delay": "10s", "log_statement": "ddl", "log_min_messages": "info"}
    expected |= {"checkpoint_timeout": "2h", "shared_buffers": "16MB", "fsync": "off"}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.container
def test_a_command_that_does_not_name_postgres_is_refused(image_with: Callable[[str], str]) -> None:
    """Its settings could not be kept, and are not dropped silently; a wrapper around postgres is none of that kind."""
    with pytest.raises(ServerError, match="its command does not name postgres"):
        create_server(ServerSpec(kind="container", image=image_with("CMD exec postgres -c work_mem=6MB")))
    wrapped = image_with('CMD ["nice", "postgres", "-c", "work_mem=6MB"]')
    assert read_command("x", ["nice", "postgres", "-c", "work_mem=6MB"]).words == ["nice", "postgres"]
    with create_server(ServerSpec(kind="container", image=wrapped)) as server:
        assert isinstance(server, ContainerServer)
        assert b"work_mem = '6MB'" in server._config({})


@pytest.mark.parametrize("command", [None, [], ["postgres"]])
def test_an_image_without_a_command_of_its_own_runs_postgres(command: list[str] | None) -> None:
    """As the official one does."""
    assert read_command("postgres:17", command) == ImageCommand()
    assert read_command("x", ["-c", "fsync=off", "-N", "9"]) == ImageCommand(["-N", "9"], {"fsync": "off"})
