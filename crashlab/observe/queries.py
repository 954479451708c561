"""What is a server asked, so that one question serves every version?

Choices:
    Columns of the statistics views come and go (pg_stat_wal lost half of its own to pg_stat_io in 18, pg_stat_bgwriter
    to pg_stat_checkpointer in 17). So a view is read whole, as JSON, and whatever it counts is taken by its own name;
    a view that the version does not have is left out.
    pg_stat_get_activity() is asked itself: the view joins two catalogs to it, for names that nobody needs here.
    Nothing is written, no extension made: the server under test stays as it is.

Source: postgres-contract.md 6 (which version counts what, and where).
"""

from typing import TYPE_CHECKING, Any

from crashlab.observe.samples import Sample, Wait, named

if TYPE_CHECKING:
    from psycopg import Cursor

SAMPLE = """
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, (pg_current_wal_lsn() - '0/0')::bigint,
       (pg_current_wal_flush_lsn() - '0/0')::bigint,
       (SELECT json_agg(json_build_array(backend, kind, event, idle, count)) FROM (
            SELECT coalesce(backend_type, '') AS backend, coalesce(wait_event_type, '') AS kind,
                   coalesce(wait_event, '') AS event, coalesce(state LIKE 'idle%', false) AS idle, count(*) AS count
            FROM pg_stat_get_activity(NULL) WHERE pid <> pg_backend_pid() GROUP BY 1, 2, 3, 4) AS found)
"""
"""One row: how far the WAL is, and what each process is doing."""
VIEWS = ("pg_stat_wal", "pg_stat_checkpointer", "pg_stat_bgwriter", "pg_stat_io")
"""Those that a version does not have are left out."""
IO_KEYS = ("backend_type", "object", "context")
"""Columns that tell the rows of pg_stat_io apart; `object` is relation, temp relation, and wal from 18 on."""
PROFILE_VIEW = "pg_wait_sampling_profile"
PROFILE = "SELECT event_type, event, sum(count)::bigint FROM {view} WHERE event IS NOT NULL GROUP BY 1, 2"


def sample_of(at_ns: int, row: tuple[Any, ...]) -> Sample:
    """Return what `SAMPLE` answered."""
    insert_lsn, write_lsn, flush_lsn, waits = row
    return Sample(at_ns, insert_lsn, write_lsn, flush_lsn, [Wait(*wait) for wait in waits or []])


def views_of(cursor: "Cursor[Any]") -> list[str]:
    """Return the statistics views that the server has."""
    found = cursor.execute(
        "SELECT view FROM unnest(%s::text[]) AS view WHERE to_regclass('pg_catalog.' || view) IS NOT NULL",
        [list(VIEWS)],
    )
    return [view for (view,) in found.fetchall()]


def counters(cursor: "Cursor[Any]", views: list[str]) -> dict[str, float]:
    """Read all that is counted, by view and column."""
    found: dict[str, float] = {}
    query = " UNION ALL ".join(f"SELECT '{view}', to_json(v) FROM pg_catalog.{view} AS v" for view in views)
    for view, row in cursor.execute(query).fetchall() if views else []:
        place = ".".join([view, *(str(row[key]) for key in IO_KEYS if key in row)])
        for column, value in row.items():
            if isinstance(value, int | float) and column not in IO_KEYS and (value or view != "pg_stat_io"):
                found[f"{place}.{column}"] = float(value)
    return found


def profile_of(cursor: "Cursor[Any]") -> dict[str, int] | None:
    """Read what the extension pg_wait_sampling has gathered since its start or reset; None: it is not there."""
    row = cursor.execute(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE relname = %s AND relkind = 'v'", [PROFILE_VIEW]
    ).fetchone()
    if row is None:
        return None
    found = cursor.execute(PROFILE.format(view=row[0])).fetchall()
    return {".".join(named(kind, event)): count for kind, event, count in found}
