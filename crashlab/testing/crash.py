"""What does a test do with a server that dies?

`Crash` is the whole face: `url`, `with crash:`, `told`, `process`, `invariant`, `check`. The fixture `crash` is one
whose server is up; in a script its outermost `with` is the server's life, and each one inside is a block.

Choices: with nothing else asked for, the moment is a time after the block's first answered commit of a change, for
    before it nothing is at stake; drawn on a logarithmic scale, so that short blocks are hit as well as long ones. A
    block that is over before dies at its end.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crashlab.errors import UsageProblem
from crashlab.model import Injection, Verdict
from crashlab.observer import Moment, read_conversation
from crashlab.observer.stake import Stake
from crashlab.results import TrialResult
from crashlab.server.base import DATABASE
from crashlab.testing.address import Address
from crashlab.testing.failure import CrashFailure, is_consequence
from crashlab.testing.life import Life
from crashlab.testing.points import Point, points_of, with_words
from crashlab.testing.powercut import State, StateName, state_words
from crashlab.testing.process import Kill, Process
from crashlab.testing.told import POLL_S, as_keys
from crashlab.testing.watch import Outcome, Watch
from crashlab.trial.acceptance import objection, require_codes
from crashlab.trial.observed import ObservedCrash
from crashlab.trial.toldquery import first_column

RANDOM_S = (0.001, 1.0)
_WHEN = {"time": "at a time that was drawn", "end": "at the end of its block", "stuck": "when its time was up"}
STATES_FAILED_MAX = 5
"""After so many crash states that are not accepted no further one is looked at."""
ALLOW = "crash.check(allow=[{}])"


def _codes(result: TrialResult) -> str:
    return ", ".join(dict.fromkeys(one.code for one in result.verdict.findings))


class Crash(Life):
    """A server, an observer before it, and its crashes."""

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
        if self._accused:
            return  # also where whoever made this never hears of it, as a fixture of a module does
        if error is None and self._folder is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif error is None:
            self.forget_recordings()

    def _enter_block(self) -> None:
        if self._watch is not None:
            raise UsageProblem("cannot enter a block in which the server dies: one is open already")
        if self._failed:
            raise UsageProblem("cannot enter another block: the server did not come back from the last one")
        self._block += 1
        self.observed.begin()
        if self._power is not None:
            self._power.begin_block()
        self._begun_ns = time.monotonic_ns()
        armed = self.point.moment if self.point is not None and self.point.block == self._block else None
        self._arm(armed)
        self._epochs.append(self._epoch)
        after_s = None
        if self.point is None and self._points == "random" and not self._recorded:
            low, high = RANDOM_S
            after_s = low * (high / low) ** self._rng.random()
        self._watch = Watch(
            self._observer,
            self._die,
            armed=armed is not None,
            after_s=after_s,
            stake=Stake(self._conversation) if after_s is not None else None,
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
            injections = self._kill()
        self._told.look()
        if outcome.why == "stuck":  # nobody is let in again, or it would go on
            self._failed = True
            return
        crash = self.observed.come_back(injections, timeout_s=self._recovery_timeout_s)
        crash.at_block_end, crash.block_ns = outcome.why == "end", self._begun_ns
        crash.moment = self._moment_words(outcome)
        if self._power is not None:
            self._power.ended(crash)
            self._power.follow(self._observer)
        if outcome.why == "end":
            self._arm(None)  # whatever is asked from now on stands in no block, and is no moment of a sweep
        if crash.observation.recovery.started:
            if not alone:
                self._address = Address(self.server.conninfo())  # a container's port may be another one
                self._observer.resume(self._address.upstream)
            for process in self._processes:
                process.come_back()

    def _kill(self) -> list[Injection]:
        if self._power is None:
            injections = self.observed.kill()
            self._observer.cut()
            return injections
        self._observer.cut()
        self._power.recorder.wait_until_quiet()
        injections = self.observed.kill()
        self._power.recorder.cut()
        return injections

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
        if self._recorded and kill == "alone":
            raise UsageProblem('cannot kill a process "alone" in a test whose power is cut', hint='Use "kill9-all".')
        log = self.folder / f"process-{len(self._processes) + 1}.log"
        along = self._observer.take_along
        process = Process(args, env=self.env, restart=restart, kill=kill, log=log, cwd=cwd, started=along)
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
            UsageProblem: a code is unknown, there was no crash yet, keys were told and there is no query, or it cannot
                be run.
        """
        __tracebackhide__ = True
        allow = require_codes(allow)
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
        verdicts = self._fail_of(self.observed.crashes, query, allow, database)
        return verdicts if self._power is None else [*verdicts, *self._fail_of_states(query, allow, database)]

    def _fail_of_states(self, query: str | None, allow: Collection[str], database: str) -> list[Verdict]:
        """Judge the crash states that a loss of power may have left; fail with the first that is not accepted.

        Some more are looked at before: how many others fail says whether it is a rare state, and each has its name.
        """
        __tracebackhide__ = True
        assert self._power is not None
        verdicts: list[Verdict] = []
        failed: list[tuple[StateName, TrialResult, str]] = []
        with contextlib.closing(self.server.connect(autocommit=True, dbname=database)) as connection:
            for name, result in self._power.results(self._told.notes, connection, query, database):
                verdicts.append(result.verdict)
                if text := objection(result.verdict, result.folder, allow, call=ALLOW):
                    failed.append((name, result, text))
                if len(failed) == STATES_FAILED_MAX:
                    break
        if not failed:
            return verdicts
        name, result, text = failed[0]
        self._power.at = name
        others = "\n".join(["", *(f"    --crashlab-state={one}: {_codes(other)}" for one, other, _ in failed[1:])])
        counted = f"{len(failed)} of the {len(verdicts)} crash states looked at fail; this is the first{others}"
        raise self._failure(f"{text}\n{state_words(name, result)}\nreproduce: {self.reproduce}\n{counted}")

    def _failure(self, text: str) -> CrashFailure:
        self._accused = True
        return CrashFailure(text)

    @property
    def states(self) -> Iterator[State]:
        """The crash states of all blocks so far, each recovered, for the test's own assertions.

        Raises:
            UsageProblem: the profile cuts no power, or no block has ended.
            CrashFailure: one does not start.
        """
        if self._power is None:
            raise UsageProblem(
                f'cannot give crash states with profile "{self.profile.name}": it cuts no power',
                hint='Use @pytest.mark.crashlab(profile="power-loss").',
            )
        if not self.observed.crashes:
            raise UsageProblem("cannot give crash states: no block has ended", hint="Put the work into `with crash:`.")
        self._told.look()
        with contextlib.closing(self.server.connect(autocommit=True)) as connection:
            yield from self._power.states(self._told.notes, connection)

    def forget_recordings(self) -> None:
        """Nobody will want a crash state again: remove what takes most room of the evidence."""
        if self._power is not None:
            self._power.forget()

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
                keys = as_keys(self._told.notes, connection, query)
                found = first_column(query, connection)
        for crash in crashes:
            last = crash is crashes[-1]
            if crash.number not in self.judged or last or crash.broken_since:
                asked = (keys, query, found) if last else ([], None, None)
                self.judged[crash.number] = self.observed.judge(
                    crash, *asked, self.reproduce, looked_for=query is not None
                )
        for crash in crashes:
            text = objection(self.judged[crash.number], crash.folder, allow, call=ALLOW)
            if text:
                where = f"the server died: {crash.moment}"
                again = f"\nreproduce: {self.reproduce}"
                raise self._failure(f"{text}\n{where}{again}{self._said()}")
        return [self.judged[crash.number] for crash in crashes]

    @property
    def proves_nothing(self) -> bool:
        """Whether the server had shut down each time before it could crash, so that nothing was to be recovered."""
        return bool(self.observed.crashes) and all(crash.nothing_due for crash in self.observed.crashes)

    @property
    def reproduce(self) -> str:
        """The command that runs this again; with the arguments that it needs, if it is nobody's fixture."""
        if not self._reproduce:
            return self._by_hand()
        more = f" --crashlab-point '{self.point}'" if self.point is not None else ""
        if self._power is not None and self._power.at is not None:
            more = f" --crashlab-state={shlex.quote(str(self._power.at))}"
        return f"{self._reproduce}{more}"

    def _by_hand(self) -> str:
        node = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" (")[0]
        command = ""
        if node:
            command = f"pytest {shlex.quote(node)}, "
        elif Path(sys.argv[0]).is_file():  # and is no text of -c
            command = f"{shlex.join(['python', *sys.argv])}, "
        wanted = [f"seed={self.seed}"] + ([f"point={str(self.point)!r}"] if self.point is not None else [])
        if self._power is not None and self._power.at is not None:
            wanted.append(f"state={str(self._power.at)!r}")
        return f"{command}with Crash(..., {', '.join(wanted)})"

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
