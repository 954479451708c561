"""What does a user get whose container was killed in its very first start, and is started again on the same volume?

initdb removes what it made if it fails, and not if it is killed; what it leaves then may look initialised. So may what
is left of init scripts: the entry point runs them in an empty data directory only.

Choices: crashlab brings scripts of its own, each of which makes a table, so that what is missing is seen in the
    database and not only in the log. The one in which the kill comes waits for it. Whatever becomes of the server,
    nothing of it is PostgreSQL's promise; what is promised to the clients of a server that did start is judged as ever.

Sources: initdb's manual page (--no-clean); server/initialising.py.
"""

import threading
import time
from collections.abc import Callable
from random import Random

import msgspec

from crashlab.errors import ServerError, SessionRefused
from crashlab.ledger import LedgerWriter
from crashlab.model import FirstStart, Injection
from crashlab.server import Server
from crashlab.server.container import ContainerServer
from crashlab.server.initialising import (
    COMPLETE,
    SCRIPTS,
    SKIPS,
    begun_in,
    finished_in,
    has_version_file,
    in_initdb,
    scripts_of,
)
from crashlab.trial.startkills import start_and_kill

IN_INITDB, IN_SCRIPTS = "initdb", "init-scripts"
OWN_SCRIPTS = 3
WAITS_S = 60
AFTER_BEGIN_S = (0.0, 1.0)
POLL_S = 0.01
LAST_WORDS_MAX = 6


def kill_first_start(
    server: Server, during: str, rng: Random, ledger: LedgerWriter, *, timeout_s: float
) -> tuple[Injection, FirstStart]:
    """Let a container initialise itself, kill it meanwhile, and return the receipt and how far it had come."""
    assert isinstance(server, ContainerServer)
    met = rng.randrange(OWN_SCRIPTS) if during == IN_SCRIPTS else None
    server.init_files = {f"{SCRIPTS}/{name}": text for name, text in _own_scripts(met).items()}
    delay_s, at_ns = rng.uniform(*AFTER_BEGIN_S), time.monotonic_ns()

    def has_begun() -> bool:
        if met is None:
            return in_initdb(server)
        return _name(met) in begun_in(server.log_since(0))

    def wait(over: threading.Event) -> None:
        if _wait_for(has_begun, over, timeout_s):
            over.wait(delay_s)

    killed = start_and_kill(server, wait, timeout_s=timeout_s)
    log = server.log_since(0)
    place, reached = _how_far(log, has_version_file(server))
    receipt = Injection(
        kind="kill",
        target="first start",
        pid=killed[0] if killed else None,
        pids=killed,
        confirmed=bool(killed) and place == during and not server.running(),
        proof=[f"how far it had come: {reached}", f"postmaster {server.postmaster_exit()}"],
        crashes_server=False,
        bounds_window=True,
        acked_before=ledger.acked,
        ledger_position=ledger.lines,
        at_ns=at_ns,
    )
    return receipt, FirstStart(during=during, reached=reached, whole=COMPLETE in log, scripts=scripts_of(server))


def start_again(server: Server, first: FirstStart, *, timeout_s: float) -> FirstStart:
    """Start the container once more, on the same volume, and return what came of it."""
    before, position = server.log_since(0), server.log_position()
    try:
        server.start(timeout_s=timeout_s)
    except ServerError as error:
        words = (error.detail or error.primary).splitlines()[:LAST_WORDS_MAX]
        refuses = isinstance(error, SessionRefused)
        return msgspec.structs.replace(first, started=False, refuses=refuses, last_words=words)
    said = server.log_since(position)
    finished = {*finished_in(before), *finished_in(said)}
    return msgspec.structs.replace(
        first,
        started=True,
        skipped=SKIPS in said,
        unfinished=[name for name in first.scripts if name not in finished],
        missing=_missing(server),
    )


def _missing(server: Server) -> dict[str, str]:
    """Return the tables of crashlab's own scripts that are not there, with their scripts. Raises psycopg.Error."""
    with server.connect(autocommit=True) as session:
        return {
            _table(number): _name(number)
            for number in range(OWN_SCRIPTS)
            if session.execute("SELECT to_regclass(%s)", (_table(number),)).fetchone() == (None,)
        }


def _own_scripts(waiting: int | None) -> dict[str, bytes]:
    waits = {number: f"SELECT pg_sleep({WAITS_S});\n" for number in range(OWN_SCRIPTS) if number == waiting}
    return {
        _name(number): f"{waits.get(number, '')}CREATE TABLE {_table(number)} AS SELECT {number} AS n;\n".encode()
        for number in range(OWN_SCRIPTS)
    }


def _name(number: int) -> str:
    return f"crashlab-{number + 1}.sql"


def _table(number: int) -> str:
    return f"public.crashlab_init_{number + 1}"


def _how_far(log: str, version_file: bool) -> tuple[str, str]:
    """Return in which part it was killed, and in words."""
    if COMPLETE in log:
        return "", "everything was done"
    if begun := begun_in(log):
        return IN_SCRIPTS, f"in the init script {begun[-1]}"
    return IN_INITDB, f"in initdb, {'with' if version_file else 'still without'} a PG_VERSION in the data directory"


def _wait_for(begun: Callable[[], bool], over: threading.Event, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not begun():
        if over.wait(POLL_S) or time.monotonic() > deadline:
            return False
    return True
