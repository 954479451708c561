"""How does a project test its own durability with pytest?

    def test_orders_survive(crash):
        shop = Shop(crash.url)                 # any driver; unchanged code
        with crash:                            # somewhere in here the server dies
            for n in range(20):
                crash.told(shop.order(n))      # what the application told its user
        crash.check("SELECT id FROM orders")   # told means there; and nothing is damaged

`@pytest.mark.crashlab(points="commits")` runs it once for each moment (`testing.sweep`). Beside it, for single
transactions of which every row is compared:

    def test_order_survives(crash_server, crash_ledger):
        with crash_server.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, item text)")
            with crash_ledger.transaction(connection) as transaction:
                connection.execute("INSERT INTO orders VALUES (1, 'book')")
                transaction.changed("orders", id=1)
        crash_ledger.crash()
        crash_ledger.check()

`crash_ledger.watch("orders")` finds the changed rows by itself; `crash_ledger.invariant(name, query)` takes a query
that must return no rows.

Only pytest is imported here: psycopg and the servers come with the first fixture that is used.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crashlab.errors import CrashlabError
from crashlab.seeds import derive, new_seed
from crashlab.testing import sweep

if TYPE_CHECKING:
    from crashlab.model import Injection, Verdict
    from crashlab.observer import Observer
    from crashlab.profile import Profile
    from crashlab.server import Server, SpareDirectories
    from crashlab.testing import Crash
    from crashlab.trial.application import ApplicationTrial

DEFAULT_PROFILE = "kill9-all"
SHUT_DOWN = (
    "crashlab: the server had shut down before it was killed: nothing was to be recovered, "
    "so nothing is known of a crash"
)
SERVER_OPTIONS = {"--crashlab-server": "kind", "--crashlab-image": "image", "--crashlab-pg-bindir": "pg_bindir"}
"""Each option that chooses the server, and the field of ServerChoice that it fills."""
SEED = pytest.StashKey[int]()
WORKER_SEED = "crashlab_seed"
REPRODUCE = pytest.StashKey[str]()
PASSED = pytest.StashKey[bool]()
SPARES: pytest.StashKey[SpareDirectories] = pytest.StashKey()
OBSERVER: pytest.StashKey[Observer] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the options that choose a server."""
    load_as_it_is(pluginmanager)
    group = parser.getgroup("crashlab", "crash-recovery testing with PostgreSQL")
    group.addoption(
        "--crashlab-server",
        choices=("auto", "local", "container"),
        default="auto",
        help="where crash_server runs PostgreSQL (default: auto)",
    )
    group.addoption("--crashlab-image", metavar="IMAGE", help="container image, such as postgres:17")
    group.addoption("--crashlab-pg-bindir", metavar="DIR", type=Path, help="bin directory of a local build")
    group.addoption(
        "--crashlab-point",
        metavar="POINT",
        help="the one moment at which the server of the fixture crash dies, as a failed test named it",
    )
    group.addoption(
        "--crashlab-state",
        metavar="STATE",
        help="the one crash state, of a recording that is there, at which the test looks, as a failed test named it",
    )
    group.addoption("--crashlab-seed", metavar="SEED", type=int, help="root seed (default: a new one, printed)")


def load_as_it_is(pluginmanager: pytest.PytestPluginManager) -> None:
    """Keep pytest from rewriting the assertions of crashlab, none of which is a test's.

    pytest does so with the whole package of each plugin, and has no other way to decline but a word in each module;
    it took a fifth of the CPU time of a run of one test.
    """
    names = getattr(pluginmanager.rewrite_hook, "_must_rewrite", None)
    if isinstance(names, set):
        names.discard(__name__.partition(".")[0])


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and fix the seed."""
    config.addinivalue_line(
        "markers",
        "crashlab(profile, points, limit, states, disk, settings): name or path of the fault profile whose settings and"
        f' faults are used (default: "{DEFAULT_PROFILE}"); for the fixture crash: at which moments the server dies '
        '("commits", "statements", "all", or once at "random"), and at how many of them; with a profile that cuts the '
        "power, at how many crash states, and on which disk; more settings of the server",
    )
    seed = config.getoption("--crashlab-seed")
    if seed is None:  # a worker of pytest-xdist has the one that its parent printed
        seed = getattr(config, "workerinput", {}).get(WORKER_SEED)
    config.stash[SEED] = new_seed() if seed is None else seed


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the seed to a worker of pytest-xdist."""
    node.workerinput[WORKER_SEED] = node.config.stash[SEED]


