"""Which damage must be seen? Each function plants one kind into a healthy observation, or finds no place for it.

A mutation takes a world, its honest observation and a random stream, and returns the damaged observation, or None if
this world offers nothing to damage in that way. MUTATIONS says which code must be the worst finding.
"""

from collections.abc import Callable
from random import Random

import msgspec
from msgspec.structs import replace

from crashlab.model import Afterlife, Complaint, Leftover, LifeChange, MarkerRead, MarkerRow, Observation, Row
from tests.oracle.reference import UNVERSIONED, Tx, World

Mutation = Callable[[World, Observation, Random], Observation | None]
MUTATIONS: dict[str, tuple[Mutation, str]] = {}
"""By name: the function and the code that must come first."""


def must_give(code: str) -> Callable[[Mutation], Mutation]:
    def note(mutation: Mutation) -> Mutation:
        MUTATIONS[mutation.__name__] = (mutation, code)
        return mutation

    return note


def rows_of(observation: Observation, relation: str) -> list[Row]:
    return next(read.rows for read in observation.relations if read.relation == relation)


def with_rows(observation: Observation, relation: str, rows: list[Row]) -> Observation:
    return replace(
        observation,
        relations=[replace(r, rows=rows) if r.relation == relation else r for r in observation.relations],
    )


def with_markers(observation: Observation, rows: list[MarkerRow]) -> Observation:
    assert observation.marker is not None
    return replace(observation, marker=MarkerRead(file=observation.marker.file, rows=rows))


def without_marker(observation: Observation, tx: Tx) -> Observation:
    assert observation.marker is not None
    return with_markers(observation, [row for row in observation.marker.rows if row.tx != tx.tx])


def swap(observation: Observation, relation: str, old: Row, *new: Row) -> Observation:
    rows = [row for row in rows_of(observation, relation) if row is not old]
    return with_rows(observation, relation, [*rows, *new])


def pick(rng: Random, choices):
    choices = list(choices)
    return rng.choice(choices) if choices else None


def any_row(observation: Observation, rng: Random, *relations: str):
    return pick(rng, ((name, row) for name in relations for row in rows_of(observation, name)))


def writers(world: World) -> dict[tuple[str, str], list[Tx]]:
    """All surviving writers of each key, in order."""
    chains: dict[tuple[str, str], list[Tx]] = {}
    for tx in world.survivors:
        for write in tx.writes:
            chains.setdefault((write.relation, write.key), []).append(tx)
    return chains


def old_rows(world: World, *relations: str):
    """Earlier states of keys that were changed later: relation, key, then, now (None if deleted now)."""
    now = world.rows(world.survivors)
    for (relation, key), chain in writers(world).items():
        if relation in relations and len(chain) > 1:
            before = [tx for tx in world.survivors if tx is not chain[-1]]
            then = world.rows(before)[relation].get(key)
            if then is not None and then.value != (now[relation][key].value if key in now[relation] else None):
                yield relation, key, then, now[relation].get(key)


def dead(world: World, *phases_or_styles: str) -> list[Tx]:
    return [tx for tx in world.database.txs.values() if tx.style in phases_or_styles and tx.phase == "ended"]


@must_give("CORRUPT-PARTIAL-TRANSACTION")
def marker_removed(world, observation, rng):
    """Its newest rows are still there."""
    chains = writers(world)
    visible = [
        chain[-1]
        for (relation, key), chain in chains.items()
        if relation != UNVERSIONED and any(row.key == key for row in rows_of(observation, relation))
    ]
    tx = pick(rng, visible)
    return without_marker(observation, tx)


@must_give("CORRUPT-HOLE")
def overwritten_transaction_removed(world, observation, rng):
    """All its rows were overwritten later, so only its marker can be missed."""
    chains = writers(world)
    tx = pick(
        rng,
        (
            tx
            for tx in world.survivors
            if tx.client and tx.writes and all(chains[w.relation, w.key][-1] is not tx for w in tx.writes)
            and all(w.relation != "list" for w in tx.writes) and tx.acked
        ),
    )  # fmt: skip
    return tx and without_marker(observation, tx)


