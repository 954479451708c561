"""How does a profile become a server, a workload, and a list of what is to be read? The same for every kind of trial.

Source: design.md "One way through the house".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from crashlab import evidence
from crashlab.errors import ServerError
from crashlab.history import History
from crashlab.ledger import LedgerWriter
from crashlab.model import Invariant
from crashlab.profile import Profile
from crashlab.recovery import Reading
from crashlab.results import Keep
from crashlab.seeds import stream
from crashlab.server import Restartable, Server, ServerChoice, ServerSpec
from crashlab.server.choose import options_of
from crashlab.server.kinds import AUTO
from crashlab.workload.companion import Companion, Connect, Invariants, Repeated, Upkeep
from crashlab.workload.databases import Databases
from crashlab.workload.kind import upkeep_of
from crashlab.workload.kinds.sql import Application, Variable
from crashlab.workload.relations import NO_ROWS, InvariantQuery, Relation
from crashlab.workload.roles import ROLE
from crashlab.workload.run import Workload, invariants_of, make_kinds, relations_of
from crashlab.workload.session import Mix

INVARIANTS_EVERY_MS = 50.0
RECORDED_INVARIANTS_EVERY_MS = 500.0  # a look may set hint bits and prune pages: writes that are no transaction's


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What all trials of one profile in one run have in common."""

    profile: Profile
    run_seed: int
    server: ServerChoice = field(default_factory=ServerChoice)
    keep: Keep = "failed"  # which trials' data directories stay
    timeout_s: float | None = None  # for one trial, from its server's first start on
    recover_with: ServerChoice | None = None  # another release of the same major; None: the server that crashed
    observe_ms: float | None = None  # look at a live trial's server this often; None: not at all


def server_spec(profile: Profile, choice: ServerChoice) -> ServerSpec:
    """Return the server that a profile and a choice ask for."""
    wanted = vars(choice)
    if choice.kind == AUTO and len(profile.server.kinds) == 1:
        wanted = {**wanted, "kind": profile.server.kinds[0]}
    return ServerSpec(
        **wanted,
        initdb=tuple(profile.server.initdb),
        settings=dict(profile.server.settings),
    )


def server_facts(server: Server, choice: ServerChoice | None = None) -> evidence.ServerFacts:
    """Return what a running server says about itself; `choice` is what led to it.

    Raises:
        ServerError: a setting that was asked for is not in force; or as `require_amcheck`.
    """
    require_amcheck(server)
    return msgspec.structs.replace(wanted_facts(server, choice), settings=server.read_settings())


def require_amcheck(server: Server) -> None:
    """Raise ServerError: a running server lacks what a check needs that no trial can do without."""
    with server.connect(autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_available_extensions WHERE name = 'amcheck'").fetchone() is None:
            raise ServerError(
                f'cannot test the server of "{server.source}": it has no extension amcheck',
                detail="Without it no index and no table can be checked, so every trial would be inconclusive.",
                hint="Install PostgreSQL's contrib modules (postgresql-contrib), or choose another server.",
            )


def wanted_facts(server: Server, choice: ServerChoice | None = None) -> evidence.ServerFacts:
    """Return what is known of a server that has not said anything yet: its settings are those that were asked for."""
    return evidence.ServerFacts(
        kind=server.kind,
        version=str(server.version),
        version_num=server.version.num,
        source=server.source,
        initdb=list(server.initdb),
        requested=dict(server.settings),
        settings=dict(server.settings),
        chosen=[] if choice is None else options_of(choice),
    )


def make_workload(profile: Profile, server: Server, ledger: LedgerWriter, seed: int) -> Workload:
    """Return a profile's workload on a server, not started."""
    plan = profile.workload
    return Workload(
        lambda: server.connect(autocommit=True),
        ledger,
        kinds=make_kinds(plan.kinds, application_of(profile)),
        clients=plan.clients,
        mix=Mix(
            synchronous_commit={str(mode): share for mode, share in plan.synchronous_commit.items()},
            two_phase=plan.two_phase,
            held_ms=plan.two_phase_held_ms,
            rollbacks=plan.rollbacks,
            savepoints=plan.savepoints,
            errors=plan.errors,
            read_only=plan.read_only,
        ),
        seed=seed,
        companions=list(_companions(profile, server, seed)),
        connect_plain=connect_plain(profile, server),
    )


def connect_plain(profile: Profile, server: Restartable) -> Connect | None:
    """Return what opens a session for the profile's own SQL, of a role that is no superuser; None: a superuser's."""
    if profile.superuser or not (profile.invariants or profile.workload.sql):
        return None
    return lambda: server.connect(autocommit=True, user=ROLE)


def _companions(profile: Profile, server: Server, seed: int) -> Iterator[Companion]:
    plan = profile.workload
    for statement, every_ms in (("CHECKPOINT", plan.checkpoint_every_ms), ("VACUUM", plan.vacuum_every_ms)):
        if every_ms is not None:
            yield Repeated(statement, every_ms)
    for kind in make_kinds(plan.kinds, application_of(profile)):
        for chore in upkeep_of(kind):
            yield Upkeep(type(kind).__name__, chore, lambda name: server.connect(autocommit=True, dbname=name))
    if profile.invariants:
        pause_ms = INVARIANTS_EVERY_MS if profile.power_loss is None else RECORDED_INVARIANTS_EVERY_MS
        yield Invariants(user_invariants(profile), every_ms=pause_ms)
    if plan.databases:
        yield Databases(
            lambda name: server.connect(autocommit=True, dbname=name), plan.databases, stream(seed, "databases")
        )


def application_of(profile: Profile) -> Application | None:
    """Return what the kind "sql" runs."""
    plan = profile.workload.sql
    if plan is None:
        return None
    variables = {
        name: Variable(
            between=(one.between[0], one.between[1]) if one.between else None, choice=tuple(one.choice or ())
        )
        for name, one in plan.variables.items()
    }
    transactions = tuple((one.sql, one.weight) for one in plan.transactions)
    return Application(plan.setup, transactions, tuple(plan.tables), variables)


def user_invariants(profile: Profile) -> list[InvariantQuery]:
    """Return the profile's own invariants."""
    return [InvariantQuery(invariant.name, invariant.sql, None) for invariant in profile.invariants]


def invariants_before(violations: Mapping[str, str]) -> list[Invariant]:
    """Return as evidence which of a user's invariants did not hold before the crash."""
    return [Invariant(name=name, expected=NO_ROWS, observed=observed) for name, observed in violations.items()]


def reading_of(profile: Profile, history: History, tables: Sequence[Relation]) -> Reading:
    """Return what is to be read: every relation, and the fate of every transaction that was given an xid.

    Args:
        tables: the user's own ledgered tables.
    """
    plan = profile.workload
    return Reading(
        relations=[*relations_of(plan.kinds), *tables],
        invariants=[*invariants_of(plan.kinds), *user_invariants(profile)],
        xids=[xid for xid in history.xid if xid],
        databases=bool(plan.databases),
    )
