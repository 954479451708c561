"""What would a correct database do? A tiny one in memory, with a log, flushes, several clients and a crash.

It writes the ledger as real clients do and says what recovery must bring back, from the log alone: it shares nothing
with the oracle but the shared records. Commit, flush, visibility and answer are separate moments, so that a
synchronous commit may wait for its flush while a later asynchronous one is already visible.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

import msgspec

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.ledger import SCHEMA, Ack, Begin, Event, Header, Indeterminate, Intent, Prepared, Refused, Write
from crashlab.model import (
    REQUIRED_CHECKS,
    CheckRun,
    Contract,
    CrashClass,
    IndexRead,
    Injection,
    Invariant,
    MarkerRead,
    MarkerRow,
    Observation,
    Recovery,
    RelationRead,
    Row,
    SequenceRead,
    Verdict,
    WalFacts,
    WalRecord,
)
from crashlab.oracle import judge
from crashlab.oracle.wal import lsn
from crashlab.seeds import stream

ACCOUNTS = 6
OPENING_BALANCE = 100
RELATIONS = ("account", "register", "list", "part", "own")
UNVERSIONED = "own"
"""A user's own table: its rows carry no version and no writer."""

RecordKind = Literal["commit", "prepare", "rollback prepared"]


@dataclass
class Tx:
    """What a transaction is to the server; `commit_lsn` 0: no commit record."""

    tx: int
    client: int
    style: str
    sync: str
    xid: int = 0
    ticket: int = 0
    writes: list[Write] = field(default_factory=list)
    discarded: list[Write] = field(default_factory=list)
    gid: str = ""
    prepare_lsn: int = 0
    commit_lsn: int = 0
    acked: bool = False
    phase: str = "begun"
    lsns: tuple[int, int, int] = (0, 0, 0)

    @property
    def flushes(self) -> bool:
        return self.sync != "off" or self.style == "two-phase"


