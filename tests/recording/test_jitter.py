"""Are processes held where they should be, as the seed says, and nowhere else?"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.holds import HELD_OPERATIONS, MOMENTS, Hold
from crashlab.disk.operations import Kind
from crashlab.recording import base, iolog, jitter
from crashlab.recording.decoder import Decoder
from crashlab.recording.jitter import Page
from crashlab.recording.recorder import Recorder
from crashlab.recording.replay import self_check

SECONDS_MAX = 60
DRAWN_OFFSET = jitter._HEAD.size + jitter._PLACE.size - 8
"""Of what was drawn for the first place of a page."""
REMOVE_MANY = f"""
import os, sys
page = os.open(sys.argv[1], os.O_RDONLY)
def remove(name):
    os.close(os.open(name, os.O_CREAT | os.O_RDWR))
    before = os.pread(page, 8, {DRAWN_OFFSET})
    os.unlink(name)
    after = os.pread(page, 8, {DRAWN_OFFSET})
    print(int.from_bytes(after, "little") - int.from_bytes(before, "little"), flush=True)
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        for n in range(40):
            remove(f"file{{n}}")
        os._exit(0)
    os.waitpid(child, 0)
"""
EVERY_OPERATION = """
import os
fd = os.open("a", os.O_CREAT | os.O_RDWR)
os.write(fd, b"one"); os.pwrite(fd, b"two", 5); os.writev(fd, [b"three"]); os.pwritev(fd, [b"four"], 9)
os.ftruncate(fd, 3); os.truncate("a", 2)
os.fsync(fd); os.fdatasync(fd)
os.rename("a", "b")
os.unlink("b")
os.close(os.open(os.environ["OUTSIDE"], os.O_CREAT | os.O_RDWR)); os.unlink(os.environ["OUTSIDE"])
try:
    os.unlink("never there")
except FileNotFoundError:
    pass
"""


class Scene:
    """A directory whose users are held, if they run under the library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = folder / "live"
        self.live.mkdir()
        self.recorder = Recorder.install(folder / "recorder")

    def page(self, *places: str, seed: int = 1, share: float = 1.0, between_ms: tuple[int, int] = (0, 0)) -> Page:
        """A page that is switched on, in the place of the one before."""
        path = self.folder / "page"
        path.unlink(missing_ok=True)
        page = Page(path, [Hold.parse(one) for one in places], seed=seed, share=share, between_ms=between_ms)
        page.on()
        return page

    def start(self, program: str, *arguments: str, log: Path | None = None) -> "subprocess.Popen[str]":
        own = {"PATH": os.environ["PATH"], "OUTSIDE": str(self.folder / "outside")}
        environment = own | self.recorder.environment(log, [self.live], self.folder / "page")
        command = [sys.executable, "-c", program, str(self.folder / "page"), *arguments]
        return subprocess.Popen(
            command, env=environment, cwd=self.live, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, program: str, *arguments: str) -> str:
        process = self.start(program, *arguments)
        output, errors = process.communicate(timeout=SECONDS_MAX)
        assert (process.returncode, errors) == (0, "")
        return output

    def draws(self, *places: str, seed: int, processes: int = 1) -> list[list[int]]:
        """What each process drew for its operations at the first place, in microseconds."""
        self.page(*places, seed=seed, share=0.5, between_ms=(0, 2))
        drawn = [int(line) for line in self.run(REMOVE_MANY, str(processes)).splitlines()]
        return [drawn[start : start + 40] for start in range(0, len(drawn), 40)]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_seed_decides_what_is_drawn(scene: Scene) -> None:
    """The same for the same operations, in each process something else; one place more changes no other."""
    first, second = scene.draws("before unlink", seed=7, processes=2)
    assert [first, second] == scene.draws("before unlink", seed=7, processes=2)
    assert first != second
    assert [first] == scene.draws("before unlink", "after unlink", "before create", seed=7)
    assert [first] != scene.draws("before unlink", seed=8)
    assert [first] != scene.draws("after unlink", seed=7)
    held = [us for us in first + second if us]
    assert 20 <= len(held) <= 60
    assert all(us <= 2000 for us in held)
    assert max(held) > 1500
    assert min(held) < 500


def test_each_operation_is_known_before_and_after(scene: Scene) -> None:
    """All calls below the directory, none outside of it, and nobody is held after what failed."""
    places = [f"{moment} {operation}" for operation in HELD_OPERATIONS for moment in MOMENTS]
    page = scene.page(*places)
    scene.run(EVERY_OPERATION)
    calls = {"create": 1, "write": 4, "truncate": 2, "rename": 1, "unlink": 1, "flush": 2}
    wanted = {place: calls[place.split()[1]] for place in places} | {"before unlink": 2}
    assert {one.place: one.met for one in page.held()} == wanted
    assert all(one.held == one.met and one.cut_off == 0 for one in page.held())


