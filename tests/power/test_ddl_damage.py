"""Is a table noticed that vanished, or that is back, or whose file is gone? Planted behind the ledger's back."""

from collections.abc import Callable

import pytest

from crashlab.model import Outcome
from crashlab.results import TrialResult
from crashlab.server import Server

RunOne = Callable[..., TrialResult]
TABLES = "SELECT name FROM crashlab.ddl_slot WHERE name <> '' ORDER BY slot LIMIT 1"

pytestmark = pytest.mark.server


def plant(sql: str, *, remove_file: bool = False) -> Callable[[Server], None]:
    """Recover, run a statement about the first table that is there, or remove its file, and stop cleanly."""

    def before_recovery(server: Server) -> None:
        server.start()
        with server.connect(autocommit=True) as connection:
            (table,) = connection.execute(TABLES).fetchone() or ("",)
            [(file,)] = connection.execute("SELECT pg_relation_filepath(%s)", (f"crashlab_ddl.{table}",)).fetchall()
            if sql:
                connection.execute(sql.format(table=f"crashlab_ddl.{table}"))
        server.stop("fast")
        assert server.data_directory is not None
        if remove_file:
            (server.data_directory / file).unlink()

    return before_recovery


@pytest.mark.parametrize(
    ("sql", "remove_file", "code"),
    [
        ("", False, None),
        ("DROP TABLE {table}", False, "CORRUPT-MISSING-ROW"),
        ("TRUNCATE {table}; INSERT INTO {table} VALUES (1, 0)", False, "CORRUPT-WRONG-VALUE"),
        ("CREATE TABLE crashlab_ddl.s0_9999 (n integer, tx bigint)", False, "CORRUPT-INVARIANT"),
        ("", True, "CORRUPT-UNREADABLE"),
    ],
)
def test_what_became_of_a_table_is_found(run_one: RunOne, sql: str, remove_file: bool, code: str | None) -> None:
    """Each damage gives its code; none gives no finding, but the note that a killed CREATE TABLE leaves its file."""
    result = run_one("kill9-all", 'workload.kinds=["ddl"]', before_recovery=plant(sql, remove_file=remove_file))
    found = [finding.code for finding in result.verdict.findings]
    if code is None:
        assert result.verdict.outcome is Outcome.INTACT
        assert set(found) <= {"NOTE-FILES-LEFT"}
    else:
        assert result.verdict.outcome is Outcome.CORRUPTION
        assert code in found, found
