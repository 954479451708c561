"""Does the recorder see every call that changes a file, and nothing else?"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from crashlab.disk.operations import Kind, Operation
from crashlab.errors import RecordingError
from crashlab.recording import base, build, iolog
from crashlab.recording.base import BaseImage
from crashlab.recording.decoder import Decoder
from crashlab.recording.recorder import Recorder
from crashlab.recording.replay import self_check
from tests.examples import examples

PROGRAM = Path(__file__).with_name("calls_program.py")
SECONDS_MAX = 60
ROUNDS = examples(10)


class Scene:
    """A recorded directory, one that is not, a base image and a log."""

    def __init__(self, folder: Path) -> None:
        self.live, self.outside, self.log = folder / "live", folder / "outside", folder / "io.log"
        self.live.mkdir()
        self.outside.mkdir()
        for name in ("old", "old0", "old1", "old2"):
            self.live.joinpath(name).write_bytes(b"from before")
        self.base: BaseImage = base.take([self.live], folder / "base")
        self.recorder = Recorder.install(folder / "recorder")
        iolog.create(self.log)

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **self.recorder.environment(self.log, [self.live])}

    def command(self, what: str) -> list[str]:
        return [sys.executable, str(PROGRAM), str(self.live), str(self.outside), what]

    def run(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, env=self.environment(), cwd=self.live, capture_output=True, text=True, timeout=SECONDS_MAX
        )

    def operations(self) -> list[Operation]:
        return list(Decoder(self.log, self.base.files))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_replay_equals_the_directory(scene: Scene) -> None:
    """Every call that changes bytes, sizes or names is in the log, in an order that leads to the same directory."""
    done = scene.run(scene.command("all"))
    assert (done.returncode, done.stderr) == (0, "")
    assert self_check(scene.base, scene.log) == []
    operations = scene.operations()
    kinds = Counter(operation.kind for operation in operations)
    assert kinds.keys() == set(Kind) - {Kind.BLIND}
    assert kinds[Kind.FSYNC_BEGIN] == kinds[Kind.FSYNC_END] == 5
    assert [operation.position for operation in operations] == list(range(len(operations)))
    assert b"NEVER LOGGED" not in scene.log.read_bytes()
    assert b"COMING IN" in scene.log.read_bytes()
    durable = [bytes(operation.data) for operation in operations if operation.durable]
    assert durable == [b"sixseven", b"durable"]
    assert [operation.datasync for operation in operations if operation.kind is Kind.FSYNC_BEGIN].count(True) == 1


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.TRUNCATE, Kind.RENAME, Kind.CONTENT, Kind.CREATE])
def test_a_missing_record_is_found(scene: Scene, kind: Kind) -> None:
    """The self-check is not blind: without the records of one kind it fails."""
    assert scene.run(scene.command("all")).returncode == 0
    kept = b"".join(iolog.encode(record) for record in iolog.records(scene.log) if record.kind != kind)
    scene.log.write_bytes(iolog.header(iolog.PAGE_BYTES + len(kept)) + kept)
    if kind in (Kind.CREATE, Kind.RENAME):
        with pytest.raises(RecordingError):
            self_check(scene.base, scene.log)
    else:
        assert self_check(scene.base, scene.log) != []


def test_writes_past_the_recorder_are_marked(scene: Scene) -> None:
    """A shared writable mapping of a recorded file is a difference, with its reason."""
    assert scene.run(scene.command("blind")).returncode == 0
    differences = self_check(scene.base, scene.log)
    assert {difference.path for difference in differences} == {"pgdata/mapped"}
    assert "shared writable mapping" in differences[0].reason


def test_a_changed_byte_in_the_directory_is_found(scene: Scene) -> None:
    """A file changed by a program that was not recorded is named with the offset."""
    assert scene.run(["sh", "-c", "printf unchanged > new"]).returncode == 0
    assert self_check(scene.base, scene.log) == []
    scene.live.joinpath("old").write_bytes(b"from BEFORE")
    (difference,) = self_check(scene.base, scene.log)
    assert (difference.path, difference.offset) == ("pgdata/old", 5)


def test_a_log_that_cannot_be_written_ends_the_program(scene: Scene) -> None:
    """Never run unrecorded: no log, a log of another version, a full disk."""
    command = ["sh", "-c", "printf x > made"]
    scene.log.rename(scene.log.with_name("hidden"))
    done = scene.run(command)
    assert done.returncode == 134
    assert "could not open the log" in done.stderr
    scene.log.write_bytes(iolog.header(iolog.PAGE_BYTES).replace(b"crashlab", b"CRASHLAB"))
    assert "not one of this version" in scene.run(command).stderr
    assert not scene.live.joinpath("made").exists()


def test_a_full_log_voids_the_recording(scene: Scene) -> None:
    """A log that stops growing ends the writer, and nobody can read the log as if it were whole."""
    limited = f"ulimit -f 16; exec {' '.join(scene.command('append')[:-2])} many append"  # 512-byte or 1 kB blocks
    done = scene.run(["sh", "-c", f"trap '' XFSZ; {limited}"])
    assert done.returncode == 134
    assert "could not write the log" in done.stderr
    with pytest.raises(RecordingError, match="void"):
        scene.operations()
    assert "another process could not record" in scene.run(["sh", "-c", "printf x > made"]).stderr


def test_inert_without_the_variables(scene: Scene) -> None:
    """Loaded into a program that nobody asked to record, the library does and says nothing."""
    environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(scene.recorder.library)}
    done = subprocess.run(scene.command("all"), env=environment, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(RecordingError, match="nothing was recorded"):
        scene.operations()


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_writers_killed_at_any_moment_leave_a_readable_log(scene: Scene) -> None:
    """SIGKILL loses at most the last write of its victim: the log reads on, and is right but for that one."""
    position = iolog.LogPosition(scene.log)
    command = scene.command("append")
    for _ in range(ROUNDS):
        files = ["old0", "old1", "old2"]  # a file that a victim creates may be the one operation without a record
        writers = [
            subprocess.Popen([*command[:-2], name, "append"], env=scene.environment(), cwd=scene.live) for name in files
        ]
        before = position.bytes()
        _wait_until(lambda before=before: position.bytes() > before + 60_000)  # type: ignore[misc]
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait(SECONDS_MAX)
    position.close()
    last = max(operation.log_end for operation in scene.operations())
    assert last > ROUNDS * 60_000
    for difference in self_check(scene.base, scene.log):  # written, then killed before the record
        assert "bytes differ" in difference.reason
        assert difference.offset is not None


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf (binutils)")
def test_the_library_needs_no_libc_of_a_version() -> None:
    """One file serves glibc and musl: no needed library, no symbol version, two weak symbols that both have."""
    library = str(build.library())
    versions = subprocess.run(["readelf", "--version-info", library], capture_output=True, text=True, check=True).stdout
    dynamic = subprocess.run(["readelf", "--dynamic", library], capture_output=True, text=True, check=True).stdout
    symbols = subprocess.run(
        ["readelf", "--dyn-syms", "--wide", library], capture_output=True, text=True, check=True
    ).stdout
    undefined = {line.split()[-1]: line.split()[4] for line in symbols.splitlines() if " UND " in line and "_" in line}
    undefined |= {line.split()[-1]: line.split()[4] for line in symbols.splitlines() if " UND fdopen" in line}
    assert "No version information" in versions
    assert "NEEDED" not in dynamic
    assert undefined == {"__errno_location": "WEAK", "fdopen": "WEAK"}
