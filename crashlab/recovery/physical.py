"""Is every page of every table and index of the database readable and sound, and if not, what is wrong where?

One round trip a check: the loop runs in the server, and reports each error as a notice that names object and file.
`sweeps` runs it only if there is something to report.
A check covers the tables, catalogs, TOAST tables and indexes of the connected database, and the shared catalogs.

Choices: a relation whose files are those of a base image, which was checked, is not read again, provided that the same
    holds for what the check holds it against: of a table its TOAST table, of an index its table. It is opened, for
    what the catalogs say of it may have changed (not always, see `sweeps`).
    Of a table with virtual columns all others are read: those are on no page, and their expression may fail on a row.

Does not check: the space maps; of the visibility map its checksum, for the server itself takes a damaged page of it for
    one without marks; that a parent page of a B-tree leads to all of its children (bt_index_parent_check locks the
    table); the LSN of a page of a hash index that is not in use. hash, gist, spgist, brin and bloom have no checker in
    PostgreSQL; `probes` asks them.

Sources: postgres-contract.md section 6 (what each tool is blind to); pgvisibility.html; the comments in PostgreSQL's
    contrib/pg_visibility/pg_visibility.c, and in gist.h on the LSNs of unlogged indexes.
"""

from collections.abc import Collection
from typing import Any

import msgspec
import psycopg
from psycopg import errors

from crashlab.model import Complaint
from crashlab.recovery.session import Looked

TAG = "crashlab:"
SETTING = "crashlab.unchanged"
_OIDS = "crashlab.unchanged_oids"

_LOOP = """
DO $crashlab$
DECLARE
  target record; problem record; fork text; more text; looked_at bigint := 0; unchanged bigint := 0;
  known text := current_setting('{setting}', true); same oid[] := nullif(current_setting('{oids}', true), '');
BEGIN
  IF known <> '' AND same IS NULL THEN
    WITH kept AS MATERIALIZED (
      SELECT c.oid, c.reltoastrelid AS toast FROM pg_class c
      WHERE pg_relation_filepath(c.oid) = ANY(string_to_array(known, ',')))
    SELECT array_agg(k.oid) INTO same FROM kept k WHERE NOT EXISTS (
      SELECT FROM pg_index i
      WHERE (i.indexrelid = k.oid AND i.indrelid NOT IN (SELECT oid FROM kept))
         OR (i.indrelid = k.toast AND i.indexrelid NOT IN (SELECT oid FROM kept))
    ) AND (k.toast = 0 OR k.toast IN (SELECT oid FROM kept));
    PERFORM set_config('{oids}', coalesce(same, '{{}}')::text, false);
  END IF;
  FOR target IN
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, pg_relation_filepath(c.oid) AS file,
           n.nspname = 'pg_toast' AS is_toast, m.amname AS method, coalesce(c.oid = ANY(same), false) AS unchanged
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
    WHERE c.relpersistence <> 't' AND {condition}
    ORDER BY c.oid
  LOOP
    BEGIN
      IF target.unchanged THEN
        unchanged := unchanged + 1;
        {when_unchanged}
        CONTINUE;
      END IF;
      looked_at := looked_at + 1;
      {body}
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS more = PG_EXCEPTION_DETAIL;  -- it names the file
      RAISE NOTICE '{tag}%', json_build_object('check', '{check}', 'object', target.name, 'file', target.file,
        'sqlstate', SQLSTATE, 'message', concat_ws(E'\\nDETAIL:  ', SQLERRM, nullif(more, '')));
    END;
  END LOOP;
  RAISE NOTICE '{tag}%', json_build_array(looked_at, unchanged);
END
$crashlab$
"""


_OPEN = "PERFORM pg_relation_size(target.oid);"


def _loop(check: str, condition: str, body: str, when_unchanged: str = "") -> str:
    return _LOOP.format(
        check=check,
        condition=condition,
        body=body,
        when_unchanged=when_unchanged,
        tag=TAG,
        setting=SETTING,
        oids=_OIDS,
    )


def _valid(method: str) -> str:
    return (
        f"c.relkind = 'i' AND m.amname = '{method}'"
        " AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indisvalid AND i.indisready)"
    )


BTREES = _valid("btree")
GINS = _valid("gin")
HEAPS = "c.relkind IN ('r', 'm', 't') AND m.amname = 'heap'"
TABLES = "c.relkind IN ('r', 'm', 't') AND c.relispopulated"
LOGGED_HEAPS = "c.relkind IN ('r', 'm', 't') AND c.relpersistence = 'p' AND m.amname = 'heap'"
LOGGED = (
    "c.relkind IN ('r', 'm', 't', 'i', 'S') AND c.relpersistence = 'p'"
    # Pages of an index that is being built are on disk before their log, and the crash leaves such an index invalid
    " AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND NOT i.indisvalid)"
)
"""Of pg_class c with its access method m: what each check looks at."""

AMCHECK_INDEX = _loop("amcheck_index", BTREES, "PERFORM bt_index_check(target.oid, true);", _OPEN)
AMCHECK_INDEX_UNIQUE = _loop("amcheck_index", BTREES, "PERFORM bt_index_check(target.oid, true, true);", _OPEN)
AMCHECK_GIN = _loop("amcheck_gin", GINS, "PERFORM gin_index_check(target.oid);")
AMCHECK_HEAP = _loop(
    "amcheck_heap",
    HEAPS,
    """FOR problem IN SELECT * FROM verify_heapam(target.oid, check_toast => true) LOOP
        RAISE NOTICE 'crashlab:%', json_build_object('check', 'amcheck_heap', 'object', target.name,
          'file', target.file, 'sqlstate', NULL,
          'message', format('block %s, offset %s: %s', problem.blkno, problem.offnum, problem.msg));
      END LOOP;""",
)
ROW = """
CASE WHEN {relation}.oid >= 16384 AND EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = {relation}.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)
  THEN (SELECT format('ROW(%s)', string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum)) FROM pg_attribute a
    WHERE a.attrelid = {relation}.oid AND a.attnum > 0 AND a.attgenerated <> 'v' AND NOT a.attisdropped)
  ELSE 't' END"""
