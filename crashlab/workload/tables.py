"""Which rows of a user's own tables did a transaction change, and to what?

Statement triggers on a watched table say which keys were inserted, updated and deleted, whoever did it: the
application's SQL, a cascade, another trigger. They add the keys to a setting that is local to the transaction, so that
nothing is stored, and what a savepoint's rollback undoes is forgotten as well. At the end of the transaction the rows
are read back: what the server shows then is what must be there after a crash.

Choices: versions are counted by the clients. A row's writers hold its lock from the change to the end, so the next one
    counts later; a count that was rolled back leaves a gap.
    Refused, because they could not be followed: partitioned tables, partitions and tables that inherit (a statement
    fires the triggers of the table that it names, and of no other), unlogged and temporary tables (nothing need
    survive), tables without a primary key. So are changes outside of a ledgered transaction, unless the tables are
    shared with sessions that have no ledger: then such a change is let pass, and is nobody's.

Sources: manual, sections "CREATE TRIGGER" (transition tables), "SET" (SET LOCAL and savepoints).
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from crashlab.errors import UsageProblem
from crashlab.ledger import Write
from crashlab.workload.relations import SCHEMA_NAME, TEXT_SETTINGS, Relation

if TYPE_CHECKING:
    from psycopg import Cursor

_HINT = (
    "Leave it out: its pages and indexes are checked all the same, and an invariant can say what must hold of its rows."
)
CHANGED = f"{SCHEMA_NAME}.changed"
"""The setting: BEGUN, then one line a change: the table's oid, a blank, the key. Without BEGUN it was reset."""
BEGUN = "begun"
SAID = "?"
"""Before the oid: nobody saw the change, the client said so."""
OPENING = f"set_config('{CHANGED}', '{BEGUN}', true)"
"""Column of a query at the start of a transaction."""
_TEXT_SETTINGS = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in TEXT_SETTINGS.items())
_CLOSING = f"""
SET CONSTRAINTS ALL IMMEDIATE;
SELECT current_setting('{CHANGED}', true), current_setting('synchronous_commit');
{_TEXT_SETTINGS}
"""
"""Deferred triggers have their say before the rows are read back: they may change some, too."""

_FACTS = """
SELECT c.oid::bigint, c.relkind::text, c.relpersistence::text,
       c.relispartition OR EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)),
       format('%%I.%%I', n.nspname, c.relname), quote_ident(c.relname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s)
"""
_KEY = """
SELECT a.attname, quote_ident(a.attname), CASE t.typnamespace WHEN 'pg_catalog'::regnamespace
       THEN format_type(a.atttypid, a.atttypmod) ELSE format('%%I.%%I', n.nspname, t.typname) END,
       t.typcategory IN ('A', 'C')
FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE i.indrelid = %s AND i.indisprimary AND k.place <= i.indnkeyatts ORDER BY k.place
"""
_SHAPE = """
SELECT c.relpersistence::text || ' ' || (SELECT string_agg(format('%%I %%s', attname, atttypid), ', ' ORDER BY attnum)
       FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) || '; ' ||
       (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid AND tgenabled = 'A' AND starts_with(tgname, 'crashlab_'))
FROM pg_class c WHERE c.oid = %s
"""


def _open(xid: str) -> str:
    """Return whether one of a row's xids is that of a transaction that has not ended; assigns none to the asker."""
    epoch = "(pg_snapshot_xmax(pg_current_snapshot())::text::bigint >> 32 << 32)"
    return f"coalesce(pg_xact_status(({epoch} + t.{xid}::text::bigint)::text::xid8) = 'in progress', false)"


class Found(NamedTuple):
    """What the open transaction sees at a key."""

    key: str  # as TEXT_SETTINGS spell it
    content: str | None  # None: no row
    xmin: int | None  # 32 bits
    ours: bool  # that is the transaction's own, or that of one of its savepoints


class FoundBeside(NamedTuple):
    """What another session sees at a key."""

    key: str
    there: bool
    touched: bool  # deleted, updated or locked by somebody, now or before
    by_us: bool  # by a transaction that has not ended, and is nobody else's


