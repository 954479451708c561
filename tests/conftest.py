"""What does a test need from this machine, and does it have it? And how do the tests share its cores and its memory?

A test marked `server` needs a local PostgreSQL build, one marked `container` a Docker engine and its image
(`container("postgres:15.3")`; without an argument IMAGE), one marked `kernel` root and a file system that can be
mounted and cut off (`kernel("ext4")`), one marked `browser` chromium and Playwright. Where that is missing the test is
skipped with the reason, unless CRASHLAB_REQUIRE names it (a comma list: "server,container,kernel,browser"; "local"
means "server"): then it fails.

A test marked `long` is left out unless somebody asks for it: see long.py.

Without `-n` three workers run for two cores (pytest-xdist), as many tests wait for a server or a program; a run of
named tests needs none.

Temporary folders lie in memory where there is enough of it: ext4 takes longer to make and remove a thousand files for
each data directory than the server that works there (see crashlab/server/spares.py).
"""

import functools
import gc
import importlib.util
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import hypothesis
import psutil
import pytest

from crashlab.errors import RecordingError, ServerError
from crashlab.server import Server, ServerSpec, create_server
from tests.examples import examples
from tests.long import LONG, SHORT, is_long

IMAGE = "postgres:17"
SLOW = ("server", "container", "kernel", "browser")
"""The markers of tests that are not quick."""
ALONE = ("container", "kernel")
"""The markers of tests that look at all containers and volumes, or all loop devices: never two of a kind at once."""
GROUPS = {
    "tests/power/test_confusion.py": "confusion",
    "tests/recording/test_container_recording.py": "container",
    "tests/server/test_container.py": "container",
    "tests/server/test_leftovers.py": "container",
    "tests/fault/test_in_containers.py": "container",
    "tests/server/test_recover_containers.py": "container",
    "tests/trial/test_firststart.py": "container",
    "tests/power/test_interrupts.py": "container",  # both clean up after dead runs
    "tests/test_cli_clean.py": "container",
    "tests/testing/test_given_container.py": "container",
    "tests/test_pytest_plugin.py": "container",
    "tests/recording/test_real_kernel.py": "kernel",
    "tests/flush/test_powercut.py": "kernel",
    "tests/power/test_one_flush.py": "one flush",
    "tests/test_cli_recorded.py": "recorded",
    "tests/exploration/test_images.py": "images",
    "tests/report/test_in_browser.py": "browser",
    "tests/power/test_strangers.py": "strangers",
    "tests/test_layers.py": "layers",
}
"""File -> the group whose tests one worker runs, one after the other: they share something, or must be alone."""
MEMORY = Path("/dev/shm")
MEMORY_MIN_BYTES = 4 << 30
"""Two workers had at most 0.8 GB in use at a time, measured over all tests with servers."""

# A busy machine is no fault of the code. To explain an example that failed takes as long as to find it
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("crashlab-tests", deadline=None, max_examples=examples(50), phases=PHASES)
hypothesis.settings.load_profile("crashlab-tests")


def in_memory() -> Path | None:
    """Return a folder in memory for this user's temporary files; None if there is none of use."""
    try:
        # In many containers it has this flag; but the recorder's library is loaded from such a folder.
        if os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
            return None
        free = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available)
        folder = MEMORY / f"tests-of-crashlab-{os.getuid()}"
        folder.mkdir(mode=0o755, exist_ok=True)
        folder.chmod(0o755)  # the server's user has to reach what is in it; fails if the folder is somebody else's
    except OSError:
        return None
    return folder if free >= MEMORY_MIN_BYTES else None


if "TMPDIR" not in os.environ and (_folder := in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_folder)  # of workers and of started programs, too
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    # Hundreds of Pythons are started: half of what most of them do would be to compile crashlab once more
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = str(Path(tempfile.gettempdir()) / "bytecode")
    sys.dont_write_bytecode = False  # and this one, which would compile all tests
for _command in ("RUN", "EXPLORE", "MATRIX", "BISECT", "TRADEOFF"):
    # The tests themselves keep all processors at work. Whatever needs several processes of crashlab says -j 2
    os.environ.setdefault(f"CRASHLAB_{_command}_WORKERS", "1")
gc.disable()  # until all is collected: what is imported stays


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the fixture `golden`."""
    parser.addoption("--update-golden", action="store_true", help="write the stored texts anew instead of comparing")


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Choose the number of workers where nobody did; not in addopts, so that `-p no:xdist` works as well."""
    option = config.option
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        few = any(getattr(option, name, None) for name in ("keyword", "lf", "usepdb"))  # plugins may be off
        single = few or any("::" in word for word in config.args)
        if option.numprocesses is None and option.dist == "no":
            option.numprocesses = 0 if single or option.collectonly else 3 * len(os.sched_getaffinity(0)) // 2
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each group of files to one worker, everything else test by test, in the order of collection.

    Not by xdist's mark for groups: since pytest 9.2 xdist 3.8 overlooks it (pytest-xdist issue 1386).
    """
    if config.option.dist != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
        def _split_scope(self, nodeid: str) -> str:
            return GROUPS.get(nodeid.split("::")[0], nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put groups first, then other slow tests, so that quick ones fill up the end."""
    if gone := [file for file in GROUPS if not (config.rootpath / file).exists()]:
        raise pytest.UsageError(f"GROUPS in tests/conftest.py names files that are not there: {', '.join(gone)}")
    if gone := [name for name in (*LONG, *SHORT) if not exists(config.rootpath, name)]:
        raise pytest.UsageError(f"tests/long.py names tests that are not there: {', '.join(gone)}")
    order = [*GROUPS, *SLOW]

    def rank(item: pytest.Item) -> int:
        file = item.nodeid.split("::")[0]
        for name in ALONE:
            if item.get_closest_marker(name) and GROUPS.get(file) != name:
                raise pytest.UsageError(f"{file} has tests marked {name}: add it to GROUPS in tests/conftest.py")
        names = {file, *(name for name in SLOW if item.get_closest_marker(name))}
        return next((number for number, name in enumerate(order) if name in names), len(order))

    items.sort(key=rank)
    leave_out_long(config, items)


