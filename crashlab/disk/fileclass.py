"""Which part of PostgreSQL does a file belong to, going by its path alone?

Used to aim crash states at one part, to swallow the flushes of one part, and to say what was in flight. A relation's
main fork cannot be told apart into heap and index by its path.

Source: the PostgreSQL manual, "Database File Layout"; postgres-contract.md section 5.1.
"""

import re
from enum import StrEnum
from functools import lru_cache


class FileClass(StrEnum):
    """The parts that crash differently."""

    WAL = "wal"  # segments, those being made ready, timeline history
    RELATION = "relation"  # main fork: heap, index, sequence, toast
    FSM = "fsm"
    VM = "vm"
    INIT = "init"  # init fork of an unlogged relation
    XACT = "xact"  # pg_xact
    SLRU = "slru"  # pg_multixact, pg_commit_ts, pg_subtrans, pg_notify, pg_serial
    RELATION_MAP = "relation_map"  # pg_filenode.map
    TWO_PHASE = "two_phase"
    CONTROL = "control"  # global/pg_control
    REPLICATION = "replication"  # slots, logical decoding, origins
    TABLESPACE_LINK = "tablespace_link"  # pg_tblspc/OID
    CONFIGURATION = "configuration"
    TEMPORARY = "temporary"  # temporary files and relations: never needed after a crash
    STATISTICS = "statistics"
    DIRECTORY = "directory"  # by kind, not by path: see DiskModel.class_of
    OTHER = "other"


_RELATION = r"(?:base/\d+|global|PG_[^/]+/\d+)"
_PATTERNS = [
    (re.compile(pattern), file_class)
    for pattern, file_class in (
        (r"(^|/)pgsql_tmp(/|\d|$)", FileClass.TEMPORARY),
        (rf"(^|/){_RELATION}/t\d+_\d+[^/]*$", FileClass.TEMPORARY),
        (rf"(^|/){_RELATION}/\d+_fsm(\.\d+)?$", FileClass.FSM),
        (rf"(^|/){_RELATION}/\d+_vm(\.\d+)?$", FileClass.VM),
        (rf"(^|/){_RELATION}/\d+_init(\.\d+)?$", FileClass.INIT),
        (rf"(^|/){_RELATION}/\d+(\.\d+)?$", FileClass.RELATION),
        (r"(^|/)pg_filenode\.map(\.tmp)?$", FileClass.RELATION_MAP),
        (r"(^|/)global/pg_control$", FileClass.CONTROL),
        # A WAL folder outside the data directory is a root of its own, so the segment's name must do.
        (r"(^|/)[0-9A-F]{24}(\.partial)?$|(^|/)xlogtemp\.\d+$|(^|/)pg_wal/[^/]+$", FileClass.WAL),
        (r"(^|/)pg_xact/", FileClass.XACT),
        (r"(^|/)(pg_multixact|pg_commit_ts|pg_subtrans|pg_notify|pg_serial)/", FileClass.SLRU),
        (r"(^|/)pg_twophase/", FileClass.TWO_PHASE),
        (r"(^|/)(pg_replslot|pg_logical)/", FileClass.REPLICATION),
        (r"(^|/)pg_tblspc/\d+$", FileClass.TABLESPACE_LINK),
        (r"(^|/)(pg_stat|pg_stat_tmp)/", FileClass.STATISTICS),
        (r"\.conf(\.tmp)?$|(^|/)PG_VERSION$", FileClass.CONFIGURATION),
    )
]


@lru_cache(maxsize=65536)
def classify(path: str) -> FileClass:
    """Name the part of PostgreSQL that a file at this path of a recording belongs to."""
    for pattern, file_class in _PATTERNS:
        if pattern.search(path):
            return file_class
    return FileClass.OTHER
