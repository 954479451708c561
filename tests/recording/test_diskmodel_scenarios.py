"""What does each disk contract allow? Read as a specification: a log, then every state it may leave, no more, no less.

A state lists its paths with their bytes, a dot for a zero byte, a slash for a directory; `(nothing)` is an empty disk.
Every scenario starts from a folder `d` and a file `old` that holds ABCDEFGH, both durable; they are not listed where
they are as at the start. The unit is 4 bytes.
"""

from dataclasses import replace

import pytest
from naive_disk import UNIT, Disk

from crashlab.recording.diskcontract import DiskContract
from crashlab.recording.fileclass import FileClass
from crashlab.recording.operations import Kind
from crashlab.recording.states import draw_state, enumerate_states
from crashlab.seeds import stream

_LINUX = DiskContract("linux", tear_bytes=UNIT, size_step_bytes=UNIT)
CONTRACTS = {
    "linux": _LINUX,
    "journal": replace(_LINUX, ordered_journal=True),
    "strict": replace(_LINUX, fsync_persists_own_name=False, names_in_order=False),
    "lying": replace(_LINUX, flushes_ignored_from=0),
    "process": replace(_LINUX, everything_survives=True),
}

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
    "an un-synced truncation happened or did not": ("linux", "truncate old 2", "(start) | old=AB | old=AB..EFGH"),
    "truncated and extended again, old bytes never come back": (
        "linux",
        "truncate old 0; fsync old; truncate old 8",
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
    "names survive in order": ("linux", "create a; create b", "(start) | a= | a= b="),
    "in POSIX alone in any order": ("strict", "create a; create b", "(start) | a= | b= | a= b="),
    "fsync does not persist an older name that it does not depend on": (
        "linux",
        "create a; create b; fsync b",
        "b= | a= b=",
    ),
    "where one journal holds all, it does": ("journal", "create a; create b; fsync b", "a= b="),
    "there, an fsync of written data does too": ("journal", "create a; write old 0 zzzz; fsync old", "a= old=zzzzEFGH"),
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
    "two files that change names do it at once": (
        "linux",
        "create new; fsync new; exchange new old",
        "new= | old= new=ABCDEFGH",
    ),
    "an un-synced removal may be undone": ("linux", "unlink old", "(start) | (nothing)"),
    "a file that is unlinked for good leaves nothing": (
        "linux",
        "create new; write new 0 aa; unlink new; syncfs",
        "(start)",
    ),
    "two names are one file": ("linux", "link old d/two; syncfs; write old 0 aaaa", "d/two=ABCDEFGH | d/two=aaaaEFGH old=aaaaEFGH"),
    "a removed directory lost what was moved out of it only with the move": (
        "linux",
        "rename d e; rename old e/old; rename e/old old; rmdir e",
        "(start) | e/ | e/ e/old=ABCDEFGH | (no d)",
    ),
    # --- dishonest and gentle disks
    "a lying disk may lose what was synced": ("lying", "write old 0 aaaa; fsync old", "(start) | old=aaaaEFGH"),
    "when only processes die, everything written survives": (
        "process",
        "write old 0 aaaabbbb; create new; rename new d/new; truncate old 5",
        "old=aaaab d/new=",
    ),
}

_BASE = {"d/": "", "old": "ABCDEFGH"}


def _disk(script: str) -> Disk:
    disk = Disk()
    disk.add_base("d", None)
    disk.add_base("old", b"ABCDEFGH")
    for line in script.split(";"):
        disk.run(line.strip())
    return disk


def _written_states(text: str, moved: bool) -> set[frozenset[tuple[str, str]]]:
    """Read the states of a scenario; what is not listed is as at the start, unless a rename took it away."""
    states = set()
    for state in text.split(" | "):
        entries = {} if state == "(nothing)" else dict(_BASE)
        if state == "(nothing)":
            entries = {"d/": ""}
        elif state == "(no d)":
            del entries["d/"]
        elif state != "(start)":
            for word in state.split():
                path, _, content = word.partition("=")
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
            frozenset(
                (path + "/" * (kind == "dir"), data.decode().replace("\0", ".")) for path, kind, data in entries
            )
        )
    assert found == _written_states(expected, moved=False)