class Database:
    """A server, its clients and their ledger. `step` lets one of them go on; `crash` ends it all."""

    def __init__(self, rng: Random, *, clients: int, async_share: float, two_phase_share: float = 0.15) -> None:
        self.rng = rng
        self.async_share = async_share
        self.two_phase_share = two_phase_share
        self.events: list[Event] = [Header(schema=SCHEMA, seed=1)]
        self.txs: dict[int, Tx] = {}
        self.log: list[tuple[RecordKind, Tx]] = []
        self.written = 0  # log records, as are all positions
        self.flushed = 0
        self.versions: dict[tuple[str, str], int] = {}
        self.values: dict[tuple[str, str], str | None] = {}
        self.locks: dict[tuple[str, str], int] = {}
        self.open: dict[int, Tx] = {}
        self.clients = list(range(1, clients + 1))
        self.next_xid = 700
        self.ticket = 0
        self.now_ns = 10**12
        self._set_up()

    def _set_up(self) -> None:
        tx = self._begin(0, "plain", "on")
        tx.writes = [Write("account", str(n), 1, str(OPENING_BALANCE)) for n in range(ACCOUNTS)]
        tx.writes += [Write("register", "0", 1, "first"), Write(UNVERSIONED, "0", 1, "first")]
        for moment in ("intent", "commit", "flush", "visible", "answer"):
            getattr(self, f"_{moment}")(tx)

    def _begin(self, client: int, style: str, sync: str) -> Tx:
        tx = Tx(len(self.txs) + 1, client, style, sync)
        self.txs[tx.tx] = tx
        self.events.append(Begin(tx=tx.tx, client=client, at_ns=self._clock()))
        if style != "read only":
            tx.xid, self.next_xid = self.next_xid, self.next_xid + 1
            self.ticket += 1
            tx.ticket = self.ticket
            tx.lsns = (len(self.log), self.written, self.flushed)
        if style == "two-phase":
            tx.gid = f"crashlab-{tx.tx}"
        return tx

    def _clock(self) -> int:
        self.now_ns += self.rng.randrange(1, 1_000_000)
        return self.now_ns

    def step(self) -> None:
        """Let walwriter or one client do one thing."""
        if self.rng.random() < 0.05:
            self.written = self.rng.randint(self.written, len(self.log))
            self.flushed = self.rng.randint(self.flushed, self.written)
            return
        client = self.rng.choice(self.clients)
        tx = self.open.get(client)
        if tx is None:
            self.open[client] = self._begin(
                client, self._style(), "off" if self.rng.random() < self.async_share else "on"
            )
        else:
            self._continue(tx)

    def _style(self) -> str:
        if self.rng.random() < self.two_phase_share:
            return "two-phase"
        return self.rng.choice(["plain"] * 6 + ["read only", "rollback", "error", "savepoint", "savepoint"])

    def _continue(self, tx: Tx) -> None:
        if tx.phase == "begun":
            self._write(tx)
            if tx.style == "rollback":
                self._end(tx)
                self.events.append(Refused(tx.tx, tx.client, self._clock(), "rolled back"))
            else:
                self._intent(tx)
        elif tx.phase == "intent" and tx.style == "error":
            self._end(tx)
            self.events.append(Refused(tx.tx, tx.client, self._clock(), "answered ROLLBACK"))
        elif tx.phase == "intent" and tx.style == "two-phase":
            self.log.append(("prepare", tx))
            tx.prepare_lsn = len(self.log)
            tx.phase = "preparing"
        elif tx.phase == "preparing":
            self._flush(tx)
            self.events.append(Prepared(tx.tx, tx.client, self._clock()))
            tx.phase = "prepared"
        elif tx.phase == "prepared":
            action: Any = self.rng.choice(["commit prepared", "commit prepared", "rollback prepared"])
            self.events.append(Intent(tx.tx, tx.client, self._clock(), action=action, gid=tx.gid))
            tx.phase = action
        elif tx.phase == "rollback prepared":
            self.log.append(("rollback prepared", tx))
            self._flush(tx)
            self._end(tx)
            self.events.append(Ack(tx.tx, tx.client, self._clock(), "ROLLBACK PREPARED"))
        elif tx.phase in ("intent", "commit prepared"):
            self._commit(tx)
        elif tx.phase == "committed":
            if tx.flushes:
                self._flush(tx)
            self._visible(tx)
        else:
            self._answer(tx)

    def _intent(self, tx: Tx) -> None:
        tx.phase = "intent"
        self.events.append(
            Intent(
                tx.tx,
                tx.client,
                self._clock(),
                action="prepare" if tx.style == "two-phase" else "commit",
                sync=tx.sync,
                forced=tx.style == "two-phase",
                xid=tx.xid,
                writes=tuple(tx.writes),
                discarded=tuple(tx.discarded),
                ticket=tx.ticket,
                gid=tx.gid,
                insert_lsn=tx.lsns[0],
                write_lsn=tx.lsns[1],
                flush_lsn=tx.lsns[2],
            )
        )

    def _commit(self, tx: Tx) -> None:
        tx.phase = "committed"
        if tx.style != "read only":
            self.log.append(("commit", tx))
            tx.commit_lsn = len(self.log)

    def _flush(self, tx: Tx) -> None:
        self.written = self.flushed = len(self.log)

    def _visible(self, tx: Tx) -> None:
        tx.phase = "visible"
        for write in tx.writes:
            self.versions[write.relation, write.key] = write.version
            if write.op == "put":
                self.values[write.relation, write.key] = write.value
        self._release(tx)

    def _answer(self, tx: Tx) -> None:
        tx.acked = True
        self.events.append(Ack(tx.tx, tx.client, self._clock()))
        self._end(tx)

    def _end(self, tx: Tx) -> None:
        tx.phase = "ended"
        self._release(tx)
        self.open.pop(tx.client, None)

    def _release(self, tx: Tx) -> None:
        self.locks = {key: holder for key, holder in self.locks.items() if holder != tx.tx}

    def _lock(self, tx: Tx, relation: str, key: str) -> bool:
        return self.locks.setdefault((relation, key), tx.tx) == tx.tx

    def _write(self, tx: Tx) -> None:
        if tx.style == "read only":
            return
        for relation in self.rng.sample(("account", "register", "list", UNVERSIONED), self.rng.randint(1, 2)):
            getattr(self, f"_write_{relation}")(tx)
        if tx.style == "savepoint":
            for number in range(2):
                part = Write("part", f"{tx.tx}.{number}", 1, f"part {number}")
                (tx.writes if self.rng.random() < 0.5 else tx.discarded).append(part)

    def _next(self, relation: str, key: str) -> int:
        return self.versions.get((relation, key), 0) + 1

    def _write_account(self, tx: Tx) -> None:
        pair = self.rng.sample(range(ACCOUNTS), 2)
        if not all(self._lock(tx, "account", str(key)) for key in pair):
            return
        amount = self.rng.randint(1, 9)
        for key, change in zip(pair, (-amount, amount), strict=True):
            balance = int(self.values["account", str(key)] or 0) + change
            tx.writes.append(Write("account", str(key), self._next("account", str(key)), str(balance)))

    def _write_register(self, tx: Tx) -> None:
        key = str(self.rng.randrange(5))
        if self._lock(tx, "register", key):
            value = None if self.rng.random() < 0.3 else f"value {tx.tx}"
            tx.writes.append(Write("register", key, self._next("register", key), value))

    def _write_list(self, tx: Tx) -> None:
        key = f"list-{self.rng.randrange(2)}"
        if self._lock(tx, "list", key):
            tx.writes.append(Write("list", key, self._next("list", key), str(tx.tx), "append"))

    def _write_own(self, tx: Tx) -> None:
        key = str(self.rng.randrange(3))
        if self._lock(tx, UNVERSIONED, key):
            value = None if self.rng.random() < 0.3 else f"own {tx.tx}"
            tx.writes.append(Write(UNVERSIONED, key, self._next(UNVERSIONED, key), value))

    def crash(self, crash_class: CrashClass) -> "World":
        """End it; clients in the middle of a commit may or may not note that no answer will come."""
        position = len(self.events)
        for tx in self.open.values():
            if tx.phase != "begun" and self.rng.random() < 0.5:
                self.events.append(Indeterminate(tx.tx, tx.client, self._clock(), "connection lost"))
        end = self.written
        if crash_class is CrashClass.POWER_LOSS:
            end = self.rng.randint(self.flushed, self.written)
        return World(self, crash_class, self.log[:end], position, self._clock())


