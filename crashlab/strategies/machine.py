"""Which few steps, with a crash among them, break an application's word?

    class Orders(CrashStateMachine):
        there = "SELECT id FROM orders"

        @classmethod
        def prepare(cls, url):
            create_tables(url)

        def __init__(self):
            super().__init__()
            self.shop = Shop(self.url)

        @rule(item=st.sampled_from(["book", "lamp"]))
        def order(self, item):
            self.told(self.shop.order(item))

    TestOrders = Orders.TestCase

Hypothesis calls the rules in any order, the base class adds `crash` and `check`, and what fails shrinks to the shortest
sequence that does. Each example has a fresh server, made from one that is reused; a test that is over disposes of it.

Choices: the same rules lose the same transactions each time. The server is killed between two rules, or where
    `inside_commit` says, and walwriter stands still, so that an asynchronous commit is lost unless a later flush
    saved it. `check` compares what was told; it does not look for damage, which a kill does not make.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import HealthCheck, Phase, currently_in_test_context, note, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crashlab.errors import UsageProblem
from crashlab.server import ServerSpec
from crashlab.strategies.midcommit import MidCommit
from crashlab.strategies.spare import SpareServer

if TYPE_CHECKING:
    import psycopg

PROFILE = "crashlab"
settings.register_profile(
    PROFILE,
    deadline=None,  # a server's start takes what it takes
    max_examples=30,
    stateful_step_count=10,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    phases=[phase for phase in Phase if phase is not Phase.explain],  # which runs many more examples
    report_multiple_bugs=False,  # a loss that two rules come upon is one, and to shrink each takes its time
    print_blob=True,
)


class CrashStateMachine(RuleBasedStateMachine):
    """A state machine on a local server that dies and recovers; a subclass adds the application's rules."""

    there: ClassVar[str | None] = None  # a query; each told key is in its first column
    server_settings: ClassVar[Mapping[str, str]] = {}
    pg_bindir: ClassVar[Path | None] = None  # None: the first build that there is
    crashes_max: ClassVar[int] = 3  # after so many in one example, the rule `crash` is left out
    walwriter: ClassVar[bool] = False  # True: it goes on, and asynchronous commits are lost by chance

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.TestCase.settings = settings.get_profile(PROFILE)
        setattr(cls.TestCase, "tearDownClass", dispose_spare)  # noqa: B010 - also after a failure, and Ctrl-C

    def __init__(self) -> None:
        """Begin an example on a fresh server. Raises ServerError: there is no build, or it does not start."""
        super().__init__()
        self._spare = _spare_for(type(self))
        self._spare.fresh()
        self._crashes = 0
        self._disturbed = False  # by a rule of the application, since the last crash: another one has something to meet
        self._undisturbing = True  # the rule that runs
        self._told: list[object] = []
        self._told_since = False  # the last check

    # For the application and its rules

    @classmethod
    def prepare(cls, url: str) -> None:
        """Make what every example begins with, such as tables; called once for all of them."""

    def verify(self) -> None:
        """Raise AssertionError where something is not as it has to be; called in each check, and after each crash."""

    @property
    def url(self) -> str:
        """A postgresql:// URL of the server's superuser; the same for all examples, and after each crash."""
        return self._spare.url

    def connect(self) -> "psycopg.Connection[Any]":
        """Open a session in autocommit mode."""
        return self._spare.connect()

    def told(self, key: object) -> None:
        """Note what the application has told its user; from now on it has to be in the first column of `there`."""
        self._told.append(key)
        self._told_since = True

    def die(self) -> None:
        """Kill every process of the server; `recover` brings it back. For rules about life without it."""
        self._spare.kill()

    def recover(self) -> None:
        """Start the server that died, wait until it has recovered, and check."""
        self._spare.recover()
        self._look()

    @contextlib.contextmanager
    def inside_commit(self, *, done: bool = False) -> Iterator[None]:
        """The server dies in the first commit of the block, recovers, and what was told is checked.

        What the application raises because of that ends the block, an assertion does not. If no commit came, or none
        of a kind that can be met (see `midcommit`), the server dies at the end of the block.

        Args:
            done: the commit is on disk, and its answer never arrives; False: COMMIT arrived, and nothing was done.

        Raises:
            UsageProblem: the server's settings do not allow it, or the application holds a lock.
        """
        moment = MidCommit(self._spare, done=done)
        self._crashes += 1
        try:
            yield
        except AssertionError:
            moment.end()
            raise
        except Exception as error:
            moment.end()
            if not moment.died:
                raise
            if currently_in_test_context():
                note(f"the application, whose commit got no answer, raised {error!r}")
        except BaseException:
            moment.give_up()
            self._spare.kill()
            raise
        else:
            moment.end()
        self._look()

    # Rules

    def _note_step(self) -> bool:
        self._disturbed |= not self._undisturbing
        self._undisturbing = False
        return False

    # A condition is asked for after each rule, and once before the first; never met, it does not show in a report
    @precondition(_note_step)
    @invariant(check_during_init=True)
    def _after_each_rule(self) -> None:
        raise AssertionError

    @property
    def _may_crash(self) -> bool:
        return self._disturbed and self._crashes < self.crashes_max

    @precondition(lambda self: self._may_crash)
    @rule()
    def crash(self) -> None:
        """Kill every process of the server at one moment, let it recover, and check."""
        self._crashes += 1
        self._disturbed, self._undisturbing = False, True
        self.die()
        self.recover()

    @precondition(lambda self: self._told_since or self._verifies or not self._may_crash)
    @rule()
    def check(self) -> None:
        """Whatever was told is there."""
        self._undisturbing = True
        self._look()

    @property
    def _verifies(self) -> bool:
        return type(self).verify is not CrashStateMachine.verify

    def _look(self) -> None:
        self._told_since = False
        if self._told:
            self._require_told()
        self.verify()

    def _require_told(self) -> None:
        if self.there is None:
            if self._verifies:
                return
            raise UsageProblem(
                "cannot check what was told: nothing says where it has to be",
                hint='Set there = "SELECT id FROM ...", or override verify().',
            )
        with contextlib.closing(self.connect()) as connection:
            found = {str(row[0]) for row in connection.execute(self.there.encode())}
        missing = [key for key in self._told if str(key) not in found]
        if missing:
            raise AssertionError(
                f"told, but not there: {', '.join(map(repr, missing))}; {len(found)} others are there\n"
                f"asked with: {self.there}\n"
                "The user was told before COMMIT was answered, or although it failed, or the commit was asynchronous."
            ) from None  # what the application met inside a commit is no cause


_spares: dict[type[CrashStateMachine], SpareServer] = {}


def _spare_for(machine: type[CrashStateMachine]) -> SpareServer:
    if machine not in _spares:
        dispose_spare()
        spec = ServerSpec(kind="local", pg_bindir=machine.pg_bindir, settings=dict(machine.server_settings))
        _spares[machine] = SpareServer(spec, machine.prepare, walwriter=machine.walwriter)
    return _spares[machine]


def dispose_spare() -> None:
    """Remove the server that waits for the next example, if there is one; the end of the process does so, too."""
    while _spares:
        _spares.popitem()[1].dispose()
