"""Are the other databases of a server read as well, and what is wrong with one named?"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from crashlab.model import Complaint, Observation
from crashlab.oracle.physical import witnesses_damage
from crashlab.recovery.observe import Reading, observe
from crashlab.recovery.restart import recover
from crashlab.server import Server

pytestmark = pytest.mark.server

READING = Reading(relations=[], invariants=[], xids=[], sequences=(), marker_table="pg_database", databases=True)


def look(server: Server, damage: Callable[[Path, str, str], object]) -> Observation:
    """Make a database with a table, stop, damage it, start again and read everything."""
    with contextlib.closing(server.connect(autocommit=True)) as connection:
        connection.execute("CREATE EXTENSION amcheck")
        connection.execute("CREATE DATABASE other")
    with contextlib.closing(server.connect(autocommit=True, dbname="other")) as connection:
        connection.execute("CREATE EXTENSION amcheck")
        connection.execute("CREATE TABLE full_one (n integer PRIMARY KEY)")
        connection.execute("INSERT INTO full_one SELECT generate_series(1, 1000)")
        row = connection.execute(
            "SELECT pg_relation_filepath('full_one'), oid FROM pg_database WHERE datname = 'other'"
        )
        file, oid = row.fetchone() or ("", 0)
    server.stop("fast")
    assert server.data_directory is not None
    damage(server.data_directory, file, f"base/{oid}")
    recovery = recover(server, restart=True, log_position=server.log_position())
    return observe(lambda name: server.connect(autocommit=True, dbname=name), READING, recovery)


def complaints(observation: Observation) -> list[Complaint]:
    """What was said about the other database."""
    return [one for one in observation.complaints if "other" in one.object]


def test_a_sound_database_is_read_without_a_complaint(local_server: Server) -> None:
    """The innocent twin; template1 and the other database are looked at, template0 lets nobody in."""
    observation = look(local_server, lambda data, file, folder: None)
    assert [one for one in observation.complaints if one.object != READING.marker_table] == []
    run = observation.checks["databases"]
    assert run.status == "ran"
    assert run.count > 200


def test_a_missing_file_is_named_with_its_database(local_server: Server) -> None:
    """A table of another database whose file is gone."""
    observation = look(local_server, lambda data, file, folder: (data / file).unlink())
    found = complaints(observation)
    assert any(one.object == "other: public.full_one" and "could not open file" in one.message for one in found), found
    assert all(witnesses_damage(one) for one in found)


def test_a_database_that_lets_nobody_in_is_damage(local_server: Server) -> None:
    """Its version file is empty: the session is refused, which carries no SQLSTATE."""
    observation = look(local_server, lambda data, file, folder: (data / folder / "PG_VERSION").write_bytes(b""))
    (found,) = complaints(observation)
    assert found.object == "database other"
    assert witnesses_damage(found)