@must_give("CORRUPT-HOLE")
def middle_transaction_removed(world, observation, rng):
    """Marker and rows are as before it, and somebody who committed certainly later is there."""
    survivors = world.survivors
    events = world.database.events
    acks = {e.tx: n for n, e in enumerate(events) if type(e).__name__ == "Ack"}
    intents = {e.tx: n for n, e in enumerate(events) if type(e).__name__ == "Intent"}
    last = max(intents[tx.tx] for tx in survivors)
    tx = pick(
        rng,
        (
            tx
            for tx in survivors
            if tx.client and tx.acked and acks[tx.tx] < last and all(w.relation != "list" for w in tx.writes)
        ),
    )
    if tx is None:
        return None
    rest = [one for one in survivors if one is not tx]
    mutated = world.observation(rest)
    statuses = {xid: status for xid, status in mutated.xact_status.items() if xid != str(tx.xid)}
    return replace(mutated, invariants=[], xact_status=statuses)


@must_give("CORRUPT-MISSING-ROW")
def row_removed(world, observation, rng):
    relation, row = any_row(observation, rng, "account", "register", "list", "part", UNVERSIONED)
    return swap(observation, relation, row)


@must_give("CORRUPT-WRONG-VALUE")
def balance_changed(world, observation, rng):
    relation, row = any_row(observation, rng, "account")
    return swap(observation, relation, row, replace(row, value=str(int(row.value) + 1)))


@must_give("CORRUPT-WRONG-VALUE")
def own_value_changed(world, observation, rng):
    found = any_row(observation, rng, UNVERSIONED)
    return found and swap(observation, *found, replace(found[1], value="nobody wrote this"))


@must_give("CORRUPT-WRONG-VALUE")
def writer_changed(world, observation, rng):
    relation, row = any_row(observation, rng, "account")
    other = pick(rng, (tx for tx in world.survivors if tx.tx != row.writer))
    if other is None or any(w.relation == "account" and w.key == row.key for w in other.writes):
        return None
    return swap(observation, relation, row, replace(row, writer=other.tx))


@must_give("CORRUPT-WRONG-VALUE")
def version_changed(world, observation, rng):
    relation, row = any_row(observation, rng, "account", "list")
    return swap(observation, relation, row, replace(row, version=row.version + 100))


@must_give("CORRUPT-WRONG-VALUE")
def list_element_dropped(world, observation, rng):
    found = any_row(observation, rng, "list")
    if not found:
        return None
    elements = msgspec.json.decode(found[1].value)
    elements.pop(rng.randrange(len(elements)))
    return swap(observation, *found, replace(found[1], value=msgspec.json.encode(elements).decode()))


@must_give("CORRUPT-WRONG-VALUE")
def list_reordered(world, observation, rng):
    long = [row for row in rows_of(observation, "list") if (row.version or 0) > 1]
    if not long:
        return None
    assert long[0].value is not None
    elements = msgspec.json.decode(long[0].value)
    text = msgspec.json.encode(elements[::-1]).decode()
    return swap(observation, "list", long[0], replace(long[0], value=text))


@must_give("CORRUPT-WRONG-VALUE")
def marker_changed(world, observation, rng):
    row = pick(rng, observation.marker.rows)
    changed = MarkerRow(row.tx, row.client, row.xid + 1) if rng.random() < 0.5 else MarkerRow(row.tx, 99, row.xid)
    return with_markers(observation, [changed if one is row else one for one in observation.marker.rows])


@must_give("CORRUPT-STALE-VERSION")
def older_version_back(world, observation, rng):
    found = pick(rng, (one for one in old_rows(world, "account", "register", "list") if one[3] is not None))
    if found is None:
        return None
    relation, key, then, _ = found
    now = next(row for row in rows_of(observation, relation) if row.key == key)
    return swap(observation, relation, now, then)


