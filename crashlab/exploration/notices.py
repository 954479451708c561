"""What has happened to the names and files of some folders since the last look, as the kernel tells it?

inotify: a folder that is watched tells of every change of a name in it, and of every write to a file by that name.

Choices:
    What it cannot tell, or not any more, is answered by None, and the caller looks at everything: more changes than
    the kernel keeps (16384 by default), a folder that came or went, and a name that was made and is gone again, since
    it may have been another name of a file that is still there.
Not told: writes through a memory map. PostgreSQL maps only files that it has made for that, pg_dynshmem/*.

Source: inotify(7).
"""

import ctypes
import os
import struct
from collections.abc import Iterable

_IN_MODIFY, _IN_ATTRIB, _IN_MOVED_FROM, _IN_MOVED_TO = 0x2, 0x4, 0x40, 0x80
_IN_CREATE, _IN_DELETE = 0x100, 0x200
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ISDIR = 0x4000, 0x8000, 0x4000_0000
_IN_ONLYDIR = 0x0100_0000
_NAMES = _IN_CREATE | _IN_DELETE | _IN_MOVED_FROM | _IN_MOVED_TO
_WATCHED = _IN_MODIFY | _IN_ATTRIB | _NAMES | _IN_ONLYDIR
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name
_READ_BYTES = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


class Notices:
    """Watches folders, each known by a prefix that its names get: "pgdata/base/" makes "pgdata/base/1"."""

    def __init__(self) -> None:
        """Watch nothing yet. Raises OSError: a user has only so many of these (128 by default)."""
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._prefixes: dict[int, str] = {}
        self._made: set[str] = set()  # since the last look

    def watch(self, root: str, prefixes: Iterable[str]) -> None:
        """Watch these folders below a root, and none else.

        Raises:
            OSError: a folder is gone, or a user's limit is reached.
        """
        watched: dict[int, str] = {}
        for prefix in prefixes:
            number = _libc.inotify_add_watch(self._fd, os.fsencode(f"{root}/{prefix}"), _WATCHED)
            if number < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", prefix)
            watched[number] = prefix
        for number in self._prefixes.keys() - watched.keys():
            _libc.inotify_rm_watch(self._fd, number)
        self._prefixes = watched

    def changed(self) -> set[str] | None:
        """Return the paths of which something has been told since the last look; None: look at everything."""
        changed: set[str] | None = set()
        moved: dict[int, bool] = {}  # cookie -> whether the name had been made since the last look
        self._made.clear()
        while data := self._read():
            at = 0
            while at < len(data):
                number, mask, cookie, length = _HEADER.unpack_from(data, at)
                at += _HEADER.size + length
                name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
                prefix = self._prefixes.get(number)
                if mask & _IN_Q_OVERFLOW or (prefix is not None and self._is_beyond(prefix + name, mask)):
                    changed = None
                elif prefix is not None and changed is not None and name:  # without one: the folder's own mode or times
                    self._note_made(prefix + name, mask, cookie, moved)
                    changed.add(prefix + name)
        return changed

    def _is_beyond(self, path: str, mask: int) -> bool:
        """Whether a folder comes or goes, or a name that was made since the last look goes."""
        if mask & _IN_IGNORED or (mask & _IN_ISDIR and mask & _NAMES):
            return True
        return bool(mask & (_IN_DELETE | _IN_MOVED_TO)) and path in self._made

    def _note_made(self, path: str, mask: int, cookie: int, moved: dict[int, bool]) -> None:
        if mask & _IN_CREATE or (mask & _IN_MOVED_TO and moved.get(cookie)):
            self._made.add(path)
        elif mask & _IN_MOVED_FROM:
            moved[cookie] = path in self._made
            self._made.discard(path)

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self._fd)
