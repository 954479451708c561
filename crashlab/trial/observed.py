"""How is a server crashed on which an unchanged application works, as often as asked, and what is each crash worth?

Each crash is a trial with a folder of its own: `crash-1`, `crash-2` ... What came back is read at once, before anybody
is let in again; the application's own ledger is made of the conversation up to that crash (`conversed`).

Choices: faults that crash nothing (a stopped walwriter) happen as a block begins, all others at its moment.
    Of transactions that an earlier crash has taken nobody is asked again: their ids may be another's by now.
    A server restarts with fsync off, unless the profile sets it: else it would flush every file of its directory first.
    Of the catalogs only those are swept that were written since initdb.
    Invariants are looked at as a block begins; a look at the moment itself would give asynchronous commits time.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psycopg

from crashlab import evidence
from crashlab.fault import FAULTS, inject
from crashlab.ledger import LedgerWriter
from crashlab.model import Broken, Injection, Invariant, Observation, Recovery, Told, ToldKey, Verdict
from crashlab.observer import Conversation, read_conversation
from crashlab.observer.account import Transaction
from crashlab.profile import Profile
from crashlab.recovery import Reading, observe, recover
from crashlab.seeds import stream
from crashlab.server import Server
from crashlab.trial.conversed import Written, write_ledger
from crashlab.trial.intest import ServerInTest
from crashlab.trial.judged import judge_trial, nothing_due
from crashlab.trial.live import wal_of
from crashlab.trial.setup import invariants_before
from crashlab.trial.written import trial_record, write_evidence

OTHER_DATABASES = (
    "SELECT EXISTS (SELECT FROM pg_database WHERE datallowconn AND datname NOT IN ('postgres', 'template1'))"
)
_OPEN_ENDED = 1 << 62


@dataclass
class ObservedCrash:
    """One crash and what it left."""

    number: int
    folder: Path
    injections: list[Injection]
    observation: Observation
    written: Written
    at_block_end: bool = False  # no moment came before
    block_ns: int = 0  # when the block began
    moment: str = ""  # in words
    broken_since: list[Invariant] | None = None  # None: nobody has looked since the recovery
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def nothing_due(self) -> bool:
        """Whether the server had shut down before it could crash."""
        return nothing_due(self.injections, ran=self.observation.recovery.ran)


class ObservedServer(ServerInTest):
    """A server that is up, its crashes, and their evidence."""

    def __init__(
        self,
        server: Server,
        profile: Profile,
        *,
        seed: int,
        folder: Path,
        conversation: Path | None,
        as_it_is: bool = False,
    ) -> None:
        """Take a server that is up.

        Args:
            folder: empty; takes a folder a crash.
            conversation: what the observer writes; None: nobody observes.
            as_it_is: it restarts with its own settings, because it is recorded, or because nobody can give it any.
        """
        super().__init__(server, profile, seed=seed, folder=folder)
        self.crashes: list[ObservedCrash] = []
        self._conversation = conversation
        self._rng = stream(seed, "faults")
        self._broken = Broken()
        # The kernel outlives a process crash, and has everything: no verdict changes (recovery.restart)
        self._overrides = {} if as_it_is or "fsync" in server.settings else {"fsync": "off"}
        self._early: list[Injection] = []
        self._survivors: set[int] = set()
        self._prepared: set[str] = set()
        self._last_cut = 0

    def begin(self) -> None:
        """A block begins: look for what does not hold already, and inject what does not crash the server."""
        self._look_since()
        self._look(self._invariants)
        self._broken = self._look_for_broken([])
        self._log_position = self.server.log_position()
        with contextlib.ExitStack() as stack:
            ledger = self._scratch(stack)
            early = [fault for fault in self.profile.faults if not FAULTS[fault.kind].crashes_server(fault.target)]
            self._early = [inject(self.server, fault, ledger, self._rng) for fault in early]

    def _look_since(self) -> None:
        """Look whether what held after the last recovery holds still."""
        last = self.crashes[-1] if self.crashes else None
        if last is not None and last.observation.recovery.started:
            last.broken_since = invariants_before(self._broken_now(self._invariants))

    def read_facts(self) -> evidence.ServerFacts:
        """Return what the server says of itself now: the application may have changed its settings."""
        self._facts = msgspec.structs.replace(self._facts, settings=self.server.read_settings())
        return self._facts

    @property
    def violations(self) -> list[Invariant]:
        """The invariants that did not hold before a crash."""
        return invariants_before(self._violations)

    @property
    def invariants(self) -> list[tuple[str, str]]:
        """Name and query of each."""
        return [(one.name, one.sql) for one in self._invariants]

    def other_databases(self) -> bool:
        """Whether there are databases beside those of every cluster."""
        with contextlib.suppress(psycopg.Error), contextlib.closing(self._connect_to("postgres")) as connection:
            row = connection.execute(OTHER_DATABASES).fetchone()
            return row is not None and bool(row[0])
        return False

    def _scratch(self, stack: contextlib.ExitStack) -> LedgerWriter:
        """A ledger in which nobody is: what the receipts say of it is mended when it is known."""
        path = self.folder / ".faults"
        stack.callback(path.unlink, missing_ok=True)
        ledger = LedgerWriter(path, seed=self.seed)
        stack.callback(ledger.close)
        return ledger

    def kill(self) -> list[Injection]:
        """Inject the profile's faults, now. Raises FaultError, ServerError."""
        with contextlib.ExitStack() as stack:
            ledger = self._scratch(stack)
            late = [fault for fault in self.profile.faults if FAULTS[fault.kind].crashes_server(fault.target)]
            return [*self._early, *(inject(self.server, fault, ledger, self._rng) for fault in late)]

    def come_back(self, injections: list[Injection], *, timeout_s: float) -> ObservedCrash:
        """Recover the server, if it was crashed, and read it. One that does not come back is no exception."""
        begun = time.monotonic()
        number = len(self.crashes) + 1
        folder = self.folder / f"crash-{number}"
        folder.mkdir()
        conversation, until = self._read_conversation()
        written = write_ledger(
            folder / evidence.LEDGER,
            self.seed,
            conversation,
            until=until,
            since=self._last_cut,
            there=self._is_there,
        )
        wal = wal_of(self.server, injections) if any(one.crashes_server for one in injections) else None
        recovered = time.monotonic()
        if any(one.crashes_server for one in injections) or not self.server.running():
            recovery = recover(
                self.server,
                restart=not self.server.running(),
                log_position=self._log_position,
                timeout_s=timeout_s,
                overrides=self._overrides,
            )
        else:
            recovery = Recovery(started=True, ran=False, seconds=0.0)
        read = time.monotonic()
        observation = msgspec.structs.replace(
            self._read(recovery, written),
            wal=wal,
            invariants_before=self.violations,
            broken_before=self._broken,
        )
        done = time.monotonic()
        receipts = [_placed(receipt, written) for receipt in injections]
        seconds = {"ledger": recovered - begun, "recovery": read - recovered, "observe": done - read}
        crash = ObservedCrash(number, folder, receipts, observation, written, seconds=seconds)
        self.crashes.append(crash)
        self._survivors = {int(xid) for xid, status in observation.xact_status.items() if status == "committed"}
        self._prepared = set(observation.prepared)
        self._last_cut = until
        return crash

    def _read_conversation(self) -> tuple[Conversation, int]:
        if self._conversation is None:
            return Conversation(), _OPEN_ENDED
        conversation = read_conversation(self._conversation)
        cuts = [record for record, what in conversation.marks if what == "cut" and record > self._last_cut]
        return conversation, cuts[-1] if cuts else max([self._last_cut, *_records(conversation)]) + 1

    def _is_there(self, transaction: Transaction) -> bool:
        return transaction.xid in self._survivors or bool(transaction.gid and transaction.gid in self._prepared)

    def _read(self, recovery: Recovery, written: Written) -> Observation:
        reading = Reading(
            relations=[],
            invariants=self._invariants,
            xids=[one.xid for one in written.transactions.values() if one.xid],
            sequences=(),
            databases=recovery.started and self.other_databases(),
            statistics=False,  # a server that goes on has not written them down
        )
        found = observe(self._connect_to, reading, recovery, unchanged=self.server.untouched())
        return msgspec.structs.replace(found, marker=None)  # nobody writes there

    def judge(
        self,
        crash: ObservedCrash,
        keys: Sequence[ToldKey],
        query: str | None,
        found: list[str] | None,
        reproduce: str,
        *,
        looked_for: bool,
    ) -> Verdict:
        """Save the evidence of one crash, and judge it.

        Args:
            keys: what was told; their lines are found here.
            found: what the query found of them; None: nobody asks about this crash.
            looked_for: a query of the test's looks for what was told, if only after a later crash.
        """
        written = crash.written
        if crash is self.crashes[-1]:
            self._look_since()
        told = Told(
            observed=self._conversation is not None,
            keys=[written.placed(key) for key in keys],
            query=query,
            found=found,
            set_by=written.set_by(),
            reasons=written.reasons(),
            broken_since=crash.broken_since or [],
            repeats=written.repeats(self._read_conversation()[0]) if crash.broken_since else {},
            moment=crash.moment,
            unseen=0 if looked_for else written.unseen_since(crash.block_ns),
        )
        record = trial_record(
            self.profile,
            "observed",
            trial=crash.number,
            seed=self.seed,
            run_seed=self.seed,
            server=self._facts,
            acked_min=written.changes_wanted(crash.block_ns) if crash.at_block_end and told.observed else 0,
            injections=crash.injections,
            seconds=crash.seconds,
            reproduce=reproduce,
        )
        write_evidence(crash.folder, record, crash.observation, server_log=self.server.log_since(0), told=told)
        return judge_trial(crash.folder)


def _records(conversation: Conversation) -> list[int]:
    return [step.answered or step.number for step in conversation.steps[-1:]]


def _placed(receipt: Injection, written: Written) -> Injection:
    """Say on a receipt where in the ledger its fault stands."""
    acked = sum(at_ns <= receipt.at_ns for at_ns in written.acked)
    return msgspec.structs.replace(receipt, acked_before=acked, ledger_position=written.line_at(receipt.at_ns))
