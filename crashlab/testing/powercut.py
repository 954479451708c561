"""What would each loss of power have taken, while a block of the test ran?

The server is recorded. The end of a block kills it, as ever, and the recording of the block is then cut at many points:
each crash state is recovered on a copy and judged with what had been answered and told by then.

Choices: so many states a block, in the order of a campaign, which spans the whole block from its first round on. The
    first few that a test does not accept end the look.
    A recording stays as long as somebody may want one of its states again: until the test has passed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from crashlab import evidence
from crashlab.disk.model import CrashState
from crashlab.errors import UsageProblem
from crashlab.exploration import recording
from crashlab.exploration.addresses import Address
from crashlab.exploration.block import BlockRecorder
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.recording import InTest, Recording
from crashlab.model import Told, ToldKey
from crashlab.observer import Observer
from crashlab.profile import Profile
from crashlab.recording.iolog import TAIL_OFFSET
from crashlab.recovery import recover
from crashlab.recovery.restart import copy_settings
from crashlab.results import TrialResult, make_trial_folder
from crashlab.server import SERVER_KINDS, Restartable, Server
from crashlab.testing.address import Address as ServerAddress
from crashlab.testing.failure import CrashFailure
from crashlab.testing.told import Note, as_keys
from crashlab.trial.observed import ObservedCrash, ObservedServer

STATES = 100
STATE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class StateName:
    """One state of one recording, as a failed test names it: "FOLDER:POINT.NUMBER"."""

    folder: Path
    address: Address

    def __str__(self) -> str:
        return f"{self.folder}:{self.address}"

    @classmethod
    def parse(cls, text: str) -> "StateName":
        """Read what `str` wrote. Raises UsageProblem."""
        folder, _, address = text.strip().rpartition(":")
        position, _, number = address.partition(".")
        if not (folder and position.isdecimal() and number.isdecimal()):
            raise UsageProblem(
                f'cannot read the crash state "{text}"', hint='It is written as a failed test names it: "FOLDER:12.0".'
            )
        return cls(Path(folder), Address(int(position), int(number)))

    @property
    def block(self) -> int:
        """Of the test."""
        return int(self.folder.name.rpartition("-")[2])


@dataclass(frozen=True)
class State:
    """A server that has recovered from one crash state; it is gone when the loop goes on."""

    url: str  # postgresql://, past any observer
    block: int
    told: list[Any]  # the keys that had been told by then
    note: str  # what the loss of power took, in words
    name: StateName
    server: Restartable

    def connect(self, **kwargs: Any) -> "psycopg.Connection[Any]":
        """Connect as the superuser; arguments are those of psycopg.connect."""
        return self.server.connect(**kwargs)


@dataclass
class _Block:
    number: int
    recording: Recording
    crash: ObservedCrash
    results: dict[Address, TrialResult] = field(default_factory=dict)
    asked: tuple[str | None, str, int] | None = None  # by which query, where, of how many keys the results are


class PowerCuts:
    """The recordings of a test's blocks, and their crash states."""

    def __init__(
        self,
        server: Server,
        observed: ObservedServer,
        profile: Profile,
        *,
        seed: int,
        folder: Path,
        states: int,
        only: StateName | None,
    ) -> None:
        """Start a server that is up again, recorded; its clients lose their connections.

        Args:
            folder: takes a folder a recording, and one for its states.
            states: so many a block are looked at.
            only: this one alone, of a recording that is there already.
        """
        self.at: StateName | None = None  # the state that is being looked at
        self._server = server
        self._observed = observed
        self._profile = profile
        self._seed = seed
        self._folder = folder
        self._states = states
        self._only = only
        self._blocks: list[_Block] = []
        self._explorer: Explorer | None = None
        server.stop("fast")
        self.recorder = BlockRecorder(server, profile, seed=seed, folder=folder)
        try:
            server.start()
            self.recorder.require()
        except BaseException:
            self.recorder.close()
            raise

    def follow(self, observer: Observer) -> None:
        """Have an observer note how far the server's log is."""
        observer.follow(self.recorder.log, TAIL_OFFSET)

    def begin_block(self) -> None:
        """From here on the power may fail."""
        self._facts = self._observed.read_facts()
        self._databases = self._observed.other_databases()
        self.recorder.begin_block()

    def ended(self, crash: ObservedCrash) -> None:
        """The server was killed, and has recovered: keep the recording of the block."""
        made = self.recorder.complete(
            crash.folder / evidence.LEDGER,
            self._facts,
            InTest(invariants=self._observed.invariants, databases=self._databases),
            invariants_before=crash.observation.invariants_before,
            broken_before=crash.observation.broken_before,
        )
        self._blocks.append(_Block(crash.number, made, crash))

    # --- what is looked at

    def results(
        self, notes: Sequence[Note], connection: "psycopg.Connection[Any]", query: str | None, database: str
    ) -> Iterator[tuple[StateName, TrialResult]]:
        """Yield the states of all blocks, judged."""
        for block in self._wanted():
            asked = (query, database, len(notes))
            if block.asked != asked:
                block.results.clear()
                block.asked = asked
            explorer = self._prepare(block, notes, connection, query, database)
            for address, state in self._addresses(explorer):
                name = self.at = StateName(explorer.recording.folder, address)
                if address not in block.results:
                    number = len(list(self._states_folder(block).glob("*")))
                    folder = make_trial_folder(self._states_folder(block), number)
                    block.results[address] = explorer.try_state(state, number, folder)
                yield name, block.results[address]
        self.at = None

    def states(self, notes: Sequence[Note], connection: "psycopg.Connection[Any]") -> Iterator[State]:
        """Yield the states of all blocks, each recovered. Raises CrashFailure: one does not start."""
        for block in self._wanted():
            explorer = self._prepare(block, notes, connection, None, "postgres")
            for address, state in self._addresses(explorer):
                self.at = StateName(explorer.recording.folder, address)
                yield self._recovered(explorer, block, state, notes, self.at)
                explorer.worker.kill()
        self.at = None

    def _recovered(
        self, explorer: Explorer, block: _Block, state: CrashState, notes: Sequence[Note], name: StateName
    ) -> State:
        explorer.make_real(state)
        server = explorer.worker.server
        recovery = recover(
            server,
            restart=True,
            log_position=server.log_position(),
            overrides=copy_settings(server.version.major),
        )
        if not recovery.started:
            said = "\n".join(recovery.fatal) or recovery.tool_fault or "it said nothing"
            raise CrashFailure(f"the server does not start on a crash state: {state.note}\n{said}")
        told = evidence.load(explorer.recording.folder / evidence.TOLD, Told)
        keys = {key.text: key for key in told.keys if key.io <= explorer.ledger_io()}
        given = {str(note.key): note.key for note in notes}
        return State(
            url=ServerAddress(server.conninfo()).direct_url,
            block=block.number,
            told=[given.get(text, text) for text in keys],
            note=state.note,
            name=name,
            server=server,
        )

    def _wanted(self) -> list[_Block]:
        only = self._only
        return [block for block in self._blocks if only is None or only.block == block.number]

    def _addresses(self, explorer: Explorer) -> Iterator[tuple[Address, CrashState]]:
        if self._only is None:
            yield from islice(explorer.states(), self._states)
            return
        state = explorer.state(self._only.address)
        if state is None:
            raise UsageProblem(f'the recording "{self._only.folder}" has no crash state {self._only.address}')
        yield self._only.address, state

    def _prepare(
        self,
        block: _Block,
        notes: Sequence[Note],
        connection: "psycopg.Connection[Any]",
        query: str | None,
        database: str,
    ) -> Explorer:
        """Write down what is to be asked of each state, and return what makes them real."""
        if self._only is None:
            told = Told(
                observed=True,
                keys=_keys_of(block, notes, connection, query),
                set_by=block.crash.written.set_by(),
                reasons=block.crash.written.reasons(),
            )
            which = block.recording
        else:
            which = recording.load(self._only.folder)
            told = evidence.load(which.folder / evidence.TOLD, Told)
        if query is not None or self._only is None:
            unseen = 0 if query is not None else block.crash.written.unseen_since(block.crash.block_ns)
            told = msgspec.structs.replace(told, query=query, database=database, unseen=unseen)
            evidence.save(which.folder, evidence.TOLD, told)
        if self._explorer is None or self._explorer.recording.folder != which.folder:
            self._drop_explorer()
            server = SERVER_KINDS[self._server.kind].again(self._server.source, self._server.version)
            self._explorer = Explorer(which, self._profile, server=server, timeout_s=STATE_TIMEOUT_S).__enter__()
        return self._explorer

    def _states_folder(self, block: _Block) -> Path:
        return self._folder / f"states-{block.number}"

    def _drop_explorer(self) -> None:
        if self._explorer is not None:
            self._explorer.dispose()
            self._explorer = None

    def forget(self) -> None:
        """Remove what only a replay needs."""
        for block in self._blocks:
            recording.forget_data(block.recording.folder)

    def close(self) -> None:
        """End the servers of the states."""
        self._drop_explorer()
        self.recorder.close()


def start_for(server: Server, profile: Profile) -> None:
    """Start a new server, so that its files can be recorded if the profile cuts the power."""
    if profile.power_loss is not None:
        server.share_data()
    server.start()


def state_words(name: StateName, result: TrialResult) -> str:
    """Say where the power failed."""
    counts = result.verdict.counts
    note = result.state.note if result.state is not None else ""
    return (
        f"the power failed: block {name.block}, operation {name.address.position} of its recording, "
        f"with {counts.acked} commits answered; {note}"
    )


def _keys_of(
    block: _Block, notes: Sequence[Note], connection: "psycopg.Connection[Any]", query: str | None
) -> list[ToldKey]:
    """Return what was told up to the end of a block, by the positions of its log."""
    told = [note for note in notes if note.io[0] <= block.number]
    return [
        msgspec.structs.replace(block.crash.written.placed(key), io=note.io[1] if note.io[0] == block.number else 0)
        for note, key in zip(told, as_keys(told, connection, query), strict=True)
    ]
