"""Does the folder hold exactly the crash state that was asked for, whatever it held before?"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crashlab.disk.content import ZERO, FileImage, written
from crashlab.disk.contract import disk_contract
from crashlab.disk.model import CrashState, DiskModel
from crashlab.disk.states import draw_state, enumerate_states, everything, nothing_extra
from crashlab.errors import RecordingError
from crashlab.exploration.contents import STAMP_NS
from crashlab.exploration.images import LEFT_OUT, ImageFolder
from crashlab.exploration.notices import Notices
from crashlab.exploration.worker import Worker
from crashlab.model import Complaint
from crashlab.recording.base import BaseImage
from crashlab.recording.decoder import Decoder
from crashlab.recording.logbytes import LogBytes
from crashlab.recovery import Reading, observe, recover
from crashlab.recovery.restart import copy_settings
from crashlab.seeds import stream
from crashlab.server.base import ServerSpec
from crashlab.server.builds import find_build
from crashlab.server.privileges import ServerUser
from tests.disk.disk_text import CONTRACTS, Disk, Image
from tests.disk.test_model import disks
from tests.examples import examples
from tests.recording.test_recorder_postgres import SETTINGS, RecordedServer, _builds

STATES_A_POINT = 5
NOBODY_ELSE = ServerUser(os.geteuid(), os.getegid(), switched=False)


class Stage:
    """A small disk as a base image and a log in real files, and the folder under test."""

    def __init__(self, disk: Disk, home: Path) -> None:
        self.disk = disk
        log = b"log:"
        for position, operation in enumerate(disk.log):
            stored = operation.data.rstrip(b"\0")
            disk.log[position] = msgspec.structs.replace(operation, data_at=len(log), log_end=len(log) + len(stored))
            log += stored
        (home / "log").write_bytes(log)
        base = BaseImage(folder=home / "base", roots=[], files=disk.base)
        for entry in disk.base:
            path = base.image / entry.path
            if entry.kind == "dir":
                path.mkdir(parents=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(disk.base_bytes[entry.file])
        self.log = LogBytes(home / "log")
        self.images = ImageFolder(base, self.log, home / "images", user=NOBODY_ELSE)

    def check(self, model: DiskModel, state: CrashState) -> None:
        self.images.materialise(model, state)
        self.check_look()
        assert read_back(self.images.image) == self.disk.image(model, state)
        inodes = {path: status.st_ino for path, status in self.images.scan().items()}
        files = {path: number for path, number in model.paths(state.names).items() if number in model.files}
        for path, other in ((path, other) for path in files for other in files):
            assert (inodes[path] == inodes[other]) == (files[path] == files[other])

    def check_look(self) -> None:
        """What is known by notices is what a scan finds, but for the times of directories."""
        looked, scanned = self.images.look(), self.images.scan()
        assert {path: facts_of(status) for path, status in looked.items()} == {
            path: facts_of(status) for path, status in scanned.items()
        }

    def close(self) -> None:
        self.log.close()
        self.images.dispose()


def facts_of(status: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(status.st_mode):
        return status.st_mode, status.st_ino
    return status.st_mode, status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns


def read_back(image: Path) -> Image:
    entries = []
    for path in image.rglob("*"):
        kind, data = "file", b""
        if path.is_symlink():
            kind, data = "link", str(path.readlink()).encode()
        elif path.is_dir():
            kind = "dir"
        else:
            data = path.read_bytes()
        entries.append((str(path.relative_to(image)), kind, data))
    return frozenset(entries)


def disturb(image: Path, rng: Random) -> None:
    """Change a few things as a server could, and some as none would; what is impossible is left."""
    for _ in range(rng.randint(0, 5)):
        path = rng.choice(sorted(image.rglob("*")) or [image / "stray"])
        if rng.random() < 0.2:
            path = path.with_name(rng.choice("uvwxyz"))
        other = path.with_name(rng.choice("uvwxyz"))
        with contextlib.suppress(OSError):
            content = path.read_bytes() if path.is_file() else b""
            changed = [content[::-1], b"?" * len(content), content + b"?", content[:2], b""]
            changes: list[Callable[[], object]] = [
                path.unlink,
                path.mkdir,
                partial(shutil.rmtree, path),
                partial(path.chmod, 0o500),
                partial(path.rename, other),
                partial(other.hardlink_to, path),
                lambda path=path: (path.unlink(), path.symlink_to("elsewhere")),  # type: ignore[misc]
                lambda path=path, content=content: (path.unlink(), path.write_bytes(content)),  # type: ignore[misc]
                *[partial(path.write_bytes, data) for data in changed],
            ]
            rng.choice(changes)()


def cut_and_written_again() -> Disk:
    """A file that shrinks, grows by one write and is overlaid, with everything in one unit or across two."""
    disk = Disk()
    disk.add_base("d", None)
    disk.add_base("d/x", b"ABCDEFGHIJ")
    for line in ("write d/x 2 abc", "truncate d/x 5", "write d/x 8 cc", "truncate d/x 12", "write d/x 1 b..c"):
        disk.run(line)
    return disk


def one_file_becomes_two() -> Disk:
    """Two names of one file, one of which then belongs to another file."""
    disk = Disk()
    disk.add_base("x", b"ABCD")
    for line in ("link x u", "syncfs", "unlink x", "create x", "write x 0 zzzz"):
        disk.run(line)
    return disk


@pytest.mark.parametrize("name", ["linux", "strict", "lying"])
@settings(max_examples=examples(40), deadline=None, suppress_health_check=list(HealthCheck))
@given(disks(), st.integers(0, 1000))
@example(cut_and_written_again(), 1)
@example(one_file_becomes_two(), 1)
def test_the_folder_holds_the_state(name: str, disk: Disk, seed: int) -> None:
    """From any state of any point to any other, with and without foreign changes between: names, links and bytes."""
    rng = Random(seed)
    with tempfile.TemporaryDirectory() as home:
        stage = Stage(disk, Path(home))
        try:
            model = DiskModel(disk.base, CONTRACTS[name])
            for operation in [None, *disk.log]:
                if operation is not None:
                    model.apply(operation)
                    stage.log.note(operation)
                states = list(enumerate_states(model, 40))
                for state in rng.sample(states, min(STATES_A_POINT, len(states))):
                    stage.check(model, state)
                    if rng.random() < 0.5:
                        disturb(stage.images.image, rng)
                        stage.check_look()
        finally:
            stage.close()


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    """A state that is there already costs no write; one changed unit costs one file; a foreign change is undone."""
    disk = Disk()
    disk.add_base("a", b"ABCDEFGH")
    disk.add_base("b", b"12345678")
    disk.run("write a 4 zz")
    stage = Stage(disk, tmp_path)
    model = DiskModel(disk.base, CONTRACTS["linux"])
    model.apply(disk.log[0])
    stage.log.note(disk.log[0])
    lost, kept = sorted(enumerate_states(model), key=lambda state: len(state.files))
    assert stage.images.materialise(model, lost) == 2
    assert stage.images.materialise(model, lost) == 0
    assert stage.images.materialise(model, kept) == 1
    (stage.images.image / "b").write_bytes(b"12345679")
    assert stage.images.materialise(model, kept) == 1
    assert read_back(stage.images.image) == disk.image(model, kept)
    stage.close()


def link_write_unlink(image: Path) -> None:
    (image / "d/u").hardlink_to(image / "d/b")
    (image / "d/u").write_bytes(b"?")
    (image / "d/u").unlink()


def link_write_rename_over(image: Path) -> None:
    (image / "d/u").hardlink_to(image / "d/b")
    (image / "d/u").write_bytes(b"?")
    (image / "d/u").rename(image / "v")
    (image / "a").rename(image / "v")


def swap_folders(image: Path) -> None:
    (image / "d").rename(image / "t")
    (image / "e").rename(image / "d")
    (image / "t").rename(image / "e")


def more_than_the_kernel_keeps(image: Path) -> None:
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with (image / "a").open("r+b", buffering=0) as one, (image / "d/b").open("r+b", buffering=0) as other:
        for _ in range(kept):
            one.write(b"?")
            other.write(b"?")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda image: (image / "d/b").write_bytes(b"12345679"), {"d/b"}),
        (lambda image: os.truncate(image / "a", 3), {"a"}),
        (lambda image: (image / "d/b").rename(image / "c"), {"d/b", "c"}),
        (lambda image: (image / "c").hardlink_to(image / "d/b"), {"c"}),
        (lambda image: (image / "a").chmod(0o400), {"a"}),
        (lambda image: (image / "e").chmod(0o500), {"e"}),
        (lambda image: (image / "d").rename(image / "f"), None),
        (more_than_the_kernel_keeps, None),
        (link_write_unlink, None),
        (link_write_rename_over, None),
        (swap_folders, None),
    ],
)
def test_a_change_is_told_or_looked_for(
    tmp_path: Path, change: Callable[[Path], object], told: set[str] | None
) -> None:
    """Notices name what has changed, or own that they cannot; the look after them sees all of it, twice in a row."""
    disk = Disk()
    for folder in ("d", "e"):
        disk.add_base(folder, None)
    for file in ("a", "d/b", "e/b"):
        disk.add_base(file, b"ABCDEFGH")
    stage = Stage(disk, tmp_path)
    model = DiskModel(disk.base, CONTRACTS["linux"])
    (state,) = enumerate_states(model)
    for _ in range(2):
        stage.check(model, state)
        notices = Notices()
        notices.watch(str(stage.images.image), ["", "d/", "e/"])
        change(stage.images.image)
        assert notices.changed() == told
        notices.close()
        stage.check_look()
    stage.check(model, state)
    stage.close()


def test_a_folder_that_cannot_be_watched_is_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any notices, as at a user's limit, a state is the same."""
    disk = Disk()
    disk.add_base("a", b"ABCDEFGH")
    monkeypatch.setattr(Notices, "watch", Mock(side_effect=OSError(28, "no more watches")))
    stage = Stage(disk, tmp_path)
    model = DiskModel(disk.base, CONTRACTS["linux"])
    (state,) = enumerate_states(model)
    for _ in range(2):
        stage.check(model, state)
        (stage.images.image / "a").write_bytes(b"?")
        stage.check_look()
    stage.close()


