"""Is the end of the valid WAL found where PostgreSQL finds it, in a sound directory and in a damaged one?"""

import os
import re
import struct
import subprocess
from collections import Counter
from pathlib import Path
from random import Random

import google_crc32c
import pytest
from google_crc32c import value as crc32c

from crashlab.model import Family, WalDecision, WalFacts, WalRecord
from crashlab.recovery.restart import recover
from crashlab.recovery.wal import WalReader, directory, file_of, file_pages, read_control, read_wal
from crashlab.recovery.walpages import Cluster
from crashlab.seeds import stream
from crashlab.server import ServerSpec
from crashlab.server.builds import Build, find_builds
from crashlab.server.local import LocalServer
from tests.oracle.story import Story

DUMP = re.compile(r"rmgr: (\S+) .* tx: +(\d+), lsn: (\S+), prev \S+, desc: (\S+) (.*)")
DECISIONS: dict[str, WalDecision] = {
    "COMMIT": "commit",
    "ABORT": "abort",
    "PREPARE": "prepare",
    "COMMIT_PREPARED": "commit prepared",
    "ABORT_PREPARED": "rollback prepared",
}


def test_the_crc_is_castagnolis_and_read_fast():
    """The check value of the standard; in Python alone the WAL of a busy run takes longer than the run."""
    assert crc32c(b"123456789") == 0xE306_9283
    assert google_crc32c.implementation == "c"


def test_a_directory_that_is_none_has_no_facts(tmp_path: Path):
    """No control file, no reading."""
    assert read_wal(tmp_path) is None


def builds() -> list[Build]:
    """The first build of each major version."""
    found: dict[int, Build] = {}
    for build in find_builds():
        found.setdefault(build.version.major, build)
    return list(found.values())


def crashed(build: Build) -> LocalServer:
    """Return a server that was killed after all kinds of ends of transactions, page-spanning records and switches."""
    settings = {"max_prepared_transactions": "5", "fsync": "off"}
    server = LocalServer(ServerSpec(kind="local", initdb=("--wal-segsize=1",), settings=settings), build)
    rng = stream(2, "wal")
    server.start()
    with server.connect(autocommit=True) as session:
        session.execute("CREATE TABLE t (a int PRIMARY KEY, b text)")
        for number in range(200):
            session.execute("BEGIN")
            session.execute("INSERT INTO t VALUES (%s, repeat('x', %s))", (number, rng.choice((10, 3000, 9000))))
            if number % 10 == 3:
                session.execute("SAVEPOINT s")
                session.execute("INSERT INTO t VALUES (%s, 's')", (10_000 + number,))
            if number % 10 == 5:
                session.execute(f"PREPARE TRANSACTION 'g{number}'")
                session.execute(f"{'COMMIT' if number % 20 == 5 else 'ROLLBACK'} PREPARED 'g{number}'")
            else:
                session.execute("ROLLBACK" if number % 7 == 3 else "COMMIT")
            if number % 50 == 9:
                session.execute(f"CREATE TABLE x{number} (a int)")
                session.execute(f"DROP TABLE x{number}")
            if number in (60, 150):
                session.execute("SELECT pg_switch_wal()")
            if number == 100:
                session.execute("CHECKPOINT")
    server.kill_all()
    return server


@pytest.mark.server
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_recovery_ends_where_the_reader_says(build: Build):
    """The last valid record is the last one that the server replays."""
    server = crashed(build)
    try:
        assert server.data_directory is not None
        facts = read_wal(server.data_directory)
        recovery = recover(server, restart=True, log_position=server.log_position())
        assert facts is not None
        assert recovery.redo_start == f"0/{facts.redo:X}"
        assert recovery.redo_end == f"0/{facts.last:X}"
        assert sum(record.decision == "commit prepared" for record in facts.records) == 5
    finally:
        server.dispose()


