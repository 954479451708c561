"""What does each disk contract allow? Read as a specification: a log, then every state it may leave, no more, no less.

Every scenario starts from a folder `d` and a file `old` that holds ABCDEFGH, both durable. A state lists what is other
than at the start: paths with their bytes, a dot for a zero byte, a slash for a directory, a minus for a path that is
gone. The unit is 4 bytes.
"""

from dataclasses import replace

import pytest

from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.operations import Kind
from crashlab.disk.states import draw_state, enumerate_states
from crashlab.seeds import stream
from tests.disk.disk_text import CONTRACTS, Disk

_LINUX = CONTRACTS["linux"]

SCENARIOS = {
    # --- content
    "un-synced pages vary independently": (
        "linux",
        "write old 0 aaaabbbb",
        "(start) | old=aaaaEFGH | old=ABCDbbbb | old=aaaabbbb",
    ),
    "a page holds any version since the durable one": (
        "linux",
        "write old 0 aa; fsync old; write old 0 bb; write old 2 cc",
        "old=aaCDEFGH | old=bbCDEFGH | old=bbccEFGH",
    ),
    "an fsync covers what came before its begin, not before its end": (
        "linux",
        "write old 0 aaaa; begin 1 old; write old 0 bbbb; end 1",
        "old=aaaaEFGH | old=bbbbEFGH",
    ),
    "an fsync that has not ended guarantees nothing": (
        "linux",
        "write old 0 aaaa; begin 1 old",
        "(start) | old=aaaaEFGH",
    ),
    "fdatasync covers data and size": ("linux", "write old 6 aaaa; fdatasync old", "old=ABCDEFaaaa"),
    "a write through O_DSYNC is durable at once, others of the file are not": (
        "linux",
        "write old 0 aaaa; dsync old 4 bbbb",
        "old=ABCDbbbb | old=aaaabbbb",
    ),
    "syncfs covers everything": ("linux", "write old 0 aaaa; create new; syncfs", "old=aaaaEFGH new="),
    # --- sizes
    "a size without its data reads as zeros": (
        "linux",
        "write old 8 aaaa",
        "(start) | old=ABCDEFGH.... | old=ABCDEFGHaaaa",
    ),
    "a file may have grown part of the way": (
        "linux",
        "allocate old 0 16",
        "(start) | old=ABCDEFGH.... | old=ABCDEFGH........",
    ),
    "or up to an allocation below its size, on ext4": (
        "linux",
        "truncate old 12; allocate old 4 5",
        "(start) | old=ABCDEFGH. | old=ABCDEFGH....",
    ),
    "the bytes that a truncation zeroed in place may come back when the file grows, on xfs": (
        "linux",
        "truncate old 6; fdatasync d; dsync old 8 aaaa",
        "old=ABCDEFGHaaaa | old=ABCDEF..aaaa",
    ),
    "an un-synced truncation happened or did not": ("linux", "truncate old 2", "(start) | old=AB | old=AB..EFGH"),
    "truncated and extended again, old bytes never come back": (
        "linux",
        "truncate old 0; fsync old; truncate old 8",
        "old= | old=........",
    ),
    "nor do bytes that were never synced before the truncation": (
        "linux",
        "write old 0 aaaabbbb; truncate old 0; fsync old; truncate old 8",
        "old= | old=........",
    ),
    "even when nothing was synced, the size alone does not bring them back": (
        "linux",
        "truncate old 4; write old 4 aaaa",
        "(start) | old=ABCD | old=ABCD.... | old=ABCDaaaa",
    ),
    "content whose writes nobody saw is volatile": (
        "linux",
        "content old aa",
        "(start) | old= | old=.. | old=aa",
    ),
    # --- names
    "a created file disappears if nothing is synced": ("linux", "create new", "(start) | new="),
    "its data is gone with it": ("linux", "create new; write new 0 aa", "(start) | new= | new=.. | new=aa"),
    "fsync of a file persists its name": ("linux", "create d/new; write d/new 0 aa; fsync d/new", "d/new=aa"),
    "but not in POSIX alone": (
        "strict",
        "create d/new; write d/new 0 aa; fsync d/new",
        "(start) | d/new=aa",
    ),
    "there the directory's fsync does": ("strict", "create d/new; fsync d/new; fsync d", "d/new="),
    "fsync of a file persists its new directories": (
        "linux",
        "mkdir d/e; mkdir d/e/f; create d/e/f/new; fsync d/e/f/new",
        "d/e/ d/e/f/ d/e/f/new=",
    ),
    "but not what its new directory was renamed to later: ext4 and xfs lose that": (
        "linux",
        "mkdir e; create e/new; rename e d/f; fsync d/f/new",
        "e/ e/new= | d/f/ d/f/new=",
    ),
    "a name that the new directory had before the file came does persist": (
        "linux",
        "mkdir e; rename e d/f; create d/f/new; fsync d/f/new",
        "d/f/ d/f/new=",
    ),
    "in POSIX alone each directory needs its own": (
        "strict",
        "mkdir d/e; create d/e/new; fsync d/e/new; fsync d/e",
        "(start) | d/e/ d/e/new=",
    ),
    "fsync of a directory persists names in it, not the files' data": (
        "linux",
        "create d/new; write d/new 0 aa; fsync d",
        "d/new= | d/new=.. | d/new=aa",
    ),
    "nor a name elsewhere that was linked from it: xfs loses that": (
        "linux",
        "create d/new; fsync d/new; link d/new two; fsync d",
        "d/new= | d/new= two=",
    ),
    "names survive in order": ("linux", "create a; create b", "(start) | a= | a= b="),
    "in POSIX alone in any order": ("strict", "create a; create b", "(start) | a= | b= | a= b="),
    "fsync does not persist an older name that it does not depend on": (
        "linux",
        "create a; create b; fsync b",
        "b= | a= b=",
    ),
    "where one journal holds all, it does": ("journal", "create a; create b; fsync b", "a= b="),
    "there, an fsync of written data does too": ("journal", "create a; write old 0 zzzz; fsync old", "a= old=zzzzEFGH"),
    "a symbolic link is a name like any other": ("linux", "create a; symlink l a", "(start) | a= | a= l=a"),
    "unless links are durable as soon as they are made": ("durable links", "create a; symlink l a", "l=a | a= l=a"),
    "or removed": ("durable links", "symlink l old; create a; unlink l", "(start) | a="),
    "which does not save the folder that it is in": (
        "durable links",
        "mkdir n; create a; symlink n/l old",
        "(start) | n/= n/l=old | n/= n/l=old a=",
    ),
    "a rename is atomic": ("linux", "create new; fsync new; rename new d/new", "new= | d/new="),
    "a rename over an existing name leaves the one or the other": (
        "linux",
        "create new; write new 0 aa; fsync new; rename new old",
        "new=aa | old=aa",
    ),
    "renamed without an fsync before: the new name may come empty": (
        "linux",
        "create new; write new 0 aa; rename new old; fsync d",
        "(start) | new= | new=.. | new=aa | old= | old=.. | old=aa",
    ),
    "fdatasync persists a new file's creation, not its rename": (
        "linux",
        "create new; rename new d/new; fdatasync d/new",
        "new= | d/new=",
    ),
    "fsync persists both": ("linux", "create new; rename new d/new; fsync d/new", "d/new="),
    "durable names bring along what they depend on": (
        "linux",
        "rename old d/old; create old; fsync old",
        "d/old=ABCDEFGH old=",
    ),
    "the removal of a directory brings along what was moved out of it": (
        "linux",
        "mkdir e; rename old e/old; syncfs; create d/z; rename e/old old; rmdir e; create e; fsync e",
        "e= | d/z= e=",
    ),
    "an fsync persists no name that came after its begin": (
        "linux",
        "create a; begin 1 a; link a b; end 1",
        "a= | a= b=",
    ),
    "nor does that of a directory": ("linux", "create d/a; begin 1 d; create d/b; end 1", "d/a= | d/a= d/b="),
    "nor does syncfs": ("linux", "create a; begin 1 syncfs; create b; end 1", "a= | a= b="),
    "to rename a file onto its other name changes nothing": (
        "linux",
        "link old two; syncfs; rename old two",
        "two=ABCDEFGH",
    ),
    "two files that change names do it at once": (
        "linux",
        "create new; fsync new; exchange new old",
        "new= | old= new=ABCDEFGH",
    ),
    "an un-synced removal may be undone": ("linux", "unlink old", "(start) | -old"),
    "a file that is unlinked for good leaves nothing": (
        "linux",
        "create new; write new 0 aa; unlink new; syncfs",
        "(start)",
    ),
    "two names are one file": (
        "linux",
        "link old d/two; syncfs; write old 0 aaaa",
        "d/two=ABCDEFGH | d/two=aaaaEFGH old=aaaaEFGH",
    ),
    "a directory is removed only with what was moved out of it": (
        "strict",
        "mkdir e; rename old e/old; syncfs; rename e/old old; rmdir e",
        "e/ -old e/old=ABCDEFGH | e/ | (start)",
    ),
    # --- dishonest and gentle disks
    "a lying disk may lose what was synced": ("lying", "write old 0 aaaa; fsync old", "(start) | old=aaaaEFGH"),
    "when only processes die, everything written survives": (
        "process",
        "write old 0 aaaabbbb; create new; rename new d/new; truncate old 5",
        "old=aaaab d/new=",
    ),
}