@dataclass
class Table:
    """One of the user's tables, known by its primary key: a JSON array of the key's columns, as text."""

    oid: int
    relation: Relation
    alone: bool  # neither a partition nor part of an inheritance tree
    columns: list[str]  # of the key
    quoted: list[str]
    types: list[str]
    shape: str = ""  # its columns, and how many triggers follow it

    @classmethod
    def look_up(cls, cursor: "Cursor[Any]", name: str) -> "Table":
        """Find a table by its name, quoted and qualified as in SQL.

        Raises:
            UsageProblem: there is none, or its rows could not be recognized after a crash, or need not be there.
        """
        facts = cursor.execute(_FACTS, (name,)).fetchone()
        if facts is None:
            raise UsageProblem(f'cannot record rows of "{name}": no such table')
        oid, kind, persistence, related, qualified, alias = facts
        key = cursor.execute(_KEY, (oid,)).fetchall()
        reason = ""
        if kind != "r":
            reason = "it is partitioned, and only its partitions hold rows" if kind == "p" else "it is no table"
        elif persistence != "p":
            reason = "it is unlogged or temporary, and need not survive a crash"
        elif not key:
            reason = "it has no primary key, by which a row is recognized after the crash"
        elif any(composite for *_, composite in key):
            reason = "its primary key has a column of an array or composite type"
        if reason:
            raise UsageProblem(f'cannot record rows of "{name}": {reason}', hint=_HINT)
        columns, quoted, types = ([row[position] for row in key] for position in range(3))
        select_list = f"{_key_of(quoted)}, NULL, NULL, to_jsonb({alias}.*)::text"
        table = cls(oid, Relation(qualified, qualified, select_list), not related, columns, quoted, types)
        table.shape = table.look_at_shape(cursor)
        return table

    def look_at_shape(self, cursor: "Cursor[Any]") -> str:
        """Return what must not change while rows are compared; empty if the table is gone."""
        row = cursor.execute(_SHAPE, (self.oid,)).fetchone()
        return row[0] if row else ""

    def find(self, cursor: "Cursor[Any]", values: Mapping[str, Any]) -> str:
        """Return the key of the row with these values, as the table has it if it is there."""
        given = [values[column] for column in self.columns]
        casts = [f"%s::{key_type}" for key_type in self.types]
        condition = " AND ".join(f"{column} = {cast}" for column, cast in zip(self.quoted, casts, strict=True))
        with _as_text(f'"{self.relation.name}"'):
            row = cursor.execute(
                f"SELECT coalesce((SELECT {_key_of(self.quoted)} FROM ONLY {self.relation.table} WHERE {condition}),"
                f" jsonb_build_array({', '.join(casts)})::text)",
                given + given,
            ).fetchone()
        assert row is not None
        key: str = row[0]
        return key

    def read(self, cursor: "Cursor[Any]", keys: Iterable[str]) -> "list[Found]":
        """Return what there is at each key, in the order of the keys."""
        content = f"CASE WHEN t.{self.quoted[0]} IS NOT NULL THEN to_jsonb(t.*)::text END"
        # A row that is seen was written by a transaction that has committed, or by this one
        return [
            Found(*row) for row in self._find_all(cursor, keys, f"{content}, t.xmin::text::bigint, {_open('xmin')}")
        ]

    def read_beside(self, cursor: "Cursor[Any]", keys: Iterable[str], pid: int) -> "list[FoundBeside]":
        """Return what a session beside the open transaction of process `pid` sees at each key: what is committed."""
        # A savepoint's xid is locked by nobody once it is released
        others = "SELECT FROM pg_locks l WHERE l.transactionid = t.xmax AND l.granted AND l.mode = 'ExclusiveLock'"
        by_us = f"{_open('xmax')} AND NOT EXISTS ({others} AND l.pid <> {pid})"
        columns = f"t.{self.quoted[0]} IS NOT NULL, coalesce(t.xmax::text <> '0', false), {by_us}"
        return [FoundBeside(*row) for row in self._find_all(cursor, keys, columns)]

    def _find_all(self, cursor: "Cursor[Any]", keys: Iterable[str], columns: str) -> list[Any]:
        casts = [f"(g.key::jsonb ->> {position})::{key_type}" for position, key_type in enumerate(self.types)]
        names = [f"k{position}" for position in range(len(casts))]
        given = ", ".join(f"{cast} AS {name}" for cast, name in zip(casts, names, strict=True))
        condition = " AND ".join(f"t.{column} = k.{name}" for column, name in zip(self.quoted, names, strict=True))
        spelled, own = (_key_of([f"{of}.{name}" for name in those]) for of, those in (("k", names), ("t", self.quoted)))
        # Equal keys may be spelled differently (1.0 and 1.00): a row is that of its own spelling alone
        with _as_text(f'"{self.relation.name}"'):
            return cursor.execute(
                f"SELECT DISTINCT ON (1) {spelled}, {columns} FROM (SELECT {given} FROM unnest(%s::text[]) g(key)) k"
                f" LEFT JOIN ONLY {self.relation.table} t ON {condition} AND {own} = {spelled}",
                (list(keys),),
            ).fetchall()

    def watch_sql(self, *, shared: bool) -> str:
        """Return the statements that install the triggers; on a shared table they let others write."""
        function = f"{SCHEMA_NAME}.note_changes_{self.oid}()"
        others = "RETURN NULL;" if shared else _REFUSAL
        parts = [_FUNCTION.format(function=function, keys=self._keys_sql, table=self.relation.table, others=others)]
        for event, timing, tables in (
            ("INSERT", "AFTER", "REFERENCING NEW TABLE AS new_rows"),
            ("UPDATE", "AFTER", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
            ("DELETE", "AFTER", "REFERENCING OLD TABLE AS old_rows"),
            ("TRUNCATE", "BEFORE", ""),
        ):
            trigger = f"crashlab_{event.lower()}"
            parts.append(
                f"CREATE TRIGGER {trigger} {timing} {event} ON {self.relation.table} {tables}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {function};"
                # ... also where the application plays a replica
                f" ALTER TABLE {self.relation.table} ENABLE ALWAYS TRIGGER {trigger};"
            )
        return "\n".join(parts)

    @property
    def _keys_sql(self) -> str:
        key = _key_of([f"r.{column}" for column in self.quoted])
        return f"pg_catalog.string_agg(pg_catalog.concat(E'\\n{self.oid} ', {key}), '')"


_FUNCTION = f"""
CREATE FUNCTION {{function}} RETURNS trigger LANGUAGE plpgsql
{" ".join(f"SET {name} = '{value}'" for name, value in TEXT_SETTINGS.items())} AS $crashlab$
#variable_conflict use_column
DECLARE
    crashlab_before text := pg_catalog.current_setting('{CHANGED}', true);
    crashlab_keys text;
BEGIN
    IF coalesce(pg_catalog.strpos(crashlab_before, '{BEGUN}'), 0) <> 1 THEN
        {{others}}
    END IF;
    IF TG_OP = 'INSERT' THEN
        SELECT {{keys}} INTO crashlab_keys FROM new_rows r;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT {{keys}} INTO crashlab_keys FROM old_rows r;
    ELSIF TG_OP = 'UPDATE' THEN
        SELECT {{keys}} INTO crashlab_keys FROM (SELECT * FROM old_rows UNION ALL SELECT * FROM new_rows) r;
    ELSIF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
        -- an older snapshot does not show all the rows that are about to go
        RAISE EXCEPTION 'cannot follow TRUNCATE of % except in read committed mode', TG_RELID::regclass;
    ELSE
        SELECT {{keys}} INTO crashlab_keys FROM ONLY {{table}} r;
    END IF;
    PERFORM pg_catalog.set_config('{CHANGED}', pg_catalog.concat(crashlab_before, crashlab_keys), true);
    RETURN NULL;
END $crashlab$;
"""
_REFUSAL = "RAISE EXCEPTION 'cannot follow a change of % outside of a ledgered transaction', TG_RELID::regclass;"


@contextlib.contextmanager
def _as_text(name: str) -> Iterator[None]:
    """Refuse a row that cannot be read as text, as it can be in a database of the encoding SQL_ASCII."""
    import psycopg

    try:
        yield
    except (psycopg.errors.CharacterNotInRepertoire, psycopg.errors.UntranslatableCharacter) as error:
        raise UsageProblem(
            f"cannot record a row of {name}: it holds bytes that are no text",
            detail=f"{error.diag.message_primary}. With the encoding SQL_ASCII nobody checks what is stored.",
            hint="Use a database with an encoding, such as UTF8 or LATIN1, or the type bytea for such bytes.",
        ) from error


def _key_of(columns: list[str]) -> str:
    return f"pg_catalog.jsonb_build_array({', '.join(columns)})::text"


class Naming:
    """What a client says about its open transaction, held against what is there, and who wrote it.

    A row that it names and has not changed is not locked by it, so nothing says whether others changed it before or
    after: it is left out. A row that is there is this transaction's if its xmin is. One that is gone was deleted by it
    if a session beside it still sees the committed row, and that row's xmax is this transaction's.
    """

    def __init__(self, ask_beside: Callable[[Table, list[str]], list[FoundBeside]]) -> None:
        """Say who is asked about rows that are gone, as `Table.read_beside`."""
        self._ask_beside = ask_beside
        self.xids: set[int] = set()  # of 32 bits: those that wrote rows
        self.sure = True  # False: it may have deleted a row that was left out

    def true(self, table: Table, named: list[Found]) -> list[Found]:
        """Return those of the named rows that the transaction changed."""
        gone = [one.key for one in named if one.content is None]
        deleted = set()
        if gone:
            for key, there, touched, by_us in self._ask_beside(table, gone):
                if there and by_us:
                    deleted.add(key)
                elif there and touched:  # by a group of lockers, say
                    self.sure = False
        return [one for one in named if one.ours or one.key in deleted]


class Tables:
    """The user's tables that one ledger knows, and how often each row has changed. Shared by all clients."""

    def __init__(self, *, shared: bool = False) -> None:
        """Shared: sessions that have no ledger may write to the tables, too."""
        self._shared = shared
        self._lock = threading.Lock()
        self._by_name: dict[str, Table] = {}
        self._by_oid: dict[int, Table] = {}
        self._versions: dict[tuple[str, str], int] = {}

    @property
    def relations(self) -> tuple[Relation, ...]:
        """Each table once."""
        return tuple(table.relation for table in self._known())

    def _known(self) -> list[Table]:
        with self._lock:  # another client may be naming one more
            return list(self._by_oid.values())

    def keys(self) -> set[tuple[str, str]]:
        """Return relation and key of every row that was noted."""
        with self._lock:
            return set(self._versions)

    def find(self, cursor: "Cursor[Any]", name: str) -> Table:
        """Return a table, looked up once. Raises UsageProblem as `Table.look_up`."""
        with self._lock:
            if name not in self._by_name:
                table = Table.look_up(cursor, name)
                self._by_name[name] = self._by_oid.setdefault(table.oid, table)
            return self._by_name[name]

    def watch(self, cursor: "Cursor[Any]", name: str) -> list[Write]:
        """Install the triggers on a table in the open transaction, and return all its rows as they are now.

        Raises:
            UsageProblem: as `Table.look_up`, or its changes could not be followed.
        """
        table = self.find(cursor, name)
        if not table.alone:
            raise UsageProblem(
                f'cannot follow the changes of "{name}": it is a partition or part of an inheritance tree', hint=_HINT
            )
        cursor.execute(f"{_TEXT_SETTINGS}; {table.watch_sql(shared=self._shared)}")  # locks out all writers
        table.shape = table.look_at_shape(cursor)
        with _as_text(f'"{name}"'):
            rows = cursor.execute(
                f"SELECT {_key_of(table.quoted)}, to_jsonb(r.*)::text FROM ONLY {table.relation.table} r"
            ).fetchall()
        return [self._write(table, key, value) for key, value in rows]

    def note(self, cursor: "Cursor[Any]", table: Table, key: str) -> None:
        """Say in the open transaction that it changed a row."""
        cursor.execute(
            f"SELECT set_config('{CHANGED}', concat(current_setting('{CHANGED}', true), E'\\n', %s::text), true)",
            (f"{SAID}{table.oid} {key}",),
        )

    def close(self, cursor: "Cursor[Any]", naming: Naming | None = None) -> tuple[list[Write], str]:
        """Return what the open transaction wrote, and the synchronous_commit in force, right before its end.

        Args:
            naming: holds what the client said about its changes against what there is.

        Raises:
            UsageProblem: the transaction has forgotten what it wrote.
            psycopg.Error: a deferred constraint is violated.
        """
        with _as_text("a table"):  # its key is on the list
            cursor.execute(_CLOSING)
        cursor.nextset()
        changed, sync = cursor.fetchone() or (None, "")
        begun, *lines = (changed or "").split("\n")
        if begun != BEGUN:
            raise UsageProblem(
                "cannot tell what a transaction changed: it ended, or its settings were reset",
                hint="BEGIN, COMMIT, ROLLBACK and RESET ALL cannot be part of it: crashlab begins and ends it.",
            )
        keys: dict[int, dict[str, None]] = {}
        said: dict[int, dict[str, None]] = {}
        for line in lines:
            oid, _, key = line.partition(" ")
            (said if oid.startswith(SAID) else keys).setdefault(int(oid.removeprefix(SAID)), {})[key] = None
        writes = []
        for oid_number in {**keys, **said}:
            table = self._by_oid[oid_number]
            read = table.read(cursor, keys.get(oid_number, ()))
            seen = {one.key for one in read}
            named = [one for one in table.read(cursor, said.get(oid_number, ())) if one.key not in seen]
            read += named if naming is None else naming.true(table, named)
            writes += [self._write(table, one.key, one.content) for one in read]
            if naming is not None:
                naming.xids.update(one.xmin for one in read if one.xmin is not None)
        return writes, sync

    def check(self, cursor: "Cursor[Any]") -> None:
        """Raise UsageProblem: a table is not what it was, so its rows cannot be compared with what was noted."""
        for table in self._known():
            if table.look_at_shape(cursor) != table.shape:
                raise UsageProblem(
                    f'cannot compare the rows of "{table.relation.name}": its columns or its triggers changed',
                    hint="Change the table before any of its rows is recorded.",
                )

    def _write(self, table: Table, key: str, value: str | None) -> Write:
        name = table.relation.name
        with self._lock:
            version = self._versions.get((name, key), 0) + 1
            self._versions[name, key] = version
        return Write(name, key, version, value)
