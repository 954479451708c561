"""Is a sound server ever accused for what an application does to it? Runs small random applications under kill -9.

    python tests/power/applications.py --runs 500 [--seed N] [--pg-bindir DIR] [--out DIR]

An application is a list of steps that Hypothesis draws: ledgered sessions whose blocks overlap, with savepoints,
swallowed errors, and COMMIT, ROLLBACK or PREPARE in odd places; sessions without a ledger on the same rows; unlogged
tables, sequences, cascades and triggers; DDL, VACUUM and checkpoints in between; threads with and without a ledger that
go on until the kill. Each application has some of these, or none. Row locks are waited for briefly, so that steps fail
as they do in life. The server is right: whatever comes back, no verdict may be corruption, a server that does not
start, or a broken promise; but for the bug of PostgreSQL that an unlogged table in an open transaction meets
(track-record.md), which is counted.

Evidence of a run that was accused stays below --out, with its steps; everything else is removed.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.errors import FaultError, ServerError, UsageProblem
from crashlab.model import Outcome, PromiseStatus, Verdict
from crashlab.profile import load_profile
from crashlab.server import Server, ServerSpec, create_server
from crashlab.server.builds import find_build
from crashlab.trial.application import ApplicationTrial, LedgeredTransaction

ACCUSED = (Outcome.CORRUPTION, Outcome.NO_START)
KEYS = 8
KNOWN = "an unlogged table, half made"
WORKER_ENDS_S = 30.0
PROFILES = (
    *("kill9-all", "kill9-backend", "kill9-postmaster", "kill9-checkpointer", "immediate-shutdown"),
    *("async-commit", "checkpoint-storm", "fsync-off-kill9"),
)
SCHEMA = """
CREATE SEQUENCE number;
CREATE TABLE named (id integer PRIMARY KEY, state text, n bigint DEFAULT nextval('number'));
CREATE TABLE watched (id integer PRIMARY KEY, state text, n bigint DEFAULT nextval('number'));
CREATE TABLE child (id integer PRIMARY KEY REFERENCES watched ON DELETE CASCADE ON UPDATE CASCADE, state text);
CREATE UNLOGGED TABLE scrap (id integer PRIMARY KEY, state text);
CREATE TABLE audit (at bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO audit (state) VALUES (TG_OP); RETURN NULL; END';
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON named FOR EACH ROW EXECUTE FUNCTION audit();
INSERT INTO named SELECT n, 'first' FROM generate_series(0, 3) n;
INSERT INTO watched SELECT n, 'first' FROM generate_series(0, 3) n;
INSERT INTO child SELECT n, 'first' FROM generate_series(0, 2) n;
"""
CHANGES = {
    "put": "INSERT INTO {table} (id, state) VALUES ({key}, '{word}') ON CONFLICT (id) DO UPDATE SET state = '{word}'",
    "update": "UPDATE {table} SET state = '{word}' WHERE id = {key}",
    "delete": "DELETE FROM {table} WHERE id = {key}",
    "move": "UPDATE {table} SET id = id + 100 WHERE id = {key}",
    "block": "DO $$ BEGIN BEGIN UPDATE {table} SET state = '{word}' WHERE id = {key}; EXCEPTION WHEN others THEN NULL;"
    " END; END $$",
}
ENDS = ("COMMIT", "COMMIT AND CHAIN", "COMMIT; BEGIN", "ROLLBACK", "ROLLBACK; BEGIN", "PREPARE TRANSACTION 'p{number}'",
        "RESET ALL", "DISCARD TEMP", "BEGIN")  # fmt: skip
SAVEPOINTS = ("SAVEPOINT s", "ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s")
STRAY = (
    "SET synchronous_commit = off", "SET synchronous_commit = on", "SET default_transaction_isolation = 'serializable'",
    "SET default_transaction_isolation = 'repeatable read'", "RESET default_transaction_isolation",
)  # fmt: skip
ELSEWHERE = (
    "CREATE TABLE IF NOT EXISTS aside (id integer PRIMARY KEY)", "DROP TABLE IF EXISTS aside",
    "INSERT INTO aside SELECT generate_series(1, 500) ON CONFLICT DO NOTHING", "ALTER TABLE aside ADD COLUMN more text",
    "CREATE INDEX IF NOT EXISTS named_state ON named (state)", "DROP INDEX IF EXISTS named_state",
    "REINDEX TABLE watched", "REINDEX INDEX named_pkey", "VACUUM named", "VACUUM (FREEZE) watched", "VACUUM FULL named",
    "CLUSTER watched USING watched_pkey", "ANALYZE", "CHECKPOINT",
    "CREATE UNLOGGED TABLE IF NOT EXISTS scrap2 (id integer)", "DROP TABLE IF EXISTS scrap2",
    "SELECT nextval('number')",
    "INSERT INTO scrap SELECT n, 'x' FROM generate_series(1, 300) n ON CONFLICT DO NOTHING",
    "CREATE MATERIALIZED VIEW IF NOT EXISTS seen AS SELECT * FROM named", "REFRESH MATERIALIZED VIEW seen",
    "ALTER SEQUENCE number INCREMENT BY 3", "SELECT setval('number', 1000)", "ROLLBACK PREPARED 'p1'",
    "COMMIT PREPARED 'p2'", "BEGIN", "COMMIT", "ROLLBACK",
)  # fmt: skip
"""What sessions without a ledger do, beside changing rows."""
TRUNCATIONS = ("TRUNCATE named", "TRUNCATE watched, child", "TRUNCATE audit")

Step = tuple[Any, ...]
LEDGERED, OUTSIDE = ("a", "b"), ("x", "y")
"""Names of sessions."""
CHANGE = st.tuples(
    st.sampled_from(["named", "watched", "child"]), st.integers(0, KEYS - 1), st.sampled_from([*CHANGES])
)


def _step(kind: str, sessions: Sequence[str], *more: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(kind), st.sampled_from(sessions), *more)


STEPS: dict[str, st.SearchStrategy[Step]] = {
    "begin": _step("begin", LEDGERED),
    "change": _step("change", LEDGERED, CHANGE, st.integers(0, 30)),
    "end": _step("end", LEDGERED, st.sampled_from(["leave", "leave", "leave", "raise"])),
    "savepoint": _step("sql", LEDGERED, st.sampled_from(SAVEPOINTS)),
    "error": _step("sql", LEDGERED, st.just("SELECT 1 / 0")),
    "odd": _step("sql", LEDGERED, st.sampled_from(ENDS)),
    "stray": _step("sql", LEDGERED, st.sampled_from(STRAY)),
    "outside": _step("change", OUTSIDE, CHANGE, st.just(0)),
    "truncate": _step("sql", OUTSIDE, st.sampled_from(TRUNCATIONS)),
    "elsewhere": _step("sql", OUTSIDE, st.sampled_from(ELSEWHERE)),
}
WEIGHTS = {"begin": 4, "change": 8, "end": 4, "savepoint": 2, "error": 1, "odd": 1, "stray": 1, "outside": 2,
           "truncate": 1, "elsewhere": 4}  # fmt: skip
ALWAYS = ("begin", "change", "end")


@dataclass(frozen=True)
class Application:
    """One random application."""

    profile: str
    workers: list[str]  # "ledgered" and "outside" threads
    steps: list[Step]


@st.composite
def applications(draw: st.DrawFn) -> Application:
    """Draw what an application does at all, then its steps."""
    kinds = [*ALWAYS, *(kind for kind in STEPS if kind not in ALWAYS and draw(st.booleans()))]
    weighted = [kind for kind in kinds for _ in range(WEIGHTS[kind])]
    step = st.sampled_from(weighted).flatmap(STEPS.__getitem__)
    workers = st.lists(st.sampled_from(["ledgered", "ledgered", "outside"]), max_size=2)
    profile = draw(st.sampled_from(PROFILES))
    return Application(profile, draw(workers), draw(st.lists(step, min_size=20, max_size=80)))


class Abandoned(Exception):
    """What the application raises to leave a block."""


class Session:
    """A connection, and the ledgered block that it is in."""

    def __init__(self, server: Server, trial: ApplicationTrial) -> None:
        self.connection: psycopg.Connection[Any] = server.connect(autocommit=True)
        self.connection.execute("SET lock_timeout = '100ms'; SET statement_timeout = '10s'")
        self._trial = trial
        self._block: contextlib.AbstractContextManager[LedgeredTransaction] | None = None
        self._transaction: LedgeredTransaction | None = None

    def begin(self) -> None:
        """Enter a block, if it is in none."""
        if self._block is None:
            block = self._trial.transaction(self.connection)
            self._transaction = block.__enter__()
            self._block = block

    def change(self, table: str, key: int, how: str, word: str, *, forgotten: bool = False) -> None:
        """Change a row, and name it inside of a block, unless that is forgotten."""
        self.connection.execute(CHANGES[how].format(table=table, key=key, word=word))
        if self._transaction is not None and table == "named" and not forgotten:
            for one in (key, key + 100) if how == "move" else (key,):
                self._transaction.changed("named", id=one)

    def end(self, how: str) -> None:
        """Leave the block."""
        block, self._block, self._transaction = self._block, None, None
        if block is not None and how == "raise":
            error = Abandoned()
            with contextlib.suppress(Abandoned):
                block.__exit__(Abandoned, error, None)
        elif block is not None:
            block.__exit__(None, None, None)


@contextlib.contextmanager
def as_in_life() -> Iterator[None]:
    """Let an application meet errors, of the server's and of crashlab's words about its own mistakes."""
    with contextlib.suppress(psycopg.Error, UsageProblem):
        yield


def take(step: Step, number: int, sessions: dict[str, Session]) -> None:
    """Do one step. An error inside of a block is swallowed there, as some applications do."""
    kind, name, *more = step
    session = sessions[name]
    with as_in_life():
        if kind == "begin":
            session.begin()
        elif kind == "end":
            session.end(*more)
        elif kind == "sql":
            session.connection.execute(more[0].format(number=number % 5))
        else:
            (table, key, how), chance = more
            if name in LEDGERED:
                session.begin()
            session.change(table, key, how, f"{name} {number}", forgotten=not chance)


@dataclass
class Worker:
    """A thread that goes on until the server is gone."""

    server: Server
    trial: ApplicationTrial
    ledgered: bool
    number: int
    over: threading.Event  # set after the crash, for a thread that came late and met the server that had recovered
    errors: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        """Change one row after the other, in a block if it has a ledger."""
        try:
            session = Session(self.server, self.trial)
            for count in range(10**6):
                if self.over.is_set():
                    return
                with as_in_life():
                    if self.ledgered:
                        session.begin()
                    how = list(CHANGES)[count % len(CHANGES)]
                    session.change("named", (count * 3 + self.number) % KEYS, how, f"worker {self.number}.{count}")
                with as_in_life():
                    session.end("leave")
                if session.connection.broken or session.connection.closed:
                    return
        except psycopg.Error:
            return
        except BaseException as error:
            self.errors.append(error)


def run(application: Application, folder: Path, number: int, pg_bindir: Path | None = None) -> Verdict:
    """Run one application until its server has crashed, and judge what came back."""
    profile = load_profile(application.profile)
    wanted = {**profile.server.settings, "max_prepared_transactions": "10"}
    with create_server(ServerSpec(kind="local", pg_bindir=pg_bindir, settings=wanted)) as server:
        server.start()
        with contextlib.closing(server.connect(autocommit=True)) as connection:
            connection.execute(SCHEMA)
        trial = ApplicationTrial(server, profile, seed=number, folder=folder, reproduce="applications.py")
        trial.watch("watched")
        trial.watch("child")
        trial.invariant("every child has a parent", "SELECT id FROM child WHERE id NOT IN (SELECT id FROM watched)")
        sessions = {name: Session(server, trial) for name in (*LEDGERED, *OUTSIDE)}
        over = threading.Event()
        workers = [Worker(server, trial, kind == "ledgered", n, over) for n, kind in enumerate(application.workers)]
        threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        for place, step in enumerate(application.steps):
            take(step, place, sessions)
        trial.crash()
        over.set()
        for thread in threads:
            thread.join(WORKER_ENDS_S)
            assert not thread.is_alive(), "a worker did not end"
        for worker in workers:
            assert not worker.errors, worker.errors
        for session in sessions.values():
            with as_in_life():
                session.end("leave")
            session.connection.close()
        return trial.verdict()


def is_known(verdict: Verdict) -> bool:
    """Whether the server did not start because of the unlogged table of the track record (track-record.md)."""
    fatal = [str(finding.evidence) for finding in verdict.findings if finding.code == "NO-START"]
    return bool(fatal) and all("could not create file" in text and "File exists" in text for text in fatal)


def accuses(verdict: Verdict) -> bool:
    """Whether something is said to be wrong that must not be."""
    if is_known(verdict):
        return False
    return verdict.promise is PromiseStatus.BROKEN or verdict.outcome in ACCUSED


def run_all(
    runs: int,
    first_seed: int,
    out: Path,
    pg_bindir: Path | None = None,
    tell: Callable[[str], None] = print,
) -> tuple[Counter[str], list[str]]:
    """Run so many applications.

    Returns:
        how many runs had each finding, with "runs", "acked" and the outcomes; what went wrong, a line each.
    """
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    def one(application: Application) -> None:
        number = counts["runs"]
        counts["runs"] += 1
        folder = Path(tempfile.mkdtemp(prefix="crashlab-application-"))
        try:
            verdict = run(application, folder, number, pg_bindir)
        except (FaultError, ServerError) as error:  # a backend that had just ended was to be killed, say
            counts["not run to its end"] += 1
            tell(f"run {number}: {error}")
            shutil.rmtree(folder)
            return
        except Exception as error:
            found = f"run {number}: {error!r}"
        else:
            counts.update([verdict.outcome.value, *(finding.code for finding in verdict.findings)])
            counts["acked"] += verdict.counts.acked
            counts[KNOWN] += is_known(verdict)
            if not accuses(verdict):
                shutil.rmtree(folder)
                return
            found = f"run {number}: {' '.join(finding.code for finding in verdict.findings)}"
        (folder / "application.txt").write_text(f"{application}\n")
        out.mkdir(parents=True, exist_ok=True)
        kept = shutil.move(folder, out / f"{first_seed}-{number}")
        wrong.append(found)
        tell(f"{found}: {kept}")

    quietly = settings(
        max_examples=runs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(first_seed)(quietly(given(applications())(one)))()
    return counts, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them and print what was found; the exit status is 1 if anybody was accused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pg-bindir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("applications"))
    options = parser.parse_args(arguments)
    build = find_build(options.pg_bindir)
    assert build is not None, options.pg_bindir
    begun = time.monotonic()
    counts, wrong = run_all(options.runs, options.seed, options.out, options.pg_bindir)
    print(f"PostgreSQL {build.version}, seed {options.seed}, {time.monotonic() - begun:.0f} s")
    for name, count in sorted(counts.items()):
        print(f"  {name:32}{count:7}")
    print(f"{counts['runs']} applications: {len(wrong)} with an accusation, or an error of crashlab's own")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
