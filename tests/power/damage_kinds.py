"""What does only one kind of transaction show? For each a damage to what is its own, and the same without the kind.

One server runs every kind until each has done something; all sessions end, everything is killed, and it recovers. It
is read twice: as it came back, and with the damage of all kinds. What a kind shows is judged with its own part of the
second reading and all the rest of the first one. Then the same again as if nobody had asked for the kind: without its
lines in the ledger, and without its tables, indexes and invariants in the reading. That must be intact.

Choices:
    Damage is done with SQL, behind the ledger's back; to an index alone it is done by a row that is deleted and comes
    back while the index does not take part. No amcheck sees that of an index that is no B-tree: only who reads through
    it does.
    Nothing goes on beside the sessions, and no transaction is rolled back or stays prepared: an unlogged table that is
    half made keeps some recoveries from ending (see the track record).
"""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from crashlab.contract import contract_for
from crashlab.fault import inject
from crashlab.history import History, read_ledger
from crashlab.ledger import LedgerWriter
from crashlab.model import Contract, CrashClass, Injection, Observation, Verdict
from crashlab.oracle import judge
from crashlab.recovery import observe, recover
from crashlab.recovery.restart import copy_settings
from crashlab.recovery.session import Reading
from crashlab.seeds import stream
from crashlab.server import Server, ServerSpec, create_server
from crashlab.workload.kinds import KINDS
from crashlab.workload.kinds.sql import Application
from crashlab.workload.relations import MARKER_TABLE, SEQUENCE
from crashlab.workload.run import Workload, invariants_of, make_kinds, relations_of
from crashlab.workload.session import Mix
from tests.power.scene import PROFILE