_START = {"d/": "", "old": "ABCDEFGH"}


def _disk(script: str) -> Disk:
    disk = Disk()
    disk.add_base("d", None)
    disk.add_base("old", b"ABCDEFGH")
    for line in script.split(";"):
        disk.run(line.strip())
    return disk


def _written_states(text: str) -> set[frozenset[tuple[str, str]]]:
    states = set()
    for state in text.split(" | "):
        entries = dict(_START)
        for word in [] if state == "(start)" else state.split():
            path, _, content = word.partition("=")
            if path.startswith("-"):
                del entries[path[1:]]
            else:
                entries[path] = content
        states.add(frozenset(entries.items()))
    return states


@pytest.mark.parametrize("title", SCENARIOS)
def test_scenario(title: str) -> None:
    """Exactly the listed states are allowed."""
    contract, script, expected = SCENARIOS[title]
    disk = _disk(script)
    model = disk.model(CONTRACTS[contract])
    found = set()
    for state in enumerate_states(model):
        entries = disk.image(model, state)
        found.add(
            frozenset((path + "/" * (kind == "dir"), data.decode().replace("\0", ".")) for path, kind, data in entries)
        )
    assert found == _written_states(expected)


def _cluster() -> Disk:
    disk = Disk()
    for folder in ("pgdata", "pgdata/pg_wal", "pgdata/base", "pgdata/base/5", "pgdata/global"):
        disk.add_base(folder, None)
    for path in ("pgdata/pg_wal/000000010000000000000001", "pgdata/base/5/1259", "pgdata/base/5/1259_vm"):
        disk.add_base(path, b"")
    disk.add_base("pgdata/global/pg_control", b"")
    return disk