@must_give("CORRUPT-STALE-VERSION")
def own_older_value_back(world, observation, rng):
    found = pick(rng, (one for one in old_rows(world, UNVERSIONED) if one[3] is not None))
    if found is None:
        return None
    _, key, then, _ = found
    now = next(row for row in rows_of(observation, UNVERSIONED) if row.key == key)
    return swap(observation, UNVERSIONED, now, then)


@must_give("CORRUPT-RESURRECTED")
def deleted_row_back(world, observation, rng):
    found = pick(rng, (one for one in old_rows(world, "register", UNVERSIONED) if one[3] is None))
    return found and with_rows(observation, found[0], [*rows_of(observation, found[0]), found[2]])


@must_give("CORRUPT-PARTIAL-TRANSACTION")
def all_rows_undone(world, observation, rng):
    """Only the marker is left of a transaction of several rows."""
    chains = writers(world)
    tx = pick(
        rng,
        (
            tx
            for tx in world.survivors
            if tx.client and len(tx.writes) > 1 and all(chains[w.relation, w.key][-1] is tx for w in tx.writes)
            and all(w.relation != UNVERSIONED for w in tx.writes)
        ),
    )  # fmt: skip
    if tx is None:
        return None
    before = world.observation([one for one in world.survivors if one is not tx])
    now, then = world.rows(world.survivors), world.rows([one for one in world.survivors if one is not tx])
    if any(now[w.relation].get(w.key) == then[w.relation].get(w.key) for w in tx.writes):
        return None  # deleted what was not there
    return replace(observation, relations=before.relations)


@must_give("CORRUPT-PHANTOM")
def rolled_back_row_added(world, observation, rng):
    tx = pick(rng, dead(world, "rollback", "error"))
    row = Row("never-used-before", 1, tx.tx, "x") if tx else None
    return row and with_rows(observation, "register", [*rows_of(observation, "register"), row])


@must_give("CORRUPT-PHANTOM")
def rolled_back_row_in_place(world, observation, rng):
    tx = pick(rng, (tx for tx in dead(world, "error") if any(w.relation == "account" for w in tx.writes)))
    if tx is None:
        return None
    write = next(w for w in tx.writes if w.relation == "account")
    row = next(row for row in rows_of(observation, "account") if row.key == write.key)
    return swap(observation, "account", row, Row(row.key, write.version, tx.tx, write.value))


@must_give("CORRUPT-PHANTOM")
def rolled_back_transaction_there(world, observation, rng):
    """Marker and rows."""
    tx = pick(rng, (tx for tx in dead(world, "error") if len(tx.writes) == 1 and tx.writes[0].relation == "list"))
    if tx is None:
        return None
    mutated = world.observation([*world.survivors, tx])
    return replace(mutated, xact_status=observation.xact_status, sequences=observation.sequences)


@must_give("CORRUPT-PHANTOM")
def marker_of_rolled_back(world, observation, rng):
    tx = pick(rng, (tx for tx in dead(world, "rollback", "error") if not tx.writes))
    return tx and with_markers(observation, [*observation.marker.rows, MarkerRow(tx.tx, tx.client, tx.xid)])


@must_give("CORRUPT-PHANTOM")
def marker_of_nobody(world, observation, rng):
    return with_markers(observation, [*observation.marker.rows, MarkerRow(10**6, 1, 10**6)])


@must_give("CORRUPT-PHANTOM")
def row_of_nobody(world, observation, rng):
    row = Row("never-used-before", 1, 10**6, "x")
    return with_rows(observation, "register", [*rows_of(observation, "register"), row])


@must_give("CORRUPT-DISCARDED-ROW")
def discarded_row_there(world, observation, rng):
    tx = pick(rng, (tx for tx in world.survivors if tx.discarded))
    if tx is None:
        return None
    part = tx.discarded[0]
    row = Row(part.key, part.version, tx.tx, part.value)
    return with_rows(observation, "part", [*rows_of(observation, "part"), row])


