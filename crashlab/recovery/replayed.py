"""What did a recovery replay whose WAL nobody could read before?

After a crash of a single process the postmaster lives and recovers at once. What it replayed is then read through the
recovered server, from where its log says that redo began to where it ended.

Does not tell: what stood in WAL files that the checkpoint at the end of the recovery has removed or renamed.
"""

from collections import Counter
from typing import Any

import psycopg

from crashlab.model import RecordCount
from crashlab.recovery.restart import redone
from crashlab.recovery.wal import CLEAN_STOP, ReadPart, counted, file_pages, read_control, start_at
from crashlab.recovery.walpages import Cluster, Found, KindOfRecord, read_page


def read_replayed(connection: "psycopg.Connection[Any]", log: str) -> list[RecordCount] | None:
    """Count what the recoveries of a log replayed, together; None: some of it cannot be read any more.

    Args:
        connection: of a superuser, to the recovered server.
        log: what the server said from the fault on.
    """
    part = _through(connection)
    control = read_control(part)
    if control is None:
        return None
    cluster, _ = control
    kinds: Counter[KindOfRecord] = Counter()
    for redo, last in redone(log):
        found = _read(cluster, part, redo, last)
        if found is None:
            return None
        if found.first == CLEAN_STOP:
            found.kinds[CLEAN_STOP] -= 1
        kinds.update(found.kinds)
    return counted(cluster.major, kinds)


def _read(cluster: Cluster, part: ReadPart, redo: int, last: int) -> Found | None:
    page = file_pages(cluster, part)
    found, place, going = Found(), start_at(cluster, redo), True
    while going:
        here, place, going = read_page(cluster, page(place.page), place, last)
        found.add(here)
    return found if place.last == last else None


def _through(connection: "psycopg.Connection[Any]") -> ReadPart:
    def part(path: str, offset: int, length: int) -> bytes:
        query = "SELECT pg_read_binary_file(%s, %s, %s, true)"
        row = connection.execute(query, (path, offset, length), binary=True).fetchone()
        return b"" if row is None or row[0] is None else bytes(row[0])

    return part
