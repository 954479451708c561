"""How does a project test its own durability with pytest?

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

import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from crashlab.seeds import derive, new_seed

if TYPE_CHECKING:
    from crashlab.model import Verdict
    from crashlab.profile import Profile
    from crashlab.server import Server
    from crashlab.trial.application import ApplicationTrial

DEFAULT_PROFILE = "kill9-all"
SERVER_OPTIONS = {"--crashlab-server": "kind", "--crashlab-image": "image", "--crashlab-pg-bindir": "pg_bindir"}
"""Each option that chooses the server, and the field of ServerChoice that it fills."""
SEED = pytest.StashKey[int]()
REPRODUCE = pytest.StashKey[str]()
SWEPT = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose a server."""
    group = parser.getgroup("crashlab", "crash-recovery testing with PostgreSQL")
    group.addoption(
        "--crashlab-server",
        choices=("auto", "local", "container"),
        default="auto",
        help="where crash_server runs PostgreSQL (default: auto)",
    )
    group.addoption("--crashlab-image", metavar="IMAGE", help="container image, such as postgres:17")
    group.addoption("--crashlab-pg-bindir", metavar="DIR", type=Path, help="bin directory of a local build")
    group.addoption("--crashlab-seed", metavar="SEED", type=int, help="root seed (default: a new one, printed)")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and fix the seed."""
    config.addinivalue_line(
        "markers",
        "crashlab(profile): name or path of the fault profile whose settings and faults crash_server uses"
        f' (default: "{DEFAULT_PROFILE}")',
    )
    seed = config.getoption("--crashlab-seed")
    config.stash[SEED] = new_seed() if seed is None else seed


def pytest_report_header(config: pytest.Config) -> str:
    """Say which server and seed are used."""
    image, bindir = config.getoption("--crashlab-image"), config.getoption("--crashlab-pg-bindir")
    where = image or bindir or config.getoption("--crashlab-server")
    return f"crashlab: server {where}, seed {config.stash[SEED]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """End the report of a failed test with the command that runs it again."""
    report = yield
    if report.when == "call" and report.failed and REPRODUCE in item.stash:  # type: ignore[attr-defined]
        report.sections.append(("crashlab", f"reproduce with: {item.stash[REPRODUCE]}"))  # type: ignore[attr-defined]
    return report


def chosen_server(config: pytest.Config) -> list[tuple[str, Any]]:
    """Return the options that chose the server, with their values."""
    given = [(option, config.getoption(option)) for option in SERVER_OPTIONS]
    return [(option, value) for option, value in given if value not in (None, "auto")]


@pytest.fixture
def crashlab_profile(request: pytest.FixtureRequest) -> Profile:
    """The fault profile that the test's marker names."""
    from crashlab.errors import ProfileError
    from crashlab.profile import load_profile
    from crashlab.trial.acceptance import for_a_test

    marker = request.node.get_closest_marker("crashlab")
    name = DEFAULT_PROFILE
    if marker is not None:
        name = marker.kwargs.get("profile", marker.args[0] if marker.args else DEFAULT_PROFILE)
    try:
        return for_a_test(load_profile(name))
    except ProfileError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture
def crash_server(request: pytest.FixtureRequest, crashlab_profile: Profile) -> Iterator[Server]:
    """A disposable server that is up, with the profile's settings; gone after the test."""
    from crashlab.server import ServerChoice, create_server
    from crashlab.server.leftovers import sweep
    from crashlab.trial.setup import server_spec

    config = request.config
    if SWEPT not in config.stash:
        config.stash[SWEPT] = True
        sweep()
    choice = ServerChoice(**{SERVER_OPTIONS[option]: value for option, value in chosen_server(config)})
    with create_server(server_spec(crashlab_profile, choice)) as server:
        server.start()
        yield server


@pytest.fixture
def crash_ledger(
    request: pytest.FixtureRequest, crash_server: Server, crashlab_profile: Profile, tmp_path: Path
) -> Iterator[CrashLedger]:
    """What the application was told, and the judgement of what came back."""
    from crashlab.trial.application import ApplicationTrial

    root = request.config.stash[SEED]
    chosen = [f"{option}={shlex.quote(str(value))}" for option, value in chosen_server(request.config)]
    reproduce = " ".join(["pytest", shlex.quote(request.node.nodeid), *chosen, f"--crashlab-seed={root}"])
    request.node.stash[REPRODUCE] = reproduce
    folder = tmp_path / "crashlab"
    folder.mkdir()
    seed = derive(root, request.node.nodeid)
    trial = ApplicationTrial(crash_server, crashlab_profile, seed=seed, folder=folder, reproduce=reproduce)
    yield CrashLedger(trial)
    trial.close()


class CrashLedger:
    """The fixture's face: `transaction`, `watch`, `invariant`, `crash`, `check`."""

    def __init__(self, trial: ApplicationTrial) -> None:
        self.trial = trial
        self.transaction = trial.transaction
        self.watch = trial.watch
        self.invariant = trial.invariant
        self.crash = trial.crash
        self.verdict = trial.verdict

    def check(self, allow: Collection[str] = ()) -> Verdict:
        """Judge, and fail the test if anything acknowledged is gone or wrong, or if nobody could look.

        Args:
            allow: the codes of findings that the test accepts, such as ["LOSS-ASYNC-WINDOW"].
        """
        from crashlab.trial.acceptance import objection

        verdict = self.verdict()
        if text := objection(verdict, self.trial.folder, allow):
            pytest.fail(text, pytrace=False)
        return verdict
