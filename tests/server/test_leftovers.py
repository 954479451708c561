"""A kill -9 at any moment, then `clean`: nothing of the dead is left, and nothing of the living is touched."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from crashlab.server import ServerSpec, create_server, deadruns, leftovers, owned, processes
from crashlab.server.owner import Owner, this_process
from tests.conftest import IMAGE
from tests.server.killed import KilledRun

LIVE = ["-m", "crashlab", "run", "kill9-all", "--trials", "200", "--server", "local", "-j", "1"]
RECORDED = ["-m", "crashlab", "run", "power-loss", "--trials", "200", "--server", "local", "-j", "1"]
POOL = [*LIVE[:-1], "2"]
POOL_RECORDED = [*RECORDED[:-1], "2"]
IN_CONTAINERS = ["-m", "crashlab", "run", "kill9-all", "--trials", "200", "--image", IMAGE, "-j", "1"]
RECORDED_IN_CONTAINER = ["-m", "crashlab", "run", "power-loss", "--trials", "200", "--image", IMAGE, "-j", "1"]

STEPS_TRIED = 6

# Dies at its n-th step that changes something outside of itself, or says how many steps there are.
STEPS = """
import os, signal, sys
wanted, steps = int(sys.argv[1]), 0
CHANGES = {"os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.chown", "os.chmod", "subprocess.Popen", "os.kill"}
def step(event, args):
    global steps
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
    if event in CHANGES or writes:
        steps += 1
        if steps == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
from crashlab.server import ServerSpec, SpareDirectories, create_server
with SpareDirectories() as spares:
    sys.addaudithook(step)
    for _ in range(2):
        with create_server(ServerSpec(kind="local"), spares=spares) as server:
            server.start()
            with server.connect(autocommit=True) as connection:
                connection.execute("CREATE TABLE t (i int)")
            server.kill_all()
            server.start()
print(steps)
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder that the server's user can reach."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="crashlab-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process see and keep no lists but those that a test forges, and return where."""
    monkeypatch.setattr(owned, "RUNS_ROOT", tmp_path)
    monkeypatch.setattr(owned, "_list", None)
    folder = owned.runs_folder()
    folder.mkdir(mode=0o700)
    return folder


def dead() -> Owner:
    """A process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = processes.stat(child.pid)
    assert stat is not None
    child.communicate(b"\n")
    return replace(this_process(), pid=child.pid, start=stat.start)


def clean(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "crashlab", "clean", *options], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def no_other_cleaner(pid: int) -> Iterator[None]:
    """Keep the runs of other tests, each of which removes what the dead left, from what this process made."""
    (run,) = owned.runs_folder().glob(f"{pid}-*.jsonl")
    with run.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def moment(seed: int, low_s: float, high_s: float) -> float:
    return Random(seed).uniform(low_s, high_s)


# Killed for real


@pytest.mark.server
@pytest.mark.parametrize(
    ("words", "after_s"),
    [
        *(pytest.param(LIVE, moment(seed, 0.8, 3.5), id=f"live-{seed}") for seed in range(4)),
        *(pytest.param(RECORDED, moment(seed, 1.0, 7.0), id=f"recorded-{seed}") for seed in range(4)),
        pytest.param(POOL, moment(0, 1.0, 7.0), id="pool-live"),
        pytest.param(POOL_RECORDED, moment(1, 1.0, 7.0), id="pool-recorded"),
        pytest.param(IN_CONTAINERS, moment(1, 1.5, 3.0), marks=pytest.mark.container, id="containers-1"),
        pytest.param(IN_CONTAINERS, moment(2, 3.0, 8.0), marks=pytest.mark.container, id="containers-2"),
        pytest.param(RECORDED_IN_CONTAINER, moment(1, 2.0, 14.0), marks=pytest.mark.container, id="in-container-1"),
        pytest.param(RECORDED_IN_CONTAINER, moment(2, 2.0, 14.0), marks=pytest.mark.container, id="in-container-2"),
    ],
)
def test_clean_leaves_nothing_of_a_killed_run(
    words: list[str], after_s: float, temporary: Path, tmp_path: Path
) -> None:
    """Processes, folders, segments, sockets, containers, volumes: what was ever seen of the run is gone."""
    words = [*words, "--seed", "5", "--out", str(tmp_path / "out")]
    with KilledRun(words, temporary, tmp_path / "out", containers=IMAGE in words) as run:
        run.kill(after_s)
        clean("--yes")
        assert run.left() == []


@pytest.mark.server
def test_the_next_run_removes_what_a_killed_one_left(temporary: Path, tmp_path: Path) -> None:
    """Quietly, as it starts: no clean is needed."""
    with KilledRun([*LIVE, "--out", str(tmp_path / "out")], temporary, tmp_path / "out") as run:
        while not run.segments:
            time.sleep(0.1)
        run.kill(0)
        assert run.left() != []
        again = ["run", "kill9-all", "--trials", "1", "--server", "local", "--out", str(tmp_path / "again")]
        done = subprocess.run([sys.executable, "-m", "crashlab", *again], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(temporary) not in done.stdout + done.stderr
        assert run.left() == []


@pytest.mark.server
def test_a_kill_at_any_step_of_a_server_leaves_nothing_after_clean(temporary: Path, tmp_path: Path) -> None:
    """Every kind of step that changes the world outside: before each of a spread of them, the process dies."""
    counted = subprocess.run(
        [sys.executable, "-c", STEPS, "0"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    count = int(counted)
    assert count > 50
    for number in sorted(Random(8).sample(range(1, count + 1), STEPS_TRIED)):
        with KilledRun(["-c", STEPS, str(number)], temporary, tmp_path / "out") as run:
            run.wait_killed()
            clean("--yes")
            assert run.left() == [], f"killed before step {number} of {count}"


def lasting(left: list[str], postmaster: str) -> list[str]:
    """Return what does not end by itself: of a server's processes, some come and go."""
    return [one for one in left if one == postmaster or not one.startswith("process ")]