def pytest_report_header(config: pytest.Config) -> str:
    """Say which server and seed are used."""
    image, bindir = config.getoption("--crashlab-image"), config.getoption("--crashlab-pg-bindir")
    where = image or bindir or config.getoption("--crashlab-server")
    return f"crashlab: server {where}, seed {config.stash[SEED]}"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test whose marker says what it cannot mean, and no other one."""
    with _in_words():
        sweep.arguments(item)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Fail with what an error says, and without the way to it."""
    try:
        yield
    except CrashlabError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each worker its share of a sweep."""
    sweep.generate_shares(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a swept test once a moment."""
    if not sweep.is_swept(item):
        return None
    assert isinstance(item, pytest.Function)
    sweep.run_sweep(item, nextitem, derive(item.config.stash[SEED], sweep.plain_nodeid(item)))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """End the report of a failed test with the command that runs it again; say what never came: a moment, a crash."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
        crash = getattr(item, "funcargs", {}).get("crash")
        if report.passed and crash is not None:
            sweep.tell_missed(item, crash, report)
        ledger = getattr(item, "funcargs", {}).get("crash_ledger")
        if report.passed and ((crash and crash.proves_nothing) or (ledger and ledger.trial.nothing_due)):
            sweep.tell_skipped(item, report, SHUT_DOWN)
        again = item.stash.get(REPRODUCE, None) if crash is None else crash.reproduce
        if report.failed and again and again not in str(report.longrepr):
            report.sections.append(("crashlab", f"reproduce with: {again}"))
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the tests shared."""
    if OBSERVER in config.stash:
        config.stash[OBSERVER].dispose()
    if SPARES in config.stash:
        config.stash[SPARES].dispose()


def chosen_server(config: pytest.Config) -> list[tuple[str, Any]]:
    """Return the options that chose the server, with their values."""
    given = [(option, config.getoption(option)) for option in SERVER_OPTIONS]
    return [(option, value) for option, value in given if value not in (None, "auto")]


@pytest.fixture
def crashlab_profile(request: pytest.FixtureRequest) -> Profile:
    """The fault profile that the test's marker names."""
    from crashlab.trial.acceptance import changed_for_a_test, for_a_test

    asked = sweep.arguments(request.node)
    recorded = "crash" in request.fixturenames and "crash_ledger" not in request.fixturenames
    with _in_words():
        profile = changed_for_a_test(asked["profile"] or DEFAULT_PROFILE, asked["disk"], asked["settings"])
        return for_a_test(profile, recorded=recorded)


@pytest.fixture
def crashlab_own_server() -> Any:
    """None. Override it with a server of yours that `crash` is to kill: a container, or `postgresql_proc`, say."""
    return None


@pytest.fixture
def crash_server(
    request: pytest.FixtureRequest, crashlab_profile: Profile, crashlab_own_server: Any
) -> Iterator[Server]:
    """A disposable server that is up, with the profile's settings; gone after the test."""
    if crashlab_own_server is not None:
        from crashlab.server.given import given_server

        with _in_words():
            given = given_server(crashlab_own_server)
        with given:
            yield given
        return
    from crashlab.server import ServerChoice, SpareDirectories, create_server
    from crashlab.server.leftovers import sweep as sweep_leftovers
    from crashlab.testing.powercut import start_for
    from crashlab.trial.intest import spec_in_test

    config = request.config
    if SPARES not in config.stash:
        config.stash[SPARES] = SpareDirectories()
        sweep_leftovers()
    choice = ServerChoice(**{SERVER_OPTIONS[option]: value for option, value in chosen_server(config)})
    with contextlib.ExitStack() as stack:
        with _in_words():
            server = create_server(spec_in_test(crashlab_profile, choice), spares=config.stash[SPARES])
            stack.enter_context(server)
            start_for(server, crashlab_profile)
        yield server