def test_what_a_short_size_hid_is_written_when_the_file_grows() -> None:
    """A unit may hold more than the size lets one see: the disk has zeros there."""
    units = {1: written(b"abcd", 7, 0)}
    short, long = (
        FileImage(file=1, size=size, base_bytes=0, unit_bytes=4, units=units, fingerprint=size) for size in (6, 12)
    )
    assert list(long.changes(short)) == [(4, 4, 7, 0), (8, 4, ZERO, 8)]
    assert list(short.changes(long)) == []


def test_links_never_lead_out(tmp_path: Path) -> None:
    """A link to a directory that was not recorded is refused: a server would follow it."""
    for content in ("/etc", "../../etc", "/proc/self/cwd/../../etc"):
        disk = Disk()
        disk.add_base("d", None)
        disk.run(f"symlink d/l {content}")
        home = tmp_path / content.replace("/", "_")
        home.mkdir()
        stage = Stage(disk, home)
        model = disk.model(CONTRACTS["process"])
        with pytest.raises(RecordingError, match="none of the recorded directories"):
            stage.images.materialise(model, everything(model))
        stage.close()


def test_a_tablespace_at_a_fixed_place_is_refused(tmp_path: Path) -> None:
    """Recovery would make its link again, to the live directory; one that leads through the server itself is fine."""
    for content, refused in (("/somewhere/else", True), ("/proc/self/cwd/spaces", False)):
        disk = Disk()
        disk.add_base("pgdata", None)
        disk.add_base("pgdata/pg_tblspc", None)
        disk.run(f"symlink pgdata/pg_tblspc/16384 {content}")
        home = tmp_path / str(refused)
        home.mkdir()
        stage = Stage(disk, home)
        stage.log.note(disk.log[0])
        model = disk.model(CONTRACTS["linux"])
        state = nothing_extra(model)  # the link is lost, the WAL may have it all the same
        if refused:
            with pytest.raises(RecordingError, match="makes a tablespace"):
                stage.images.materialise(model, state)
        else:
            stage.check(model, state)
            stage.check(model, everything(model))
        stage.close()


