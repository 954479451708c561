"""Which calls must the recorder see? This program makes them all, below the directory given and outside of it.

Run under LD_PRELOAD by test_recorder_calls. The calls go through ctypes, so that each is the libc function of that
name and not what Python makes of it.
"""

import ctypes
import mmap
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE = 1
RWF_DSYNC, RWF_APPEND = 2, 16
LONG = ctypes.c_long


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


def call(name: str, *arguments: Any, ok: Callable[[int], bool] = lambda result: result >= 0) -> int:
    """Call a libc function; an error ends the program."""
    function = getattr(LIBC, name)  # an int result; the sizes here fit in one
    given = [LONG(value) if isinstance(value, int) else value for value in arguments]
    result = int(function(*given))
    if not ok(result):
        raise OSError(ctypes.get_errno(), name)
    return result


def parts(*texts: bytes) -> tuple[Any, int]:
    """Make the array of a gathering write."""
    return (Part * len(texts))(*(Part(text, len(text)) for text in texts)), len(texts)


def writes() -> None:
    """Every way to change bytes and sizes."""
    flags = os.O_CREAT | os.O_RDWR
    fd = call("open", b"a", flags, 0o600)
    call("write", fd, b"written", 7)
    call("write", fd, b" and more", 9)
    call("pwrite", fd, b"P" * 9000, 9000, 100)
    call("pwrite64", fd, b"Q" * 10, 10, 20000)
    call("writev", fd, *parts(b"one", b"two"))
    call("pwritev", fd, *parts(b"three", b"four"), 4096)
    call("pwritev64", fd, *parts(b"five"), 8192)
    call("pwritev2", fd, *parts(b"six", b"seven"), 300, RWF_DSYNC)
    call("pwritev2", fd, *parts(b"at the place"), -1, 0)
    call("pwritev2", fd, *parts(b"at the end"), 0, RWF_APPEND)
    call("pwrite", fd, bytes(8192), 8192, 32768)
    call("ftruncate", fd, 35000)
    call("ftruncate64", fd, 36000)
    call("posix_fallocate", fd, 36000, 5000, ok=lambda result: result == 0)
    call("fallocate", fd, KEEP_SIZE, 60000, 5000)
    call("fallocate", fd, 0, 50000, 1000)
    for name in ("fsync", "fdatasync", "syncfs", "close"):
        call(name, fd)
    call("sync")
    call("truncate", b"a", 49000)
    call("truncate64", b"a", 48000)
    fd = call("openat", AT_FDCWD, b"b", flags | os.O_EXCL | os.O_DSYNC, 0o640)
    call("write", fd, b"durable", 7)
    call("close", fd)
    fd = call("open64", b"appended", flags | os.O_APPEND, 0o600)
    call("write", fd, b"first", 5)
    call("pwrite", fd, b"second", 6, 0)  # Linux appends whatever the offset
    call("close", fd)
    call("close", call("creat", b"a", 0o600))  # exists: emptied
    call("close", call("creat64", b"c", 0o600))
    call("close", call("openat64", AT_FDCWD, b"d", flags, 0o600))
    fd = call("open", b"d", os.O_RDWR | os.O_TRUNC)
    call("write", fd, b"after emptying", 14)
    call("close", fd)


def copies() -> None:
    """Copies inside the kernel, and duplicated descriptors."""
    source = call("open", b"source", os.O_CREAT | os.O_RDWR, 0o600)
    call("write", source, os.urandom(300000), 300000)
    target = call("open", b"target", os.O_CREAT | os.O_WRONLY, 0o600)
    at, to = LONG(5), LONG(77)
    call("copy_file_range", source, ctypes.byref(at), target, ctypes.byref(to), 200000, 0)
    call("lseek", source, 1000, 0)
    call("copy_file_range", source, None, target, None, 3000, 0)
    call("sendfile", target, source, ctypes.byref(at), 5000)
    again = call("dup", target)
    call("pwrite", again, b"by dup", 6, 1)
    call("dup2", target, 200)
    call("pwrite", 200, b"by dup2", 7, 10)
    call("dup3", source, 200, os.O_CLOEXEC)  # the number now means another file
    call("pwrite", 200, b"by dup3", 7, 20)
    moved = call("fcntl", target, 0, 300)  # F_DUPFD
    call("pwrite", moved, b"by fcntl", 8, 30)
    if hasattr(LIBC, "close_range"):
        call("close_range", 200, 2**31 - 1, 0)  # the log's own descriptor is among them
    call("close", source)
    near, far = socket.socketpair()
    call("dup2", near.fileno(), target)  # the file's number is a socket now
    call("write", target, b"NEVER LOGGED", 12)
    assert far.recv(12) == b"NEVER LOGGED"
    call("close", target)
    call("dup2", again, 1000)  # where the recorder keeps its log
    call("pwrite", 1000, b"on 1000", 7, 60)