@pytest.mark.server
def test_what_a_living_run_has_made_is_not_shown_and_not_removed(temporary: Path, tmp_path: Path) -> None:
    """The innocent twin: the same run is untouched while it lives, and is all gone once it is dead."""
    program = "import time\nfrom crashlab.server import *\ns = create_server(ServerSpec(kind='local'))\ns.start()\n"
    program += "print(s.processes()[0].pid, flush=True)\ntime.sleep(600)"
    with KilledRun(["-c", program], temporary, tmp_path / "out") as run:
        while not run.said():
            time.sleep(0.05)
        run.look()
        postmaster = f"process {run.said().strip()}"
        before = lasting(run.left(), postmaster)
        assert postmaster in before
        assert str(temporary) not in clean()
        assert str(temporary) not in clean("--yes")
        leftovers.sweep()
        assert lasting(run.left(), postmaster) == before
        with no_other_cleaner(run.program.pid):
            run.kill(0)
            assert str(temporary) in clean()
            assert lasting(run.left(), postmaster) == before  # shown only
        clean("--yes")
        assert run.left() == []


# Forged, unlucky and damaged lists


def forge(runs: Path, owner: Owner, *entries: tuple[str, str]) -> Path:
    lines = [owned._line("made", entry) for entry in entries]
    path = runs / f"{owner.pid}-{owner.start}.jsonl"
    path.write_bytes(f"{owner.text()}\n".encode() + b"".join(lines))
    return path


def folder_of(parent: Path, owner: Owner, name: str = "crashlab-0123456789ab") -> Path:
    folder = parent / name
    folder.mkdir()
    (folder / owned.MARKER).write_text(owner.text())
    (folder / "content").write_text("something")
    return folder


def test_a_list_removes_nothing_that_does_not_say_whose_it_is(runs: Path, tmp_path: Path) -> None:
    """The guilty twin beside it goes: a folder of the dead process."""
    owner, other = dead(), dead()
    own = folder_of(tmp_path, owner)
    foreign = tmp_path / "crashlab-foreign"
    foreign.mkdir()
    (foreign / "content").write_text("precious")
    others = folder_of(tmp_path, other, "crashlab-others")
    misnamed = folder_of(tmp_path, owner, "home")
    link = tmp_path / "crashlab-link"
    link.symlink_to(misnamed)
    inside = tmp_path / "crashlab-inside"
    inside.mkdir()
    (inside / "deeper").symlink_to(foreign)
    (inside / owned.MARKER).write_text(owner.text())
    empty = tmp_path / "empty"
    empty.mkdir()
    paths = ["/etc", "/", "crashlab-relative", f"{tmp_path}/x/../crashlab-foreign"]
    paths += [str(path) for path in (own, foreign, others, misnamed, link, inside, empty)]
    shared = Path("/dev/shm/PostgreSQL.4000000001")
    shared.write_text("another's")
    try:
        segments = [("posix segment", f"{shared} {shared.stat().st_ino + 1}"), ("posix segment", "/etc/passwd 1")]
        segments += [("sysv segment", "1 2 3"), ("sysv segment", "x y"), ("posix segment", str(shared))]
        listing = forge(runs, owner, *(("folder", path) for path in paths), *segments)
        listing.write_bytes(listing.read_bytes() + b'["made", "fol')
        (run,) = deadruns.dead_runs()
        assert {one.text() for one in leftovers.find(run)} == {str(own), str(inside)}
        leftovers.sweep()
        assert shared.exists()
    finally:
        shared.unlink()
    assert not own.exists()
    assert not inside.exists()
    assert not listing.exists()
    assert all(path.exists() for path in (foreign / "content", others / "content", misnamed / "content", link, empty))
    assert Path("/etc/passwd").exists()


