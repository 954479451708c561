"""Which is the shortest run that still finds the same?

A recording is fixed: its transactions cannot be left out. So the workload is run anew, with the same seed and fewer
transactions, clients or kinds of them, and some of its crash states, or some live trials, are tried. What finds the
same is the new best one, until nothing that is smaller does.

    transactions  as many as had begun by the crash, then half as many, again and again
    clients       one, else half of them
    kinds         leave out runs of kinds, long ones first; never a user's own SQL, which its invariants need
    shares        no transaction in two phases, none that is rolled back, and so on

Assumes: `found` tries enough of each run: where nothing is found in so many tries, nothing is taken to be there.
Choices:
    Smaller is what asks for fewer transactions; then for fewer clients, kinds and shares. A proposal makes one of them
    smaller and no other one larger, so the search ends. Nothing is proposed twice. How many had begun when it crashed
    is other each time: it may be more than before by one for each client.

Source: as `exploration/shrink.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from crashlab.errors import ProfileError
from crashlab.exploration.shrink import Spent
from crashlab.profile import Profile, parse_profile
from crashlab.profile_schema import When

USERS_OWN = "sql"
SHARES = ("two_phase", "rollbacks", "savepoints", "errors", "read_only")

Key = tuple[int | None, int, tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Tried:
    """One shorter run, as it is told."""

    size: str
    found: bool


class Shorter:
    """A search for the shortest run. `best` is always a profile whose run was seen to find the same."""

    def __init__(
        self,
        profile: Profile,
        transactions: int,
        *,
        found: Callable[[Profile, int], int | None],
        may_go_on: Callable[[], bool] = lambda: True,
        told: Callable[[Tried], None] = lambda tried: None,
    ) -> None:
        """Begin with a profile whose run found it.

        Args:
            transactions: so many had begun when it crashed.
            found: runs a profile, and returns how many had begun when it found the same, at most so many; None: it did
                not. Whoever keeps what it last found has what `best` is.
            may_go_on: asked before each run.
        """
        self.best = profile
        self.transactions = transactions
        self.tried = 0
        self.complete = False  # the search ended by itself
        self._found = found
        self._may_go_on = may_go_on
        self._told = told
        self._seen: set[Key] = {_key(profile, asked_for(profile))}

    def run(self) -> Profile:
        """Make it shorter until nothing shorter finds the same, or no more may be tried."""
        try:
            before = None
            while before != (key := _key(self.best, self.transactions)):
                before = key
                self._fewer_transactions()
                self._fewer_clients()
                self._fewer_kinds()
                self._fewer_shares()
            self.complete = True
        except Spent:
            pass
        return self.best

    def _try(self, profile: Profile) -> bool:
        key = _key(profile, asked_for(profile))
        if key in self._seen:
            return False
        if not self._may_go_on():
            raise Spent
        self._seen.add(key)
        self.tried += 1
        begun = self._found(profile, self.transactions + profile.workload.clients)
        self._told(Tried(size_of(profile), begun is not None))
        if begun is None:
            return False
        self.best, self.transactions = profile, begun
        return True

    def _fewer_transactions(self) -> None:
        asked = asked_for(self.best)
        count = self.transactions if asked is None else min(self.transactions, asked - 1)
        while count > 0 and self._try(with_transactions(self.best, count)):
            count = min(count, self.transactions) // 2

    def _fewer_clients(self) -> None:
        clients = self.best.workload.clients
        for fewer in (1, clients // 2):
            if 0 < fewer < clients and self._try(_with(self.best, clients=fewer)):
                return

    def _fewer_kinds(self) -> None:
        size = len(self.best.workload.kinds) // 2
        while size:
            at = 0
            while at < len(kinds := self.best.workload.kinds):
                rest = [*kinds[:at], *kinds[at + size :]]
                left_out = kinds[at : at + size]
                if not rest or USERS_OWN in left_out or not self._try(_with(self.best, kinds=rest)):
                    at += size
            size //= 2

    def _fewer_shares(self) -> None:
        for name in used_shares(self.best):
            self._try(_with(self.best, **{name: 0.0}))


def asked_for(profile: Profile) -> int | None:
    """Return how many acknowledged transactions a run waits for; None: it is cut off by time."""
    if profile.power_loss is not None:
        return 2 * profile.workload.acked_min + profile.power_loss.acks
    first, *others = (fault.when.acks for fault in profile.faults)
    return None if first is None else max(profile.workload.acked_min, first) + sum(acks or 0 for acks in others)


def with_transactions(profile: Profile, count: int) -> Profile:
    """Return a profile whose run waits for so many acknowledged transactions."""
    if profile.power_loss is not None:
        enough = min(profile.workload.acked_min, count // 4)
        power_loss = profile.power_loss.model_copy(update={"acks": count - 2 * enough})
        return _with(profile.model_copy(update={"power_loss": power_loss}), acked_min=enough)
    share = count // len(profile.faults)
    counts = [None if fault.when.acks is None else min(fault.when.acks, share) for fault in profile.faults[1:]]
    at_first = count - sum(acks or 0 for acks in counts)
    faults = [
        fault if acks is None else fault.model_copy(update={"when": When(acks=acks)})
        for fault, acks in zip(profile.faults, [at_first, *counts], strict=True)
    ]
    changed = profile.model_copy(update={"faults": faults})
    return _with(changed, acked_min=min(profile.workload.acked_min, at_first))


def used_shares(profile: Profile) -> Iterator[str]:
    """Yield which shares of transactions are not plain ones."""
    yield from (name for name in SHARES if getattr(profile.workload, name))


def size_of(profile: Profile) -> str:
    """Say what a run does, in words."""
    asked, clients = asked_for(profile), profile.workload.clients
    shares = ", ".join(name.replace("_", " ") for name in used_shares(profile))
    return (
        f"{'as many' if asked is None else asked} transactions{' as time allows' if asked is None else ''}"
        f" of {', '.join(profile.workload.kinds)}, {clients} client{'s' if clients > 1 else ''}"
        f"{f', some of them {shares}' if shares else ''}"
    )


def _key(profile: Profile, transactions: int | None) -> Key:
    return transactions, profile.workload.clients, tuple(profile.workload.kinds), tuple(used_shares(profile))


def _with(profile: Profile, **changes: Any) -> Profile:
    """Return a profile with another workload, checked like any other; the same one if that makes no sense."""
    table = profile.model_copy(update={"workload": profile.workload.model_copy(update=changes)}).table()
    try:
        return parse_profile(table)
    except ProfileError:  # such as a kind that needs another one
        return profile