def _everywhere(disk: Disk, verb: str, rest: str = "") -> None:
    for entry in disk.base:
        if entry.kind == "file":
            disk.run(f"{verb} {entry.path} {rest}")


@pytest.mark.parametrize("swallowed", [FileClass.WAL, FileClass.RELATION, FileClass.VM, FileClass.CONTROL])
def test_flushes_of_one_class_can_be_ignored(swallowed: FileClass) -> None:
    """A disk that ignores the flushes of one class keeps exactly that class pending, after fsync and after sync."""
    for flush in ("fsync", "syncfs"):
        disk = _cluster()
        _everywhere(disk, "write", "0 aaaa")
        if flush == "fsync":
            _everywhere(disk, "fsync")
        else:
            disk.run("syncfs")
        pending = disk.model(replace(_LINUX, flushes_ignored_for=frozenset({swallowed}))).pending()
        assert {file.file_class for file in pending.files} == {swallowed}
        assert not disk.model(_LINUX).pending().files


def test_ignored_directory_flushes_lose_renames() -> None:
    """With directory flushes ignored, an fsync of the directory does not persist a rename in it; else it does."""
    script = "create d/a; fsync d/a; rename d/a d/b; fsync d"
    disk = _disk(script)
    assert not disk.model(_LINUX).pending().names
    ignoring = disk.model(replace(_LINUX, flushes_ignored_for=frozenset({FileClass.DIRECTORY})))
    assert [name.target for name in ignoring.pending().names] == ["d/b"]