@pytest.mark.server
@pytest.mark.parametrize("damaged", ["when it was read", "when it was replayed", "never"])
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_redo_that_ends_elsewhere_is_found(build: Build, damaged: str):
    """What is read is not what is replayed, as with a server that replays a record of a wrong checksum, or stops."""
    server = crashed(build)
    try:
        assert server.data_directory is not None
        cluster, _ = control_of(server.data_directory)
        sound = read_wal(server.data_directory)
        assert sound is not None
        record = sound.records[len(sound.records) // 2]
        path, offset = server.data_directory / file_of(cluster, record.start), record.start % cluster.segment_bytes
        before = path.read_bytes()
        if damaged != "never":
            path.write_bytes(before[: offset + 4] + bytes([before[offset + 4] ^ 1]) + before[offset + 5 :])
        facts = sound if damaged == "when it was replayed" else read_wal(server.data_directory)
        if damaged == "when it was read":
            path.write_bytes(before)
        recovery = recover(server, restart=True, log_position=server.log_position())
        story = Story()
        verdict = story.judge(story.left(wal=facts, recovery=recovery))
        said = {one.code: one.explanation for one in verdict.findings if one.family is not Family.NOTE}
        if damaged == "never":
            assert said == {}
            return
        assert set(said) == {"CORRUPT-REDO-END"}
        explanation = said["CORRUPT-REDO-END"]
        assert f"0/{record.start:X}" in explanation
        assert ("Redo went past it" if damaged == "when it was read" else "Redo stopped before it") in explanation
        assert "checksum" in explanation
    finally:
        server.dispose()


def page_of(cluster: Cluster, at: int, flags: int, records: bytes) -> bytes:
    """Make a page of the WAL by hand: header, records."""
    header = struct.pack("<HHIQI", 0xD121, flags, cluster.timeline, at, 0).ljust(24, b"\0")
    if at % cluster.segment_bytes == 0:
        header += struct.pack("<QII", cluster.system, cluster.segment_bytes, cluster.page_bytes)
    return (header + records)[: cluster.page_bytes].ljust(cluster.page_bytes, b"\0")


def record_of(length: int, before: int) -> bytes:
    """Make a record that decides nothing by hand."""
    head = struct.pack("<IIQBB2x", length, 0, before, 0, 10)
    data = bytes(length - 24)
    return head + struct.pack("<I", crc32c(data + head)) + data


@pytest.mark.parametrize("major", [18, 19])
def test_the_formats_of_19_and_before_are_read(tmp_path: Path, major: int):
    """The sizes in the control file, and the flag of a page that begins anew behind a record that was given up.

    The bytes are made by hand, after pg_control.h and xlog_internal.h of both: 19 has slru_pages_per_segment in front
    of the size of a WAL page, no XLP_BKP_REMOVABLE, and XLP_FIRST_IS_OVERWRITE_CONTRECORD in its place.
    """
    cluster = Cluster(major, 7, 8192, 1 << 20, 1)
    start = 1 << 20
    first, second, anew = start + 40, start + 80, start + 8192 + 24
    sizes = (8192, 131072, *([32] if major >= 19 else []), 8192, 1 << 20, 64)
    control = struct.pack("<Q", 7).ljust(40, b"\0") + struct.pack("<QI", first, 1)
    control = control.ljust(200, b"\0") + struct.pack(f"<d{len(sizes)}I", 1234567.0, *sizes)
    given_up = page_of(cluster, start, 0x02, record_of(40, start) + record_of(10_000, first))
    for folder in ("global", "pg_wal"):
        (tmp_path / folder).mkdir()
    (tmp_path / "PG_VERSION").write_text(f"{major}\n")
    (tmp_path / "global" / "pg_control").write_bytes(control.ljust(8192, b"\0"))
    assert control_of(tmp_path) == (cluster, first)

    for flag in (0x04, 0x08):
        page = page_of(cluster, start + 8192, flag, record_of(48, first))
        (tmp_path / "pg_wal" / "000000010000000000000001").write_bytes(given_up + page)
        facts = read_wal(tmp_path)
        assert facts is not None
        if (flag == 0x04) == (major >= 19):
            assert (facts.last, facts.end, facts.why) == (anew, anew + 48, "no record begins there")
        else:
            assert (facts.last, facts.end) == (first, second)


@pytest.mark.server
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_records_are_counted_by_type_as_pg_waldump_prints_them(build: Build):
    """As many records of each type, with and without the image of a page; but not the checkpoint that redo begins at.

    That one is told apart from a checkpoint of the same kind that a recovery replays: here the server was stopped
    cleanly before.
    """
    if not (build.bindir / "pg_waldump").exists():
        pytest.skip(f"the build in {build.bindir} has no pg_waldump")
    server = crashed(build)
    try:
        server.start()
        server.stop("fast")
        server.start()
        with server.connect(autocommit=True) as session:
            session.execute("INSERT INTO t SELECT n, 'again' FROM generate_series(20000, 40000) n")
            session.execute("CREATE INDEX ON t USING hash (b)")
            session.execute("DELETE FROM t WHERE a % 3 = 0")
            session.execute("VACUUM t")
        server.kill_all()
        assert server.data_directory is not None
        facts = read_wal(server.data_directory)
        assert facts is not None
        there: Counter[tuple[str, bool]] = Counter()
        lines = [line for line in waldump(build, server.data_directory, facts.redo) if DUMP.match(line)]
        assert "CHECKPOINT_SHUTDOWN" in lines.pop(0)
        for line in lines:
            match = DUMP.match(line)
            assert match is not None
            there[f"{match[1]}/{match[4]}", " FPW" in line] += 1
        counted = {(one.name, True): one.imaged for one in facts.kinds}
        counted |= {(one.name, False): one.plain for one in facts.kinds}
        assert +Counter(counted) == there
        assert len(there) > 15
    finally:
        server.dispose()


def waldump(build: Build, data: Path, redo: int) -> list[str]:
    """Return the lines of pg_waldump from a place on."""
    dump = subprocess.run(
        [build.bindir / "pg_waldump", "-p", data / "pg_wal", "-s", f"0/{redo:X}"], capture_output=True, text=True
    )
    return dump.stdout.splitlines()


@pytest.mark.server
@pytest.mark.parametrize("build", builds(), ids=lambda build: str(build.version))
def test_sound_and_damaged_wal_reads_as_pg_waldump_reads_it(build: Build):
    """Every record's decision, xid and place; the same end after each of many damages, by one reader with a memory."""
    if not (build.bindir / "pg_waldump").exists():
        pytest.skip(f"the build in {build.bindir} has no pg_waldump")
    server = crashed(build)
    try:
        assert server.data_directory is not None
        data, reader, rng = server.data_directory, WalReader(), stream(3, "damage")
        sound = read(reader, data)
        assert sound == read_wal(data)
        assert (sound.last, sound.records) == dumped(build, data, sound)
        assert len(sound.records) > 80
        ends = set()
        for _ in range(25):
            path, before = damage(data, sound, rng)
            facts = read(reader, data)
            assert (facts.last, facts.records) == dumped(build, data, sound), path
            ends.add(facts.end)
            path.write_bytes(before)
        assert read(reader, data) == sound
        assert len(ends) > 15
        assert max(ends) <= sound.end
        last = data / file_of(control_of(data)[0], sound.end)
        begin = sound.end - sound.end % (1 << 20)
        os.truncate(last, sound.end - begin - 1)
        assert begin < read(reader, data).end < sound.end
        last.unlink()
        assert read(reader, data).end == begin
    finally:
        server.dispose()


def read(reader: WalReader, data: Path) -> WalFacts:
    """Read with a reader that has read the directory before."""
    cluster, redo = control_of(data)
    return reader.read(cluster, file_pages(cluster, directory(data)), redo)


def control_of(data: Path) -> tuple[Cluster, int]:
    """Return what the control file says: the cluster, and the redo point."""
    control = read_control(directory(data))
    assert control is not None
    return control


def damage(data: Path, sound: WalFacts, rng: Random) -> tuple[Path, bytes]:
    """Damage a segment: a byte, a page or all from a place on; return it with its old content."""
    cluster, _ = control_of(data)
    record = rng.choice(sound.records)
    position = rng.randrange(record.start, record.end)
    path = data / file_of(cluster, position)
    before = path.read_bytes()
    offset = position % cluster.segment_bytes
    page = offset - offset % 8192
    match rng.choice(("byte", "byte", "zeros", "old page", "tail")):
        case "byte":
            path.write_bytes(before[:offset] + bytes([before[offset] ^ 1 << rng.randrange(8)]) + before[offset + 1 :])
        case "zeros":
            path.write_bytes(before[:page] + bytes(8192) + before[page + 8192 :])
        case "old page":
            path.write_bytes(before[:page] + before[:8192] + before[page + 8192 :])
        case "tail":
            path.write_bytes(before[:offset].ljust(len(before), b"\0"))  # pg_waldump itself needs whole files
    return path, before


def dumped(build: Build, data: Path, sound: WalFacts) -> tuple[int, list[WalRecord]]:
    """Return what pg_waldump reads: the last record, and those that decide a transaction, as the sound WAL has them."""
    command = [str(build.bindir / "pg_waldump"), "-p", str(data / "pg_wal"), "-s", f"0/{sound.redo:X}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20)
    known = {record.start: record for record in sound.records}
    records, last = [], 0
    for line in done.stdout.splitlines():
        match = DUMP.match(line)
        assert match, line
        last = int(match[3].removeprefix("0/"), 16)
        if match[1] == "Transaction" and (decision := DECISIONS.get(match[4])):
            record = known[last]
            xid = int(match[5].split(":")[0]) if "PREPARED" in match[4] else int(match[2])
            assert (record.decision, record.xid) == (decision, xid)
            records.append(record)
    return last, records
