"""Is it seen where a statement ends, and what it will do to its transaction?"""

import pytest

from crashlab.observer.statements import Statement, changed_setting, statements_of


def kinds(text: str) -> list[str]:
    return [one.kind for one in statements_of(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COMMIT", ["commit"]),
        ("  end work ;;", ["commit"]),
        ("BEGIN; INSERT INTO t VALUES (';COMMIT'); COMMIT", ["begin", "write", "commit"]),
        ("start transaction isolation level serializable", ["begin"]),
        ("-- COMMIT\nSELECT 1", ["read"]),
        ("/* a /* nested */ COMMIT; */ SELECT 1", ["read"]),
        ("SELECT $$;COMMIT;$$, $x$ $$ ; $x$, a$b$c FROM t; END", ["read", "commit"]),
        (r"SELECT e'\';COMMIT', '\'; COMMIT", ["read", "commit"]),
        ('SELECT 1 "a;b"; ABORT', ["read", "rollback"]),
        ("ROLLBACK TO SAVEPOINT s", ["rollback to"]),
        ("ROLLBACK WORK TO s", ["rollback to"]),
        ("PREPARE TRANSACTION 'g'", ["prepare transaction"]),
        ("PREPARE x AS SELECT 1", ["quiet"]),
        ("COMMIT PREPARED 'g'; ROLLBACK PREPARED 'h'", ["commit prepared", "rollback prepared"]),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; END; SELECT 1",
            ["write", "read"],
        ),
        ("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)", ["write"]),
        ("GRANT SELECT ON t TO r; CREATE ROLE s; COMMENT ON TABLE t IS 'x'", ["write"] * 3),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", ["write"]),
        ("(SELECT 1)", ["read"]),
        ("SELECT 1 INTO x", ["write"]),
        ("COPY t FROM STDIN", ["write"]),
        ("COPY (SELECT v FROM t) TO STDOUT", ["read"]),
        ("CALL p()", ["call"]),
        ("VACUUM", ["other"]),
        ("CREATE INDEX CONCURRENTLY i ON t (v)", ["other"]),
        ("CREATE DATABASE d", ["other"]),
        ("", []),
        ("; -- nothing", []),
        ("SELECT 'open", ["read"]),
    ],
)
def test_kinds(text: str, expected: list[str]):
    """What ends a transaction is known by its first words, and no text, name or comment is taken for it."""
    assert kinds(text) == expected


def test_what_a_control_statement_names():
    """The name of a prepared transaction, and AND CHAIN."""
    assert statements_of("PREPARE TRANSACTION 'it''s'")[0].gid == "it's"
    assert statements_of("COMMIT AND CHAIN")[0].chain
    assert not statements_of("COMMIT AND NO CHAIN")[0].chain


@pytest.mark.parametrize(
    "text",
    ["VACUUM", "CALL p()", "DO 'x'", "CREATE DATABASE d", "DROP DATABASE d", "REINDEX TABLE CONCURRENTLY t", "CLUSTER",
     "ALTER DATABASE d SET TABLESPACE s",
     "CREATE UNIQUE INDEX CONCURRENTLY i ON t (v)", "ALTER SYSTEM SET a = 1", "DISCARD ALL", "CREATE SUBSCRIPTION s",
     "ALTER TABLE t DETACH PARTITION p CONCURRENTLY", "CREATE TABLESPACE s LOCATION 'x'", "COMMIT", "SAVEPOINT s",
     "EXPLAIN ANALYZE SELECT 1", "LOCK TABLE t", "ANALYZE", "DECLARE c CURSOR FOR SELECT 1"],
)  # fmt: skip
def test_what_must_stay_alone_in_its_message(text: str):
    """Nothing is put behind a statement that may not run, or means something else, in a transaction block."""
    assert not statements_of(text)[0].company


@pytest.mark.parametrize(
    "text",
    ["INSERT INTO t VALUES (1)", "SELECT f()", "COPY t FROM STDIN", "DROP TABLE t", "GRANT r TO s", "DROP OWNED BY r",
     "CREATE OR REPLACE FUNCTION f() RETURNS int RETURN 1", "ALTER ROLE r LOGIN", "CREATE TRUSTED LANGUAGE l",
     "ALTER TYPE t ADD VALUE 'v'", "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
     "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r", "CREATE EXTENSION e", "TRUNCATE t",
     "IMPORT FOREIGN SCHEMA f FROM SERVER s INTO i"],
)  # fmt: skip
def test_what_bears_company(text: str):
    """The twin: statements whose transaction is asked for in the same message."""
    assert statements_of(text)[0].company


def test_strings_of_old():
    """Without standard_conforming_strings a backslash escapes in any string."""
    text = r"SELECT '\'; COMMIT'"
    assert kinds(text) == ["read", "commit"]
    assert [one.kind for one in statements_of(text, standard_strings=False)] == ["read"]


def test_what_sets_a_setting():
    """SET, ALTER ROLE SET and set_config do; a mere mention does not."""
    for text in ("SET synchronous_commit TO off", "set_config", "ALTER ROLE r SET synchronous_commit = off"):
        text = "SELECT set_config('synchronous_commit', 'off', true)" if text == "set_config" else text
        assert changed_setting(text, "synchronous_commit")
    assert not changed_setting("SHOW synchronous_commit", "synchronous_commit")


def test_statements_are_cached_by_text():
    """The same text is read once."""
    assert statements_of("SELECT 42") is statements_of("SELECT 42")
    assert isinstance(statements_of("SELECT 42")[0], Statement)
