"""What did an operation write? Its bytes, read from the log when an image needs them.

The log is streamed once, past the disk model; here only the place of each operation's data is kept, 12 bytes an
operation, about a five-hundredth of a log of page writes.
"""

import os
from array import array
from pathlib import Path

from crashlab import files
from crashlab.disk.operations import Kind, Operation
from crashlab.errors import RecordingError


class LogBytes:
    """The data of the operations that were noted so far."""

    def __init__(self, log: Path) -> None:
        self._log = log
        try:
            self._fd = files.open_file(log)
        except OSError as error:
            raise RecordingError(f'could not read the log "{log}": {error.strerror}') from error
        self._places = array("Q")
        self._lengths = array("I")  # a payload has 16 MiB at most
        self.links: list[Operation] = []  # the symbolic links that were made

    def note(self, operation: Operation) -> None:
        """Keep the place of an operation's data; operations come in their order, none left out."""
        assert operation.position == len(self._places)
        self._places.append(operation.data_at)
        self._lengths.append(operation.log_end - operation.data_at if operation.data_at else 0)
        if operation.kind is Kind.SYMLINK:
            self.links.append(operation)

    def read(self, position: int, offset: int, length: int) -> bytes:
        """Return a part of what an operation wrote. Raises RecordingError: the log has become shorter."""
        stored = max(0, min(length, self._lengths[position] - offset))
        data = os.pread(self._fd, stored, self._places[position] + offset) if stored else b""
        if len(data) != stored:
            raise RecordingError(f'could not read operation {position} in the log "{self._log}": it is cut short')
        return data if stored == length else data.ljust(length, b"\0")

    def close(self) -> None:
        """Let go of the log."""
        os.close(self._fd)
