"""Which process does which job?

A PostgreSQL process writes its job into its title, "postgres: [cluster_name: ]JOB". The words given back are those of
pg_stat_activity.backend_type where it has one.

Source: postgres-contract.md section 3 (ps_status.c:init_ps_display, miscinit.c:GetBackendTypeDesc); of 14 .. 19.
"""

import re

POSTMASTER = "postmaster"
CLIENT_BACKEND = "client backend"
STARTUP = "startup"
CHECKPOINTER = "checkpointer"
STARTING = "starting"
"""Forked, its title not written yet."""

# Order matters: a database user may bear any of these names, so each pattern covers the whole title.
_PATTERNS = tuple(
    (role, re.compile(pattern))
    for role, pattern in (
        (CHECKPOINTER, r"checkpointer( .*)?"),
        ("background writer", r"background writer"),
        ("walwriter", r"walwriter"),
        ("autovacuum launcher", r"autovacuum launcher"),
        ("autovacuum worker", r"autovacuum worker( .*)?"),
        ("archiver", r"archiver( (archiving|last was|failed on) .*)?"),
        ("logger", r"(sys)?logger"),
        ("io worker", r"io worker \d+"),
        ("logical replication launcher", r"logical replication launcher"),
        ("logical replication worker", r"logical replication .*worker.*"),
        ("walsummarizer", r"walsummarizer"),
        ("slotsync worker", r"slotsync worker"),
        (STARTUP, r"startup( (recovering|waiting for|performing) .*)?"),
        ("stats collector", r"stats collector"),
        ("parallel worker", r"parallel worker for PID \d+"),
        ("walreceiver", r"walreceiver( .*)?"),
        ("walsender", r"walsender .*"),
        ("datachecksums launcher", r"datachecksums? launcher"),
        ("datachecksums worker", r"datachecksums? worker.*"),
        (CLIENT_BACKEND, r".+ (\[local\]|\S+\(\d+\))( .*)?"),
    )
)


def role_of(title: str, cluster_name: str = "") -> str:
    """Return the role that a child of the postmaster bears in its title.

    A background worker of an extension keeps its own name. `title` is /proc/PID/cmdline, its NULs as spaces.
    """
    text = title.strip()
    if not text.startswith("postgres:"):
        return STARTING
    text = text.removeprefix("postgres:").strip()
    if cluster_name:
        text = text.removeprefix(f"{cluster_name}:").strip()
    for role, pattern in _PATTERNS:
        if pattern.fullmatch(text):
            return role
    return text