@must_give("CORRUPT-DUPLICATE-KEY")
def row_twice(world, observation, rng):
    relation, row = any_row(observation, rng, "account", "register", "list", "part", UNVERSIONED)
    return with_rows(observation, relation, [*rows_of(observation, relation), row])


@must_give("CORRUPT-DUPLICATE-KEY")
def old_and_new_row(world, observation, rng):
    found = pick(rng, (one for one in old_rows(world, "account", "register", "list") if one[3] is not None))
    return found and with_rows(observation, found[0], [found[2], *rows_of(observation, found[0])])


@must_give("CORRUPT-DUPLICATE-KEY")
def marker_twice(world, observation, rng):
    return with_markers(observation, [*observation.marker.rows, pick(rng, observation.marker.rows)])


def _changed_index(observation, rng, **changes):
    index = pick(rng, observation.indexes)
    return replace(observation, indexes=[replace(i, **changes) if i is index else i for i in observation.indexes])


@must_give("CORRUPT-INDEX-MISMATCH")
def index_entry_lost(world, observation, rng):
    return _changed_index(observation, rng, only_in_heap=["7"], index_rows=3, heap_rows=4)


@must_give("CORRUPT-INDEX-MISMATCH")
def index_entry_extra(world, observation, rng):
    return _changed_index(observation, rng, only_in_index=["7"], index_rows=5, heap_rows=4)


@must_give("CORRUPT-INDEX-MISMATCH")
def index_returns_a_row_twice(world, observation, rng):
    return _changed_index(observation, rng, index_rows=5, heap_rows=4)


@must_give("CORRUPT-COMMIT-STATUS")
def status_flipped_to_aborted(world, observation, rng):
    tx = pick(rng, world.survivors)
    return replace(observation, xact_status=observation.xact_status | {str(tx.xid): "aborted"})


@must_give("CORRUPT-COMMIT-STATUS")
def status_flipped_to_committed(world, observation, rng):
    newest = max(tx.xid for tx in world.survivors)
    alive = {tx.tx for tx in world.survivors}
    tx = pick(rng, (tx for tx in world.database.txs.values() if 0 < tx.xid < newest and tx.tx not in alive
                    and tx.phase != "begun" and tx.style != "rollback"))  # fmt: skip
    return tx and replace(observation, xact_status=observation.xact_status | {str(tx.xid): "committed"})


@must_give("CORRUPT-SEQUENCE-REGRESS")
def sequence_regressed(world, observation, rng):
    used = max(tx.ticket for tx in world.survivors)
    if rng.random() < 0.5:
        changes = {"last_value": used - 1, "is_called": True}
    else:
        changes = {"last_value": used, "is_called": False}
    return replace(observation, sequences=[replace(observation.sequences[0], **changes)])


@must_give("LOSS-PREPARED")
def prepared_lost(world, observation, rng):
    tx = pick(rng, (tx for tx in world.prepared if tx.phase in ("prepared", "commit prepared")))
    return tx and replace(observation, prepared=[gid for gid in observation.prepared if gid != tx.gid])


@must_give("CORRUPT-PREPARED-RESURRECTED")
def prepared_again(world, observation, rng):
    decided = [tx for tx in world.database.txs.values() if tx.style == "two-phase" and tx.phase == "ended"]
    tx = pick(rng, decided)
    return tx and replace(observation, prepared=[*observation.prepared, tx.gid])


@must_give("CORRUPT-PREPARED-UNKNOWN")
def prepared_by_nobody(world, observation, rng):
    return replace(observation, prepared=[*observation.prepared, "crashlab-0"])