"""What is on the pages of a table t, by the name of its place in pg_class."""
FULL_READ = _loop(
    "full_read",
    TABLES,
    # a TOAST table has no row type; its chunks are read as they are
    """IF target.is_toast THEN
        EXECUTE format('SELECT sum(length(chunk_data)) FROM %s', target.name);
      ELSE
        EXECUTE format('SELECT sum(length(%s::text)) FROM ONLY %s t', """
    + ROW.format(relation="target")
    + """, target.name);
      END IF;""",
    _OPEN,
)
VISIBILITY_MAP = _loop(
    "visibility_map",
    LOGGED_HEAPS,
    """FOR problem IN
        SELECT 'visible' AS mark, count(*) AS rows, (array_agg(t_ctid))[:10] AS places
        FROM pg_check_visible(target.oid) HAVING count(*) > 0
        UNION ALL
        SELECT 'frozen', count(*), (array_agg(t_ctid))[:10] FROM pg_check_frozen(target.oid) HAVING count(*) > 0
      LOOP
        RAISE NOTICE 'crashlab:%', json_build_object('check', 'visibility_map', 'object', target.name,
          'file', target.file || '_vm', 'sqlstate', NULL, 'message', format('%s rows stand on pages that are marked '
          'all-%s and are not: %s', problem.rows, problem.mark, problem.places));
      END LOOP;""",
)
# The end of the log is asked for after the page was read: a server that did not crash may still be at work.
# A hash index that gets more buckets is made longer by a page whose record nobody flushes (_hash_alloc_buckets:
# log_newpage, then smgrextend). Such a page says of itself that it is unused, and is made anew before it is used.
PAGE_LSN = _loop(
    "page_lsn",
    LOGGED,
    """FOREACH fork IN ARRAY ARRAY['main', 'vm'] LOOP
        BEGIN
          FOR problem IN
            SELECT block, lsn, pg_current_wal_insert_lsn() AS log_end FROM (
              SELECT block, page, (page_header(page)).lsn FROM (
                SELECT block, get_raw_page(target.name, fork, block) AS page FROM generate_series(0,
                  pg_relation_size(target.oid, fork) / current_setting('block_size')::bigint - 1) block OFFSET 0) raw
              OFFSET 0) pages
            WHERE CASE WHEN lsn <= pg_current_wal_insert_lsn() THEN false
                       WHEN target.method = 'hash' THEN hash_page_type(page) <> 'unused' ELSE true END
          LOOP
            RAISE NOTICE 'crashlab:%', json_build_object('check', 'page_lsn', 'object', target.name,
              'file', target.file || CASE fork WHEN 'vm' THEN '_vm' ELSE '' END, 'sqlstate', NULL, 'message',
              format('block %s has LSN %s, and the log ends at %s', problem.block, problem.lsn, problem.log_end));
          END LOOP;
        EXCEPTION WHEN data_corrupted THEN
          IF fork = 'main' THEN RAISE; END IF;
        END;
      END LOOP;""",
)


def horizon_may_move_back(connection: psycopg.Connection[Any]) -> str | None:
    """Say why pg_check_visible could call a sound row invisible here, or None.

    Before 17 it compares with a horizon that prepared transactions of other databases, replication slots and
    vacuum_defer_cleanup_age hold back although vacuum did not have to wait for them, or not as long.
    """
    if connection.info.server_version >= 170000:
        return None
    row = connection.execute(
        """
        SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database <> current_database()),
               EXISTS (SELECT FROM pg_replication_slots WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL),
               coalesce(current_setting('vacuum_defer_cleanup_age', true), '0') <> '0'
        """
    ).fetchone()
    assert row is not None
    reasons = ("a transaction is prepared in another database", "a replication slot", "vacuum_defer_cleanup_age")
    return next((reason for reason, holds in zip(reasons, row, strict=True) if holds), None)


def leave_out(unchanged: Collection[str]) -> str:
    """Return what lets the loops of a session leave out relations, named as pg_relation_filepath() does."""
    names = ",".join(sorted(unchanged)).replace("'", "''")
    return f"SELECT set_config('{SETTING}', '{names}', false), set_config('{_OIDS}', '', false)"


def run(connection: psycopg.Connection[Any], sql: str, complaints: list[Complaint]) -> Looked:
    """Run one loop; add what it complains about and return how many relations it looked at.

    Raises:
        psycopg.Error: the loop itself could not go on, such as over an unreadable catalog.
    """
    looked: list[Looked] = []

    def receive(diagnostic: errors.Diagnostic) -> None:
        text = diagnostic.message_primary or ""
        if not text.startswith(TAG):
            return
        found = msgspec.json.decode(text.removeprefix(TAG))
        if isinstance(found, list):
            looked.append(Looked(*found))
        else:
            complaints.append(msgspec.convert(found, Complaint))

    connection.add_notice_handler(receive)
    try:
        connection.execute(sql)
    finally:
        connection.remove_notice_handler(receive)
    assert len(looked) == 1, "a check loop ended without its count"
    return looked[0]
