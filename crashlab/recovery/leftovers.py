"""What did the crash leave beside the data: indexes that are not valid, files that nobody knows, unlogged rows?

One round trip, as long as there is nothing to tell.

Choices: where other sessions are at work the files that nobody knows may be theirs, and the rows, too: not looked at.
    An unlogged index is held against its init fork, of which recovery makes it anew; no query could tell, for there is
    nothing in the table that an index would be asked for.
    The questions are plain: what takes long is to plan them.

Does not check: files in `global`, of other databases, and in tablespaces other than the database's own; unlogged
    sequences; the content of an index that is not valid, or of a file that nobody knows.

Sources: postgres-contract.md 4 (unlogged relations, orphans, prepared transactions); reinit.c, twophase.c.
"""

import re
import time
from functools import partial
from typing import Any, Literal

import psycopg

from crashlab.model import Leftover
from crashlab.recovery.session import Facts, Looked, Skipped, read_named, results

FILES_MAX = 1000
WAITS_S = (0.002, 0.008, 0.09, 0.4, 0.5, 0.0)
WHOLE_MAX_BYTES = 1 << 20

_RELATION_FILE = re.compile(r"(.*/\d+)(_[a-z]+)?(\.\d+)?")
_STATE_FILE = re.compile(r"(?:[0-9A-F]{8})?([0-9A-F]{8})")  # from 17 on the epoch stands before the xid
_OTHERS = """
SELECT count(*) FROM pg_stat_get_activity(NULL) WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
_INVALID = """
SELECT indexrelid::regclass::text, pg_relation_filepath(indexrelid), pg_relation_size(indexrelid)
FROM pg_index WHERE NOT indisvalid AND pg_relation_filepath(indexrelid) IS NOT NULL"""
# pg_class is a mapped relation, and never in another place than the database
_FOLDER = "regexp_replace(pg_relation_filepath('pg_class'), '[0-9]+$', '')"
_FILES = f"SELECT {_FOLDER} || pg_ls_dir({_FOLDER})"
_STATES = "SELECT pg_ls_dir('pg_twophase')"
_PREPARED = "SELECT transaction::text::bigint FROM pg_prepared_xact()"
_UNLOGGED = f"""
SELECT oid::regclass::text, relkind::text, pg_relation_filepath(oid), pg_relation_size(oid),
  CASE WHEN relkind <> 'i' THEN NULL
  WHEN pg_relation_size(oid, 'init') = 0 THEN 'it has no init fork to be made of'
  WHEN pg_relation_size(oid) = 0 THEN 'it is empty, without the pages of its init fork'
  WHEN pg_relation_size(oid) <> pg_relation_size(oid, 'init') THEN 'it has another size than its init fork'
  WHEN pg_relation_size(oid) <= {WHOLE_MAX_BYTES} AND pg_read_binary_file(pg_relation_filepath(oid))
    <> pg_read_binary_file(pg_relation_filepath(oid) || '_init') THEN 'it is not equal to its init fork' END
FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'm', 't', 'i')"""
_KNOWN = "SELECT pg_relation_filepath(oid) FROM pg_class WHERE pg_relation_filepath(oid) IS NOT NULL"
_SIZES = "SELECT path, coalesce((pg_stat_file(path, true)).size, 0) FROM unnest(%s::text[]) path ORDER BY path"
_FATES = """
SELECT 'pg_twophase/' || name, coalesce((pg_stat_file('pg_twophase/' || name, true)).size, 0),
  CASE WHEN xid >= next THEN 'future' ELSE coalesce(pg_xact_status(xid::text::xid8), 'too old') END
FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) s(next),
  LATERAL (SELECT name, (next >> 32 << 32) + low FROM unnest(%s::text[], %s::bigint[]) f(name, low)) x(name, xid)
ORDER BY 1"""


def look(connection: psycopg.Connection[Any], facts: Facts, known: frozenset[str] | None) -> Looked | Skipped:
    """List what was left.

    Args:
        known: the files of all relations, as pg_relation_filepath() names them; None: to be asked for.
    """
    for wait_s in WAITS_S:
        asked = [_OTHERS, _INVALID, _FILES, _STATES, _PREPARED, _UNLOGGED]
        ((others,),), invalid, files, states, prepared, unlogged = results(connection, asked)
        if not others:
            break
        time.sleep(wait_s)  # a session that was closed a moment ago
    facts.leftovers += [_leftover("invalid index", *index) for index in sorted(invalid)]
    if others:
        return Skipped(f"{others} other session{'s were' if others > 1 else ' was'} at work: files may be theirs")
    if known is None:
        known = frozenset(file for (file,) in connection.execute(_KNOWN))
    unknown = [file for (file,) in files if (match := _RELATION_FILE.fullmatch(file)) and match[1] not in known]
    if unknown:
        sizes = connection.execute(_SIZES, (unknown[:FILES_MAX],)).fetchall()
        facts.leftovers += [_leftover("unknown file", file, file, size_bytes) for file, size_bytes in sizes]
    named = {name: int(match[1], 16) for (name,) in states if (match := _STATE_FILE.fullmatch(name))}
    left = {name: xid for name, xid in named.items() if (xid,) not in prepared}
    if left:
        fates = connection.execute(_FATES, (list(left), list(left.values()))).fetchall()
        facts.leftovers += [_leftover("two-phase file", file, file, size, fate) for file, size, fate in fates]
    for name, kind, file, size_bytes, problem in sorted(unlogged):
        if problem:
            facts.leftovers.append(_leftover("unlogged index", name, file, size_bytes, problem))
        elif kind != "i":
            count = partial(_count, connection, name)
            rows = read_named("leftovers", connection, facts.complaints, name, count) if size_bytes else 0
            facts.unlogged_rows |= {} if rows is None else {name: rows}
    return Looked(len(files) + len(states) + len(unlogged))


def _leftover(
    kind: Literal["invalid index", "unknown file", "two-phase file", "unlogged index"],
    name: str,
    file: str,
    size_bytes: int,
    detail: str = "",
) -> Leftover:
    return Leftover(kind=kind, name=name, file=file, size_bytes=size_bytes, detail=detail)


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])