@must_give("CORRUPT-PREPARED-VISIBLE")
def prepared_visible(world, observation, rng):
    """Its marker and its rows are there, undecided."""
    tx = pick(rng, (tx for tx in world.prepared if tx.phase in ("preparing", "prepared") and tx.writes))
    if tx is None:
        return None
    mutated = world.observation([*world.survivors, tx])
    return replace(mutated, xact_status=observation.xact_status, sequences=observation.sequences)


@must_give("CORRUPT-PREPARED-VISIBLE")
def prepared_row_visible(world, observation, rng):
    """One of its rows is there, its marker is not."""
    undecided = (
        (tx, write)
        for tx in world.prepared
        for write in tx.writes
        if tx.phase in ("preparing", "prepared") and write.relation == "account"
    )
    found = pick(rng, undecided)
    if found is None:
        return None
    tx, write = found
    row = next(row for row in rows_of(observation, "account") if row.key == write.key)
    return swap(observation, "account", row, Row(write.key, write.version, tx.tx, write.value))


@must_give("CORRUPT-TWO-PHASE-FILE")
def two_phase_file_unknown(world, observation, rng):
    """As in the innocent twin, where pg_xact has a decision."""
    left = Leftover(kind="two-phase file", name="pg_twophase/02F5", file="pg_twophase/02F5", size_bytes=200)
    fates = [replace(left, detail=fate) for fate in ("committed", "aborted", "too old", "in progress")]
    assert "CORRUPT-TWO-PHASE-FILE" not in str(world.judge(replace(observation, leftovers=fates[:-1])).findings)
    return replace(observation, leftovers=fates)


@must_give("CORRUPT-UNLOGGED")
def unlogged_rows_left(world, observation, rng):
    """Rows of one table; an index of another."""
    left = Leftover(kind="unlogged index", name="public.b_n", file="base/5/77", size_bytes=8192, detail="it is empty")
    return replace(observation, unlogged_rows={"public.a": 0, "public.b": 7}, leftovers=[left])


@must_give("CORRUPT-REDO-END")
def redo_went_elsewhere(world, observation, rng):
    """Past the valid end, or not up to it."""
    if len(world.log) < 3:
        return None
    wal = replace(world.wal(1), why="the record there has a wrong checksum")
    recovery = replace(observation.recovery, redo_end=f"0/{wal.last + rng.choice((-1, 1)):X}")
    return replace(observation, wal=wal, recovery=recovery)


@must_give("CORRUPT-MULTIXACT")
def multixact_unreadable(world, observation, rng):
    message = rng.choice(
        (
            'could not access status of transaction 7\nDETAIL:  Could not open file "pg_multixact/offsets/0000"',
            "MultiXactId 7 has not been created yet -- apparent wraparound",
        )
    )
    return _complains(observation, "full_read", "XX000", message)


@must_give("CORRUPT-UNREADABLE")
def page_taken_for_zeros(world, observation, rng):
    """Of a visibility map; the server only warns."""
    message = "invalid page in block 0 of relation base/5/16390_vm; zeroing out page"
    return _complains(observation, "zeroed_pages", "XX001", message, file="base/5/16390_vm")


@must_give("CORRUPT-INVARIANT")
def invariant_broken(world, observation, rng):
    return replace(observation, invariants=[replace(observation.invariants[0], observed="-1")])


@must_give("CORRUPT-DIED-ON-READ")
def died(world, observation, rng):
    return replace(observation, died="server closed the connection unexpectedly")


@must_give("NO-START")
def not_started(world, observation, rng):
    fatal = ['PANIC:  could not open file "base/5/1259": No such file or directory']
    return replace(observation, recovery=replace(observation.recovery, started=False, ran=False, fatal=fatal))


def _complains(observation, check, sqlstate, message, file="base/5/16390"):
    complaint = Complaint(check=check, object="crashlab.account", file=file, sqlstate=sqlstate, message=message)
    return replace(observation, complaints=[complaint])


@must_give("CORRUPT-INDEX-AMCHECK")
def amcheck_rejects_index(world, observation, rng):
    return _complains(observation, "amcheck_index", "XX002", 'item order invariant violated for index "x"')


