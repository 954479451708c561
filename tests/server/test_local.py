"""Does a local server live, die and come back as it should, and leave nothing behind?"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from crashlab.errors import ServerError, ServerTimeout, UsageProblem
from crashlab.fault.targets import titled_processes
from crashlab.server import Server, ServerSpec, create_server, dispose_all, privileges
from crashlab.server.builds import DEBIAN_ROOT, find_build
from crashlab.server.local import LocalServer
from crashlab.server.processes import state, working_in
from crashlab.server.sharedmemory import posix_segments
from tests.terminal import as_in_a_terminal

pytestmark = pytest.mark.server

CORE_ROLES = {"postmaster", "checkpointer", "background writer", "walwriter", "autovacuum launcher"}


def pids_by_role(server: Server) -> dict[str, int]:
    return {process.role: process.pid for process in titled_processes(server)}


def remember(server: Server, value: int) -> None:
    """Commit one row synchronously."""
    with server.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def remembered(server: Server) -> list[int]:
    with server.connect() as connection:
        return [row[0] for row in connection.execute("SELECT value FROM kept ORDER BY value")]


def traces(server: Server) -> list[object]:
    """Everything of a local server that is still on this machine."""
    assert isinstance(server, LocalServer)
    folders = [folder for folder in (server._home, server._sockets) if folder is not None and folder.exists()]
    assert server.data_directory is not None
    zombies = [pid for pid in server._known if state(pid)]
    return [*folders, *working_in(server.data_directory), *zombies]


def shared_memory(server: Server) -> set[str]:
    """The names of a running server's segments outside its data directory: POSIX paths, SysV ids."""
    assert server.data_directory is not None
    posix = {str(path) for path in posix_segments(process.pid for process in server.processes())}
    _, sysv = (server.data_directory / "postmaster.pid").read_text().splitlines()[6].split()
    return posix | {sysv}


def existing(segments: set[str]) -> set[str]:
    sysv = {row.split()[1] for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
    return {name for name in segments if name in sysv or Path(name).exists()}


def test_start_has_the_expected_roles_and_no_network(local_server: Server) -> None:
    """A started server is reached by its socket only, and every process has a role."""
    version = local_server.version
    with local_server.connect() as connection:
        assert connection.info.server_version == version.num
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        roles = set(pids_by_role(local_server))
        listed = {row[0] for row in connection.execute("SELECT backend_type FROM pg_stat_activity")}
    assert CORE_ROLES | {"client backend"} <= roles
    assert listed <= roles
    assert ("io worker" in roles) == (version.major >= 18)
    assert local_server.data_directory is not None
    assert local_server.data_directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not (DEBIAN_ROOT / "15/bin/postgres").exists(), reason="no PostgreSQL 15 of Debian")
def test_older_build_has_its_own_roles() -> None:
    """PostgreSQL 15 starts from its own folder and has no io worker; its logger and archiver are told apart."""
    spec = ServerSpec(
        kind="local",
        pg_bindir=DEBIAN_ROOT / "15/bin",
        settings={"logging_collector": "on", "archive_mode": "on", "archive_command": "true", "cluster_name": "a b"},
    )
    with create_server(spec) as server:
        server.start()
        roles = set(pids_by_role(server))
        assert server.version.major == 15
        # The backend that start() asked for readiness may still be on its way out.
        assert CORE_ROLES | {"logger", "archiver", "logical replication launcher"} == roles - {"client backend"}
        # The logging collector writes into the same log.
        assert "database system is ready to accept connections" in server.log_since(0)


def test_settings_are_read_back() -> None:
    """Requested settings are found in force, in SHOW's spelling, beside those that durability depends on."""
    wanted = {"wal_writer_delay": "10s", "shared_buffers": "512", "synchronous_commit": "false", "wal_buffers": "-1"}
    with create_server(ServerSpec(kind="local", settings=wanted, initdb=("--wal-segsize=1",))) as server:
        server.start(overrides={"fsync": "off"})
        found = server.read_settings()
        assert found["wal_writer_delay"] == "10s"
        assert found["shared_buffers"] == "4MB"
        assert found["synchronous_commit"] == "off"
        assert found["fsync"] == "off"
        assert found["full_page_writes"] == "on"
        assert found["wal_segment_size"] == "1MB"

        with server.connect(autocommit=True) as connection:
            connection.execute("ALTER DATABASE postgres SET synchronous_commit = remote_write")
        with pytest.raises(ServerError, match=r'"synchronous_commit": wanted "false", found "remote_write"'):
            server.read_settings()


