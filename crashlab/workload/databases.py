"""Do whole databases and tablespaces survive that are made, filled and dropped under load?

These commands cannot be part of a transaction, so nothing about them is ledgered. After the crash every database that
lets sessions in must be readable in full.

Choices:
    A tablespace's place is named through the server's own working directory, which is its data directory: recovery
    makes the link again as the WAL has it, and in a copy of the data directory it must lead into that copy.
    One database stays for a while beside the next one, so that a crash meets databases of every age.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from random import Random
from typing import Any

import psycopg

from crashlab.errors import ServerError
from crashlab.workload.companion import Companion, Connect

FOLDER_COUNT = 4
LINK = "crashlab_tablespaces"  # in the data directory
LOCATION = f"/proc/self/cwd/{LINK}"
KEPT = 2
STRATEGIES_SINCE = 150000

ConnectTo = Callable[[str], "psycopg.Connection[Any]"]


def make_places(data_directory: Path, tablespaces: Path, own: Callable[[Path], None], seen_as: PurePath) -> None:
    """Make the folders of the tablespaces and the link to them; the server is stopped.

    Args:
        seen_as: `tablespaces` as the server sees it.

    Raises:
        ServerError: they cannot be made.
    """
    try:
        for number in range(FOLDER_COUNT):
            (tablespaces / str(number)).mkdir()
            own(tablespaces / str(number))
        (data_directory / LINK).symlink_to(seen_as)
    except OSError as error:
        raise ServerError(f'could not make tablespaces in "{tablespaces}": {error.strerror}') from error


class Databases(Companion):
    """Makes and drops databases and tablespaces, one after the other."""

    name = "databases"

    def __init__(self, connect: ConnectTo, strategies: Sequence[str], rng: Random) -> None:
        """Connect nobody yet.

        Args:
            connect: opens an autocommit connection to a database.
            strategies: of CREATE DATABASE, in turn; before 15, which knows none, left out.
        """
        self._connect = connect
        self._strategies = strategies
        self._rng = rng

    def connect(self, connect: Connect) -> None:
        """See Companion.connect; it opens its own, to databases that are not there yet."""

    def run(self, connection: "psycopg.Connection[Any] | None", stop: threading.Event) -> None:
        """See Companion.run."""
        rng = self._rng
        with contextlib.closing(self._connect("postgres")) as connection:
            named = connection.info.server_version >= STRATEGIES_SINCE
            number = 0
            while not stop.is_set():
                number += 1
                space = number % FOLDER_COUNT
                if number > KEPT:
                    self._drop(connection, number - KEPT)
                connection.execute(f"CREATE TABLESPACE crashlab_space_{space} LOCATION '{LOCATION}/{space}'")
                strategy = f" STRATEGY {self._strategies[(number - 1) % len(self._strategies)]}" if named else ""
                where = f" TABLESPACE crashlab_space_{space}" if rng.random() < 0.3 else ""
                connection.execute(f"CREATE DATABASE crashlab_database_{number} TEMPLATE template1{strategy}{where}")
                self._fill(number, rng)
                if rng.random() < 0.5:
                    connection.execute("CHECKPOINT")

    def _drop(self, connection: "psycopg.Connection[Any]", number: int) -> None:
        connection.execute(f"DROP DATABASE crashlab_database_{number}")
        connection.execute(f"DROP TABLESPACE crashlab_space_{number % FOLDER_COUNT}")

    def _fill(self, number: int, rng: Random) -> None:
        with contextlib.closing(self._connect(f"crashlab_database_{number}")) as connection:
            connection.execute("CREATE EXTENSION amcheck")
            for table, where in (("here", ""), ("there", f" TABLESPACE crashlab_space_{number % FOLDER_COUNT}")):
                connection.execute(f"CREATE TABLE {table}_empty (n integer, note text){where}")
                connection.execute(f"CREATE TABLE {table} (n integer PRIMARY KEY){where}")
                connection.execute(f"INSERT INTO {table} SELECT generate_series(1, {rng.randint(1, 400)})")
