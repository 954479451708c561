"""What did the crash leave beside the data: indexes that are not valid, files that nobody knows, unlogged rows?

One round trip, as long as the unlogged tables are empty: then they have no pages.

Choices: where other sessions are at work the files that nobody knows may be theirs, and the rows, too: not looked at.
    An unlogged index is held against its init fork, of which recovery makes it anew; no query could tell, for there is
    nothing in the table that an index would be asked for.

Does not check: files in `global`, of other databases, and in tablespaces other than the database's own; unlogged
    sequences; the content of an index that is not valid, or of a file that nobody knows.

Sources: postgres-contract.md 4 (unlogged relations, orphans, prepared transactions); reinit.c, twophase.c.
"""

import time
from functools import partial
from typing import Any

import psycopg

from crashlab.model import Leftover
from crashlab.recovery.session import Facts, Looked, Reading, Skipped, read_named, results

FILES_MAX = 1000
WHOLE_MAX_BYTES = 1 << 20
WAITS_S = (0.1, 0.4, 0.5, 0.0)

_NAME = "format('%I.%I', n.nspname, c.relname)"
_NAMED = "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
_OTHERS = """
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""
_INVALID = f"""
SELECT 'invalid index', {_NAME}, pg_relation_filepath(c.oid), pg_relation_size(c.oid), ''
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't' ORDER BY 2"""
# pg_class itself is a mapped relation, and never in another place than the database
_UNKNOWN = rf"""
SELECT 'unknown file', path, path, coalesce((pg_stat_file(path, true)).size, 0), ''
FROM (SELECT regexp_replace(pg_relation_filepath('pg_class'), '/\d+$', '')) here(folder),
  LATERAL (SELECT name, folder || '/' || name AS path FROM pg_ls_dir(folder) name) file
WHERE name ~ '^\d+(_[a-z]+)?(\.\d+)?$' AND substring(name, '^\d+')::oid NOT IN (
  SELECT pg_relation_filenode(oid) FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL)
ORDER BY 2 LIMIT {FILES_MAX}"""
# A name has 8 digits, the xid, and from 17 on its epoch in front of it
_TWO_PHASE = r"""
SELECT 'two-phase file', path, path, coalesce((pg_stat_file(path, true)).size, 0),
  CASE WHEN xid >= next THEN 'future' ELSE coalesce(pg_xact_status(xid::text::xid8), 'too old') END
FROM pg_ls_dir('pg_twophase') name, (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) s(next),
  LATERAL (SELECT 'pg_twophase/' || name, ('x' || lpad(right(name, 8), 16, '0'))::bit(64)::bigint) f(path, low),
  LATERAL (SELECT (next >> 32 << 32) + low) x(xid)
WHERE name ~ '^([0-9A-F]{8}){1,2}$' AND low NOT IN (SELECT transaction::text::bigint FROM pg_prepared_xacts)
ORDER BY 2"""
_UNLOGGED = f"""
SELECT {_NAME}, c.relkind::text, file, size, CASE WHEN c.relkind = 'i' THEN CASE
  WHEN init = 0 THEN 'it has no init fork to be made of'
  WHEN size = 0 THEN 'it is empty, without the pages of its init fork'
  WHEN size <> init THEN format('it has %s bytes, and its init fork has %s', size, init)
  WHEN size <= {WHOLE_MAX_BYTES} AND pg_read_binary_file(file) <> pg_read_binary_file(file || '_init')
    THEN 'it is not equal to its init fork' END END
FROM {_NAMED}, LATERAL (SELECT pg_relation_filepath(c.oid), pg_relation_size(c.oid), pg_relation_size(c.oid, 'init'))
  s(file, size, init)
WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'm', 't', 'i') ORDER BY 1"""


def look(connection: psycopg.Connection[Any], reading: Reading, facts: Facts) -> Looked | Skipped:
    """List what was left."""
    for wait_s in WAITS_S:
        ((others,),), *found, unlogged = results(connection, [_OTHERS, _INVALID, _UNKNOWN, _TWO_PHASE, _UNLOGGED])
        if not others:
            break
        time.sleep(wait_s)  # a session that was closed a moment ago
    invalid, *files = ([Leftover(**dict(zip(_FIELDS, row, strict=True))) for row in rows] for rows in found)
    facts.leftovers += invalid
    if others:
        return Skipped(f"{others} other session{'s were' if others > 1 else ' was'} at work: files may be theirs")
    for one in files:
        facts.leftovers += one
    for name, kind, file, size_bytes, problem in unlogged:
        if kind != "i":
            count = partial(_count, connection, name)
            rows = read_named("leftovers", connection, facts.complaints, name, count) if size_bytes else 0
            facts.unlogged_rows |= {} if rows is None else {name: rows}
        elif problem:
            leftover = Leftover(kind="unlogged index", name=name, file=file, size_bytes=size_bytes, detail=problem)
            facts.leftovers.append(leftover)
    return Looked(len(facts.leftovers) + len(unlogged))


_FIELDS = ("kind", "name", "file", "size_bytes", "detail")


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert row is not None
    return int(row[0])