def test_classes_of_files_are_those_of_the_disk_model(scene: Scene) -> None:
    """The library names a file's class as `classify` does, whatever the path."""
    names = [
        "1259",
        "1259.1",
        "1259_fsm",
        "1259_fsm.2",
        "1259_vm",
        "1259_init",
        "1259_init.3",
        "1259_x",
        "12x",
        "t3_44",
    ]
    names += ["t3_44_fsm", "t3_", "pg_control", "pg_filenode.map", "pg_filenode.map.tmp", "PG_VERSION", "a.conf"]
    names += ["a.conf.tmp", "pgsql_tmp12.0", "pgsql_tmpx", "xlogtemp.17", "xlogtemp.", "0" * 24, "0" * 23, "A" * 25]
    names += ["00000001000000000000000A.partial", "00000002.history", "0000", "000g", ".conf", "conf"]
    folders = ["", "base", "base/5", "base/x", "global", "PG_18_1/7", "PG_18_1", "5/PG_18_1/7", "pg_wal", "pg_xact"]
    folders += ["pg_multixact/members", "pg_commit_ts", "pg_subtrans", "pg_notify", "pg_serial", "pg_twophase"]
    folders += ["pg_replslot/slot", "pg_logical/snapshots", "pg_tblspc", "pg_stat", "pg_stat_tmp", "pg_walx"]
    folders += ["base/pgsql_tmp", "base/pgsql_tmp/pgsql_tmp3.0", "base/pgsql_tmpy", "xpg_xact", "pg_tblspc/7/PG_18_1/5"]
    paths = [f"{folder}/{name}".lstrip("/") for folder in folders for name in names]
    classes = [one for one in FileClass if one is not FileClass.DIRECTORY]
    page = scene.page(*(f"after create of {one}" for one in classes))
    listed = scene.folder / "paths"
    listed.write_text("\n".join(paths))
    scene.run(
        "import os, sys\n"
        "for path in open(sys.argv[2]).read().split():\n"
        "    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)\n"
        "    os.close(os.open(path, os.O_CREAT | os.O_RDWR))\n",
        str(listed),
    )
    wanted = Counter(classify(f"pgdata/{path}") for path in paths)
    assert {one.place.split()[-1]: one.met for one in page.held()} == {str(one): wanted[one] for one in classes}
    assert all(wanted[one] for one in classes)


def test_a_directory_is_a_class_of_its_own(scene: Scene) -> None:
    """A flush of one, but not of a file in it."""
    page = scene.page("before flush of directory", "before flush of other")
    scene.run("import os; os.fsync(os.open('.', os.O_RDONLY))")
    assert [one.met for one in page.held()] == [1, 0]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(("moment", "there"), [("before", True), ("after", False)])
def test_who_is_held_stands_where_it_was_said_and_can_be_killed(
    scene: Scene, moment: str, there: bool, recorded: bool
) -> None:
    """For half a minute, before the file goes or after it; and no longer than until somebody kills it."""
    file, log = scene.live / "file", scene.folder / "io.log"
    file.touch()
    taken = base.take([scene.live], scene.folder / "base")
    iolog.create(log)
    page = scene.page(f"{moment} unlink", between_ms=(30_000, 30_000))
    begun = time.monotonic()
    for end in (signal.SIGKILL, signal.SIGTERM):
        before = page.held()[0].held
        file.touch()
        process = scene.start("import os; os.unlink('file')", log=log if recorded else None)
        while page.held()[0].held == before:
            assert process.poll() is None
            time.sleep(0.01)
        assert file.exists() is there
        if recorded:
            kinds = [operation.kind for operation in Decoder(log, taken.files)]
            assert kinds == ([] if there else [Kind.UNLINK])
            assert self_check(taken, log) == []
        process.send_signal(end)
        assert process.wait(SECONDS_MAX) == -end
        recorded = False  # a second program would need another base
    assert time.monotonic() - begun < 25
    (held,) = page.held()
    assert (held.met, held.held, held.cut_off, held.milliseconds) == (2, 2, 2, 60_000.0)


def test_nobody_is_held_while_the_page_is_off(scene: Scene) -> None:
    """Nor met; and not without its variable."""
    page = scene.page("before unlink", between_ms=(30_000, 30_000))
    page.off()
    scene.run("import os; open('file', 'w').close(); os.unlink('file')")
    page.wait_until_free()
    page.on()
    (scene.live / "file").touch()
    environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(scene.recorder.library)}
    subprocess.run(["rm", "file"], env=environment, cwd=scene.live, timeout=20, check=True)
    assert [(one.met, one.held) for one in page.held()] == [(0, 0)]


def test_a_held_time_is_waited_out(scene: Scene) -> None:
    """At least as long as was drawn, by the program's own clock; with a share of 0 nobody is held."""
    program = (
        "import os, time\nopen('file', 'w').close(); begun = time.monotonic(); os.unlink('file')\n"
        "print(time.monotonic() - begun)"
    )
    page = scene.page("before unlink", "after unlink", between_ms=(100, 200))
    waited_s = float(scene.run(program))
    assert waited_s >= sum(one.milliseconds for one in page.held()) / 1000 >= 0.2
    page = scene.page("before unlink", "after unlink", share=0.0, between_ms=(30_000, 30_000))
    assert float(scene.run(program)) < 20
    assert [(one.met, one.held, one.milliseconds) for one in page.held()] == [(1, 0, 0.0)] * 2


def test_a_page_that_cannot_be_used_ends_the_program(scene: Scene) -> None:
    """Never run without what was asked for."""
    scene.page("before unlink")
    path = scene.folder / "page"
    path.write_bytes(path.read_bytes().replace(b"jitter1", b"jitter0"))
    process = scene.start("pass")
    assert "not one of this version" in process.communicate(timeout=SECONDS_MAX)[1]
    path.unlink()
    process = scene.start("pass")
    assert "could not open the page" in process.communicate(timeout=SECONDS_MAX)[1]
    assert process.returncode == 134