@dataclass
class World:
    """A crashed database: what its log still holds, and the evidence that a trial would leave."""

    database: Database
    crash_class: CrashClass
    log: list[tuple[RecordKind, Tx]]
    position: int
    at_ns: int

    @property
    def survivors(self) -> list[Tx]:
        """In commit order."""
        return [tx for kind, tx in self.log if kind == "commit"]

    @property
    def prepared(self) -> list[Tx]:
        decided = {tx.tx for kind, tx in self.log if kind != "prepare"}
        return [tx for kind, tx in self.log if kind == "prepare" and tx.tx not in decided]

    @property
    def lost(self) -> list[Tx]:
        alive = {tx.tx for tx in self.survivors}
        return [tx for tx in self.database.txs.values() if tx.acked and tx.xid and tx.tx not in alive]

    def injection(self, **changes: Any) -> Injection:
        values: dict[str, Any] = {
            "kind": "kill",
            "target": "all",
            "pid": 100,
            "pids": [100, 101],
            "confirmed": True,
            "proof": ["wait saw signal 9"],
            "crashes_server": True,
            "bounds_window": True,
            "acked_before": 1,
            "ledger_position": self.position,
            "at_ns": self.at_ns,
        }
        return Injection(**(values | changes))

    def contract(self, **settings: str) -> Contract:
        return contract_for(settings, self.crash_class)

    def rows(self, survivors: list[Tx]) -> dict[str, dict[str, Row]]:
        """Replay commits; return rows by relation and key."""
        state: dict[str, dict[str, Row]] = {relation: {} for relation in RELATIONS}
        for tx in survivors:
            for write in tx.writes:
                rows = state[write.relation]
                value = write.value
                if value is None:
                    rows.pop(write.key, None)
                    continue
                if write.op == "append":
                    before = msgspec.json.decode(rows[write.key].value or "") if write.key in rows else []
                    value = msgspec.json.encode([*before, value]).decode()
                versioned = write.relation != UNVERSIONED
                rows[write.key] = Row(
                    write.key, write.version if versioned else None, tx.tx if versioned else None, value
                )
        return state

    def observation(self, survivors: list[Tx] | None = None) -> Observation:
        """What an honest observer would read, were these the survivors."""
        survivors = self.survivors if survivors is None else survivors
        state = self.rows(survivors)
        rng = stream(self.at_ns, "observation")
        ticket = max((tx.ticket for tx in survivors), default=0)
        sum_expected = str(ACCOUNTS * OPENING_BALANCE)
        balances = [int(row.value or 0) for row in state["account"].values()]
        return Observation(
            recovery=Recovery(started=True, ran=True, seconds=0.1, redo_start="0/1", redo_end="0/2"),
            checks={name: CheckRun(status="ran", count=5, seconds=0.0) for name in (*REQUIRED_CHECKS, "invariants")},
            xact_status=self.statuses(survivors, rng),
            marker=MarkerRead(file="base/5/100", rows=[MarkerRow(tx.tx, tx.client, tx.xid) for tx in survivors]),
            relations=[
                RelationRead(relation=name, file=f"base/5/{200 + n}", rows=list(state[name].values()))
                for n, name in enumerate(RELATIONS)
            ],
            indexes=[
                IndexRead(
                    index=f"{name}_pkey",
                    relation=f"crashlab.{name}",
                    file=f"base/5/{300 + n}",
                    heap_rows=len(state[name]),
                    index_rows=len(state[name]),
                    only_in_heap=[],
                    only_in_index=[],
                )
                for n, name in enumerate(RELATIONS)
            ],
            sequences=[
                SequenceRead(
                    name="crashlab.ticket", file="base/5/400", last_value=ticket + rng.randint(0, 32), is_called=True
                )
            ],
            prepared=sorted(tx.gid for tx in self.prepared),
            invariants=[Invariant(name="sum of balances", expected=sum_expected, observed=str(sum(balances)))],
        )

    def wal(self, redo: int) -> WalFacts:
        """What is in the log from a position on; a record has length 1."""
        records = [
            WalRecord(kind, tx.xid, start, start + 1, tx.flushes)
            for start, (kind, tx) in enumerate(self.log)
            if start >= redo
        ]
        return WalFacts(redo=redo, end=len(self.log), last=len(self.log) - 1, records=records)

    def with_wal(self, observation: Observation, wal: WalFacts) -> Observation:
        """Add the log as it was read before a recovery that came to the same end."""
        recovery = msgspec.structs.replace(observation.recovery, redo_end=lsn(wal.last))
        return msgspec.structs.replace(observation, wal=wal, recovery=recovery)

    def statuses(self, survivors: list[Tx], rng: Random) -> dict[str, str]:
        """What pg_xact_status says; an xid above all that the log holds may have been given out again."""
        alive = {tx.tx for tx in survivors}
        prepared = {tx.tx for tx in self.prepared}
        newest = max((tx.xid for _, tx in self.log), default=0)
        statuses = {}
        for tx in self.database.txs.values():
            if not tx.xid or tx.phase == "begun" or tx.style == "rollback":
                continue
            if tx.tx in alive:
                status = "committed"
            elif tx.tx in prepared:
                status = "in progress"
            elif tx.xid > newest:
                status = rng.choice(["future", "aborted", "committed"])
            else:
                status = "aborted"
            statuses[str(tx.xid)] = status
        return statuses

    def judge(
        self, observation: Observation | None = None, *, events: list[Event] | None = None, **more: Any
    ) -> Verdict:
        """Judge the honest observation, or another one."""
        return judge(
            fold(self.database.events if events is None else events),
            more.pop("contract", None) or self.contract(),
            more.pop("injections", None) or [self.injection()],
            observation or self.observation(),
            acked_min=more.pop("acked_min", 0),
            **more,
        )


def crashed_world(
    seed: int,
    *,
    steps: int = 150,
    clients: int = 3,
    async_share: float = 0.5,
    two_phase_share: float = 0.15,
    crash_class: CrashClass = CrashClass.PROCESS_CRASH,
) -> World:
    """Run a seeded workload and crash it."""
    database = Database(
        stream(seed, "reference"), clients=clients, async_share=async_share, two_phase_share=two_phase_share
    )
    for _ in range(steps):
        database.step()
    return database.crash(crash_class)
