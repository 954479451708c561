"""What may a program do to its files? This one does it at random, on a disk that is cut off while it runs.

Run under LD_PRELOAD by test_real_kernel: FOLDER SEED. It changes FOLDER, which is recorded, until the disk fails. Now
and then it makes the kernel write something that the recording does not know of: a journal commit, forced by the fsync
of a file beside FOLDER, or the writeback of some pages.
Ends with 0 when the disk has failed, with CUT_INSIDE if that may have been inside of a write through O_DSYNC, or of an
opening that makes a file: these may leave something, but they fail, so that no record tells of it. (A file is made, and
then opened; ext4 and xfs look at each of the two whether the disk is still there.)
"""

import ctypes
import errno
import fcntl
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from crashlab.seeds import stream

FOLDER, SEED = Path(sys.argv[1]), int(sys.argv[2])
RNG = stream(SEED, "program")
LIBC = ctypes.CDLL(None, use_errno=True)
RENAME_EXCHANGE = 2
CLOCK_REALTIME_COARSE = 5  # the one of time stamps
FLAGS = os.O_RDWR | os.O_CREAT
CUT_INSIDE = 3
NAMES_MAX = 12  # few, so that names meet


def files() -> list[Path]:
    return sorted(path for path in FOLDER.rglob("[!k]*") if path.is_file() and not path.is_symlink())


def folders() -> list[Path]:
    return [FOLDER, *sorted(path for path in FOLDER.rglob("*") if path.is_dir() and not path.is_symlink())]


def some_file() -> Path:
    return RNG.choice(files() or [new_path()])


def new_path() -> Path:
    return RNG.choice(folders()) / f"n{RNG.randrange(NAMES_MAX)}"


def wait_for_another_time(fd: int) -> None:
    """Two writes within one tick of the clock may share one change of the inode, so that a commit covers only one."""
    before = os.fstat(fd).st_mtime_ns
    while time.clock_gettime_ns(CLOCK_REALTIME_COARSE) <= before:
        time.sleep(0.001)


def with_file(path: Path, use: Callable[[int], object], flags: int = 0) -> None:
    if path.is_dir() or path.is_symlink():
        return
    new = not path.exists()
    try:
        fd = os.open(path, FLAGS | flags, 0o600)
    except OSError as error:
        if new and error.errno == errno.EIO:
            sys.exit(CUT_INSIDE)
        raise
    try:
        use(fd)
        if RNG.random() < 0.25:
            RNG.choice([os.fsync, os.fdatasync])(fd)
    finally:
        os.close(fd)


def write(fd: int) -> None:
    wait_for_another_time(fd)
    for _ in range(RNG.choice([1, 1, 3])):
        length = RNG.choice([RNG.randint(1, 300), 4096, 8192, RNG.randint(1, 40000)])
        at = RNG.choice([os.fstat(fd).st_size, RNG.randrange(60000), RNG.randrange(8) * 8192])
        try:
            os.pwrite(fd, RNG.randbytes(length), at)
        except OSError:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC:
                sys.exit(CUT_INSIDE)
            raise


def resize(fd: int) -> None:
    size = RNG.choice([0, RNG.randrange(50000), 8192 * RNG.randrange(5)])
    if RNG.random() < 0.7:
        os.ftruncate(fd, size)
    else:
        os.posix_fallocate(fd, size, 20000)


def write_back(fd: int) -> None:
    start, length = RNG.randrange(8) * 4096, RNG.choice([4096, 16384, 0])
    LIBC.sync_file_range(fd, ctypes.c_long(start), ctypes.c_long(length), 7)  # wait, write, wait


def commit() -> None:
    fd = os.open(FOLDER.parent / "beside", FLAGS | os.O_APPEND, 0o600)
    os.write(fd, b"x")
    os.fsync(fd)
    os.close(fd)


def sync_folder() -> None:
    fd = os.open(RNG.choice(folders()), os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def move_folder() -> None:
    for path in RNG.sample(folders()[1:], min(1, len(folders()) - 1)):
        target = RNG.choice([FOLDER, *(other for other in folders() if not other.is_relative_to(path))])
        path.rename(target / f"d{RNG.randrange(4)}")


def exchange() -> None:
    pair = [os.fsencode(some_file()) for _ in range(2)]
    if LIBC.renameat2(-100, pair[0], -100, pair[1], RENAME_EXCHANGE) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


ACTIONS: list[tuple[int, Callable[[], object]]] = [
    (12, lambda: with_file(some_file(), write)),
    (5, lambda: with_file(new_path(), write, RNG.choice([0, os.O_TRUNC]))),
    (3, lambda: with_file(some_file(), write, os.O_DSYNC)),
    (4, lambda: with_file(some_file(), resize)),
    (3, lambda: with_file(new_path(), lambda fd: None)),
    (4, lambda: with_file(some_file(), write_back)),
    (4, commit),
    (2, sync_folder),
    (3, lambda: some_file().rename(new_path())),
    (2, lambda: os.link(some_file(), new_path())),
    (2, lambda: some_file().unlink()),
    (1, exchange),
    (2, lambda: (RNG.choice(folders()) / f"d{RNG.randrange(4)}").mkdir()),
    (2, move_folder),
    (1, lambda: RNG.choice(folders()).rmdir()),
    (1, lambda: new_path().symlink_to(f"to{RNG.randrange(100)}")),
]
EXPECTED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EBUSY}


def main() -> None:
    with (FOLDER / "kept").open("xb", buffering=0) as kept:
        kept.write(RNG.randbytes(5000))
        os.fsync(kept.fileno())
    actions = [action for weight, action in ACTIONS for _ in range(weight)]
    while True:
        try:
            RNG.choice(actions)()
        except OSError as error:
            if error.errno in (errno.EIO, errno.EROFS):  # the disk is gone
                return
            if error.errno not in EXPECTED:
                raise


main()