@pytest.fixture
def crash(
    request: pytest.FixtureRequest, crash_server: Server, crashlab_profile: Profile, tmp_path: Path
) -> Iterator[Crash]:
    """A server that is to die, seen through an observer; see `crashlab.testing.Crash`."""
    from crashlab.testing import Crash

    node, root = request.node, request.config.stash[SEED]
    asked = sweep.arguments(node)
    nodeid = sweep.plain_nodeid(node)
    folder = tmp_path / "crashlab"
    folder.mkdir()
    with _in_words():
        crash = Crash(
            crashlab_profile,
            server=crash_server,
            observer=_observer(request.config, folder),
            seed=derive(root, nodeid),
            folder=folder,
            point=node.stash.get(sweep.POINT, request.config.getoption("--crashlab-point")),
            points=asked["points"],
            states=asked["states"],
            state=request.config.getoption("--crashlab-state"),
            reproduce=reproduce_command(request.config, nodeid),
        ).start()
    node.stash[REPRODUCE] = crash.reproduce
    with contextlib.closing(crash):
        yield crash
        if asked["points"] != "random" and crash.point is None:
            node.stash[sweep.FOUND] = crash.points(asked["points"])
        if node.stash.get(PASSED, False):
            with _in_words():
                crash.require_checked()
            crash.forget_recordings()


def _observer(config: pytest.Config, folder: Path) -> Observer:
    """One observer for all tests, one after the other; another one should it have ended."""
    from crashlab.observer import Observer, Upstream

    if OBSERVER in config.stash and config.stash[OBSERVER].running:
        return config.stash[OBSERVER]
    config.stash[OBSERVER] = Observer(Upstream("localhost", 1), folder / "conversation.jsonl", folder=folder)
    return config.stash[OBSERVER]


def reproduce_command(config: pytest.Config, nodeid: str) -> str:
    """Return the command that runs a test again."""
    chosen = [f"{option}={shlex.quote(str(value))}" for option, value in chosen_server(config)]
    path, _, rest = nodeid.partition("::")  # seen from pytest's root folder
    here = f"{os.path.relpath(config.rootpath / path, config.invocation_params.dir)}::{rest}"
    return " ".join(["pytest", shlex.quote(here), *chosen, f"--crashlab-seed={config.stash[SEED]}"])


@pytest.fixture
def crash_ledger(
    request: pytest.FixtureRequest, crash_server: Server, crashlab_profile: Profile, tmp_path: Path
) -> Iterator[CrashLedger]:
    """What the application was told, and the judgement of what came back."""
    from crashlab.trial.application import ApplicationTrial

    root = request.config.stash[SEED]
    reproduce = reproduce_command(request.config, request.node.nodeid)
    request.node.stash[REPRODUCE] = reproduce
    folder = tmp_path / "crashlab"
    folder.mkdir()
    seed = derive(root, request.node.nodeid)
    trial = ApplicationTrial(crash_server, crashlab_profile, seed=seed, folder=folder, reproduce=reproduce)
    ledger = CrashLedger(trial)
    yield ledger
    trial.close()
    if request.node.stash.get(PASSED, False) and not ledger.checked:
        pytest.fail(
            "crashlab: nobody checked what the crash left, so this test has tested nothing\n"
            "Hint: End the test with crash_ledger.crash() and crash_ledger.check().",
            pytrace=False,
        )


class CrashLedger:
    """The fixture's face: `transaction`, `watch`, `invariant`, `crash`, `check`."""

    def __init__(self, trial: ApplicationTrial) -> None:
        self.trial = trial
        self.checked = False
        self.transaction = trial.transaction
        self.watch = trial.watch
        self.invariant = trial.invariant

    def crash(self) -> list[Injection]:
        """Inject the profile's faults, restart, and read what came back; see `ApplicationTrial.crash`."""
        self.checked = False
        return self.trial.crash()

    def verdict(self) -> Verdict:
        """Judge; who asks has to look at the answer. See `ApplicationTrial.verdict`."""
        self.checked = True
        return self.trial.verdict()

    def check(self, allow: Collection[str] = ()) -> Verdict:
        """Judge, and fail the test if anything acknowledged is gone or wrong, or if nobody could look.

        Args:
            allow: the codes of findings that the test accepts, such as ["LOSS-ASYNC-WINDOW"].
        """
        from crashlab.trial.acceptance import objection, require_codes

        with _in_words():
            require_codes(allow)
        verdict = self.verdict()
        if text := objection(verdict, self.trial.folder, allow):
            pytest.fail(text, pytrace=False)
        return verdict
