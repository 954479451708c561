"""Is a row that is no text refused in words? In a database of the encoding SQL_ASCII nobody checks what is stored."""

import contextlib

import pytest

from crashlab.errors import UsageProblem
from crashlab.server import Server
from crashlab.workload.relations import SCHEMA_NAME
from crashlab.workload.tables import OPENING, Tables

pytestmark = pytest.mark.server

TEXT, NO_TEXT = r"E'caf\xc3\xa9'", r"E'caf\xe9'"


def test_bytes_that_are_no_text_are_refused_by_name(local_server: Server) -> None:
    """As a value and as a key, named and watched; text in the same database is taken."""
    with contextlib.closing(local_server.connect(autocommit=True)) as connection:
        connection.execute("CREATE DATABASE odd ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    with contextlib.closing(local_server.connect(dbname="odd")) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {SCHEMA_NAME}; CREATE TABLE item (id text PRIMARY KEY, v text)")
        cursor.execute(f"INSERT INTO item VALUES ('1', {TEXT}), ({TEXT}, ''); SELECT {OPENING}")
        tables = Tables()
        assert {write.value for write in tables.watch(cursor, "item")} == {
            '{"v": "café", "id": "1"}',
            '{"v": "", "id": "café"}',
        }
        refused = pytest.raises(UsageProblem, match=r"cannot record a row of .*: it holds bytes that are no text")
        for change in (f"UPDATE item SET v = {NO_TEXT} WHERE id = '1'", f"INSERT INTO item VALUES ({NO_TEXT}, '')"):
            cursor.execute("SAVEPOINT before")
            cursor.execute(change)
            with refused:
                tables.close(cursor)
            cursor.execute("ROLLBACK TO SAVEPOINT before")
        cursor.execute(f"CREATE TABLE other AS SELECT 1 AS id, {NO_TEXT} AS v; ALTER TABLE other ADD PRIMARY KEY (id)")
        with pytest.raises(UsageProblem, match="SQL_ASCII"):
            tables.watch(cursor, "other")
