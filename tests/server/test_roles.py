"""Is every process title of PostgreSQL 14 to 19 understood?"""

import pytest

from crashlab.server.base import describe_exit, last_words
from crashlab.server.roles import role_of


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("postgres: checkpointer ", "checkpointer"),
        ("postgres: background writer   ", "background writer"),
        ("postgres: walwriter ", "walwriter"),
        ("postgres: autovacuum launcher ", "autovacuum launcher"),
        ("postgres: autovacuum worker postgres", "autovacuum worker"),
        ("postgres: archiver last was 000000010000000000000001", "archiver"),
        ("postgres: archiver ", "archiver"),
        ("postgres: logger ", "logger"),
        ("postgres: syslogger ", "logger"),
        ("postgres: io worker 2", "io worker"),
        ("postgres: logical replication launcher ", "logical replication launcher"),
        ("postgres: startup recovering 000000010000000000000001", "startup"),
        ("postgres: startup performing end-of-recovery checkpoint", "startup"),  # up to 14
        ("postgres: stats collector ", "stats collector"),
        ("postgres: parallel worker for PID 4711 ", "parallel worker"),
        ("postgres: walsender postgres 127.0.0.1(4324) streaming 0/3000000", "walsender"),
        ("postgres: postgres postgres [local] idle", "client backend"),
        ("postgres: app shop 172.17.0.1(50442) COMMIT", "client backend"),
        ("postgres: app shop ::1(50442) idle in transaction", "client backend"),
        ("postgres: archiver shop [local] idle", "client backend"),
        ("postgres: pg_cron launcher ", "pg_cron launcher"),
        ("/usr/lib/postgresql/15/bin/postgres -D /data", "starting"),
    ],
)
def test_role_of_title(title: str, role: str) -> None:
    """Titles as /proc shows them, padding included; users that bear a role's name are clients all the same."""
    assert role_of(title) == role
    assert role_of(title.replace("postgres:", "postgres: 15/main:"), "15/main") == role


def test_last_words_are_the_fatal_lines() -> None:
    """FATAL and PANIC lines with their details; without any, the end of the log."""
    log = (
        "x FATAL:  the database system is starting up\nx FATAL:  lock file exists\nx HINT:  Is another running?\n"
        "x LOG:  database system is shut down\n"
    )
    assert last_words(log) == "x FATAL:  lock file exists\nx HINT:  Is another running?"
    assert last_words("a\nb\n") == "a\nb"


def test_exit_status_in_words() -> None:
    """As wait() gives it: negative means a signal."""
    assert describe_exit(-9) == "killed by signal 9 (SIGKILL)"
    assert describe_exit(1) == "exited with status 1"
