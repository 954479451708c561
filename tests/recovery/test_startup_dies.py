"""Is a startup process that dies of itself told from one that somebody killed?"""

import os
import signal
import threading
import time

import pytest

from crashlab.model import Recovery
from crashlab.recovery.restart import recover
from crashlab.recovery.wal import directory, file_of, read_control
from crashlab.server import ServerSpec
from crashlab.server.builds import Build
from crashlab.server.local import LocalServer
from tests.oracle.story import Story, codes
from tests.recovery.test_physical import builds

pytestmark = pytest.mark.server

SPEC = ServerSpec(kind="local", initdb=("--wal-segsize=1",), settings={"autovacuum": "off"})


def recovered_and_sent(build: Build, number: int) -> Recovery:
    """Send a signal to the startup process in the midst of its redo: it waits for a pipe in place of a WAL file."""
    with LocalServer(SPEC, build) as server:
        server.start()
        with server.connect(autocommit=True) as session:
            session.execute("CHECKPOINT; CREATE TABLE t AS SELECT n FROM generate_series(1, 60000) n")
        server.kill_all()
        data = server.data_directory
        assert data is not None
        control = read_control(directory(data))
        assert control is not None
        cluster, redo = control
        wal = data / file_of(cluster, redo + cluster.segment_bytes)
        wal.unlink()
        os.mkfifo(wal)
        server.own(wal)
        position = server.log_position()
        found: list[Recovery] = []
        thread = threading.Thread(
            target=lambda: found.append(recover(server, restart=True, log_position=position, timeout_s=30))
        )
        thread.start()
        deadline = time.monotonic() + 20
        while "redo starts at" not in server.log_since(position) and time.monotonic() < deadline:
            time.sleep(0.01)
        (startup,) = [process.pid for process in server.processes() if process.role == "startup"]
        server.signal(startup, signal.Signals(number))
        thread.join(35)
        return found[0]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_a_signal_of_its_own_is_no_start_and_another_is_not(build: Build, number: int) -> None:
    """SIGSEGV, and SIGKILL as the kernel sends it where memory runs out."""
    recovery = recovered_and_sent(build, number)
    assert not recovery.started
    assert recovery.redo_start is not None
    story = Story()
    verdict = story.judge(story.left(recovery=recovery))
    assert codes(verdict) == ["NO-START" if number == signal.SIGSEGV else "INCONCLUSIVE-TOOL-FAULT"]
    assert f"was terminated by signal {int(number)}" in verdict.findings[0].explanation
