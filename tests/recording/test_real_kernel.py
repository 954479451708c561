"""Is what a real kernel leaves after a power cut always a state that the disk model allows?

What is checked: random programs and a real server, recorded on ext4 and xfs, cut off while they run, mounted again. And
the facts about one journal for all names that the contracts lean on.
What is not: btrfs, which has no call to cut it off; devices that lose or tear what they were sent.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import psycopg
import pytest

from crashlab.disk.contract import disk_contract
from crashlab.disk.operations import Kind, Operation
from crashlab.recording import base, iolog
from crashlab.recording.base import BaseImage
from crashlab.recording.kernelcut import CutRecording, FileSystem, LoopDisk
from crashlab.recording.recorder import Recorder
from crashlab.seeds import stream
from crashlab.server import ServerSpec
from crashlab.server.builds import find_build
from crashlab.server.local import LocalServer
from crashlab.server.privileges import server_user
from crashlab.server.template import copy_template, find_template

PROGRAM = Path(__file__).with_name("kernel_program.py")
CUT_INSIDE = 3  # exit status of the program
ROUNDS = 12
SECONDS_MAX = 30
KINDS = [pytest.param(kind, marks=pytest.mark.kernel(kind)) for kind in ("ext4", "xfs")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can reach."""
    path = Path(mkdtemp(dir="/tmp", prefix="crashlab-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def disk(kind: FileSystem, folder: Path) -> Iterator[LoopDisk]:
    with LoopDisk(folder / "disk", kind) as made:
        yield made


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def write(path: Path, data: bytes, sync: Callable[[int], None] | None = None, at: int = 0, flags: int = 0) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    os.pwrite(fd, data, at)
    if sync:
        sync(fd)
    os.close(fd)


@pytest.mark.parametrize("kind", KINDS[:1])
def test_who_looks_in_meanwhile_only_delays_the_unmounting(kind: FileSystem, disk: LoopDisk) -> None:
    """As crashlab itself does that starts elsewhere and looks for what dead runs have left."""
    looking = os.open(disk.mount, os.O_RDONLY | os.O_DIRECTORY)
    timer = threading.Timer(0.5, os.close, [looking])
    timer.start()
    write(disk.mount / "file", b"x")
    disk.remount()
    timer.join()
    assert (disk.mount / "file").read_bytes() == b"x"


# --- one journal for all names

OTHERS: dict[str, tuple[Callable[[Path], None], bool]] = {
    "a new file, fsync": (lambda path: write(path / "new", b"x", os.fsync), True),
    "a new file, fdatasync": (lambda path: write(path / "new", b"x", os.fdatasync), True),
    "growth, fsync": (lambda path: write(path / "file", b"x", os.fsync, 9000), True),
    "growth, fdatasync": (lambda path: write(path / "file", b"x", os.fdatasync, 9000), True),
    "new bytes, fsync": (lambda path: write(path / "file", b"x", os.fsync), True),
    "new bytes, fdatasync": (lambda path: write(path / "file", b"x", os.fdatasync), False),
    "new bytes, O_DSYNC": (lambda path: write(path / "file", b"x", flags=os.O_DSYNC), False),
    "nothing new, fsync": (lambda path: write(path / "file", b"", os.fsync), False),
}
"""What is done to another file, in another directory -> whether it brings an older change of names along."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_brings_older_names_along(kind: FileSystem, disk: LoopDisk) -> None:
    """On ext4 and xfs any flush that commits the journal makes older names durable; one of bytes alone does not."""
    found = {}
    for number, (title, (change, _)) in enumerate(OTHERS.items()):
        folder = disk.mount / str(number)
        (folder / "a").mkdir(parents=True)
        (folder / "b").mkdir()
        write(folder / "b" / "file", bytes(8192))
        disk.sync()
        written_ns = (folder / "b" / "file").stat().st_mtime_ns
        wait_until(lambda then=written_ns: time.time_ns() > then + 20_000_000)  # type: ignore[misc]  # another tick
        (folder / "a" / "link").symlink_to("anywhere")
        change(folder / "b")
        disk.cut()
        disk.remount()
        found[title] = (folder / "a" / "link").is_symlink()
    assert found == {title: expected for title, (_, expected) in OTHERS.items()}


# --- random programs


class Round:
    """One recorded run of the program on a disk that is cut off meanwhile."""

    def __init__(self, disk: LoopDisk, seed: int, recorder: Recorder, folder: Path) -> None:
        rng = stream(seed, "round")
        live, log = disk.mount / str(seed) / "live", folder / f"{seed}.log"
        (live / "d0").mkdir(parents=True)
        for number in range(4):
            (live / f"n{number}").write_bytes(rng.randbytes(rng.randrange(30000)))
        disk.sync()
        image = base.take([live], folder / f"base{seed}")
        iolog.create(log)
        position = iolog.LogPosition(log)
        program = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(live), str(seed)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
            | recorder.environment(log, [live]),
        )
        try:
            wanted = rng.randrange(50_000, 2_000_000)
            wait_until(lambda: position.bytes() >= wanted or program.poll() is not None)
            tail_bytes = position.bytes()
            disk.cut(log_flush=rng.random() < 0.3)
            self.status = program.wait(SECONDS_MAX)
        finally:
            program.kill()
            program.wait(SECONDS_MAX)
            position.close()
        disk.remount()
        self.cut = CutRecording(image, log, tail_bytes)


def damaged(operation: Operation) -> Operation:
    """Alter the write that the program makes durable first, and never touches again."""
    if operation.kind is Kind.WRITE and operation.position == 1:
        return msgspec.structs.replace(operation, data=b"X" + bytes(operation.data)[1:])
    return operation


@pytest.mark.parametrize("kind", KINDS)
def test_random_programs_leave_allowed_states(kind: FileSystem, disk: LoopDisk, folder: Path) -> None:
    """Whatever is there after the cut is allowed; the states are neither all nor nothing; a false log is refuted."""
    recorder = Recorder.install(folder / "recorder")
    lost = extra = judged = 0
    for seed in range(4 * ROUNDS):
        if judged == ROUNDS:
            break
        done = Round(disk, seed, recorder, folder)
        if done.status == CUT_INSIDE:
            continue
        assert done.status == 0
        assert done.cut.objections() == [], f"seed {seed}"
        assert done.cut.objections(disk_contract(ordered_journal=True)) == [], f"seed {seed}"
        assert done.cut.objections(altered=damaged) != []
        lost += done.cut.objections(disk_contract("process")) != []
        extra += done.cut.something_extra()
        judged += 1
    assert judged == ROUNDS
    assert lost >= ROUNDS // 2
    assert extra >= ROUNDS // 2


# --- a real server

SETTINGS = {
    "restart_after_crash": "off",
    "shared_buffers": "1MB",
    "max_wal_size": "4MB",
    "min_wal_size": "2MB",
    "bgwriter_delay": "10ms",
    "wal_writer_delay": "10ms",
    "checkpoint_flush_after": "32kB",
}
INITDB = ("--wal-segsize=1",)


class RecordedServer:
    """A server with its data directory and a tablespace on a disk that will be cut off, under load."""

    def __init__(self, disk: LoopDisk, folder: Path, seed: int) -> None:
        build = find_build()
        assert build is not None
        roots = [disk.mount / "data", disk.mount / "space"]
        copy_template(find_template(build, INITDB, server_user()), roots[0])
        self.server = LocalServer(ServerSpec(settings=SETTINGS, initdb=INITDB), build, data_directory=roots[0])
        roots[1].mkdir()
        self.server.own(roots[1])
        disk.sync()
        self.disk, self.seed, self.log = disk, seed, folder / "io.log"
        self.base = base.take(roots, folder / "base")
        iolog.create(self.log)
        self.server.own(self.log)
        self.server.environment = Recorder.install(folder / "recorder").environment(self.log, roots)
        self.acknowledged: set[int] = set()
        self.errors: list[str] = []

    def insert(self, client: int) -> None:
        rng = stream(self.seed, "client", client)
        with self.server.connect(autocommit=True) as connection:
            for number in range(client * 1_000_000, (client + 1) * 1_000_000):
                length = rng.choice([10, 100, 3000])
                connection.execute("INSERT INTO rows VALUES (%s, repeat('x', %s))", (number, length))
                self.acknowledged.add(number)

    def change_files(self, _: int) -> None:
        """Whatever makes and removes files, with checkpoints between."""
        rng = stream(self.seed, "files")
        space = self.base.roots[1]
        statements = ["CHECKPOINT", "VACUUM rows", "SELECT pg_switch_wal()", "TRUNCATE made", "VACUUM FULL made"]
        statements += ["UPDATE made SET i = i + 1", "CREATE INDEX ON made (i)", "REINDEX TABLE rows"]
        statements += ["INSERT INTO made SELECT generate_series(1, 3000)", "DROP DATABASE IF EXISTS other"]
        statements += ["ALTER TABLE made SET TABLESPACE space", "ALTER TABLE made SET TABLESPACE pg_default"]
        statements += ["CREATE DATABASE other STRATEGY wal_log", "DROP TABLE made; CREATE TABLE made (i int)"]
        with self.server.connect(autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE space LOCATION '{space}'")
            while True:
                try:
                    connection.execute(rng.choice(statements))
                except psycopg.errors.DuplicateDatabase:
                    continue

    def disturb(self, _: int) -> None:
        """Commit the journal now and then, by a file of which the recording knows nothing."""
        rng = stream(self.seed, "disturb")
        while True:
            write(self.disk.mount / "beside", rng.randbytes(100), os.fsync, rng.randrange(100_000))
            time.sleep(rng.random() * 0.2)

    def run_until_cut(self, wanted_bytes: int) -> CutRecording:
        """Load the server, cut the disk off when the log has this many bytes more, and see the server end."""
        self.server.start()
        with self.server.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE rows (number int PRIMARY KEY, filler text); CREATE TABLE made (i int)")
        position = iolog.LogPosition(self.log)
        work = [(self.insert, 0), (self.insert, 1), (self.change_files, 2), (self.disturb, 3)]
        threads = [threading.Thread(target=self._guarded, args=one, daemon=True) for one in work]
        for thread in threads:
            thread.start()
        wanted_bytes += position.bytes()
        wait_until(lambda: position.bytes() >= wanted_bytes or bool(self.errors))
        assert self.errors == []
        tail_bytes = position.bytes()
        position.close()
        self.disk.cut()
        wait_until(lambda: not self.server.running())
        self.server.kill_all()
        for thread in threads:
            thread.join(SECONDS_MAX)
        self.disk.remount()
        return CutRecording(self.base, self.log, tail_bytes)

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except (psycopg.Error, OSError) as error:
            self.errors.append(f"{work.__name__}: {error}")

    def recover(self) -> set[int]:
        """Start again where the cut left it, unrecorded, and return the rows that are there."""
        self.server.environment = {}
        self.server.start()
        with self.server.connect(autocommit=True) as connection:
            found = connection.execute("SELECT number FROM rows").fetchall()
            connection.execute("CREATE EXTENSION amcheck; SELECT bt_index_check('rows_pkey', true)")
        self.server.stop()
        return {row[0] for row in found}


def damaged_control(files: BaseImage) -> Callable[[Operation], Operation]:
    """Alter every write of pg_control: each is flushed at once."""
    control = next(entry.file for entry in files.files if entry.path == "pgdata/global/pg_control")

    def altered(operation: Operation) -> Operation:
        if operation.kind is Kind.WRITE and operation.file == control:
            first, *rest = operation.data
            return msgspec.structs.replace(operation, data=bytes([first ^ 0xFF, *rest]))
        return operation

    return altered


@pytest.mark.server
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_leaves_an_allowed_state(kind: FileSystem, seed: int, disk: LoopDisk, folder: Path) -> None:
    """Every byte of a server cut off under load is allowed; not all had survived; and PostgreSQL recovers from it."""
    recorded = RecordedServer(disk, folder, seed)
    try:
        cut = recorded.run_until_cut(stream(seed, "cut").randrange(4_000_000, 12_000_000))
        assert cut.objections() == []
        assert cut.objections(disk_contract("process")) != []
        assert cut.objections(altered=damaged_control(recorded.base)) != []
        assert cut.something_extra()
        assert recorded.recover() >= recorded.acknowledged > set()
    finally:
        recorded.server.dispose()
