"""How are a server's processes held at file operations, as the seed says?

By the recorder's library, whether it records or not: it maps a page that says where, how often and how long, and counts
in it what happened. The page is off until somebody switches it on, so that neither a set-up nor a recovery is held up.

The format; all numbers little-endian, times in microseconds:

    8s magic "jitter1", u32 on, u32 number of places, u64 share of 2^32, u64 shortest, u64 longest less shortest,
    64 u32 (the library's own), then for each place: u32 0 before or 1 after, u32 operation, u32 class (0: any), u32
    unused, u64 seed, u64 met, u64 held, u64 ended, u64 drawn

Choices: each place has a seed of its own, made from its words, so that one more place changes no other.
"""

import mmap
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from crashlab.disk.fileclass import FileClass
from crashlab.disk.holds import HELD_OPERATIONS, HOLDS_MAX, MOMENTS, Hold
from crashlab.errors import RecordingError
from crashlab.model import Held
from crashlab.seeds import derive

PAGE_BYTES = 4096
VARIABLE = "CRASHLAB_JITTER"
_HEAD = struct.Struct("<8sIIQQQ256x")
_PLACE = struct.Struct("<IIIIQQQQQ")
_ON_OFFSET = 8
_POLL_S = 0.002
_SLACK_S = 0.2
"""A process whose time is up may have to wait for a processor."""


class Page:
    """The page of one server, and what has been counted in it."""

    def __init__(
        self, path: Path, places: Sequence[Hold], *, seed: int, share: float, between_ms: tuple[int, int]
    ) -> None:
        """Make the file, switched off; give it to the server's user before the start.

        Args:
            between_ms: the shortest and the longest time that is drawn.

        Raises:
            RecordingError: it exists already or cannot be written.
        """
        self._places = list(places)
        self._longest_s = between_ms[1] / 1000
        low_us, high_us = (ms * 1000 for ms in between_ms)
        assert len(self._places) <= HOLDS_MAX
        page = _HEAD.pack(b"jitter1", 0, len(self._places), round(share * 2**32), low_us, high_us - low_us)
        for place in self._places:
            numbers = MOMENTS.index(place.moment), HELD_OPERATIONS.index(place.operation), _number(place.file_class)
            page += _PLACE.pack(*numbers, 0, derive(seed, "jitter", str(place)), 0, 0, 0, 0)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, page.ljust(PAGE_BYTES, b"\0"))
                self._map = mmap.mmap(fd, PAGE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            raise RecordingError(f'could not make the page of the jitter "{path}": {error.strerror}') from error

    def on(self) -> None:
        """From here on processes are held."""
        self._map[_ON_OFFSET] = 1

    def off(self) -> None:
        """From here on nobody else is held; those who are stay so until their time is up."""
        self._map[_ON_OFFSET] = 0

    def wait_until_free(self) -> None:
        """Wait until nobody is held any more, or everybody's time is up: the others have been killed meanwhile."""
        deadline = time.monotonic() + self._longest_s + _SLACK_S
        while any(one.cut_off for one in self.held()) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def held(self) -> list[Held]:
        """Return what has become of each place so far."""
        found = []
        for number, place in enumerate(self._places):
            *_, met, held, ended, drawn_us = _PLACE.unpack_from(self._map, _HEAD.size + number * _PLACE.size)
            found.append(
                Held(place=str(place), met=met, held=held, cut_off=held - ended, milliseconds=round(drawn_us / 1000, 3))
            )
        return found


def _number(file_class: FileClass | None) -> int:
    """Return the library's number of a class; 0: any."""
    return 0 if file_class is None else list(FileClass).index(file_class) + 1
