"""Who starts and ends all that a test needs to have a server die: the server, an observer before it, a recorder?

`Life` knows what was asked for and what is up; `crash.Crash` does with it what a test wants.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psycopg

from crashlab.errors import UsageProblem
from crashlab.fault import FAULTS
from crashlab.model import Verdict
from crashlab.observer import Observer
from crashlab.profile import Profile
from crashlab.seeds import new_seed, stream
from crashlab.server import Server, ServerChoice, create_server
from crashlab.server.given import given_server
from crashlab.testing.address import Address
from crashlab.testing.points import Point, Points, check_arguments
from crashlab.testing.powercut import STATES, PowerCuts, StateName, start_for
from crashlab.testing.process import Process
from crashlab.testing.told import ToldNotes
from crashlab.testing.watch import Watch
from crashlab.trial.acceptance import changed_for_a_test, for_a_test, live_half
from crashlab.trial.intest import spec_in_test
from crashlab.trial.observed import ObservedServer

BLOCK_TIMEOUT_S = 60.0
RECOVERY_TIMEOUT_S = 60.0
END_SLACK_S = 60.0  # reading a recovered server comes on top of its recovery


class Life:
    """A server and an observer before it, from `start` to `close`."""

    point_reached: str | None = None  # in words
    _alive = False
    _failed = False  # the server did not come back
    _accused = False  # a check has failed, and its evidence is wanted
    _power: PowerCuts | None = None
    _watch: Watch | None = None  # of an open block
    _block = 0
    _epoch = 0
    _checked = 0  # so many notes had been told when it was checked last

    def __init__(
        self,
        profile: str | Profile = "kill9-all",
        *,
        server: Server | None = None,
        container: Any = None,
        observer: Observer | None = None,
        disk: str | None = None,
        settings: Mapping[str, object] | None = None,
        states: int | None = None,
        state: str | None = None,
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
            profile: its settings and faults. With one that cuts the power, such as "power-loss", a block is recorded.
            server: one that is up, with those settings, which somebody else disposes of; None: one of its own.
            observer: one that is free, and that somebody else closes; None: one of its own.
            disk: of a profile that cuts the power, another one, such as "strict"; needs the profile's name.
            settings: more of the server, such as {"fsync": "off"}; needs the profile's name.
            states: at so many crash states of each block `check` and `states` look, where the power is cut; None: 100.
            state: at this one alone, of a recording that is there, as a failed test named it.
            container: a server that runs and is somebody else's: testcontainers', docker's, or a name (of a service of
                compose, say); or `postgresql_proc` of pytest-postgresql, or a data directory. It is crashed as it is,
                with its own settings, and runs in the end.
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
        check_arguments(points, None, STATES if states is None else states)
        if not isinstance(profile, Profile):
            profile = changed_for_a_test(profile, disk, settings or {})
        self.profile = for_a_test(profile, recorded=True)
        if container is not None and server is not None:
            raise UsageProblem("cannot crash two servers: a container and a server are given")
        self._container = container
        _refuse_what_never_crashes(self.profile, at_moments=points != "random" or point is not None)
        _refuse_states_without_a_cut(self.profile, states)
        self._recorded = self.profile.power_loss is not None
        self.seed = _seed(seed)
        self.point = Point.parse(point) if isinstance(point, str) else point
        self._points = points
        self._states, self._state = states or STATES, None if state is None else StateName.parse(state)
        self._given_server, self._choice = server, choice or ServerChoice()
        self._given_observer = observer
        self._folder = folder
        self._reproduce = reproduce
        self._block_timeout_s = block_timeout_s
        self._recovery_timeout_s = recovery_timeout_s
        self._rng = stream(self.seed, "moment")
        self._life = contextlib.ExitStack()
        self._epochs: list[int] = []  # of each block
        self._processes: list[Process] = []
        self.judged: dict[int, Verdict] = {}  # by the crash's number

    # --- the server's life

    def start(self) -> Self:
        """Start server and observer, if they are not up."""
        if self._alive:
            return self
        with contextlib.ExitStack() as stack:
            self.server = self._given_server or stack.enter_context(self._make_server())
            refuse_for_given(self.server, self.profile)
            self.folder = self._folder or Path(tempfile.mkdtemp(prefix="crashlab-test-"))
            self._address = Address(self.server.conninfo())
            self._conversation = self.folder / "conversation.jsonl"
            self._observer = self._begin_conversation(stack)
            self.observed = ObservedServer(
                self.server,
                live_half(self.profile),
                seed=self.seed,
                folder=self.folder,
                conversation=self._conversation,
                as_it_is=self._recorded or self.server.is_given,
            )
            self._told = ToldNotes(self.folder / "told.txt")
            if self._recorded:
                self._power = stack.enter_context(contextlib.closing(self._record()))
            stack.callback(self._told.close)
            stack.callback(self._end_processes)
            self._life = stack.pop_all()
        self._alive = True
        return self

    def _make_server(self) -> Server:
        if self._container is not None:
            return given_server(self._container)
        server = create_server(spec_in_test(self.profile, self._choice))
        try:
            start_for(server, self.profile)
        except BaseException:
            server.dispose()
            raise
        return server

    def _record(self) -> PowerCuts:
        power = PowerCuts(
            self.server,
            self.observed,
            self.profile,
            seed=self.seed,
            folder=self.folder,
            states=self._states,
            only=self._state,
        )
        self._address = Address(self.server.conninfo())  # a recorded container is another one
        self._observer.resume(self._address.upstream)
        power.follow(self._observer)
        self._told.position = power.recorder.position
        return power

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

    def _end_timeout_s(self) -> float:
        return self._recovery_timeout_s + END_SLACK_S


def refuse_for_given(server: Server, profile: Profile) -> None:
    """Raise UsageProblem: somebody else's server cannot be given what the profile asks for."""
    own = {name: value for name, value in profile.server.settings.items() if name != "autovacuum"}
    if server.is_given and (own or profile.power_loss is not None):
        what = "cut its power" if profile.power_loss is not None else f"set {', '.join(own)}"
        raise UsageProblem(
            f"cannot {what}: the server is somebody else's, and is crashed as he has set it up",
            hint="Let crashlab make the server, of the same image if need be (--crashlab-image).",
        )


def _refuse_states_without_a_cut(profile: Profile, states: int | None) -> None:
    if states is not None and profile.power_loss is None:
        raise UsageProblem(
            f'cannot look at crash states with profile "{profile.name}": it cuts no power',
            hint='Choose one that does, such as "power-loss".',
        )


def _seed(given: int | None) -> int:
    if given is not None and type(given) is not int:
        raise UsageProblem(f"seed is a whole number, not {given!r}")
    return new_seed() if given is None else given


def _refuse_what_never_crashes(profile: Profile, *, at_moments: bool) -> None:
    if profile.power_loss is not None:
        if at_moments:
            raise UsageProblem(
                f'cannot crash at moments with profile "{profile.name}": it cuts the power of a recorded block',
                hint="Leave `points` out; `states` says how many crash states of the block are looked at.",
            )
    elif not any(_crashes(fault) for fault in profile.faults):
        raise UsageProblem(
            f'cannot crash a server with profile "{profile.name}": it names no fault that crashes one',
            hint='Choose one that does, such as "kill9-all".',
        )


def _crashes(fault: Any) -> bool:
    return FAULTS[fault.kind].crashes_server(fault.target)
