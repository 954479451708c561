"""Which damage does a checksum see? Three kinds of it, on a server without checksums and on one with them.

Usage: python checksums.py SEED. Writes facts.json and, for the exercise, flip.log beside this file.
"""

import json
import sys
from pathlib import Path

import psycopg

from crashlab.seeds import stream
from crashlab.server import Server, ServerSpec, create_server

HERE = Path(__file__).parent
PAGE = 8192
ROWS = 3000
QUERY = "SELECT count(*), count(DISTINCT id), bool_and(note = 'new') FROM list"
RIGHT = (ROWS, ROWS, True)


def read(server: Server) -> str:
    """Say what a client gets that reads the whole table: an error, wrong rows, or the right ones."""
    try:
        with server.connect(autocommit=True) as connection:
            return "right" if connection.execute(QUERY).fetchone() == RIGHT else "wrong"
    except psycopg.Error:
        return "error"


def try_damage(checksums: bool, block: int) -> dict[str, str]:
    """Make a table, stop the server cleanly, damage the table's file in three ways, and read it each time."""
    spec = ServerSpec(initdb=("--data-checksums" if checksums else "--no-data-checksums",))
    with create_server(spec) as server:
        server.start()
        with server.connect(autocommit=True) as connection:
            connection.execute("CREATE TABLE list (id integer, note text) WITH (fillfactor = 40)")
            connection.execute(f"INSERT INTO list SELECT n, 'old' FROM generate_series(1, {ROWS}) n")
            connection.execute("CHECKPOINT")
            (path,) = connection.execute("SELECT pg_relation_filepath('list')").fetchone() or ("",)
            file = server.data_directory / path if server.data_directory else Path()
            old = file.read_bytes()  # what stood there before the next write
            connection.execute("UPDATE list SET note = 'new'")
            connection.execute("VACUUM (FREEZE) list")
        server.stop()
        sound = file.read_bytes()
        at = block * PAGE
        flipped = bytearray(sound)
        flipped[at + PAGE - 2] ^= 64  # a bit in the last row's text
        kinds = {
            "flip": bytes(flipped),
            "stale": sound[:at] + old[at : at + PAGE] + sound[at + PAGE :],  # the last write of this page was lost
            "misplaced": sound[:at] + sound[at + PAGE : at + 2 * PAGE] + sound[at + PAGE :],  # its neighbour, twice
        }
        found = {}
        for kind, content in kinds.items():
            file.write_bytes(content)
            position = server.log_position()
            server.start()
            found[kind] = read(server)
            print(f"  {kind:<10} {found[kind]}")
            server.stop()
            if checksums and kind == "flip":
                (HERE / "flip.log").write_text(server.log_since(position))
            file.write_bytes(sound)
        return found


def main() -> None:
    """Try it without checksums, and with them."""
    block = stream(int(sys.argv[1]), "block").randrange(1, 9)
    facts: dict[str, str] = {}
    for name, checksums in (("off", False), ("on", True)):
        print(f"data checksums {name}:")
        facts |= {f"{name}-{kind}": seen for kind, seen in try_damage(checksums, block).items()}
    (HERE / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
