"""Which file operations can a recording hold?

The vocabulary between the recorder's log (`iolog`, which decodes into it), the replay that checks a recording and
the disk model, which is pure and knows nothing else of the world. Policy-free: what an operation makes durable is
the disk contract's business.

Choices:
    A file is known by a number that the decoder gives out, one per file ever created: the kernel re-uses inode
    numbers, this does not. Directories and symbolic links are files too. Paths are relative to the recorded roots:
    "pgdata/base/5/1259", "pgdata" itself, and "tblspc0/..." for each tablespace outside of it.
    An operation's position is its 0-based index in the log. Crash point p means: operations 0 .. p-1 were issued.

Source: design.md "The recorder"; postgres-contract.md section 5.
"""

from enum import IntEnum

import msgspec


class Kind(IntEnum):
    """What happened. The numbers are those of the log format."""

    CREATE = 1  # a regular file came into being: file, path, mode bits in `offset`
    MKDIR = 2  # file, path
    SYMLINK = 3  # file, path, `data` is the link's content
    WRITE = 4  # file, offset, data; durable=True on an O_DSYNC/O_SYNC descriptor, then no flush is needed
    TRUNCATE = 5  # file, offset is the new size; shrinks or extends with zeros
    ALLOCATE = 6  # file, offset, length: space reserved, the size grows to offset + length if it was smaller
    RENAME = 7  # path -> target, replaces an existing target atomically
    LINK = 8  # file, path (existing name), target (new name)
    UNLINK = 9  # path; the file lives on while it is open or has other names
    RMDIR = 10  # path
    FSYNC_BEGIN = 11  # file (a directory too), token; covers operations on it below this position, once it ends
    FSYNC_END = 12  # token; success only. datasync=True on the begin: data and size, not names
    SYNCFS_BEGIN = 13  # token; everything
    SYNCFS_END = 14  # token
    CONTENT = 15  # file, data: the whole content as it is now, because its writes could not be seen (stdio)
    BLIND = 16  # path, data says why: something was written that the recorder cannot see (shared mmap, io_uring)
    COPY = 17  # file, offset, length; copy_file_range, `data` holds the copied bytes
    EXCHANGE = 18  # path <-> target


OPERATIONS = {kind.name.lower(): kind for kind in Kind if kind not in (Kind.CONTENT, Kind.BLIND)}
"""Those of the server itself, by the name that a profile gives them."""


class Operation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One operation of the server, in the order in which the log has it."""

    position: int
    kind: Kind
    pid: int = 0
    file: int = 0  # 0: none
    path: str = ""
    target: str = ""
    offset: int = 0
    length: int = 0
    data: bytes = b""
    token: int = 0  # joins a begin with its end
    datasync: bool = False
    durable: bool = False
    log_end: int = 0  # bytes: where its record ends in the log; compare with a ledger's log position
    data_at: int = 0  # bytes: where its data begins in the log; it ends at log_end, zeros at its end are not there


class BaseFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One file, directory or link of the base image: what was on disk, and durable, when the recording began."""

    file: int
    path: str  # a file with several names has several entries with the same number
    kind: str  # file, dir, link
    size: int = 0
    mode: int = 0
    link: str = ""  # a symbolic link's content


def root_label(index: int) -> str:
    """Return the first part of the paths below a root: 0 is the data directory, the others hold tablespaces."""
    return "pgdata" if index == 0 else f"tblspc{index - 1}"
