"""The log before recovery: what ends it early, and what lies behind its end."""

import struct

from crashlab.history import ACKED
from crashlab.model import WalDecision, WalRecord
from crashlab.recovery.wal import directory, file_of, read_control, read_wal
from crashlab.recovery.walpages import Cluster
from tests.power.planting import AFTER, BEFORE, BEFORE_SUMS, Copy, is_harmless, loses, stops

PAGE = 8192


def cluster(copy: Copy) -> Cluster:
    """Return what the control file says of the log."""
    control = read_control(directory(copy.data))
    assert control is not None
    return control[0]


def flip_at(copy: Copy, position: int) -> str:
    """Flip a bit at a position of the log, and return the position as reports have it."""
    one = cluster(copy)
    copy.flip(file_of(one, position), position % one.segment_bytes)
    return f"{position >> 32:X}/{position & 0xFFFF_FFFF:X}"


def lsn(position: int) -> str:
    """Return a position as reports have it."""
    return f"{position >> 32:X}/{position & 0xFFFF_FFFF:X}"


def end_of_log(copy: Copy) -> int:
    """Return where the log ends now."""
    found = read_wal(copy.data)
    assert found is not None
    assert copy.scene.wal is not None
    assert found.end < copy.scene.wal.end
    return found.end


def commit_in_the_middle(copy: Copy) -> WalRecord:
    """Return a commit record with commits before and behind it."""
    assert copy.scene.wal is not None
    commits = [record for record in copy.scene.wal.records if record.decision == "commit"]
    return commits[len(commits) // 2]


@loses("log", "SYNC-COMMIT", where=(BEFORE, BEFORE_SUMS))
def commit_record_flipped(copy: Copy) -> str:
    """Its checksum ends the log, in the middle of records that are whole."""
    record = commit_in_the_middle(copy)
    flip_at(copy, record.start + 4)
    return lsn(record.start)


@loses("log", "SYNC-COMMIT")
def page_header_flipped(copy: Copy) -> str:
    """A page that says it is another one."""
    record = commit_in_the_middle(copy)
    flip_at(copy, record.start - record.start % PAGE + 8)
    return lsn(end_of_log(copy))


@loses("log", "SYNC-COMMIT")
def page_zeroed(copy: Copy) -> str:
    """A lost write in the middle of the log."""
    record = commit_in_the_middle(copy)
    one = cluster(copy)
    at = record.start - record.start % PAGE
    copy.write(file_of(one, at), at % one.segment_bytes, bytes(PAGE))
    return lsn(end_of_log(copy))


@loses("log", "SYNC-COMMIT")
def segment_removed(copy: Copy) -> str:
    """The last one that has a commit in it that was acknowledged."""
    assert copy.scene.wal is not None
    one = cluster(copy)
    history = copy.scene.history
    acked = {xid for xid, state in zip(history.xid, history.state, strict=True) if state == ACKED}
    commits = [one for one in copy.scene.wal.records if one.decision == "commit" and one.xid in acked]
    file = file_of(one, commits[-1].start)
    assert file != file_of(one, copy.scene.wal.redo)
    copy.remove(file)
    return lsn(end_of_log(copy))


@loses("log", "PREPARED")
def prepare_record_flipped(copy: Copy) -> str:
    """The transaction that was prepared since the last checkpoint is nowhere else."""
    assert copy.scene.wal is not None
    record = next(record for record in copy.scene.wal.records if record.decision == "prepare")
    flip_at(copy, record.start + 4)
    return lsn(record.start)


def flip_decision(copy: Copy, decision: WalDecision) -> str:
    """Let the log end before the decision about a prepared transaction; return where."""
    assert copy.scene.wal is not None
    record = next(record for record in copy.scene.wal.records if record.decision == decision)
    flip_at(copy, record.start + 4)
    return lsn(record.start)


@loses("log", "SYNC-COMMIT")
def commit_prepared_record_flipped(copy: Copy) -> str:
    """Its transaction is prepared again, as it was before: no more than the end of the log is lost."""
    return flip_decision(copy, "commit prepared")


@loses("log", "SYNC-COMMIT")
def rollback_prepared_record_flipped(copy: Copy) -> str:
    """The same."""
    return flip_decision(copy, "rollback prepared")


@is_harmless("log", "a timeline that ended before is not gone back to", where=(BEFORE,))
def page_of_an_older_timeline(copy: Copy) -> str:
    """Behind the end, a page of the right place and of no timeline that there is."""
    assert copy.scene.wal is not None
    file, offset = behind_the_end(copy)
    page = bytearray(copy.read(file)[:PAGE])
    at = -(-copy.scene.wal.end // PAGE) * PAGE
    struct.pack_into("<HHIQ", page, 0, *struct.unpack_from("<HH", page), 0, at)
    copy.write(file, offset, page)
    return ""


@stops("log", where=(BEFORE, AFTER))
def checkpoint_record_flipped(copy: Copy) -> str:
    """There is no other checkpoint to begin at."""
    control = copy.read("global/pg_control")
    flip_at(copy, int.from_bytes(control[32:40], "little") + 30)
    return "checkpoint record"


@stops("log")
def all_segments_removed(copy: Copy) -> str:
    """After a clean stop: the record of its checkpoint is gone."""
    for path in (copy.data / "pg_wal").iterdir():
        if path.is_file():
            path.unlink()
    return "checkpoint record"


def behind_the_end(copy: Copy) -> tuple[str, int]:
    """Return file and offset of the first page behind the end of the log."""
    assert copy.scene.wal is not None
    one = cluster(copy)
    at = -(-copy.scene.wal.end // PAGE) * PAGE
    assert at % one.segment_bytes, "the log ends with its segment"
    return file_of(one, at), at % one.segment_bytes


@is_harmless("log", "recovery ends where the log ends", where=(BEFORE, BEFORE_SUMS))
def zeros_behind_the_end(copy: Copy) -> str:
    """All of the rest of the segment."""
    file, offset = behind_the_end(copy)
    copy.write(file, offset, bytes(len(copy.read(file)) - offset))
    return ""


@is_harmless("log", "recovery ends where the log ends", where=(BEFORE, BEFORE_SUMS))
def garbage_behind_the_end(copy: Copy) -> str:
    """From the byte behind the last record."""
    assert copy.scene.wal is not None
    one = cluster(copy)
    end = copy.scene.wal.end
    file, offset = file_of(one, end), end % one.segment_bytes
    copy.write(file, offset, copy.rng.randbytes(len(copy.read(file)) - offset))
    return ""


@is_harmless("log", "an old page says that it belongs elsewhere", where=(BEFORE, BEFORE_SUMS))
def recycled_pages_behind_the_end(copy: Copy) -> str:
    """Pages of the log itself, from earlier on, as in a segment that was used before."""
    file, offset = behind_the_end(copy)
    content = copy.read(file)
    copy.write(file, offset, (content[:offset] * 100)[: len(content) - offset])
    return ""


@is_harmless("log", "a segment is read only once the log has come to it", where=(BEFORE,))
def segment_ahead_garbage(copy: Copy) -> str:
    """The next file holds random bytes."""
    assert copy.scene.wal is not None
    one = cluster(copy)
    copy.put(file_of(one, copy.scene.wal.end + one.segment_bytes), copy.rng.randbytes(one.segment_bytes))
    return ""