def pytest_collection_finish() -> None:
    """Let no garbage collection look again at what stays to the end: a fifth of a second each time."""
    gc.freeze()
    gc.enable()


def exists(root: Path, name: str) -> bool:
    """Whether there is a file of this name, and a test function if it names one."""
    file, _, test = name.partition("::")
    path = root / file
    return path.exists() and (not test or f"def {test.partition('[')[0]}(" in path.read_text(encoding="utf-8"))


def leave_out_long(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the long tests, and leave them out where nobody asked for them: by the mark, a name or a file."""
    left_out = [item for item in items if is_long(item.nodeid)]
    for item in left_out:
        item.add_marker("long")
    option = config.option
    named = any("::" in word or word.endswith(".py") for word in config.args)
    if named or option.keyword or getattr(option, "lf", False) or "long" in option.markexpr:
        return
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not is_long(item.nodeid)]


@functools.cache
def missing_build() -> str | None:
    """Say why no local server can run here, or None."""
    from crashlab.server.builds import find_build

    try:
        return None if find_build() else "no PostgreSQL build on this machine"
    except ServerError as error:
        return str(error)


@functools.cache
def missing_image(image: str) -> str | None:
    """Say why no container of this image can run here without fetching it, or None."""
    from crashlab.server.engine import docker_problem

    problem = docker_problem()
    if problem is not None:
        return str(problem)
    import docker
    from docker.errors import ImageNotFound

    client = docker.from_env()
    try:
        client.images.get(image)
    except ImageNotFound:
        return f"no image {image} on this machine"
    finally:
        client.close()
    return None


@functools.cache
def missing_kernel(kind: Literal["ext4", "xfs"]) -> str | None:
    """Say why no file system of this kind can be mounted, cut off and mounted again here, or None."""
    from crashlab.recording.kernelcut import LoopDisk

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        try:
            with LoopDisk(Path(folder) / "disk", kind) as disk:
                disk.cut()
                disk.remount()
        except RecordingError as error:
            return str(error)
    return None


def chromium() -> str | None:
    """Return Debian's chromium; None: there is none."""
    return shutil.which("chromium")


@functools.cache
def missing_browser() -> str | None:
    """Say why no page can be looked at here, or None."""
    if importlib.util.find_spec("playwright") is None or importlib.util.find_spec("axe_playwright_python") is None:
        return "no Playwright or axe here: pip install '.[test]'"
    return None if chromium() else "no chromium on this machine: apt-get install -y chromium"


def required() -> set[str]:
    """Return what CRASHLAB_REQUIRE says must not be skipped."""
    words = os.environ.get("CRASHLAB_REQUIRE", "").replace("local", "server").split(",")
    return {word.strip() for word in words if word.strip()}


def pytest_report_header() -> list[str]:
    """Say at once what this machine cannot run, and why; the kernel's file systems are tried only when needed."""
    problems = {"server": missing_build(), "container": missing_image(IMAGE), "browser": missing_browser()}
    if os.environ.get("CRASHLAB_TEST_BUILDS") is None:
        problems["old releases"] = "CRASHLAB_TEST_BUILDS does not name a folder of builds"
    return [
        f"crashlab: skipped are the tests that need {name}: {problem.splitlines()[0]}"
        for name, problem in problems.items()
        if problem is not None and name not in required()
    ]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose server cannot run here."""
    for marker in item.iter_markers("server"):
        _demand("server", missing_build(), marker)
    for marker in item.iter_markers("container"):
        _demand("container", missing_image(marker.args[0] if marker.args else IMAGE), marker)
    for marker in item.iter_markers("kernel"):
        _demand("kernel", missing_kernel(marker.args[0]), marker)
    for marker in item.iter_markers("browser"):
        _demand("browser", missing_browser(), marker)


def _demand(name: str, problem: str | None, marker: pytest.Mark) -> None:
    if problem is None:
        return
    if name in required():
        pytest.fail(f"CRASHLAB_REQUIRE names {name}, but: {problem}", pytrace=False)
    pytest.skip(problem)


@pytest.fixture
def local_server() -> Iterator[Server]:
    """A started local server of the build found first, disposed of afterwards."""
    with create_server(ServerSpec(kind="local")) as server:
        server.start()
        yield server


@pytest.fixture
def container_server() -> Iterator[Server]:
    """A started container of IMAGE, disposed of afterwards."""
    with create_server(ServerSpec(kind="container", image=IMAGE)) as server:
        server.start()
        yield server


@pytest.fixture
def image_with() -> Iterator[Callable[[str], str]]:
    """Makes images of IMAGE with more in their description; removed afterwards."""
    import docker

    client = docker.from_env()
    made: list[str] = []

    def make(lines: str) -> str:
        tag = f"crashlab-test-image-{os.getpid()}:{len(made)}"
        client.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\n{lines}\n".encode()), tag=tag, rm=True)
        made.append(tag)
        return tag

    try:
        yield make
    finally:
        for tag in made:
            client.images.remove(tag, force=True)
        client.close()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a stored one; with --update-golden write that anew first."""

    def compare(stored: Path, text: str) -> None:
        if request.config.getoption("update_golden"):
            stored.write_text(text, encoding="utf-8")
        assert text == stored.read_text(encoding="utf-8"), f"if it shall be so: pytest --update-golden -k {stored.stem}"

    return compare
