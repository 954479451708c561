"""Everything beside tables: commit bits, control file, prepared transactions, maps of relations, folders, caches."""

from crashlab.history import PREPARED, REFUSED
from tests.power.planting import (
    AFTER,
    AFTER_SUMS,
    BEFORE,
    PAGE,
    Copy,
    corrupts,
    is_harmless,
    loses,
    stops,
    tells_nothing,
)
from tests.power.scene import OTHER_DATABASE

CONTROL = "global/pg_control"
XACT = "pg_xact/0000"
EVERYWHERE = (BEFORE, AFTER, AFTER_SUMS)

# --- commit bits


@corrupts("pg_xact", "COMMIT-STATUS", "HOLE", where=(AFTER, AFTER_SUMS))
def committed_becomes_aborted(copy: Copy) -> str:
    """Two bits."""
    places = copy.rows("crashlab.marker")
    return copy.set_status(places[-len(places) // 20].row[2], 2)


@corrupts("pg_xact", "COMMIT-STATUS", "PHANTOM")
def aborted_becomes_committed(copy: Copy) -> str:
    """Two bits, of a transaction that wrote and rolled back."""
    h = copy.scene.history
    refused = [h.xid[tx] for tx in range(1, h.count + 1) if h.state[tx] == REFUSED and h.xid[tx]]
    return copy.set_status(max(refused[: -len(refused) // 4]), 1)


@stops("pg_xact")
def xact_file_removed(copy: Copy) -> str:
    """After a clean stop."""
    copy.remove(XACT)
    return "pg_xact"


@corrupts("pg_xact", "COMMIT-STATUS", "HOLE", "WAL-STATE-MISMATCH", "MISSING-RELATION", "UNREADABLE", where=(BEFORE,))
def xact_file_removed_before_recovery(copy: Copy) -> str:
    """Recovery takes it for zeros, and sets only the bits that the log has."""
    copy.remove(XACT)
    return XACT


@corrupts("pg_xact", "COMMIT-STATUS", "HOLE", "MISSING-RELATION", "UNREADABLE")
def xact_zeroed(copy: Copy) -> str:
    """Every transaction is in progress."""
    copy.put(XACT, bytes(len(copy.read(XACT))))
    return XACT


@stops("pg_multixact")
def multixact_offsets_removed(copy: Copy) -> str:
    """The start needs the newest of them."""
    copy.remove("pg_multixact/offsets/0000")
    return "pg_multixact/offsets"


@stops("pg_multixact")
def multixact_members_removed(copy: Copy) -> str:
    """The start needs the newest of them."""
    copy.remove("pg_multixact/members/0000")
    return "pg_multixact/members"


MULTIXACT_DAMAGE = ("MULTIXACT", "HEAP-AMCHECK", "UNREADABLE", "INDEX-MISMATCH", "DUPLICATE-KEY")


@corrupts("pg_multixact", *MULTIXACT_DAMAGE)
def multixact_offsets_zeroed(copy: Copy) -> str:
    """Nobody knows who locked or changed a row that several did."""
    zero(copy, "pg_multixact/offsets/0000")
    return "lock"  # the tables whose rows are locked


@corrupts("pg_multixact", *MULTIXACT_DAMAGE)
def multixact_members_zeroed(copy: Copy) -> str:
    """The same; it shows in rows that one of those who had locked them changed, as long as the old version is there."""
    zero(copy, "pg_multixact/members/0000")
    return "lock"


def zero(copy: Copy, file: str) -> None:
    """Fill a file with zeros."""
    copy.put(file, bytes(len(copy.read(file))))


@is_harmless("pg_subtrans", "it is made again at every start", where=EVERYWHERE)
def subtrans_removed(copy: Copy) -> str:
    """All its files."""
    for path in (copy.data / "pg_subtrans").iterdir():
        path.unlink()
    return ""


# --- control file


def _flip_control(name: str, offset: int, named: str = "control file") -> None:
    def plant(copy: Copy) -> str:
        copy.flip(CONTROL, offset, 0x10)
        return named

    plant.__name__ = f"control {name} flipped"
    plant.__doc__ = "One bit."
    stops("pg_control", where=(AFTER,))(plant)


_flip_control("version", 8, "PG_CONTROL_VERSION")
for _name, _offset in (("state", 16), ("checkpoint", 32), ("redo point", 40), ("next xid", 64)):
    _flip_control(_name, _offset)


@stops("pg_control", where=(BEFORE, AFTER))
def control_file_stale(copy: Copy) -> str:
    """It names a checkpoint whose log is not kept any more."""
    copy.put(CONTROL, copy.read_old(CONTROL))
    return "checkpoint record"


@stops("pg_control", where=(BEFORE,))
def control_file_ahead(copy: Copy) -> str:
    """It names a checkpoint that the log does not have."""
    copy.put(CONTROL, (copy.scene.folder_of("stopped") / CONTROL).read_bytes())
    return "checkpoint record"


@stops("pg_control", where=(BEFORE, AFTER))
def control_file_removed(copy: Copy) -> str:
    """Without it there is no database system."""
    copy.remove(CONTROL)
    return "pg_control"


@stops("pg_control")
def control_file_zeroed(copy: Copy) -> str:
    """Its name survived, its content did not."""
    copy.put(CONTROL, bytes(PAGE))
    return "PG_CONTROL_VERSION"


# --- prepared transactions


def prepared_files(copy: Copy) -> dict[str, int]:
    """Return the files of the transactions that are prepared: path -> transaction."""
    h = copy.scene.history
    by_xid = {h.xid[tx]: tx for tx in range(1, h.count + 1) if h.state[tx] == PREPARED}
    found = {path.name: int(path.name, 16) for path in (copy.data / "pg_twophase").iterdir()}
    return {f"pg_twophase/{name}": by_xid[xid] for name, xid in found.items() if xid in by_xid}


def a_prepared_file(copy: Copy) -> str:
    """Return one of them."""
    return sorted(prepared_files(copy))[0]


@loses("pg_twophase", "PREPARED", where=(BEFORE, AFTER))
def state_file_removed(copy: Copy) -> str:
    """The only place of a transaction that was prepared before the last checkpoint."""
    file = a_prepared_file(copy)
    gid = copy.scene.history.gid[prepared_files(copy)[file]]
    copy.remove(file)
    return gid


@stops("pg_twophase", where=(BEFORE, AFTER))
def state_file_cut_short(copy: Copy) -> str:
    """Its last bytes are missing."""
    file = a_prepared_file(copy)
    copy.put(file, copy.read(file)[:-16])
    return file


@stops("pg_twophase", where=(BEFORE, AFTER))
def state_file_flipped(copy: Copy) -> str:
    """One bit; it has a checksum."""
    file = a_prepared_file(copy)
    copy.flip(file, len(copy.read(file)) // 2)
    return file


@stops("pg_twophase")
def state_file_emptied(copy: Copy) -> str:
    """Its name survived, its content did not."""
    file = a_prepared_file(copy)
    copy.put(file, b"")
    return file


@is_harmless("pg_twophase", "the start removes the file of a decided transaction", where=(BEFORE, AFTER))
def state_file_back_after_its_decision(copy: Copy) -> str:
    """COMMIT PREPARED had removed it."""
    old = copy.scene.folder_of("old") / "pg_twophase"
    (path,) = (path for path in old.iterdir() if not (copy.data / "pg_twophase" / path.name).exists())
    copy.put(f"pg_twophase/{path.name}", path.read_bytes())
    return ""


@is_harmless("pg_twophase", "the start removes the file of a transaction that is yet to come")
def state_file_of_the_future(copy: Copy) -> str:
    """Under the name of the next transaction; 17 and 18 do not remove that of a later one, which is found."""
    file = a_prepared_file(copy)
    name = file.removeprefix("pg_twophase/")
    copy.put(f"pg_twophase/{copy.facts.next_xid:0{len(name)}X}", copy.read(file))
    return ""


# --- maps of relations, folders

MAPS = {"database": "base/{postgres}/pg_filenode.map", "shared": "global/pg_filenode.map"}


def _map(copy: Copy, which: str) -> str:
    return MAPS[which].format(**copy.facts.databases)


@stops("relation map")
def map_removed(copy: Copy) -> str:
    """The files of pg_class and some others are not known."""
    copy.remove(_map(copy, "database"))
    return "pg_filenode.map"


@stops("relation map")
def map_flipped(copy: Copy) -> str:
    """One bit; it has a checksum."""
    copy.flip(_map(copy, "database"), 8)
    return "pg_filenode.map"


@stops("relation map")
def shared_map_flipped(copy: Copy) -> str:
    """Of the shared catalogs."""
    copy.flip(_map(copy, "shared"), 8)
    return "pg_filenode.map"


@stops("relation map")
def map_stale(copy: Copy) -> str:
    """It names the files from before VACUUM FULL of a catalog."""
    file = _map(copy, "database")
    old = copy.read_old(file)
    assert old != copy.read(file)
    copy.put(file, old)
    return "base/"


@stops("folder")
def version_file_removed(copy: Copy) -> str:
    """Of the whole cluster."""
    copy.remove("PG_VERSION")
    return "PG_VERSION"


@stops("folder")
def version_file_of_the_database_removed(copy: Copy) -> str:
    """Of the database that is read."""
    copy.remove(f"base/{copy.facts.databases['postgres']}/PG_VERSION")
    return "PG_VERSION"


@corrupts("folder", "UNREADABLE")
def version_file_of_another_database_removed(copy: Copy) -> str:
    """Nobody can connect to it."""
    copy.remove(f"base/{copy.facts.databases[OTHER_DATABASE]}/PG_VERSION")
    return OTHER_DATABASE


@corrupts("folder", "UNREADABLE")
def folder_of_another_database_missing(copy: Copy) -> str:
    """Under another name."""
    folder = copy.data / f"base/{copy.facts.databases[OTHER_DATABASE]}"
    folder.rename(copy.data / "base" / "9")
    return OTHER_DATABASE


@corrupts("folder", "UNREADABLE")
def link_of_a_tablespace_missing(copy: Copy) -> str:
    """PostgreSQL does not flush it."""
    (link,) = (copy.data / "pg_tblspc").iterdir()
    link.unlink()
    return "pg_tblspc"


@stops("folder")
def folder_of_the_log_missing(copy: Copy) -> str:
    """All of pg_wal."""
    (copy.data / "pg_wal").rename(copy.data / "pg_wal_gone")
    return "pg_wal"


# --- what PostgreSQL does without


@is_harmless("cache", "the start removes it and makes it again", where=EVERYWHERE)
def relation_cache_garbage(copy: Copy) -> str:
    """pg_internal.init."""
    copy.put(f"base/{copy.facts.databases['postgres']}/pg_internal.init", copy.rng.randbytes(20_000))
    copy.put("global/pg_internal.init", copy.rng.randbytes(20_000))
    return ""


@is_harmless("cache", "statistics are thrown away if they cannot be read", where=EVERYWHERE)
def statistics_garbage(copy: Copy) -> str:
    """pg_stat/pgstat.stat."""
    copy.put("pg_stat/pgstat.stat", copy.rng.randbytes(5_000))
    return ""


@is_harmless("cache", "it only tells how the server was started", where=EVERYWHERE)
def options_file_removed(copy: Copy) -> str:
    """postmaster.opts."""
    (copy.data / "postmaster.opts").unlink(missing_ok=True)
    return ""


@is_harmless("cache", "the lock of a server that is dead is not looked at", where=(BEFORE,))
def lock_file_garbage(copy: Copy) -> str:
    """postmaster.pid."""
    copy.put("postmaster.pid", copy.rng.randbytes(40))
    return ""


@is_harmless("cache", "temporary files are removed at the start", where=(BEFORE, AFTER))
def temporary_files_left(copy: Copy) -> str:
    """Of sorts that the crash ended."""
    folder = copy.data / "base/pgsql_tmp"
    folder.mkdir(exist_ok=True)
    copy.scene.server.own(folder)
    copy.put("base/pgsql_tmp/pgsql_tmp4711.0", copy.rng.randbytes(PAGE))
    return ""


@is_harmless("cache", "files of tables that never came to be stay, and are not read", where=(BEFORE, AFTER))
def orphaned_file(copy: Copy) -> str:
    """Of a table whose maker did not commit."""
    copy.put(f"base/{copy.facts.databases['postgres']}/999999", copy.rng.randbytes(PAGE))
    return ""


@tells_nothing("environment", "TOOL-FAULT")
def control_file_of_another_user(copy: Copy) -> str:
    """The server may not read it."""
    (copy.data / CONTROL).chmod(0)
    return "Permission denied"


@tells_nothing("environment", "TOOL-FAULT")
def folder_open_to_all(copy: Copy) -> str:
    """The server refuses to run there."""
    copy.data.chmod(0o777)
    return "permissions"