def test_environment_does_not_reach_the_sessions(monkeypatch: pytest.MonkeyPatch, local_server: Server) -> None:
    """PGOPTIONS of the user's shell cannot change what is tested."""
    monkeypatch.setenv("PGOPTIONS", "-c synchronous_commit=off")
    monkeypatch.setenv("PGSSLMODE", "require")
    with local_server.connect() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_kill_all_and_restart_keeps_commits(local_server: Server) -> None:
    """After SIGKILL of everything nothing is left running, and a restart finds every synchronous commit."""
    for life in range(3):
        remember(local_server, life)
        with contextlib.closing(local_server.connect()) as session:
            # Of the backends only this one: that of `remember` may still be on its way out.
            before = {one.pid for one in titled_processes(local_server) if one.role != "client backend"}
            before.add(session.info.backend_pid)
            position = local_server.log_position()
            assert before <= set(local_server.kill_all())
        assert local_server.processes() == []
        assert not local_server.running()
        assert local_server.postmaster_exit() == "killed by signal 9 (SIGKILL)"
        assert local_server.wait_gone(sorted(before), 0) == []
        local_server.start()
        assert remembered(local_server) == list(range(life + 1))
        assert "automatic recovery in progress" in local_server.log_since(position)


def test_killed_postmaster_and_its_orphans(local_server: Server) -> None:
    """Orphans of a killed postmaster are seen, reaped and waited for; a restart then works at once."""
    remember(local_server, 1)
    pids = pids_by_role(local_server)
    # A stopped orphan cannot notice the postmaster's death: it must be seen.
    local_server.signal(pids["walwriter"], signal.SIGSTOP)
    local_server.signal(pids["postmaster"], signal.SIGKILL)
    assert local_server.wait_gone([pids["postmaster"]]) == []
    assert local_server.postmaster_exit() == "killed by signal 9 (SIGKILL)"
    assert local_server.wait_gone([pids["walwriter"]], 0.2) == [pids["walwriter"]]
    assert pids_by_role(local_server)["walwriter"] == pids["walwriter"]
    with pytest.raises(ServerTimeout, match="of its last life are still there"):
        local_server.start(timeout_s=0.2)
    assert local_server.wait_gone(list(pids.values())) == []
    # Reaped here and now, not whenever the machine's pid 1 looks.
    assert [state(pid) for pid in pids.values()] == [""] * len(pids)
    local_server.start()
    assert remembered(local_server) == [1]


def test_killed_backend_makes_the_postmaster_restart_the_rest(local_server: Server) -> None:
    """SIGKILL of one backend: the postmaster lives, replaces every other process and accepts connections again."""
    remember(local_server, 1)
    with local_server.connect() as connection:
        before = pids_by_role(local_server)
        position = local_server.log_position()
        local_server.signal(before["client backend"], signal.SIGKILL)
        assert local_server.wait_gone([before["client backend"], before["checkpointer"]]) == []
        local_server.wait_ready()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    after = pids_by_role(local_server)
    assert after["postmaster"] == before["postmaster"]
    assert after["checkpointer"] != before["checkpointer"]
    assert "was terminated by signal 9" in local_server.log_since(position)
    assert remembered(local_server) == [1]
    with pytest.raises(ServerError, match="could not signal process"):
        local_server.signal(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("mode", "recovers"), [("smart", False), ("fast", False), ("immediate", True)], ids=["smart", "fast", "immediate"]
)
def test_stop_modes(local_server: Server, mode: str, recovers: bool) -> None:
    """Each mode ends the server; only `immediate` needs recovery afterwards."""
    remember(local_server, 1)
    local_server.stop(mode)  # type: ignore[arg-type]
    assert local_server.postmaster_exit() == "exited with status 0"
    position = local_server.log_position()
    local_server.start()
    assert ("automatic recovery in progress" in local_server.log_since(position)) == recovers
    assert remembered(local_server) == [1]


