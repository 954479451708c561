"""What does a test do with a server that dies?

`Crash` is the whole face: `url`, `with crash:`, `told`, `process`, `invariant`, `check`. The fixture `crash` is one
whose server is up; in a script its outermost `with` is the server's life, and each one inside is a block.

Choices: with nothing else asked for, the moment is a time, drawn on a logarithmic scale, so that short blocks are hit
    as well as long ones; a block that is over before dies at its end.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from crashlab.errors import UsageProblem
from crashlab.fault import FAULTS
from crashlab.model import Verdict
from crashlab.observer import Moment, Observer, read_conversation
from crashlab.profile import Profile, load_profile
from crashlab.seeds import new_seed, stream
from crashlab.server import Server, ServerChoice, create_server
from crashlab.server.base import DATABASE
from crashlab.testing.address import Address
from crashlab.testing.failure import CrashFailure, is_consequence
from crashlab.testing.points import Point, Points, check_arguments, points_of, with_words
from crashlab.testing.process import Kill, Process
from crashlab.testing.told import POLL_S, ToldNotes, as_keys, first_column
from crashlab.testing.watch import Outcome, Watch
from crashlab.trial.acceptance import for_a_test, objection
from crashlab.trial.observed import ObservedCrash, ObservedServer
from crashlab.trial.setup import server_spec

BLOCK_TIMEOUT_S = 60.0
RECOVERY_TIMEOUT_S = 60.0
END_SLACK_S = 60.0  # reading a recovered server comes on top of its recovery
RANDOM_S = (0.001, 1.0)
_WHEN = {"time": "at a time that was drawn", "end": "at the end of its block", "stuck": "when its time was up"}
ALLOW = "crash.check(allow=[{}])"


class Crash:
    """A server, an observer before it, and its crashes."""

    def __init__(
        self,
        profile: str | Profile = "kill9-all",
        *,
        server: Server | None = None,
        observer: Observer | None = None,
        choice: ServerChoice | None = None,
        seed: int | None = None,
        folder: Path | None = None,
        point: str | Point | None = None,
        points: Points = "random",
        reproduce: str = "",
        block_timeout_s: float = BLOCK_TIMEOUT_S,
        recovery_timeout_s: float = RECOVERY_TIMEOUT_S,
    ) -> None:
        """Say what is wanted; nothing is started.

        Args:
            profile: its settings and faults.
            server: one that is up, with those settings, which somebody else disposes of; None: one of its own.
            observer: one that is free, and that somebody else closes; None: one of its own.
            choice: where its own runs.
            seed: what is drawn comes from it; None: a new one.
            folder: takes the evidence; None: a temporary one, which stays if the outermost `with` ends in an error.
            point: the one moment at which the server dies, as a failed test named it.
            points: "random": at a time that is drawn; else, unless there is a point, at the end of each block.
            reproduce: the command that runs the test again, without the point.
            block_timeout_s: a block that takes longer fails.

        Raises:
            ProfileError, UsageProblem: it cannot be.
        """
        check_arguments(points, None)
        self.profile = for_a_test(profile if isinstance(profile, Profile) else load_profile(profile))
        if not any(_crashes(fault) for fault in self.profile.faults):
            raise UsageProblem(
                f'cannot crash a server with profile "{self.profile.name}": it names no fault that crashes one',
                hint='Choose one that does, such as "kill9-all".',
            )
        self.seed = new_seed() if seed is None else seed
        self.point = Point.parse(point) if isinstance(point, str) else point
        self.point_reached: str | None = None  # in words
        self._points = points
        self._given_server, self._choice = server, choice or ServerChoice()
        self._given_observer = observer
        self._folder = folder
        self._reproduce = reproduce
        self._block_timeout_s = block_timeout_s
        self._recovery_timeout_s = recovery_timeout_s
        self._rng = stream(self.seed, "moment")
        self._life = contextlib.ExitStack()
        self._alive = False
        self._watch: Watch | None = None
        self._block = 0
        self._epoch = 0
        self._epochs: list[int] = []  # of each block
        self._processes: list[Process] = []
        self.judged: dict[int, Verdict] = {}  # by the crash's number
        self._checked = 0  # so many notes had been told when it was checked last
        self._failed = False

    # --- the server's life

    def start(self) -> Self:
        """Start server and observer, if they are not up."""
        if self._alive:
            return self
        with contextlib.ExitStack() as stack:
            self.server = self._given_server or stack.enter_context(
                create_server(server_spec(self.profile, self._choice))
            )
            if self._given_server is None:
                self.server.start()
            self.folder = self._folder or Path(tempfile.mkdtemp(prefix="crashlab-test-"))
            self._address = Address(self.server.conninfo())
            self._conversation = self.folder / "conversation.jsonl"
            self._observer = self._begin_conversation(stack)
            self.observed = ObservedServer(
                self.server, self.profile, seed=self.seed, folder=self.folder, conversation=self._conversation
            )
            self._told = ToldNotes(self.folder / "told.txt")
            stack.callback(self._told.close)
            stack.callback(self._end_processes)
            self._life = stack.pop_all()
        self._alive = True
        return self

    def _begin_conversation(self, stack: contextlib.ExitStack) -> Observer:
        if self._given_observer is None:
            return stack.enter_context(Observer(self._address.upstream, self._conversation, folder=self.folder))
        self._given_observer.begin(self._address.upstream, self._conversation)
        stack.callback(self._given_observer.cut)
        return self._given_observer

    def close(self) -> None:
        """End everything: processes, observer, its own server; closing twice is harmless."""
        watch, self._watch = self._watch, None
        if watch is not None and not watch.cancel():
            watch.end(self._end_timeout_s())
        self._alive = False
        self._life.close()

    def _end_processes(self) -> None:
        for process in self._processes:
            process.kill()

    @property
    def url(self) -> str:
        """The server as the application is to see it: a postgresql:// URL, the same after every restart."""
        return self._address.url(self._observer)

    @property
    def direct_url(self) -> str:
        """The server past the observer, for the test itself."""
        return self._address.direct_url

    @property
    def env(self) -> dict[str, str]:
        """The same for processes: PGHOST and its like, DATABASE_URL, CRASHLAB_TOLD."""
        self._told.listen()
        return {**self._address.env(self._observer), "CRASHLAB_TOLD": str(self._told.path)}

    def connect(self, **kwargs: Any) -> "psycopg.Connection[Any]":
        """Connect past the observer, for the test itself; arguments are those of psycopg.connect."""
        return self.server.connect(**kwargs)

    # --- blocks

    def __enter__(self) -> Self:
        if not self._alive:
            return self.start()
        self._enter_block()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        if self._watch is None:
            self._leave_life(error)
            return False
        return self._leave_block(error)

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start) if not self._alive else self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        return await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _leave_life(self, error: BaseException | None) -> None:
        try:
            if error is None:
                self.require_checked()
        finally:
            self.close()
        if error is None and self._folder is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _enter_block(self) -> None:
        if self._watch is not None:
            raise UsageProblem("cannot enter a block in which the server dies: one is open already")
        if self._failed:
            raise UsageProblem("cannot enter another block: the server did not come back from the last one")
        self._block += 1
        self.observed.begin()
        armed = self.point.moment if self.point is not None and self.point.block == self._block else None
        self._arm(armed)
        self._epochs.append(self._epoch)
        after_s = None
        if self.point is None and self._points == "random":
            low, high = RANDOM_S
            after_s = low * (high / low) ** self._rng.random()
        self._watch = Watch(
            self._observer,
            self._die,
            armed=armed is not None,
            after_s=after_s,
            timeout_s=self._block_timeout_s,
        )

    def _arm(self, moment: Moment | None) -> None:
        self._observer.arm(moment)
        self._epoch += 1  # as the observer counts

    def _leave_block(self, error: BaseException | None) -> bool:
        __tracebackhide__ = True
        watch, self._watch = self._watch, None
        assert watch is not None
        if error is not None and watch.cancel():
            self._arm(None)
            error.add_note("crashlab: raised before the server was crashed, so it is no consequence of a crash.")
            return False
        try:
            in_time = watch.end(self._end_timeout_s())
        except KeyboardInterrupt:
            if not watch.stuck:
                raise
            in_time = watch.end(self._end_timeout_s())  # the interrupt was for the block, which has just ended
        if watch.stuck:
            raise CrashFailure(
                f"the block was not at its end after {self._block_timeout_s:g} s, with the server up all that time: "
                f"the application hangs\nThe server was killed for good then.{self._said()}"
            ) from (error if isinstance(error, Exception) else None)
        if not in_time:
            raise CrashFailure(
                f"the server was not back and read {self._end_timeout_s():g} s after the end of the block"
            )
        if watch.error is not None:
            raise watch.error
        crash = self.observed.crashes[-1]
        if not crash.observation.recovery.started:
            self._failed = True
            self._fail_of([crash], None)
        return error is None or is_consequence(error)

    def _end_timeout_s(self) -> float:
        return self._recovery_timeout_s + END_SLACK_S

    def _die(self, outcome: Outcome) -> None:
        """Kill, recover, read, let in again: in the watch's thread."""
        alone = [one for one in self._processes if one.kill_when == "alone" and one.running]
        self._told.look()
        killed_ns = time.monotonic_ns()
        statuses = [
            (one, one.kill()) for one in self._processes if one.kill_when == ("alone" if alone else "with server")
        ]
        if alone and outcome.why != "stuck":
            injections = [one.receipt(status, killed_ns) for one, status in statuses]
            if outcome.reached is not None:
                self._observer.go()
        else:
            injections = self.observed.kill()
            self._observer.cut()
        self._told.look()
        if outcome.why == "stuck":  # nobody is let in again, or it would go on
            self._failed = True
            return
        crash = self.observed.come_back(injections, timeout_s=self._recovery_timeout_s)
        crash.at_block_end = outcome.why == "end"
        crash.moment = self._moment_words(outcome)
        if crash.observation.recovery.started:
            if not alone:
                self._observer.resume(self._address.upstream)
            for process in self._processes:
                process.come_back()

    def _moment_words(self, outcome: Outcome) -> str:
        where = f"block {self._block}, " if self._block > 1 else ""
        if outcome.reached is None:
            return f"{where}{_WHEN[outcome.why]}"
        assert self.point is not None
        self.point_reached = with_words(read_conversation(self._conversation).reached[-1][1], self.point).told
        return self.point_reached

    def points(self, kind: str) -> list[Point]:
        """Return the points of all blocks so far, for a sweep."""
        return points_of(read_conversation(self._conversation), kind, self._epochs)  # type: ignore[arg-type]

    # --- what the application tells, and what must hold

    def told(self, key: Any) -> Any:
        """Say that the application told its user of this key, now; returns the key. From any thread."""
        self._told.note(key)
        return key

    @property
    def told_keys(self) -> list[Any]:
        """What has been told so far."""
        self._told.look()
        return [note.key for note in self._told.notes]

    def wait_told(self, count: int, *, timeout_s: float = 30.0) -> None:
        """Wait until so many keys have been told, by whomever. Raises CrashFailure: not in time."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout_s
        while len(self.told_keys) < count:
            if time.monotonic() > deadline:
                raise CrashFailure(
                    f"{len(self.told_keys)} of {count} keys were told within {timeout_s:g} s{self._said()}"
                )
            time.sleep(POLL_S)

    def invariant(self, name: str, sql: str) -> None:
        """Name a query that returns no rows: now, as each block begins, after each crash, and at the check."""
        self.observed.invariant(name, sql)

    def process(
        self,
        args: Sequence[str | os.PathLike[str]],
        *,
        restart: bool = True,
        kill: Kill = "with server",
        cwd: Path | None = None,
    ) -> Process:
        """Start a process of the application, with `env`; it ends with the test at the latest.

        Args:
            restart: start it again after the recovery.
            kill: "with server"; "alone": at the moment it dies, and the server does not; "never".
        """
        log = self.folder / f"process-{len(self._processes) + 1}.log"
        process = Process(args, env=self.env, restart=restart, kill=kill, log=log, cwd=cwd)
        self._processes.append(process)
        return process

    def check(
        self, query: str | None = None, allow: Collection[str] = (), *, database: str = DATABASE
    ) -> list[Verdict]:
        """Judge all crashes so far, and fail if anything is not as it was told.

        Args:
            query: its first column holds every key that was told.
            allow: the codes of findings that the test accepts.
            database: where the query is asked.

        Raises:
            CrashFailure: with findings, timeline and the command that runs it again.
            UsageProblem: there was no crash yet, keys were told and there is no query, or the query cannot be run.
        """
        __tracebackhide__ = True
        if not self.observed.crashes:
            raise UsageProblem("cannot check: the server has not been crashed", hint="Put the work into `with crash:`.")
        self._told.look()
        notes = list(self._told.notes)
        if notes and query is None:
            raise UsageProblem(
                f"cannot check: {len(notes)} keys were told, and there is no query to find them with",
                hint='Name one: crash.check("SELECT id FROM orders").',
            )
        self._checked = len(notes)
        return self._fail_of(self.observed.crashes, query, allow, database)

    def _fail_of(
        self,
        crashes: Sequence[ObservedCrash],
        query: str | None,
        allow: Collection[str] = (),
        database: str = DATABASE,
    ) -> list[Verdict]:
        __tracebackhide__ = True
        found, keys = None, []
        if query is not None:
            with contextlib.closing(self.server.connect(autocommit=True, dbname=database)) as connection:
                keys = as_keys(self._told.notes, connection)
                found = first_column(query, connection)
        for crash in crashes:
            last = crash is crashes[-1]
            if crash.number not in self.judged or last or crash.broken_since:
                asked = (keys, query, found) if last else ([], None, None)
                self.judged[crash.number] = self.observed.judge(crash, *asked, self.reproduce)
        for crash in crashes:
            text = objection(self.judged[crash.number], crash.folder, allow, call=ALLOW)
            if text:
                where = f"the server died: {crash.moment}"
                again = f"\nreproduce: {self.reproduce}" if self.reproduce else ""
                raise CrashFailure(f"{text}\n{where}{again}{self._said()}")
        return [self.judged[crash.number] for crash in crashes]

    @property
    def reproduce(self) -> str:
        """The command that runs this again."""
        point = f" --crashlab-point '{self.point}'" if self.point is not None else ""
        return f"{self._reproduce}{point}" if self._reproduce else ""

    def _said(self) -> str:
        said = [(one, one.last_words()) for one in self._processes]
        return "".join(f"\nprocess {' '.join(one.args)} said:\n{words}" for one, words in said if words)

    def require_checked(self) -> None:
        """Raise UsageProblem: keys were told or the server was crashed, and nobody asked what became of it."""
        if not self._alive:
            return
        self._told.look()
        if len(self._told.notes) > self._checked:
            untold = len(self._told.notes) - self._checked
            raise UsageProblem(
                f"{untold} keys were told, and not checked", hint='End the test with crash.check("SELECT ...").'
            )
        if not self.observed.crashes:
            raise UsageProblem(
                "the server was never crashed", hint="Put the work into `with crash:`, then crash.check()."
            )
        if len(self.judged) < len(self.observed.crashes):
            raise UsageProblem("the server was crashed, and nobody checked what came back", hint="crash.check() does.")


def _crashes(fault: Any) -> bool:
    return FAULTS[fault.kind].crashes_server(fault.target)
