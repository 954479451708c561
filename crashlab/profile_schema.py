"""What may a fault profile say: which server, which workload, which faults, and what should come out?

The schema; `profile` finds, merges and reads the files.

Choices:
    Settings without which a fault has no target are added unless the profile sets them (`Profile._complete`); they
    show in `--dry-run` and in the evidence like any other.

Source: design.md "Profiles", "Bad input"; postgres-contract.md sections 3 and 7.5 (autovacuum).
"""

import json
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from crashlab.contract import SyncMode
from crashlab.disk.contract import CutAt, DiskName, TearBytes
from crashlab.disk.fileclass import FileClass
from crashlab.disk.holds import HOLDS_MAX, Hold
from crashlab.disk.operations import OPERATIONS
from crashlab.duration import format_ms, parse_ms
from crashlab.errors import did_you_mean
from crashlab.fault import FAULTS, TARGETS
from crashlab.model import CrashClass, Outcome, PromiseStatus
from crashlab.recordtypes import MAJORS, is_type_name, record_types
from crashlab.server import SERVER_KINDS
from crashlab.server.settings import MANAGED_SETTINGS, PROGRAM_SETTINGS
from crashlab.sql_text import variables_in
from crashlab.workload.kinds import KINDS
from crashlab.workload.kinds.sql import Sql

DatabaseStrategy = Literal["wal_log", "file_copy"]  # before 15 there is only the second, without a name
FileClassName = Annotated[FileClass, Field(strict=False)]
AFTERLIFE_OF_STATES = 0.125
"""An afterlife is two more starts, and a state costs hardly more than one."""
PREPARED_DEFAULT = "64"
TRANSACTION_CONTROL = frozenset(
    {"begin", "commit", "rollback", "prepare transaction", "commit prepared", "rollback prepared"}
)
GIVEN_VARIABLES = ("client", "tx")
"""Every transaction of the kind "sql" knows them: the session's number, and the transaction's in the ledger."""
TOUR_KEYS = {"name", "description", "trials", "tour"}


def _duration(value: Any) -> int:
    if not isinstance(value, str):
        raise ValueError(f'must be a time with a unit, such as "500ms", "2s" or "10m", not {value!r}')
    return parse_ms(value)


def _shares(value: Any) -> Any:
    return {value: 1.0} if isinstance(value, str) else value