# --- with a real server


class WithSpace(RecordedServer):
    """Its tablespaces are reached through its own data directory: redo makes their links anew, as they were."""

    def _run(self, program: str, *arguments: object) -> None:
        super()._run(program, *arguments)
        (self.data / "spaces").symlink_to(self.tablespaces)


@pytest.fixture(scope="module")
def recorded() -> Iterator[RecordedServer]:
    """One recording: tables, an index, a tablespace, checkpoints, a prepared transaction; stopped."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="crashlab-"))
    server = WithSpace(_builds()[0], folder, settings="-c max_prepared_transactions=5")
    try:
        with contextlib.closing(server.connect()) as connection:
            for statement in (
                "CREATE EXTENSION amcheck",
                "CREATE TABLESPACE space LOCATION '/proc/self/cwd/spaces'",
                "CREATE TABLE u (id int PRIMARY KEY USING INDEX TABLESPACE space, v text) TABLESPACE space",
                "CREATE TABLE t (id int PRIMARY KEY, v text)",
                "INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, 2000) g",
                "CHECKPOINT",
                "UPDATE t SET v = v || 'y' WHERE id % 3 = 0",
                "INSERT INTO u SELECT * FROM t",
                "CREATE INDEX ON t (v)",
                "BEGIN; INSERT INTO t VALUES (0); PREPARE TRANSACTION 'p'",
                "DELETE FROM t WHERE id > 1900",
                "CHECKPOINT",
                "CREATE TABLE w AS SELECT * FROM t",
            ):
                for part in statement.split("; "):
                    connection.execute(part)
        server.stop()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def worker(recorded: RecordedServer) -> Iterator[tuple[Worker, LogBytes]]:
    """A worker for the recording, and the log that it reads from."""
    build = find_build(recorded.bindir)
    assert build is not None
    words = [word for word in f"{SETTINGS} -c max_prepared_transactions=5".split() if "=" in word]
    spec = ServerSpec(settings={name: value for name, _, value in (word.partition("=") for word in words) if value})
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="crashlab-"))
    folder.chmod(0o755)
    log = LogBytes(recorded.log)
    with Worker.local(recorded.base, log, folder / "worker", build, spec) as made:
        yield made, log
    log.close()
    assert list(folder.iterdir()) == []
    folder.rmdir()


def wrong_files(images: ImageFolder, model: DiskModel, state: CrashState, logged: dict[int, bytes]) -> list[str]:
    """Compare the folder with the model's own bytes, and with the modes and owners of the base image."""
    found = images.scan()
    wanted = {path: number for path, number in model.paths(state.names).items() if path not in LEFT_OUT}
    wrong = sorted(found.keys() ^ wanted.keys())
    owner = os.lstat(images.image / "pgdata").st_uid
    for path, number in wanted.items():
        status = found[path]
        if number in model.files:
            content = model.image(state, number).read(logged.__getitem__, images.contents.base_bytes)
            if (images.image / path).read_bytes() != content or status.st_mtime_ns != STAMP_NS:
                wrong.append(path)
        if not stat.S_ISLNK(status.st_mode) and (stat.S_IMODE(status.st_mode), status.st_uid) != (
            model.modes[number],
            owner,
        ):
            wrong.append(f"mode or owner of {path}")
    return wrong