@must_give("CORRUPT-INDEX-AMCHECK")
def index_lacks_an_entry(world, observation, rng):
    message = 'heap tuple (0,3) from table "account" lacks matching index tuple within index "x"'
    return _complains(observation, "amcheck_index", "XX001", message)


@must_give("CORRUPT-INDEX-AMCHECK")
def amcheck_rejects_gin(world, observation, rng):
    return _complains(observation, "amcheck_gin", "XX002", 'index "x" has wrong tuple order on entry tree page')


@must_give("CORRUPT-VISIBILITY-MAP")
def marked_all_visible(world, observation, rng):
    return _complains(observation, "visibility_map", None, "2 rows stand on pages that are marked all-visible")


@must_give("CORRUPT-FUTURE-LSN")
def page_from_the_future(world, observation, rng):
    return _complains(observation, "page_lsn", None, "block 0 has LSN 0/5000, and the log ends at 0/4000")


@must_give("CORRUPT-UNREADABLE")
def page_nobody_reads(world, observation, rng):
    return _complains(observation, "page_lsn", "XX001", "invalid page in block 0 of relation base/5/16390")


@must_give("CORRUPT-UNREADABLE")
def checksum_fails(world, observation, rng):
    return _complains(observation, "checksums", None, "block 0: calculated checksum AF0E but block contains 12")


@must_give("CORRUPT-HEAP-AMCHECK")
def amcheck_rejects_table(world, observation, rng):
    return _complains(observation, "amcheck_heap", None, "xmin 9 equals or exceeds next valid transaction ID 0:5")


@must_give("CORRUPT-UNREADABLE")
def invalid_page(world, observation, rng):
    return _complains(observation, "full_read", "XX001", "invalid page in block 0 of relation base/5/16390")


@must_give("CORRUPT-UNREADABLE")
def file_gone(world, observation, rng):
    return _complains(observation, "amcheck_index", "58P01", 'could not open file "base/5/16390": No such file')


@must_give("CORRUPT-UNREADABLE")
def toast_chunk_missing(world, observation, rng):
    return _complains(observation, "full_read", "XX000", "missing chunk number 0 for toast value 5 in pg_toast_5")


@must_give("CORRUPT-COMMIT-STATUS")
def status_unreadable(world, observation, rng):
    return _complains(observation, "full_read", "58P01", "could not access status of transaction 1048577")


@must_give("CORRUPT-MISSING-RELATION")
def table_unknown(world, observation, rng):
    mutated = _complains(observation, "heap_read", "42P01", 'relation "crashlab.account" does not exist', None)
    return replace(mutated, relations=[read for read in mutated.relations if read.relation != "account"])


@must_give("CORRUPT-WAL-STATE-MISMATCH")
def commit_record_without_its_transaction(world, observation, rng):
    """The newest commit of the log is not there; without the log nobody could tell it from a lost one."""
    kind, tx = world.log[-1]
    if kind != "commit" or tx.style == "two-phase" or not tx.client:
        return None
    return world.with_wal(world.observation(world.survivors[:-1]), world.wal(rng.randint(0, tx.commit_lsn - 1)))


@must_give("CORRUPT-WAL-STATE-MISMATCH")
def transaction_without_its_commit_record(world, observation, rng):
    """The log ends before a commit that is there."""
    tx = world.survivors[-1]
    if not tx.client:
        return None
    wal = world.wal(rng.randint(0, tx.lsns[0]))
    records = [record for record in wal.records if record.end < tx.commit_lsn]
    return world.with_wal(observation, replace(wal, end=tx.commit_lsn - 1, records=records))