def test_an_aim_varies_nothing_else() -> None:
    """Aimed at one class, enumerated and drawn states keep everything written to all others, and do vary the one."""
    disk = _cluster()
    _everywhere(disk, "write", "0 aaaabbbb")
    disk.run("create pgdata/base/5/777")
    model = disk.model(_LINUX)
    aim = {FileClass.RELATION}
    drawn = [draw_state(model, stream(seed, "aim"), aim) for seed in range(20)]
    contents: dict[str, set[bytes]] = {}
    for state in [*enumerate_states(model, aim=aim), *drawn]:
        image = disk.image(model, state)
        assert "pgdata/base/5/777" in {path for path, _, _ in image}
        for path, _, data in image:
            contents.setdefault(path, set()).add(data)
    varied = {path for path, found in contents.items() if len(found) > 1}
    assert varied == {"pgdata/base/5/1259"}


def test_the_telling_states_come_first() -> None:
    """Nothing, everything, each file alone and all but it, each torn write: within the first states."""
    disk = _cluster()
    _everywhere(disk, "write", "0 aaaabbbb")
    model = disk.model(_LINUX)
    notes = [state.note for state in enumerate_states(model, 30)]
    assert notes[:2] == ["nothing that was pending survived", "everything survived"]
    assert sum(note.startswith("everything survived but ") for note in notes) == 4
    assert sum(note.startswith("only ") and note.endswith(" survived") for note in notes[:10]) == 4
    assert sum("half of the write" in note for note in notes) == 8


def test_what_was_in_flight_is_listed() -> None:
    """`pending` names un-synced files with class and sizes, pending names, ended and open flushes, blind writes."""
    disk = _cluster()
    for line in (
        "write pgdata/base/5/1259 0 aaaabbbb",
        "write pgdata/base/5/1259 0 cccc",
        "fdatasync pgdata/global/pg_control",
        "create pgdata/base/5/777",
        "begin 1 pgdata/base/5/1259",
    ):
        disk.run(line)
    disk.add(Kind.BLIND, path="pgdata/pg_stat/x", data=b"shared mmap")
    pending = disk.model(_LINUX).pending()
    (file,) = pending.files
    assert (file.path, file.file_class, file.units, file.versions) == ("pgdata/base/5/1259", FileClass.RELATION, 2, 3)
    assert (file.durable_size_bytes, file.size_bytes, file.truncations) == (0, 8, 0)
    assert [(name.kind, name.path) for name in pending.names] == [(Kind.CREATE, "pgdata/base/5/777")]
    flushes = [(flush.begin, flush.end, flush.path, flush.datasync) for flush in pending.flushes]
    assert flushes == [(2, 3, "pgdata/global/pg_control", True), (5, None, "pgdata/base/5/1259", False)]
    assert pending.blind == {"pgdata/pg_stat/x": "shared mmap"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("pgdata/pg_wal/000000010000000000000001", FileClass.WAL),
        ("wal/000000010000000A000000FE", FileClass.WAL),
        ("pgdata/pg_wal/xlogtemp.4711", FileClass.WAL),
        ("pgdata/base/5/1259", FileClass.RELATION),
        ("pgdata/base/5/1259.3", FileClass.RELATION),
        ("tblspc0/PG_17_202406281/5/16390", FileClass.RELATION),
        ("pgdata/global/1262_fsm", FileClass.FSM),
        ("pgdata/base/5/1259_vm", FileClass.VM),
        ("pgdata/base/5/16400_init", FileClass.INIT),
        ("pgdata/base/5/t3_16400", FileClass.TEMPORARY),
        ("pgdata/base/pgsql_tmp/pgsql_tmp123.0", FileClass.TEMPORARY),
        ("pgdata/base/5/pg_filenode.map", FileClass.RELATION_MAP),
        ("pgdata/global/pg_control", FileClass.CONTROL),
        ("pgdata/pg_xact/0000", FileClass.XACT),
        ("pgdata/pg_multixact/offsets/0000", FileClass.SLRU),
        ("pgdata/pg_twophase/0000000000000301", FileClass.TWO_PHASE),
        ("pgdata/pg_replslot/s/state", FileClass.REPLICATION),
        ("pgdata/pg_tblspc/16390", FileClass.TABLESPACE_LINK),
        ("pgdata/pg_stat/pgstat.stat", FileClass.STATISTICS),
        ("pgdata/postgresql.auto.conf", FileClass.CONFIGURATION),
        ("pgdata/base/5/PG_VERSION", FileClass.CONFIGURATION),
        ("pgdata/postmaster.pid", FileClass.OTHER),
    ],
)
def test_a_path_tells_its_class(path: str, expected: FileClass) -> None:
    """Paths of every part of a cluster are told apart."""
    assert classify(path) is expected
