"""How is a small history told by hand? One relation, a few lines, and what came back."""

from typing import Any

from msgspec.structs import replace

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.ledger import SCHEMA, Ack, Begin, Event, Header, Indeterminate, Intent, Refused, Write
from crashlab.model import (
    REQUIRED_CHECKS,
    CheckRun,
    CrashClass,
    IndexRead,
    Injection,
    MarkerRead,
    MarkerRow,
    Observation,
    Recovery,
    RelationRead,
    Row,
    Verdict,
)
from crashlab.oracle import judge

MS = 1_000_000
FAULT_NS = 10_000 * MS

KILL = Injection(
    kind="kill",
    target="all",
    pid=None,
    pids=[7],
    confirmed=True,
    proof=["pid 7 is gone"],
    crashes_server=True,
    bounds_window=True,
    acked_before=1,
    ledger_position=1,
    at_ns=FAULT_NS,
)
KILL_LOGGER = replace(KILL, target="logger", crashes_server=False)


def ago(age_ms: float) -> int:
    """So many milliseconds before the fault."""
    return FAULT_NS - round(age_ms * MS)


class Story:
    """Transactions write single keys of "register"; each call adds lines to the ledger."""

    def __init__(self) -> None:
        self.events: list[Event] = [Header(schema=SCHEMA, seed=1)]
        self.intents: dict[int, Intent] = {}
        self.clients: dict[int, int] = {}
        self.commit(0, "setup", 1)

    def begin(self, client: int, *, age_ms: float = 3.0) -> int:
        tx = len(self.clients) + 1
        self.clients[tx] = client
        self.events.append(Begin(tx, client, ago(age_ms)))
        return tx

    def intend(self, tx: int, key: str, version: int, **more: Any) -> int:
        write = Write("register", key, version, f"by {tx}")
        at_ns = ago(more.pop("age_ms", 2.0))
        self.intents[tx] = Intent(tx, self.clients[tx], at_ns, xid=700 + tx, writes=(write,), **more)
        self.events.append(self.intents[tx])
        return tx

    def ack(self, tx: int, *, age_ms: float = 1.0) -> int:
        self.events.append(Ack(tx, self.clients[tx], ago(age_ms)))
        return tx

    def refuse(self, tx: int) -> int:
        self.events.append(Refused(tx, self.clients[tx], ago(1.0), "error"))
        return tx

    def lose_answer(self, tx: int) -> int:
        self.events.append(Indeterminate(tx, self.clients[tx], ago(1.0), "connection lost"))
        return tx

    def commit(self, client: int, key: str, version: int, *, age_ms: float = 1.0, **more: Any) -> int:
        """Begin, intent and ack without anything in between."""
        tx = self.intend(self.begin(client, age_ms=age_ms + 2), key, version, age_ms=age_ms + 1, **more)
        return self.ack(tx, age_ms=age_ms)

    def left(self, *present: int, **changes: Any) -> Observation:
        """What is there if exactly these (and the setup, number 1) survived."""
        rows: dict[str, Row] = {}
        for tx in (1, *present):
            for write in self.intents[tx].writes:
                rows[write.key] = Row(write.key, write.version, tx, write.value)
        markers = [MarkerRow(tx, self.clients[tx], 700 + tx) for tx in (1, *present)]
        observation = Observation(
            recovery=Recovery(started=True, ran=True, seconds=0.1, redo_end="0/ABC"),
            checks={name: CheckRun(status="ran", count=1, seconds=0.0) for name in REQUIRED_CHECKS},
            marker=MarkerRead(file="base/5/100", rows=markers),
            relations=[RelationRead(relation="register", file="base/5/200", rows=list(rows.values()))],
            indexes=[
                IndexRead(
                    index="register_pkey",
                    relation="register",
                    file="base/5/201",
                    heap_rows=len(rows),
                    index_rows=len(rows),
                    only_in_heap=[],
                    only_in_index=[],
                )
            ],
        )
        return replace(observation, **changes)

    def judge(
        self,
        observation: Observation,
        *,
        settings: dict[str, str] | None = None,
        crash_class: CrashClass = CrashClass.PROCESS_CRASH,
        injections: tuple[Injection, ...] = (KILL,),
        acked_min: int = 0,
        **more: Any,
    ) -> Verdict:
        contract = contract_for(settings or {}, crash_class)
        return judge(fold(self.events), contract, injections, observation, acked_min=acked_min, **more)


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]