@must_give("CORRUPT-WAL-STATE-MISMATCH")
def commit_before_the_redo_point_absent(world, observation, rng):
    """A checkpoint was completed after it, so no end of the log can explain that it is missing."""
    kind, tx = world.log[-1]
    later = [one for one in world.database.txs.values() if one.client == tx.client and one.tx > tx.tx and one.xid]
    sent = [one for one in later if one.phase != "begun" and one.style != "rollback"]
    if kind != "commit" or tx.style == "two-phase" or not (tx.acked and tx.client and sent):
        return None
    if sent[0].lsns[0] > len(world.log):  # the end of its commit record was not measured below the redo point
        return None
    return world.with_wal(world.observation(world.survivors[:-1]), world.wal(len(world.log)))


@must_give("CORRUPT-WAL-STATE-MISMATCH")
def prepare_record_without_its_transaction(world, observation, rng):
    """What would be a lost prepared transaction is damage if the log still had its PREPARE."""
    tx = pick(rng, world.prepared)
    if tx is None:
        return None
    left = replace(observation, prepared=[gid for gid in observation.prepared if gid != tx.gid])
    return world.with_wal(left, world.wal(rng.randint(0, tx.prepare_lsn - 1)))


@must_give("CORRUPT-WAL-STATE-MISMATCH")
def prepared_after_its_decision(world, observation, rng):
    """COMMIT PREPARED was never answered, but the log has it."""
    kind, tx = world.log[-1]
    if kind != "commit" or tx.style != "two-phase" or tx.acked:
        return None
    before = world.observation(world.survivors[:-1])
    return world.with_wal(replace(before, prepared=[*before.prepared, tx.gid]), world.wal(0))


@must_give("CORRUPT-AFTERLIFE-ERROR")
def fails_when_used(world, observation, rng):
    """A statement that writes; or the server dies of it. Of the innocent twin nothing more is said."""
    assert world.judge(replace(observation, afterlife=Afterlife(steps=[]))) == world.judge(observation)
    if rng.random() < 0.5:
        return replace(observation, afterlife=Afterlife(steps=[], died="during vacuum: server closed the connection"))
    complaint = Complaint(
        check="use",
        object="crashlab.ticket",
        file="base/5/400",
        sqlstate="XX000",
        message="bad magic number in sequence",
    )
    return replace(observation, afterlife=Afterlife(steps=[], complaints=[complaint]))


@must_give("CORRUPT-AFTERLIFE-CHANGED")
def changed_by_another_crash(world, observation, rng):
    """A table, a sequence, a prepared transaction that is back, an unlogged table, or an index."""
    kind = rng.choice(["content", "sequence", "prepared", "unlogged", "index"])
    if kind == "index":
        other = replace(observation.indexes[0], index_rows=0, only_in_heap=["1"]) if observation.indexes else None
        return other and replace(observation, afterlife=Afterlife(steps=[], indexes=[other]))
    change = LifeChange(step="crash", kind=kind, object="crashlab.account", file="base/5/100", says="it is another one")
    return replace(observation, afterlife=Afterlife(steps=[], changes=[change]))


@must_give("CORRUPT-PREPARED-UNLOCKED")
def locks_not_held(world, observation, rng):
    says = "another session got the lock of crashlab.account, which it has changed"
    change = LifeChange(step="locks", kind="lock", object="crashlab-7", file="pg_twophase", says=says)
    return replace(observation, afterlife=Afterlife(steps=[], changes=[change]))


@must_give("NO-START-AGAIN")
def starts_no_more(world, observation, rng):
    """After a clean stop, or after another crash; a full disk is no such thing."""
    fatal = ['PANIC:  could not open file "pg_wal/000000010000000000000003": No such file or directory']
    down = replace(observation.recovery, started=False, fatal=fatal)
    full = replace(down, tool_fault="No space left on device")
    assert "NO-START-AGAIN" not in str(world.judge(replace(observation, afterlife=Afterlife(steps=[], second=full))))
    life = Afterlife(steps=[], restart=down) if rng.random() < 0.5 else Afterlife(steps=[], second=down)
    return replace(observation, afterlife=life)