def _whole(shares: dict[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    if abs(total - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1, not {total:g}")
    return shares


def _setting(value: Any) -> Any:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, dict):
        raise ValueError("must be one value; a setting with a dot in its name is written in quotes")
    return value


def _setting_name(name: str) -> str:
    name = name.lower()
    if not re.fullmatch(r"[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)*", name):
        raise ValueError("is not the name of a PostgreSQL setting")
    if name in MANAGED_SETTINGS:
        raise ValueError("crashlab sets this one itself")
    if name == "synchronous_commit":
        raise ValueError("is set for each transaction: use workload.synchronous_commit")
    return name


def _one_of(known: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            *others, last = (f"'{one}'" for one in known)
            near = did_you_mean(name, known)
            raise ValueError(
                f"input should be {', '.join(others)} or {last}, not '{name}'"
                + (f"; {near[:1].lower()}{near[1:]}" if near else "")
            )
        return name

    return AfterValidator(check)


def _sql_transaction(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError("is not the name of a variable")
    if name in GIVEN_VARIABLES:
        raise ValueError("crashlab sets this one itself")
    return name


def _near(name: str) -> str:
    """Accept a type of WAL record, a file operation, a class of files, or a path."""
    if "/" in name and not name[0].isupper():  # a path, or a pattern of one; types of records begin with a capital
        return name
    known = [*OPERATIONS, *(str(one) for one in FileClass)]
    if name in known or is_type_name(name):
        return name
    near = did_you_mean(name, [*known, *(one for major in MAJORS for one in record_types_of(major))])
    said = f'"{name}" is no type of WAL record, file operation, class of files, or path with a "/"'
    raise ValueError(f"{said}; {near[:1].lower()}{near[1:]}" if near else said)


def _hold(text: str) -> str:
    return str(Hold.parse(text))


def record_types_of(major: int) -> list[str]:
    """Return the names of a major version's record types."""
    types = record_types(major)
    return [] if types is None else list(types.names.values())


WorkloadName = Annotated[str, _one_of(KINDS)]
FaultName = Annotated[str, _one_of(FAULTS)]
ServerName = Annotated[str, _one_of(SERVER_KINDS)]
TargetName = Annotated[str, _one_of(TARGETS)]
Duration = Annotated[int, BeforeValidator(_duration), PlainSerializer(format_ms, return_type=str)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
SettingName = Annotated[str, AfterValidator(_setting_name)]
VariableName = Annotated[str, AfterValidator(_variable_name)]
SettingValue = Annotated[str, BeforeValidator(_setting)]


class _Table(BaseModel):
    """No unknown keys, no silent conversion of "4" to 4."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ServerSettings(_Table):
    """Which servers may run it, and how they are made. Setting values are spelled as in postgresql.conf."""

    kinds: list[ServerName] = Field(default=[*SERVER_KINDS], min_length=1)
    initdb: list[str] = []
    settings: dict[SettingName, SettingValue] = Field(default_factory=dict)


def _without_an_end(text: str) -> str:
    from crashlab.observer.statements import statements_of

    for statement in statements_of(text):
        if statement.kind in TRANSACTION_CONTROL:
            said = " ".join(statement.text.split())
            raise ValueError(
                f'"{said}" has no place here: crashlab begins and ends each transaction itself; leave it out'
            )
    return text


class SqlTransaction(_Table):
    """The statements of one transaction, without BEGIN and COMMIT."""

    sql: Annotated[str, Field(min_length=1), AfterValidator(_without_an_end)]
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class SqlVariable(_Table):
    """What a variable may be, drawn for each transaction: exactly one is set."""

    between: list[int] | None = Field(default=None, min_length=2, max_length=2)  # both ends included
    choice: list[int | float | str] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.between is None) == (self.choice is None):
            raise ValueError("exactly one of between and choice is needed")
        if self.between is not None and self.between[0] > self.between[1]:
            raise ValueError("between must name the smaller number first")
        return self


class SqlApplication(_Table):
    """The user's own application: the workload kind "sql". In a file, `setup_file` may name a file for `setup`."""

    setup: Annotated[str, AfterValidator(_without_an_end)] = ""
    tables: list[str] = Field(min_length=1)  # taken into the ledger, row by row, by primary key
    transactions: list[Annotated[SqlTransaction, BeforeValidator(_sql_transaction)]] = Field(min_length=1)
    variables: dict[VariableName, SqlVariable] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _all_variables_are_known(self) -> Self:
        known = {*self.variables, *GIVEN_VARIABLES}
        unknown = sorted(set().union(*(variables_in(one.sql) for one in self.transactions)) - known)
        if unknown:
            raise ValueError(f"variables are used that are not defined: {', '.join(unknown)}")
        return self


class UserInvariant(_Table):
    """A query that returns no rows, before the crash and after it, in every snapshot; a row is a violation."""

    name: str = Field(min_length=1)
    sql: str = Field(min_length=1)


class Workload(_Table):
    """What the clients do until the crash. Shares are of all transactions, 0 to 1."""

    kinds: list[WorkloadName] = Field(default=["transfer", "register", "append"], min_length=1)
    clients: int = Field(default=4, ge=1, le=1000)
    synchronous_commit: Annotated[dict[SyncMode, Share], BeforeValidator(_shares), AfterValidator(_whole)] = {"on": 1.0}
    two_phase: Share = 0.0
    two_phase_held_ms: Duration | None = Field(default=None, alias="two_phase_held")  # the longest; None: 20 ms at most
    rollbacks: Share = 0.05
    savepoints: Share = 0.1
    errors: Share = 0.05
    read_only: Share = 0.1
    checkpoint_every_ms: Duration | None = Field(default=None, alias="checkpoint_every")
    vacuum_every_ms: Duration | None = Field(default=None, alias="vacuum_every")
    databases: list[DatabaseStrategy] = []  # make and drop databases in these ways meanwhile, and tablespaces
    acked_min: int = Field(default=20, ge=0)  # faults wait for so many acknowledged writes; fewer: inconclusive
    sql: SqlApplication | None = None  # what the kind "sql" runs

    @model_validator(mode="after")
    def _sql_is_told(self) -> Self:
        if (Sql.name in self.kinds) != (self.sql is not None):
            raise ValueError('the kind "sql" and the table [workload.sql] need each other')
        return self


class When(_Table):
    """The moment of a fault, counted from the fault before it or from the start of the workload: exactly one is set.

    A time of the first fault is counted from when `workload.acked_min` writes were acknowledged.
    """

    acks: int | None = Field(default=None, ge=0)  # after that many more acknowledged writes
    after_ms: Duration | None = Field(default=None, alias="after")
    between_ms: list[Duration] | None = Field(default=None, alias="between", min_length=2, max_length=2)  # seeded

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if [self.acks, self.after_ms, self.between_ms].count(None) != 2:
            raise ValueError("exactly one of acks, after and between is needed")
        if self.between_ms is not None and self.between_ms[0] > self.between_ms[1]:
            raise ValueError("between must name the earlier time first")
        return self


class StartKills(_Table):
    """Kills of everything while the crashed server starts, before the start that counts."""

    times: int = Field(default=1, ge=1, le=10)
    between_ms: list[Duration] | None = Field(default=None, alias="between", min_length=2, max_length=2)  # seeded
    at: Literal["end-of-recovery-checkpoint"] | None = None

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if (self.between_ms is None) == (self.at is None):
            raise ValueError("exactly one of between and at is needed")
        if self.between_ms is not None and self.between_ms[0] > self.between_ms[1]:
            raise ValueError("between must name the earlier time first")
        return self


class FirstStart(_Table):
    """A kill of the container in its first start, before the start that counts."""

    during: Literal["initdb", "init-scripts"]


class Fault(_Table):
    """One fault: a kind that `fault.kinds` declares, and what it is aimed at."""

    kind: FaultName
    target: TargetName | None = None
    grace_ms: list[Duration] | None = Field(default=None, alias="grace", min_length=2, max_length=2)  # seeded
    at: Literal["shutdown-checkpoint"] | None = None
    when: When

    @model_validator(mode="after")
    def _grace_fits(self) -> Self:
        given = [self.grace_ms, self.at].count(None)
        if FAULTS[self.kind].has_grace and given != 1:
            raise ValueError(f'a "{self.kind}" needs exactly one of grace and at')
        if not FAULTS[self.kind].has_grace and given != 2:
            raise ValueError(f'a "{self.kind}" has neither grace nor at: it ends nothing politely')
        if self.grace_ms is not None and self.grace_ms[0] > self.grace_ms[1]:
            raise ValueError("grace must name the shorter time first")
        return self

    @model_validator(mode="after")
    def _target_fits(self) -> Self:
        targets = FAULTS[self.kind].targets
        if targets and self.target is None:
            raise ValueError(f'a "{self.kind}" needs a target')
        if not targets and self.target is not None:
            raise ValueError(f'a "{self.kind}" has no target: it meets the whole server')
        if self.target is not None and self.target not in targets:
            raise ValueError(f'a "{self.kind}" cannot be aimed at "{self.target}"; choose one of {", ".join(targets)}')
        return self


class PowerLoss(_Table):
    """How a recorded run is cut off. The server runs once; each trial is one crash state of that recording."""

    disk: DiskName = "linux"
    tear_bytes: TearBytes = 4096
    ordered_journal: bool = True  # as in ext4 and xfs: what persists one name persists all older ones; not so in btrfs
    durable_symlinks: bool = False  # symbolic links are on disk as soon as they are made: PostgreSQL flushes none
    swallow: list[FileClassName] = []  # flushes of these files do nothing: the disk lies
    swallow_one: list[FileClassName] = []  # one flush of these files is left out, as if the server had forgotten it
    aim: list[FileClassName] = []  # only these files vary, all others keep everything; none: all vary
    points: CutAt = "any"  # where the power is cut
    near: list[Annotated[str, AfterValidator(_near)]] = []  # ... and only where one of these has happened
    at: list[Annotated[int, Field(ge=0)]] = []  # ... or only at these crash points
    states_per_point: int = Field(default=4, ge=1)
    acks: int = Field(default=800, ge=0)  # the recorded run ends after that many acknowledged writes
    states_per_recording: int | None = Field(default=None, ge=1)  # then another run is recorded; None: all it has
    end: Literal["kill", "stop"] = "kill"  # a clean stop writes a checkpoint, and a statistics file
    recovery_depth: int = Field(default=0, ge=0, le=2)  # so many recoveries are recorded and cut in their turn

    @property
    def promised_disk(self) -> str:
        """The disk that PostgreSQL's promises are held against; one that swallows flushes lies, if not always."""
        if self.swallow:
            return "lying"
        # With links safe, what is left are the names of files that PostgreSQL makes, and those it flushes itself
        ordered = self.ordered_journal or self.durable_symlinks
        return self.disk if ordered or self.disk != "linux" else "unordered"


HOLD_MS_MAX = 10_000


class Jitter(_Table):
    """Processes that are held at file operations while the workload runs, at random by the trial's seed."""

    hold: list[Annotated[str, AfterValidator(_hold)]] = Field(min_length=1, max_length=HOLDS_MAX)
    share: Share = 0.1  # of the operations at each of these places; 0: nobody is held, all else is the same
    between_ms: list[Annotated[Duration, Field(le=HOLD_MS_MAX)]] = Field(
        default=["0ms", "20ms"], alias="between", min_length=2, max_length=2, validate_default=True
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.between_ms[0] > self.between_ms[1]:
            raise ValueError("between must name the shorter time first")
        if len(set(self.hold)) < len(self.hold):
            raise ValueError("hold names one place twice")
        return self

    @property
    def places(self) -> list[Hold]:
        """Where processes are held."""
        return [Hold.parse(text) for text in self.hold]


class Expect(_Table):
    """What the documentation makes likely; anything else is shown as unexpected, and is no failure by itself."""

    outcomes: list[Annotated[Outcome, Field(strict=False)]] = Field(default=[Outcome.INTACT], min_length=1)
    promise: list[Annotated[PromiseStatus, Field(strict=False)]] = Field(default=[PromiseStatus.KEPT], min_length=1)
    note: str = ""


SEGMENT_SIZES = tuple(str(2**power) for power in range(11))
"""Of WAL, in MB, as initdb takes them."""


class Profile(_Table):
    """A resolved fault profile, or a tour of others."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # also a folder's name
    description: str = Field(min_length=1)
    extends: str | None = None  # always None once loaded
    trials: int = Field(default=10, ge=1)
    # Share of the trials whose recovered server is used, restarted and crashed again; None: see afterlife_share
    afterlife: float | None = Field(default=None, ge=0, le=1)
    crash_class: Annotated[CrashClass, Field(strict=False)] = CrashClass.PROCESS_CRASH
    server: ServerSettings = Field(default_factory=ServerSettings)
    # Each trial, or recording, draws one value of each; wal_segsize is initdb's option
    vary: dict[SettingName, Annotated[list[SettingValue], Field(min_length=1)]] = Field(default_factory=dict)
    workload: Workload = Field(default_factory=Workload)
    faults: list[Fault] = []
    first_start: FirstStart | None = None  # live trials in containers only
    start_kills: StartKills | None = None  # after the last fault, live trials only
    power_loss: PowerLoss | None = None  # a recorded run instead of a live one
    jitter: Jitter | None = None
    invariants: list[UserInvariant] = []
    superuser: bool = False  # the SQL above may do what a superuser may, and settings may name programs
    expect: Expect = Field(default_factory=Expect)
    tour: list[str] = []

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.tour:
            surplus = self.model_fields_set - TOUR_KEYS
            if surplus:
                raise ValueError(f"a tour holds only description, trials and tour, not {', '.join(sorted(surplus))}")
            return self
        names = [invariant.name for invariant in self.invariants]
        if len(set(names)) < len(names):
            raise ValueError("two invariants have the same name")
        if self.power_loss is not None:
            self._complete_recorded(self.power_loss)
        elif self.workload.databases:
            raise ValueError("workload.databases needs a [power_loss] table: only recorded runs have tablespaces")
        elif self.crash_class is CrashClass.POWER_LOSS:
            raise ValueError(
                'crash_class = "power_loss" needs a [power_loss] table, for a recorded run: kills keep what was written'
            )
        if self.first_start is not None and (self.server.kinds != ["container"] or self.power_loss is not None):
            raise ValueError('first_start needs server.kinds = ["container"], and a live trial')
        settings = self.server.settings
        for fault in self.faults:
            servers = FAULTS[fault.kind].servers
            if servers and not set(self.server.kinds) <= set(servers):
                raise ValueError(f'a "{fault.kind}" needs server.kinds = {json.dumps(servers)}')
            needed = FAULTS[fault.kind].settings if fault.target is None else TARGETS[fault.target].settings
            for name, value in needed.items():
                settings.setdefault(name, value)
        self._refuse_programs()
        if wrong := [one for one in self.vary.get("wal_segsize", []) if one not in SEGMENT_SIZES]:
            raise ValueError(f"vary.wal_segsize must be one of {', '.join(SEGMENT_SIZES)} (MB), not {', '.join(wrong)}")
        if "autovacuum" not in self.vary:
            settings.setdefault("autovacuum", "off")
        if self.workload.two_phase:
            settings.setdefault("max_prepared_transactions", PREPARED_DEFAULT)
        return self

    def _refuse_programs(self) -> None:
        """Refuse what would run as the server's user, outside of all SQL, but what faults themselves set."""
        own = {item for target in TARGETS.values() for item in target.settings.items()}
        given = [*self.server.settings.items(), *((name, one) for name, values in self.vary.items() for one in values)]
        for name, value in sorted(given):
            if name in PROGRAM_SETTINGS and not self.superuser and (name, value) not in own:
                raise ValueError(f"server.settings.{name} names a program or a library, which needs superuser = true")

    def _complete_recorded(self, power_loss: PowerLoss) -> None:
        if self.start_kills is not None:
            raise ValueError("a recorded run has no start_kills: power_loss.recovery_depth cuts its recoveries")
        if self.faults:
            raise ValueError("a recorded run is cut off by its [power_loss] table; it has no faults")
        survives = power_loss.disk == "process"
        if survives != (self.crash_class is CrashClass.PROCESS_CRASH):
            wanted = CrashClass.PROCESS_CRASH if survives else CrashClass.POWER_LOSS
            raise ValueError(f'power_loss.disk = "{power_loss.disk}" needs crash_class = "{wanted}"')
        if power_loss.near and power_loss.at:
            raise ValueError("power_loss.near and power_loss.at exclude each other")
        if power_loss.recovery_depth and power_loss.disk == "lying":
            raise ValueError("power_loss.recovery_depth needs a disk that does not lie")
        if power_loss.swallow_one and (survives or power_loss.recovery_depth):
            raise ValueError("power_loss.swallow_one needs a disk that can lose something, and recovery_depth = 0")

    @property
    def afterlife_share(self) -> float:
        """The share of the trials with an afterlife: of live ones all, of recorded states so many that it is cheap."""
        if self.afterlife is not None:
            return self.afterlife
        return 1.0 if self.power_loss is None else AFTERLIFE_OF_STATES

    def table(self) -> dict[str, Any]:
        """Return the whole profile as plain TOML values; `parse_profile` gives an equal one back."""
        skip = {"extends", "tour"} if not self.tour else set(type(self).model_fields) - TOUR_KEYS
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=skip)
