"""What does a test's own query find of what was told?"""

from typing import Any

import psycopg
from psycopg import pq

from crashlab.errors import UsageProblem

CANNOT_RUN = "cannot run the query of check: "
_NAME = "crashlab told"  # of a prepared statement


def column_type(query: str, connection: "psycopg.Connection[Any]") -> str | None:
    """Return the type of a query's first column, as SQL has it, without running it; None: that cannot be told."""
    wire = connection.pgconn
    if wire.prepare(_NAME.encode(), query.encode()).status != pq.ExecStatus.COMMAND_OK:
        return None
    described = wire.describe_prepared(_NAME.encode())
    connection.execute(f'DEALLOCATE "{_NAME}"')
    if not described.nfields:
        return None
    asked = (described.ftype(0), described.fmod(0))
    row = connection.execute("SELECT format_type(%s::oid, %s::integer)", asked).fetchone()
    return row[0] if row is not None else None


def first_column(query: str, connection: "psycopg.Connection[Any]") -> list[str]:
    """Return the texts in the first column of a query. Raises UsageProblem: it cannot be run, or returns no rows."""
    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION READ ONLY")  # whoever looks changes nothing of what is looked for
            cursor = connection.execute(query)
    except psycopg.Error as error:
        raise UsageProblem(f"{CANNOT_RUN}{str(error).strip().splitlines()[0]}", detail=query) from error
    result = cursor.pgresult
    if result is None or not result.nfields:
        raise UsageProblem("cannot compare what was told: the query of check returns no column", detail=query)
    values = (result.get_value(row, 0) for row in range(result.ntuples))
    return [value.decode() for value in values if value is not None]