SETTINGS = {
    "wal_level": "logical",
    "track_commit_timestamp": "on",
    "max_prepared_transactions": "4",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
TRANSACTIONS = 300
TIMEOUT_S = 120.0
SHOP = Application(
    "CREATE TABLE shop (id integer PRIMARY KEY, stock integer NOT NULL); INSERT INTO shop SELECT n, 9 FROM"
    " generate_series(1, 9) n",
    (("UPDATE shop SET stock = stock + 1 WHERE id = 1 + :client % 9", 1.0),),
    ("shop",),
    {},
)


class Shown(NamedTuple):
    """A damage, and what is said of it."""

    sql: str
    place: str  # the relation, or the index
    codes: tuple[str, ...]  # one of them


def _row(table: str, change: str, *codes: str, where: str = "slot < 1000") -> Shown:
    """One row of a table is gone, or is another one."""
    row = f"ctid = (SELECT ctid FROM crashlab.{table} WHERE {where} ORDER BY 1 LIMIT 1)"
    verb = f"DELETE FROM crashlab.{table}" if change == "gone" else f"UPDATE crashlab.{table} SET {change}"
    return Shown(f"{verb} WHERE {row}", table, codes)


def _unnoticed(index: str, change: str) -> str:
    """Change rows while an index does not take part."""
    ready = f"UPDATE pg_index SET indisready = %s WHERE indexrelid = 'crashlab.{index}'::regclass"
    return f"{ready % 'false'}; {change}; {ready % 'true'}"


def _not_in(index: str, table: str) -> Shown:
    """One row is not in an index, and the table is as it was."""
    gone = f"DELETE FROM crashlab.{table} WHERE ctid = (SELECT ctid FROM crashlab.{table} ORDER BY 1 LIMIT 1)"
    move = f"WITH gone AS ({gone} RETURNING *) INSERT INTO crashlab.{table} SELECT * FROM gone"
    return Shown(_unnoticed(index, move), f"crashlab.{index}", ("INDEX-MISMATCH",))


FIRST_INDEXED = "WHERE key = (SELECT min(key) FROM crashlab.indexed)"
DAMAGE = {
    "transfer": _row("account", "balance = balance + 1", "WRONG-VALUE", where="true"),
    "register": Shown(
        "INSERT INTO crashlab.register SELECT key, version, writer, 'back' FROM crashlab.register_counter c"
        " WHERE NOT EXISTS (SELECT FROM crashlab.register r WHERE r.key = c.key) LIMIT 1",
        "register",
        ("WRONG-VALUE", "RESURRECTED"),
    ),
    "append": _row("list", "elements = elements[2:] || elements[:1]", "WRONG-VALUE", where="version > 1"),
    "ddl": Shown(
        "DO $$ BEGIN EXECUTE (SELECT 'DROP TABLE crashlab_ddl.' || name FROM crashlab.ddl_slot WHERE name <> ''"
        " LIMIT 1); END $$",
        "ddl_table",
        ("MISSING-ROW",),
    ),
    "ddl_unlogged": Shown(
        "DO $$ BEGIN EXECUTE (SELECT 'DROP TABLE crashlab_ddl_unlogged.' || name FROM crashlab.ddl_unlogged_slot"
        " WHERE name <> '' LIMIT 1); END $$",
        "ddl_unlogged_table",
        ("MISSING-ROW",),
    ),
    "toast": _row("toast", "plain = overlay(plain PLACING '!' FROM length(plain))", "WRONG-VALUE", where="true"),
    "large_object": Shown(
        "SELECT lo_put(oid, 0, decode('00ff00ff', 'hex')) FROM crashlab.large_object WHERE oid <> 0 LIMIT 1",
        "large_object",
        ("WRONG-VALUE",),
    ),
    "indexed": Shown(  # its key is generated, so the row cannot come back: it moves twice
        _unnoticed(
            "indexed_spgist",
            f"UPDATE crashlab.indexed SET hashed = hashed || 'x' {FIRST_INDEXED};"
            f" UPDATE crashlab.indexed SET hashed = left(hashed, -1) {FIRST_INDEXED}",
        ),
        "crashlab.indexed_spgist",
        ("INDEX-MISMATCH",),
    ),
    "partitioned": Shown("DELETE FROM crashlab.parent WHERE key = 0", "parent", ("MISSING-ROW",)),
    "booking": Shown(
        _unnoticed(
            "booking_once",
            "UPDATE crashlab.booking SET during = int4range(0, 100000)"
            " WHERE key = (SELECT min(key) FROM crashlab.booking)",
        ),
        "pairs of bookings that overlap",
        ("INVARIANT",),
    ),
    "matview": Shown(
        "UPDATE crashlab.stock SET amount = amount + 1 WHERE key = 1;"
        " REFRESH MATERIALIZED VIEW crashlab.stock_total;"
        " UPDATE crashlab.stock SET amount = amount - 1 WHERE key = 1",
        "stock_total",
        ("WRONG-VALUE",),
    ),
    "copy": _row("copied", "gone", "MISSING-ROW", where="true"),
    "locks": _row("lockable", "version = version + 1", "WRONG-VALUE", where="key < 12"),
    "nested": Shown(
        "INSERT INTO crashlab.nested SELECT key || '.9', version, writer, value FROM crashlab.nested LIMIT 1",
        "nested",
        ("PHANTOM", "WRONG-VALUE"),
    ),
    "beside": _row("beside", "gone", "MISSING-ROW", where="true"),
    "structure": _not_in("structure_gist", "structure"),
    "posting": _not_in("posting_gin", "posting"),
    "tide": Shown(
        "INSERT INTO crashlab.tide VALUES (0, 1, 'w', 'p', point(1, 1), 1, 1, '{1}')",
        "tide",
        ("WRONG-VALUE", "PHANTOM", "RESURRECTED"),
    ),
    "rebuilt": _not_in("rebuilt_hash", "rebuilt"),
    "xids": _row("xids", "v = v + 1", "WRONG-VALUE"),
    "xids_far": _row("xids_far", "gone", "WRONG-VALUE", "MISSING-ROW"),
    # A slot that is younger than the rows that it should hand out. Making one waits for all that is prepared, so here
    "decoded": Shown(
        "SELECT pg_create_logical_replication_slot('crashlab', 'pgoutput');"
        " INSERT INTO crashlab.decoded_handed_out VALUES (0, NULL)",
        "transactions on decoded that the logical slot skips",
        ("INVARIANT",),
    ),
    "held": Shown(
        "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'without a lock'",
        "prepared transactions that hold no lock on a table",
        ("INVARIANT",),
    ),
    "administered": _row("administered", "v = md5(v)", "WRONG-VALUE"),
    "unlogged": Shown(
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE %s SET %s', oid::regclass, CASE relpersistence WHEN 'u' THEN"
        " 'LOGGED' ELSE 'UNLOGGED' END) FROM pg_class WHERE oid = 'crashlab_unlogged.t0'::regclass); END $$",
        "unlogged_table",
        ("STALE-VERSION", "WRONG-VALUE"),
    ),
    "sql": Shown(
        "ALTER TABLE shop DISABLE TRIGGER USER; UPDATE shop SET stock = 0 WHERE id = 9", "public.shop", ("WRONG-VALUE",)
    ),
}
"""Kind -> what it alone shows."""

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """One crashed run of all kinds, read without and with damage."""

    history: History
    contract: Contract
    injection: Injection
    before: Observation
    after: Observation
    relations: dict[str, frozenset[str]]  # kind -> its relations in the ledger
    tables: dict[str, frozenset[str]]  # kind -> its tables
    invariants: dict[str, frozenset[str]]

    def judge(self, observation: Observation, history: History | None = None) -> Verdict:
        """Judge a reading."""
        return judge(history or self.history, self.contract, [self.injection], observation, acked_min=20)

    def of_all(self) -> Verdict:
        """Judge all damage at once."""
        return self.judge(self._with(lambda kind: True))

    def with_damage(self, kind: str) -> Verdict:
        """Judge the damage of one kind."""
        return self.judge(self._with(lambda one: one == kind))

    def without(self, kind: str) -> Verdict:
        """Judge the damage of one kind as if it were none of the workload's."""
        seen = self._with(lambda one: one == kind)
        names, tables, invariants = self.relations[kind], self.tables[kind], self.invariants[kind]
        history = self.history.copy()
        history.writes = [tuple(one for one in some if one.relation not in names) for some in history.writes]
        history.discarded = {
            tx: tuple(one for one in some if one.relation not in names) for tx, some in history.discarded.items()
        }
        seen = msgspec.structs.replace(
            seen,
            relations=[one for one in seen.relations if one.relation not in names],
            indexes=[one for one in seen.indexes if one.relation not in tables],
            invariants=[one for one in seen.invariants if one.name not in invariants],
        )
        return self.judge(seen, history)

    def _with(self, wanted: Callable[[str], bool]) -> Observation:
        """Take the parts of these kinds from the second reading."""

        def mixed(before: list[T], after: list[T], name: Callable[[T], str], of: dict[str, frozenset[str]]) -> list[T]:
            damaged = frozenset().union(*(names for kind, names in of.items() if wanted(kind)))
            return [one for one in before if name(one) not in damaged] + [one for one in after if name(one) in damaged]

        before, after = self.before, self.after
        return msgspec.structs.replace(
            before,
            relations=mixed(before.relations, after.relations, lambda one: one.relation, self.relations),
            indexes=mixed(before.indexes, after.indexes, lambda one: one.relation, self.tables),
            invariants=mixed(before.invariants, after.invariants, lambda one: one.name, self.invariants),
        )


def make_world(seed: int, pg_bindir: Path | None = None) -> World:
    """Run all kinds, crash, and read what came back, before and after the damage."""
    with (
        tempfile.TemporaryDirectory(prefix="crashlab-kinds-") as folder,
        create_server(ServerSpec(kind="local", pg_bindir=pg_bindir, settings=SETTINGS)) as server,
        contextlib.closing(LedgerWriter(Path(folder) / "ledger.jsonl", seed=seed)) as ledger,
    ):
        server.start()
        contract = contract_for(server.read_settings(), CrashClass.PROCESS_CRASH, version_num=server.version.num)
        workload = _run(server, ledger, seed)
        injection = inject(server, PROFILE.faults[0], ledger, stream(seed, "fault"))
        ledger.close()
        history = read_ledger(ledger.path)
        reading = Reading(
            relations=[*relations_of(KINDS), *workload.tables],
            invariants=invariants_of(KINDS),
            xids=[xid for xid in history.xid if xid],
            marker_table=MARKER_TABLE,
            sequences=(SEQUENCE,),
        )
        before = _recover_and_read(server, reading)
        with server.connect(autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            for shown in DAMAGE.values():
                connection.execute(shown.sql)
        after = _read(server, reading, before)
        own = {kind: KINDS[kind]() for kind in KINDS}
        of = {kind: [*one.relations, *(workload.tables if kind == "sql" else [])] for kind, one in own.items()}
        return World(
            history=history,
            contract=contract,
            injection=injection,
            before=before,
            after=after,
            relations={kind: frozenset(one.name for one in some) for kind, some in of.items()},
            tables={kind: frozenset(one.stored for one in some) for kind, some in of.items()},
            invariants={kind: frozenset(query.name for query in one.invariants()) for kind, one in own.items()},
        )


def _run(server: Server, ledger: LedgerWriter, seed: int) -> Workload:
    workload = Workload(
        lambda: server.connect(autocommit=True),
        ledger,
        kinds=make_kinds(KINDS, SHOP),
        clients=4,
        mix=Mix(rollbacks=0.0, savepoints=0.0, errors=0.0, read_only=0.0),
        seed=seed,
        max_transactions=TRANSACTIONS,
    )
    workload.set_up()
    workload.start()
    assert workload.join(timeout_s=TIMEOUT_S)
    assert not workload.errors, workload.errors
    return workload


def _recover_and_read(server: Server, reading: Reading) -> Observation:
    settings = copy_settings(server.version.major)
    position = server.log_position()
    recovery = recover(server, restart=True, log_position=position, timeout_s=TIMEOUT_S, overrides=settings)
    assert recovery.started, recovery
    return observe(lambda name: server.connect(autocommit=True, dbname=name), reading, recovery)


def _read(server: Server, reading: Reading, before: Observation) -> Observation:
    return observe(lambda name: server.connect(autocommit=True, dbname=name), reading, before.recovery)


def findings(verdict: Verdict) -> set[tuple[str, str]]:
    """Return the codes of a verdict with their places."""
    return {(one.code, str(one.evidence["place"])) for one in verdict.findings}