def names() -> None:
    """Every way to change names."""
    call("mkdir", b"folder", 0o700)
    call("mkdirat", AT_FDCWD, b"folder/inner/", 0o700)
    inner = call("open", b"folder/inner", os.O_RDONLY | os.O_DIRECTORY)
    fd = call("openat", inner, b"file", os.O_CREAT | os.O_RDWR, 0o600)
    call("write", fd, b"inside", 6)
    call("fsync", inner)
    call("rename", b"folder", b"moved")
    call("write", fd, b" and moved", 10)
    call("link", b"moved/inner/file", b"hard")
    call("linkat", AT_FDCWD, b"hard", AT_FDCWD, b"harder", 0)
    call("rename", b"hard", b"harder")  # the same file: nothing happens
    call("symlink", b"moved/inner", b"soft")
    call("symlinkat", b"nowhere", AT_FDCWD, b"dangling")
    fd = call("open", b"soft/through", os.O_CREAT | os.O_RDWR, 0o600)
    call("write", fd, b"through the link", 16)
    call("unlink", b"soft/through")
    call("write", fd, b"nameless", 8)
    call("close", call("open", b"dangling", os.O_CREAT | os.O_RDWR, 0o600))  # creates "nowhere"
    call("renameat", AT_FDCWD, b"hard", inner, b"harder")
    call("renameat2", AT_FDCWD, b"b", AT_FDCWD, b"bb", RENAME_NOREPLACE)
    call("renameat2", AT_FDCWD, b"bb", AT_FDCWD, b"moved", RENAME_EXCHANGE)
    call("rename", b"c", b"d")  # replaces
    call("mkdir", b"gone", 0o700)
    call("rmdir", b"gone")
    call("mkdir", b"gone", 0o700)
    call("remove", b"gone")
    call("unlinkat", AT_FDCWD, b"soft", 0)
    call("mkdir", b"gone", 0o700)
    call("unlinkat", AT_FDCWD, b"gone", 0x200)  # AT_REMOVEDIR
    call("remove", b"harder")
    for error in (b"absent", b"absent/below"):  # failures leave no record
        call("rename", error, b"x", ok=lambda result: result == -1)
        call("unlink", error, ok=lambda result: result == -1)


def stdio() -> None:
    """What libc writes by itself is logged when the file is renamed, linked or synced."""
    for name in ("fopen", "fopen64"):
        function = getattr(LIBC, name)  # an int result; the sizes here fit in one
        function.restype = ctypes.c_void_p
        stream = ctypes.c_void_p(function(f"{name}.tmp".encode(), b"w+"))
        call("fputs", b"unseen", stream)
        call("fflush", stream)
        call("fsync", call("fileno", stream))
        call("fputs", b" twice", stream)
        call("fclose", stream)
        call("rename", f"{name}.tmp".encode(), name.encode())


def elsewhere(outside: str) -> None:
    """Operations outside of the roots, and across their edge."""
    fd = call("open", f"{outside}/other".encode(), os.O_CREAT | os.O_RDWR, 0o600)
    call("write", fd, b"NEVER LOGGED", 12)
    call("rename", f"{outside}/other".encode(), f"{outside}/entering".encode())
    call("pwrite", fd, b"COMING IN", 9, 0)
    call("rename", f"{outside}/entering".encode(), b"entered")
    call("rename", b"appended", f"{outside}/left".encode())
    call("mkfifo", f"{outside}/pipe".encode(), 0o600)
    reader = os.open(f"{outside}/pipe", os.O_RDONLY | os.O_NONBLOCK)
    call("write", call("open", f"{outside}/pipe".encode(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), b"x", 1)
    os.close(reader)


def children() -> None:
    """A fork, and a program that inherits a descriptor."""
    fd = call("open", b"shared", os.O_CREAT | os.O_RDWR, 0o600)
    if os.fork() == 0:
        call("write", fd, b"child ", 6)
        os._exit(0)
    os.wait()
    call("write", fd, b"parent ", 7)
    os.set_inheritable(fd, True)
    if os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"printf shell >&{fd}; printf new > made_by_shell") != 0:
        raise OSError("sh failed")


def main() -> None:
    os.chdir(sys.argv[1])
    if sys.argv[3] == "all":
        for part in (writes, copies, names, stdio, lambda: elsewhere(sys.argv[2]), children):
            part()
    elif sys.argv[3] == "blind":
        fd = call("open", b"mapped", os.O_CREAT | os.O_RDWR, 0o600)
        call("ftruncate", fd, 4096)
        mmap.mmap(fd, 4096)[:5] = b"blind"
    elif sys.argv[3] == "append":  # until killed
        fd = call("open", sys.argv[2].encode(), os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        while True:
            call("write", fd, b"x" * 5000, 5000)


main()
