"""Does a hold between a WAL record and the truncation that it announces show a bug that PostgreSQL really had?

In 15.3 and 15.4 a checkpoint that begins in between does not flush the truncation, and yet lets recovery begin behind
its record; 14.23, 15.18 and those below are innocent. Nothing says how long a process may stand there; without a hold
it is for a moment. The releases come from the folder that CRASHLAB_TEST_BUILDS names.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from crashlab import evidence
from crashlab.disk.contract import disk_contract
from crashlab.disk.holds import Hold
from crashlab.disk.model import DiskModel
from crashlab.disk.states import nothing_extra
from crashlab.exploration.record import attach
from crashlab.exploration.worker import Worker
from crashlab.recording.base import BaseImage
from crashlab.recording.decoder import Decoder
from crashlab.recording.iolog import LogPosition
from crashlab.recording.jitter import Page
from crashlab.recording.logbytes import LogBytes
from crashlab.recording.replay import self_check
from crashlab.recovery.restart import copy_settings
from crashlab.server import Server, ServerSpec, create_server, owned
from crashlab.server.builds import find_build
from tests.power.test_known_bugs import build

pytestmark = pytest.mark.server
ROWS = 2000
HELD_MS = 6000
"""As long as a CHECKPOINT may take to begin on a busy machine."""
SECONDS_MAX = 60


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(mkdtemp(dir="/tmp", prefix="crashlab-test-"))
    path.chmod(0o755)
    yield path
    owned.remove_folder(path)


def run(server: Server, sql: str) -> None:
    with contextlib.closing(server.connect(autocommit=True)) as connection:
        connection.execute(sql)


def vacuum_and_checkpoint(server: Server, page: Page, *, held: bool) -> None:
    """Give back the pages of a table whose rows are all gone, and make a checkpoint: meanwhile, or afterwards."""
    run(server, "DELETE FROM t")
    vacuum = threading.Thread(target=run, args=(server, "VACUUM t"))
    if held:
        page.on()
    vacuum.start()
    end = time.monotonic() + SECONDS_MAX
    while held and not page.held()[0].held:
        assert time.monotonic() < end
        time.sleep(0.01)
    if not held:
        vacuum.join(SECONDS_MAX)
    run(server, "CHECKPOINT")
    vacuum.join(SECONDS_MAX)
    assert not vacuum.is_alive()


def record(spec: ServerSpec, folder: Path, *, held: bool) -> tuple[BaseImage, Path]:
    """Record it."""
    with create_server(spec) as server:
        server.start()
        run(server, f"CREATE TABLE t AS SELECT n, repeat('x', 1500) FROM generate_series(1, {ROWS}) n")
        run(server, "VACUUM FREEZE")
        server.stop("fast")
        assert server.data_directory is not None
        home = server.data_directory.parent
        places = [Hold.parse("before truncate of relation")]
        page = Page(home / "jitter", places, seed=1, share=1.0, between_ms=(HELD_MS, HELD_MS))
        server.own(home / "jitter")
        image, log = attach(server, [server.data_directory], home, folder, jitter=home / "jitter")
        server.start()
        vacuum_and_checkpoint(server, page, held=held)
        assert page.held()[0].held == int(held)
        with contextlib.closing(LogPosition(log)) as position:
            position.wait_until_quiet()
        server.kill_all()
        evidence.move_in(log, folder, "io.log")
        assert self_check(image, folder / "io.log") == []
    return image, folder / "io.log"


def rows_after_power_loss(bindir: Path | None, folder: Path, *, held: bool) -> int:
    """Count what is there when the power fails after the checkpoint, and everything is lost that was not flushed."""
    spec = ServerSpec(kind="local", pg_bindir=bindir, settings={"autovacuum": "off", "checkpoint_timeout": "1h"})
    image, file = record(spec, folder, held=held)
    model, log = DiskModel(image.files, disk_contract("linux")), LogBytes(file)
    for operation in Decoder(file, image.files):
        log.note(operation)
        model.apply(operation)
    found = find_build(bindir)
    assert found is not None
    with Worker.local(image, log, folder / "worker", found, spec) as worker:
        worker.materialise(model, nothing_extra(model))
        worker.server.start(overrides=copy_settings(found.version.major))
        with contextlib.closing(worker.server.connect(autocommit=True)) as connection:
            (counted,) = connection.execute("SELECT count(*) FROM t").fetchone() or (0,)
    return int(counted)


@pytest.mark.parametrize(
    ("version", "held", "rows"),
    [("15.3", True, ROWS), ("15.3", False, 0), ("16.14", True, 0), ("17.10", True, 0), (None, True, 0)],
)
def test_a_truncation_that_a_checkpoint_forgot_brings_rows_back(
    version: str | None, held: bool, rows: int, folder: Path
) -> None:
    """Deleted rows are back in the old release, if VACUUM was held; without a hold, and in later ones, they are not."""
    assert rows_after_power_loss(None if version is None else build(version), folder, held=held) == rows
