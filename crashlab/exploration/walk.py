"""Where does the disk model stand at an operation of a recording? The one place that carries it along the log.

Choices: on its way forward a walk leaves snapshots behind, so that going back costs a small share of the whole way.
    To decode is cheap beside applying, so the log is decoded from its beginning each time.
"""

import pickle
from array import array
from collections.abc import Iterator
from itertools import dropwhile

from crashlab.disk.contract import DiskContract
from crashlab.disk.model import DiskModel
from crashlab.disk.operations import Operation
from crashlab.errors import RecordingError
from crashlab.exploration.recording import Recording
from crashlab.recording.decoder import Decoder
from crashlab.recording.logbytes import LogBytes

SNAPSHOTS = 32
SNAPSHOT_EVERY_MIN = 500  # operations


class Walk:
    """A disk model that goes to any crash point of one recording. Use it in one process; `close` it."""

    def __init__(self, recording: Recording, contract: DiskContract, *, operations: int) -> None:
        """Stand at the beginning.

        Args:
            operations: how many the recording has, about.
        """
        self.recording = recording
        self.log = LogBytes(recording.log)
        self.model = DiskModel(recording.base.files, contract)
        self._every = max(SNAPSHOT_EVERY_MIN, operations // SNAPSHOTS)
        self._snapshots = {0: pickle.dumps(self.model)}
        # The log's tail stands between records: whatever was noted up to first_bytes came before the first crash point
        self._ends = array("q", [recording.record.first_bytes])  # by position: length of the log there
        self._operations = self._decode()

    @property
    def io_bytes(self) -> int:
        """Length of the log at the crash point at which the model stands."""
        return self._ends[self.model.position]

    def to(self, position: int) -> DiskModel:
        """Go to a crash point, forward or back.

        Raises:
            RecordingError: the recording is shorter, or damaged.
        """
        if position < self.model.position:
            self._back_to(max(before for before in self._snapshots if before <= position))
        for operation in self._operations if self.model.position < position else ():
            self._apply(operation)
            if self.model.position == position:
                break
        if self.model.position != position:
            raise RecordingError(
                f'the recording "{self.recording.folder}" has no operation {position}',
                detail=f"It ends at operation {self.model.position}.",
            )
        return self.model

    def _apply(self, operation: Operation) -> None:
        self.model.apply(operation)
        position = self.model.position
        if position == len(self._ends):
            self.log.note(operation)
            self._ends.append(max(self._ends[-1], operation.log_end))
        if position % self._every == 0 and position not in self._snapshots:
            self._snapshots[position] = pickle.dumps(self.model)

    def _back_to(self, position: int) -> None:
        self.model = pickle.loads(self._snapshots[position])
        self._operations = dropwhile(lambda operation: operation.position < position, self._decode())

    def _decode(self) -> Iterator[Operation]:
        return iter(Decoder(self.recording.log, self.recording.base.files))

    def close(self) -> None:
        """Let go of the log."""
        self.log.close()