def test_stop_that_never_ends_times_out(local_server: Server) -> None:
    """A smart shutdown waits for clients, so with one connected the bounded wait runs out, and says so."""
    with local_server.connect(), pytest.raises(ServerTimeout, match=r"could not stop the server within 0.2 s"):
        local_server.stop("smart", timeout_s=0.2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server as somebody else")
@pytest.mark.parametrize("program", ["/usr/bin/setpriv", None])
def test_server_of_root_runs_as_nobody_with_no_group_of_roots(
    program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By setpriv or without it: the same user, groups, capabilities and parent, and the exit status is seen."""
    if program is not None and privileges.setpriv() is None:
        pytest.skip("no setpriv here that changes the user")
    if program is None:
        monkeypatch.setattr(privileges, "setpriv", lambda: None)
    with create_server(ServerSpec(kind="local")) as server:
        server.start()
        pid = server.processes()[0].pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        facts = {name: words.split() for name, _, words in (line.partition(":") for line in lines)}
        assert facts["Name"] == ["postgres"]
        assert facts["Uid"] == [str(privileges.NOBODY)] * 4
        assert facts["Gid"] == [str(privileges.NOBODY)] * 4
        assert facts["Groups"] == []
        assert [int(facts[name][0], 16) for name in ("CapEff", "CapPrm", "CapAmb")] == [0, 0, 0]
        assert facts["PPid"] == [str(os.getpid())]
        assert os.getsid(pid) == pid
        server.signal(pid, signal.SIGKILL)
        assert server.wait_gone([pid]) == []
        assert server.postmaster_exit() == "killed by signal 9 (SIGKILL)"


def test_refused_setting_is_told_in_the_servers_words() -> None:
    """A start that fails gives the exit status and the server's FATAL line, and leaves nothing."""
    with create_server(ServerSpec(kind="local", settings={"wal_level": "nonsense"})) as server:
        with pytest.raises(ServerError) as caught:
            server.start()
        assert not isinstance(caught.value, ServerTimeout)
        assert caught.value.detail is not None
        assert "exited with status 1" in caught.value.detail
        assert 'invalid value for parameter "wal_level": "nonsense"' in caught.value.detail
    assert traces(server) == []


def test_server_that_is_never_ready_is_killed(local_server: Server) -> None:
    """A server that hangs in its start is killed when the time is up; one that hangs later is only reported."""
    pids = pids_by_role(local_server)
    local_server.signal(pids["postmaster"], signal.SIGSTOP)
    with pytest.raises(ServerTimeout, match=r"could not reach the server within 0\.1 s"):
        local_server.wait_ready(0.1)
    assert local_server.running()
    local_server.kill_all()
    assert local_server.data_directory is not None
    # A recovery that never ends: restore_command sleeps.
    (local_server.data_directory / "recovery.signal").touch()
    started = time.monotonic()
    with pytest.raises(ServerTimeout):
        local_server.start(timeout_s=0.5, overrides={"restore_command": "sleep 60", "hot_standby": "off"})
    assert time.monotonic() - started < 10
    assert not local_server.running()
    local_server.dispose()
    assert traces(local_server) == []


@pytest.mark.parametrize(
    "end", ["running", "killed", "postmaster killed", "stopped process", "failed restart", "never started"]
)
def test_dispose_leaves_nothing(end: str) -> None:
    """Whatever state a server is in, dispose removes processes, files, sockets and shared memory, twice if asked."""
    server = create_server(ServerSpec(kind="local"))
    segments: set[str] = set()
    if end != "never started":
        server.start()
        pids = pids_by_role(server)
        segments = shared_memory(server)
        assert len(segments) >= 2
        assert existing(segments) == segments
        assert traces(server) != []
        if end in ("killed", "failed restart"):
            server.kill_all()
        elif end == "postmaster killed":
            server.signal(pids["postmaster"], signal.SIGKILL)
        elif end == "stopped process":
            server.signal(pids["checkpointer"], signal.SIGSTOP)
        if end == "failed restart":
            with pytest.raises(ServerError):
                server.start(overrides={"wal_level": "nonsense"})
    server.dispose()
    assert traces(server) == []
    assert existing(segments) == set()
    server.dispose()


def test_kept_data_directory_can_be_looked_at(tmp_path: Path) -> None:
    """keep_data_to moves the data directory; a path in use is an error that still disposes."""
    server = create_server(ServerSpec(kind="local"))
    server.start()
    server.dispose(keep_data_to=tmp_path / "kept")
    assert (tmp_path / "kept/global/pg_control").exists()
    assert traces(server) == []

    server = create_server(ServerSpec(kind="local"))
    with pytest.raises(ServerError, match="could not keep the data directory"):
        server.dispose(keep_data_to=tmp_path / "kept")
    assert traces(server) == []


@pytest.mark.parametrize("sig", [signal.SIGINT, None], ids=["ctrl-c", "exception"])
def test_interrupted_program_leaves_nothing(sig: signal.Signals | None) -> None:
    """A program that ends by Ctrl-C or by an exception, its server not disposed of, leaves no trace."""
    program = (
        "import time\n"
        "from crashlab.server import ServerSpec, create_server\n"
        "server = create_server(ServerSpec(kind='local'))\n"
        "server.start()\n"
        "print(server._home, server._sockets, server.processes()[0].pid, flush=True)\n"
        + ("time.sleep(60)\n" if sig else "raise RuntimeError\n")
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=as_in_a_terminal,
    )
    assert child.stdout is not None
    home, sockets, pid = child.stdout.readline().split()
    if sig is not None:
        child.send_signal(sig)
    child.wait(timeout=20)
    child.stdout.close()
    assert not Path(home).exists()
    assert not Path(sockets).exists()
    assert not Path(f"/proc/{pid}").exists()


def test_dispose_all_takes_every_server() -> None:
    """dispose_all ends all servers of this process."""
    servers = [create_server(ServerSpec(kind="local")) for _ in range(2)]
    servers[0].start()
    dispose_all()
    assert [traces(server) for server in servers] == [[], []]


@pytest.mark.parametrize("option", ["--waldir=/tmp/elsewhere", "-Uother", "-D"])
def test_initdb_options_that_escape_are_refused(option: str) -> None:
    """An option that would leave the server's folder, or lock crashlab out, is refused by name."""
    with pytest.raises(UsageProblem, match=option):
        create_server(ServerSpec(kind="local", initdb=(option,)))


def test_wrong_initdb_option_is_told_in_its_words() -> None:
    """initdb's own complaint is the detail."""
    with pytest.raises(ServerError, match="--no-such-option"):
        create_server(ServerSpec(kind="local", initdb=("--no-such-option",)))


def test_managed_setting_is_refused() -> None:
    """A profile cannot move the socket away."""
    with pytest.raises(UsageProblem, match='cannot set "port"'):
        create_server(ServerSpec(kind="local", settings={"Port": "1"}))


def test_unreachable_work_folder_is_refused(tmp_path: Path) -> None:
    """As root, a data directory below a folder that the server's user cannot search is refused at once."""
    if os.geteuid() != 0:
        pytest.skip("only root runs servers as another user")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerError, match="cannot reach it"):
        create_server(ServerSpec(kind="local"), work=closed)
    assert list(closed.iterdir()) == []


def test_leftover_lock_file_does_not_block(local_server: Server) -> None:
    """A postmaster.pid whose process id is another process's by now does not block a restart."""
    remember(local_server, 1)
    local_server.kill_all()
    assert local_server.data_directory is not None
    lock = local_server.data_directory / "postmaster.pid"
    lines = lock.read_text().splitlines()
    bystander = subprocess.Popen(["sleep", "60"], user=lock.stat().st_uid if os.geteuid() == 0 else None)
    try:
        lock.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n")
        local_server.start()
        assert remembered(local_server) == [1]
    finally:
        bystander.kill()
        bystander.wait()


def test_find_build_prefers_the_folder_given() -> None:
    """A folder without the programs is refused by name; the build found names its folder and version."""
    with pytest.raises(ServerError, match='could not find "postgres" in "/usr"'):
        find_build(Path("/usr"))
    build = find_build()
    assert build is not None
    assert shutil.which("postgres", path=build.bindir) is not None
