"""At which crash points had something just happened that a profile names: a WAL record, a file's change, an operation?

    "Btree/UNLINK_PAGE"   a record of this type had just been written, whole
    "unlink"              a file operation of this kind is about to come, or has just ended
    "two_phase"           ... one on a file of this class
    "base/*/1259"         ... one on a file of this path below the data directory, or in a tablespace

Choices: a record counts where the write ended that made it readable. Flushes are operations, too.
"""

from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatchcase

from crashlab.disk.fileclass import FileClass, classify
from crashlab.disk.operations import OPERATIONS, Operation
from crashlab.exploration.recording import Recording
from crashlab.exploration.walcut import read_along
from crashlab.recording.decoder import Decoder
from crashlab.recordtypes import is_type_name, type_name
from crashlab.recovery.wal import WalReader

Matches = Callable[[Operation, str], bool]


def points_near(recording: Recording, wanted: Collection[str]) -> list[int]:
    """Return the crash points, ascending, from the recording's first one on.

    Raises:
        RecordingError: the recording is damaged.
    """
    types = {name for name in wanted if is_type_name(name)}
    found: set[int] = set()
    if types:
        found.update(_after_records(recording, types))
    others = [_matcher(name) for name in wanted if name not in types]
    if others:
        decoder = Decoder(recording.log, recording.base.files)
        for operation in decoder:
            path = operation.path or decoder.path(operation.file)
            if operation.log_end > recording.record.first_bytes and any(match(operation, path) for match in others):
                found.update((operation.position, operation.position + 1))
    return sorted(found)


def _after_records(recording: Recording, types: Collection[str]) -> Iterator[int]:
    major = recording.record.server.version_num // 10_000
    for step in read_along(recording, WalReader(), each_write=True):
        if step.operation is None or step.operation.log_end <= recording.record.first_bytes:
            continue
        if any(type_name(major, kind.manager, kind.bits) in types for kind in step.found.kinds):
            yield step.operation.position + 1


def _matcher(name: str) -> Matches:
    if name in OPERATIONS:
        kind = OPERATIONS[name]
        return lambda operation, path: operation.kind is kind
    if name in set(FileClass):
        return lambda operation, path: classify(path) == name
    return lambda operation, path: fnmatchcase(path.partition("/")[2], name)
