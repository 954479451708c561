"""How is a conversation of one connection told by hand, with what its user was told in between?"""

from collections.abc import Sequence

from msgspec.structs import replace

from crashlab.contract import contract_for
from crashlab.history import fold
from crashlab.ledger import SCHEMA, Ack, Begin, Event, Header, Intent, Refused
from crashlab.model import (
    REQUIRED_CHECKS,
    CheckRun,
    CrashClass,
    Invariant,
    Observation,
    Recovery,
    Told,
    ToldKey,
    Verdict,
)
from crashlab.oracle import judge
from tests.oracle.story import KILL, ago

RAN = {name: CheckRun(status="ran", count=1, seconds=0.0) for name in REQUIRED_CHECKS}
CAME_BACK = Recovery(started=True, ran=True, seconds=0.1)


class Talk:
    """A conversation of one connection, line by line, and what the user was told in between."""

    def __init__(self) -> None:
        self.events: list[Event] = [Header(schema=SCHEMA, seed=1)]
        self.statuses: dict[str, str] = {}
        self.told: list[ToldKey] = []
        self.count = 0

    def begin(self) -> "Talk":
        self.count += 1
        self.events.append(Begin(self.count, 1, ago(5)))
        return self

    def commit(self, *, sync: str = "on", there: bool = True, wrote: bool = True) -> "Talk":
        xid = 700 + self.count if wrote else 0
        self.statuses[str(xid)] = "committed" if there else "future"
        self.events.append(Intent(self.count, 1, ago(4), xid=xid, sync=sync))
        return self

    def ack(self) -> "Talk":
        self.events.append(Ack(self.count, 1, ago(3)))
        return self

    def refuse(self) -> "Talk":
        self.events.append(Refused(self.count, 1, ago(3), "no"))
        return self

    def tell(self, key: str, *, since: int = 0, age_ms: float = 2, since_ms: float = 0) -> "Talk":
        """Of a file: somewhere between a line of the ledger, or a time, and now; ages are before the fault."""
        by = "file" if since else "test"
        since_ns = ago(since_ms) if since_ms else 0
        key_told = ToldKey(
            text=key, at_ns=ago(age_ms), line=len(self.events), by=by, since_line=since, since_ns=since_ns
        )
        self.told.append(key_told)
        return self

    def judged(self, *found: str, broken: str = "", holds: Sequence[str] = (), fsync: str = "", **more) -> Verdict:
        told = Told(observed=True, keys=self.told, query="SELECT id", found=list(found), **more)
        invariants = [Invariant(name="sum", expected="no rows", observed=broken or "no rows")]
        invariants += [Invariant(name=name, expected="no rows", observed="no rows") for name in holds]
        observation = Observation(recovery=CAME_BACK, checks=RAN, xact_status=self.statuses, invariants=invariants)
        crash = CrashClass.POWER_LOSS if fsync else CrashClass.PROCESS_CRASH
        contract = contract_for({"synchronous_commit": "on", "fsync": fsync or "on"}, crash, bounded_window=True)
        receipt = replace(KILL, ledger_position=len(self.events))
        return judge(fold(self.events), contract, [receipt], observation, acked_min=0, told=told)
