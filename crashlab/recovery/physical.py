"""Is every page of every table and index of the database readable and sound?

One round trip a check: the loop runs in the server, and reports each error as a notice that names object and file.
A check covers the tables, catalogs, TOAST tables and indexes of the connected database, and the shared catalogs.

Choices: a relation whose files are those of a base image, which was checked, is not read again, provided that the same
    holds for what the check holds it against: of a table its TOAST table, of an index its table. It is opened, for
    what the catalogs say of it may have changed.

Does not check: other databases; B-trees against their uniqueness (17+ only); access methods without a checker.

Source: postgres-contract.md section 6 (what each tool is blind to).
"""

from collections.abc import Collection
from typing import Any

import msgspec
import psycopg
from psycopg import errors

from crashlab.model import Complaint

TAG = "crashlab:"
SETTING = "crashlab.unchanged"

_LOOP = """
DO $crashlab$
DECLARE
  target record; problem record; looked_at bigint := 0; unchanged bigint := 0;
  known text[] := string_to_array(current_setting('{setting}', true), ',');
BEGIN
  FOR target IN
    WITH same AS MATERIALIZED (SELECT c.oid FROM pg_class c WHERE pg_relation_filepath(c.oid) = ANY(known))
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, pg_relation_filepath(c.oid) AS file,
           n.nspname = 'pg_toast' AS is_toast,
           c.oid IN (TABLE same) AND NOT EXISTS (
             SELECT FROM pg_index i
             WHERE (i.indexrelid = c.oid AND i.indrelid NOT IN (TABLE same))
                OR (i.indrelid = c.reltoastrelid AND i.indexrelid NOT IN (TABLE same))
           ) AND (c.reltoastrelid = 0 OR c.reltoastrelid IN (TABLE same)) AS unchanged
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_am m ON m.oid = c.relam
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
      RAISE NOTICE '{tag}%', json_build_object('check', '{check}', 'object', target.name, 'file', target.file,
                                               'sqlstate', SQLSTATE, 'message', SQLERRM);
    END;
  END LOOP;
  RAISE NOTICE '{tag}%', json_build_array(looked_at, unchanged);
END
$crashlab$
"""


_OPEN = "PERFORM pg_relation_size(target.oid);"


def _loop(check: str, condition: str, body: str, when_unchanged: str = "") -> str:
    return _LOOP.format(
        check=check, condition=condition, body=body, when_unchanged=when_unchanged, tag=TAG, setting=SETTING
    )


AMCHECK_INDEX = _loop(
    "amcheck_index",
    "c.relkind = 'i' AND m.amname = 'btree'"
    " AND EXISTS (SELECT FROM pg_index i WHERE i.indexrelid = c.oid AND i.indisvalid AND i.indisready)",
    "PERFORM bt_index_check(target.oid, true);",
    _OPEN,
)
AMCHECK_HEAP = _loop(
    "amcheck_heap",
    "c.relkind IN ('r', 'm', 't') AND m.amname = 'heap'",
    """FOR problem IN SELECT * FROM verify_heapam(target.oid, check_toast => true) LOOP
        RAISE NOTICE 'crashlab:%', json_build_object('check', 'amcheck_heap', 'object', target.name,
          'file', target.file, 'sqlstate', NULL,
          'message', format('block %s, offset %s: %s', problem.blkno, problem.offnum, problem.msg));
      END LOOP;""",
)
FULL_READ = _loop(
    "full_read",
    "c.relkind IN ('r', 'm', 't')",
    # a TOAST table has no row type; its chunks are read as they are
    """IF target.is_toast THEN
        EXECUTE format('SELECT sum(length(chunk_data)) FROM %s', target.name);
      ELSE
        EXECUTE format('SELECT sum(length(t::text)) FROM ONLY %s t', target.name);
      END IF;""",
    _OPEN,
)


class Looked(msgspec.Struct, frozen=True, array_like=True):
    """How many relations a loop looked at, and how many it did not because they are unchanged."""

    count: int
    unchanged: int


def leave_out(connection: psycopg.Connection[Any], unchanged: Collection[str]) -> None:
    """Let the loops of this connection leave out relations, named as pg_relation_filepath() does."""
    connection.execute("SELECT set_config(%s, %s, false)", (SETTING, ",".join(sorted(unchanged))))


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
            looked.append(msgspec.convert(found, Looked))
        else:
            complaints.append(msgspec.convert(found, Complaint))

    connection.add_notice_handler(receive)
    try:
        connection.execute("SET client_min_messages = notice")
        connection.execute(sql)
    finally:
        connection.remove_notice_handler(receive)
    assert len(looked) == 1, "a check loop ended without its count"
    return looked[0]