def recover_and_read(worker: Worker, *, skip: bool) -> tuple[list[Complaint], int]:
    """Recover what is there, look at it and kill the server; return the complaints and how much was left out."""
    settings = copy_settings(worker.server.version.major)
    recovery = recover(worker.server, restart=True, log_position=worker.server.log_position(), overrides=settings)
    assert recovery.started, recovery
    reading = Reading(relations=[], invariants=[], xids=[], sequences=(), marker_table="pg_database")
    observation = observe(
        lambda name: worker.server.connect(autocommit=True, dbname=name),
        reading,
        recovery,
        unchanged=worker.unchanged() if skip else (),
    )
    worker.kill()
    names = ("amcheck_index", "amcheck_heap", "full_read")
    complaints = [complaint for complaint in observation.complaints if complaint.check in names]
    return complaints, sum(observation.checks[name].unchanged for name in names)


@pytest.mark.server
def test_real_states_are_exact_and_recover(recorded: RecordedServer, worker: tuple[Worker, LogBytes]) -> None:
    """States at several points, one after the other in one folder, dirtied by a recovery in between."""
    made, log = worker
    count = sum(1 for _ in Decoder(recorded.log, recorded.base.files))
    # CREATE TABLESPACE never syncs its link: only a common journal keeps it through the next checkpoint.
    model = DiskModel(recorded.base.files, disk_contract(ordered_journal=True))
    rng, logged, skipped = stream(7, "states"), dict[int, bytes](), 0
    points = {count * part // 6 for part in range(2, 6)}
    for operation in Decoder(recorded.log, recorded.base.files):
        if operation.position in points:
            for state in (everything(model), draw_state(model, rng), draw_state(model, rng)):
                made.materialise(model, state)
                assert wrong_files(made.images, model, state, logged) == []
                complaints, left_out = recover_and_read(made, skip=True)
                assert complaints == []
                skipped += left_out
        model.apply(operation)
        log.note(operation)
        logged[operation.position] = operation.data
    assert skipped > 100
    state = everything(model)
    made.materialise(model, state)
    assert wrong_files(made.images, model, state, logged) == []
    for label, live in (("pgdata", recorded.data), ("tblspc0", recorded.tablespaces)):
        ours = {entry for entry in read_back(made.images.image / label) if entry[1] != "link"}
        theirs = {entry for entry in read_back(live) if entry[1] != "link" and entry[0] != "postmaster.opts"}
        assert ours == theirs
    assert "base/1/1249" in made.unchanged()
    assert "base/5/1249" not in made.unchanged(), "the recorded server changed pg_attribute"
    link = made.images.data_directory / "spaces"
    assert link.readlink() == (made.images.image / "tblspc0").resolve()


@pytest.mark.server
@pytest.mark.parametrize("victim", ["t", "t_pkey", "u", "pg_description"])
def test_leaving_out_what_is_unchanged_hides_no_damage(
    recorded: RecordedServer, worker: tuple[Worker, LogBytes], victim: str
) -> None:
    """A damaged page gives the same complaints with and without leaving out; without damage there are none."""
    made, log = worker
    model = DiskModel(recorded.base.files, disk_contract("process"))
    for operation in Decoder(recorded.log, recorded.base.files):
        model.apply(operation)
        log.note(operation)
    state = everything(model)
    made.materialise(model, state)
    made.server.start(overrides=copy_settings(made.server.version.major))
    with made.server.connect(autocommit=True) as connection:
        (file,) = connection.execute("SELECT pg_relation_filepath(%s::regclass)", (victim,)).fetchone() or ("",)
    made.kill()
    results = []
    for skip in (False, True):
        made.materialise(model, state)
        file = re.sub(r"pg_tblspc/\d+", "spaces", file)
        with (made.images.data_directory / file).open("r+b") as damaged:
            damaged.seek(8192 + 4000)
            damaged.write(b"damage")
        results.append(recover_and_read(made, skip=skip))
    (full, none_left_out), (quick, left_out) = results
    assert quick == full
    assert full
    assert none_left_out == 0
    assert left_out > 100
    made.materialise(model, state)
    assert recover_and_read(made, skip=True)[0] == []


@pytest.mark.server
def test_lost_commit_bits_make_everything_worth_a_look(
    recorded: RecordedServer, worker: tuple[Worker, LogBytes]
) -> None:
    """Unchanged pages hold other rows once pg_xact says otherwise of their transactions."""
    made, _ = worker
    model = DiskModel(recorded.base.files, disk_contract("process"))
    made.materialise(model, everything(model))
    assert len(made.unchanged()) > 100
    commit_bits = made.images.data_directory / "pg_xact" / "0000"
    commit_bits.write_bytes(bytes(8192))
    assert made.unchanged() == frozenset()
    made.materialise(model, everything(model))
    content = commit_bits.read_bytes()
    used = len(content.rstrip(b"\0"))
    commit_bits.write_bytes(content[:used] + b"\x55" + content[used + 1 :])
    assert len(made.unchanged()) > 100, "later transactions are no reason"