def test_a_list_that_another_user_could_have_written_is_not_believed(runs: Path, tmp_path: Path) -> None:
    """A folder of lists open to all; a list or a marker of another user (who only root can play)."""
    owner = dead()
    folder = folder_of(tmp_path, owner)
    listing = forge(runs, owner, ("folder", str(folder)))
    runs.chmod(0o777)
    leftovers.sweep()
    assert folder.exists()
    runs.chmod(0o700)
    if os.geteuid() == 0:
        for forged in (folder / owned.MARKER, listing):
            forge(runs, owner, ("folder", str(folder)))
            os.chown(forged, 65534, 65534)
            leftovers.sweep()
            assert folder.exists()
            os.chown(forged, 0, 0)
            runs.mkdir(mode=0o700, exist_ok=True)
    leftovers.sweep()
    assert not folder.exists()


def test_a_folder_in_which_a_living_process_works_stays(runs: Path, tmp_path: Path) -> None:
    """A worker may outlive for a moment the process whose folder it works in."""
    owner = dead()
    outer = folder_of(tmp_path, owner)
    listing = forge(runs, owner, ("folder", str(outer)))
    inner = owned.make_folder(outer)
    leftovers.sweep()
    assert inner.exists()
    assert listing.exists()
    owned.remove_folder(inner)
    leftovers.sweep()
    assert not outer.exists()
    assert not listing.exists()


def test_only_who_is_dead_for_certain_is_dead() -> None:
    """A number that was given again is another process; a process elsewhere cannot be judged from here."""
    here = this_process()
    assert here.life() == "alive"
    assert dead().life() == "dead"
    assert replace(here, start=here.start + 1).life() == "dead"
    assert replace(here, boot="before").life() == "dead"
    assert replace(here, boot="before", host="another").life() == "unknown"
    assert replace(here, pid_space="pid:[1]").life() == "unknown"
    assert Owner.parse(here.text()) == here
    for text in ("", "[]", "{}", here.text()[:-9], here.text().replace(str(here.pid), f'"{here.pid}"')):
        assert Owner.parse(text) is None


def test_a_zombie_is_dead() -> None:
    """Whoever started a killed run may not have looked yet."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = processes.stat(child.pid)
    assert stat is not None
    owner = replace(this_process(), pid=child.pid, start=stat.start)
    assert owner.life() == "alive"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert owner.life() == "dead"
    child.wait()


# The lists themselves


def test_a_forked_child_has_a_list_of_its_own(runs: Path, tmp_path: Path) -> None:
    """It neither writes to its parent's, nor removes anything of it; and the parent's goes with its last thing."""
    mine = owned.make_folder(tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert owned.listed() == []
            owned.forget("folder", str(mine))
            owned.make_folder(tmp_path)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(runs.iterdir())) == 2
    (run,) = deadruns.dead_runs()
    assert run.owner.pid == child
    leftovers.sweep()
    assert mine.exists()
    assert owned.listed() == [("folder", str(mine))]
    owned.remove_folder(mine)
    assert not runs.exists()


def test_a_long_run_keeps_its_list_short(runs: Path) -> None:
    """What came and went does not stay on it; what is there does."""
    owned.note("container", "stays")
    for number in range(5000):
        owned.note("container", str(number))
        owned.forget("container", str(number))
    (path,) = runs.iterdir()
    assert path.stat().st_size < 50_000
    run = deadruns.read(path)
    assert run is not None
    assert run.entries == [("container", "stays")]
    owned.forget("container", "stays")
    assert not runs.exists()


@pytest.mark.server
def test_a_look_for_dead_runs_costs_a_start_nothing() -> None:
    """Beside a living run, less than 10 ms."""
    with create_server(ServerSpec(kind="local")):
        leftovers.sweep()
        took_s = []
        for _ in range(5):
            begun = time.perf_counter()
            leftovers.sweep()
            took_s.append(time.perf_counter() - begun)
        assert min(took_s) < 0.010
