"""Does the table of record types say what PostgreSQL's own programs say?"""

import re
import struct
import subprocess
from pathlib import Path

import pytest
from google_crc32c import value as crc32c

from crashlab.recordtypes import MAJORS, record_types, type_bits, type_name
from crashlab.server.builds import Build, find_builds

MAGIC = {14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}
MANAGERS = 22
SEGMENT_BYTES = 1 << 24
SWITCH = (0, 0x40)  # what follows it is skipped


def builds() -> list[Build]:
    """One build of each major version that brings pg_waldump."""
    found: dict[int, Build] = {}
    for build in find_builds():
        if (build.bindir / "pg_waldump").is_file() and build.version.major in MAJORS:
            found.setdefault(build.version.major, build)
    return list(found.values())


def segment_of(major: int, kinds: list[tuple[int, int]]) -> bytes:
    """Return a WAL file with one empty record of each of these types."""
    content = struct.pack("<HHIQIxxxx", MAGIC[major], 2, 1, SEGMENT_BYTES, 0)
    content += struct.pack("<QII", 7, SEGMENT_BYTES, 8192)
    before = 0
    for manager, info in kinds:
        at = SEGMENT_BYTES + len(content)
        record = struct.pack("<IIQBBxx", 24, 0, before, info, manager)
        content += record + struct.pack("<I", crc32c(record))
        before = at
    assert len(content) <= 8192
    return content.ljust(SEGMENT_BYTES, b"\0")


def names_of(build: Build, managers: range, folder: Path) -> list[str]:
    """Return what pg_waldump calls every type of some resource managers."""
    every = [(one, info) for one in managers for info in range(0, 256, 16) if info == type_bits(one, info)]
    kinds = [one for one in every if one != SWITCH] + [one for one in every if one == SWITCH]
    (folder / "000000010000000000000001").write_bytes(segment_of(build.version.major, kinds))
    dump = subprocess.run(
        [build.bindir / "pg_waldump", "--stats=record", "000000010000000000000001"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert dump.returncode == 0 or "error in WAL record" in dump.stderr, dump.stderr  # the empty space at the end
    lines = re.findall(r"^(\w+/(?:UNKNOWN \(\w+\)|\S+)) +1 ", dump.stdout, re.MULTILINE)
    assert len(lines) == len(every), dump.stdout
    return [line for line in lines if "UNKNOWN" not in line]


@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_each_type_has_the_name_that_pg_waldump_gives_it(build: Build, tmp_path: Path) -> None:
    """A file with one record of every type that there could be: what has a name there has it here, nothing else."""
    types = record_types(build.version.major)
    assert types is not None
    there = [name for managers in (range(11), range(11, MANAGERS)) for name in names_of(build, managers, tmp_path)]
    assert there == [types.names[key] for key in sorted(types.names)]


@pytest.mark.parametrize("major", MAJORS)
def test_a_type_is_named_once_and_what_is_out_of_reach_has_a_reason(major: int) -> None:
    """The count of a report is one of names."""
    types = record_types(major)
    assert types is not None
    assert len(set(types.names.values())) == len(types.names)
    assert all(types.out_of_reach.values())
    assert len(types.reachable) == len(types.names) - len(types.out_of_reach) > 110


def test_what_the_table_does_not_have_is_told_by_number() -> None:
    """A resource manager of an extension, and a release that nobody has put in yet."""
    assert type_name(18, 200, 0x10) == "manager 200/10"
    assert type_name(18, 1, type_bits(1, 0x80)) == "Transaction/COMMIT"
    assert record_types(13) is None
    assert type_name(13, 11, 0x30) == "manager 11/30"
