"""As whom does the SQL of a profile run?

A profile may be a stranger's. Its set-up, its transactions and its invariants run in sessions of a role that is no
superuser, unless the profile says `superuser = true`: so COPY ... TO PROGRAM, pg_read_file and the like are refused by
the server. The role may make what it likes in the database, trusted extensions included, and read everything.

Choices: a session of its own for it, for whoever may SET ROLE may RESET it. The tables of crashlab's own kinds beside
    such SQL belong to the role, too: its sessions run both.
    This is no sandbox. The recovered server is read by a superuser, and an expression of an index is computed then.
"""

import re
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from crashlab.workload.kind import Kind

ROLE = "crashlab_application"
_EXTENSION = re.compile(r"CREATE EXTENSION IF NOT EXISTS (\w+);")


def make_role(connection: "psycopg.Connection[Any]") -> None:
    """Make the role, unless it is there; the session is a superuser's, and its password becomes the role's, too.

    Raises:
        psycopg.Error: it cannot be made.
    """
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (ROLE,)).fetchone() is not None:
        return
    role, database = sql.Identifier(ROLE), sql.Identifier(connection.info.dbname)
    password = sql.Literal(connection.info.password) if connection.info.password else sql.SQL("NULL")
    with connection.transaction():
        statements = sql.SQL(
            """
            SET TRANSACTION READ WRITE;
            CREATE ROLE {role} LOGIN NOSUPERUSER PASSWORD {password};
            GRANT CREATE ON DATABASE {database} TO {role};
            GRANT ALL ON SCHEMA public TO {role};
            GRANT pg_read_all_data TO {role};
            """
        )
        connection.execute(statements.format(role=role, database=database, password=password))


def make_extensions(connection: "psycopg.Connection[Any]", kinds: Iterable[Kind]) -> None:
    """Make the extensions of crashlab's own kinds that there are; some need a superuser. Raises psycopg.Error."""
    wanted = [name for kind in kinds for name in _EXTENSION.findall(kind.setup_sql)]
    query = "SELECT name FROM pg_available_extensions WHERE name = ANY(%s) ORDER BY name"
    for (name,) in connection.execute(query, (wanted,)).fetchall():
        connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {}").format(sql.Identifier(name)))
