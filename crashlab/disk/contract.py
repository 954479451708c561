"""What do the file system and the device guarantee when the power goes?

Choices:
    `linux` is what ext4, xfs and btrfs have in common, so it allows whatever one of them allows. An fsync persists the
    names of its own file and of that file's new directories, as btrfs' log tree does; unrelated older names may still
    be lost. ext4 and xfs promise more, because one journal holds all: `ordered_journal` adds that. Measured on Linux
    6.18, an older name elsewhere survived a new or grown file's fsync or fdatasync, and an fsync after an overwrite, in
    50 of 50 cuts each on ext4 and xfs (btrfs: 0 of 8); an fdatasync or O_DSYNC after an overwrite in 0 of 50.
    `ordered_journal` counts on each write changing the file's times. Two writes within one tick of the kernel's clock
    change them once: with a commit between the two, the fsync after the second saved the name in 33 of 50 cuts only.
    fdatasync counts as fsync for data and size. Of names it persists a new file's creation only, not a later rename
    or link: ext4 sets i_datasync_tid when it makes the inode and when the size changes, not for a change of ctime.
    `strict` is POSIX alone. What it finds is beyond PostgreSQL's contract, which counts on the file system here.

Source: design.md "The disk model"; postgres-contract.md section 5.4; Linux fs/ext4/fsync.c and ialloc.c, fs/xfs/
xfs_file.c and xfs_inode_item.c, fs/btrfs/tree-log.c; POSIX fsync(); tests/recording/test_real_kernel.py.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from crashlab.disk.fileclass import FileClass
from crashlab.errors import UsageProblem

DiskName = Literal["linux", "strict", "lying", "process"]
CutAt = Literal["any", "checkpoint", "flush", "wal switch", "redo", "end"]
"""At which operations of a recording the power may be cut."""
TearBytes = Literal[512, 4096, 8192]
"""Below 512 bytes a tear could go through pg_control's record, which PostgreSQL takes to be atomic."""

KERNEL_PAGE_BYTES = 4096


@dataclass(frozen=True)
class DiskContract:
    """The rules by which operations survive a power cut; take one from `disk_contract`."""

    name: str
    tear_bytes: int = KERNEL_PAGE_BYTES  # aligned units of this size survive whole, each on its own
    size_step_bytes: int = KERNEL_PAGE_BYTES  # a growing file may be found at any multiple of this on its way
    fsync_persists_own_name: bool = True
    durable_symlinks: bool = False  # symbolic links are on disk as soon as they are made or removed
    ordered_journal: bool = False  # whatever persists a name persists all older name operations too
    names_in_order: bool = True  # pending name operations survive as a prefix; else each on its own
    everything_survives: bool = False
    flushes_ignored_from: int | None = None  # position in the log
    flushes_ignored_for: frozenset[FileClass] = frozenset()
    flush_left_out: int | None = None  # position of the begin of one flush, or of one write that is its own


_PRESETS: dict[str, DiskContract] = {
    "linux": DiskContract("linux"),
    "strict": DiskContract("strict", fsync_persists_own_name=False, names_in_order=False),
    "lying": DiskContract("lying", flushes_ignored_from=0),
    "process": DiskContract("process", everything_survives=True),
}

CONTRACT_NAMES: tuple[str, ...] = get_args(DiskName)
CUTS: tuple[str, ...] = get_args(CutAt)
TEAR_SIZES: tuple[int, ...] = get_args(TearBytes)


def disk_contract(
    name: str = "linux",
    *,
    tear_bytes: int = KERNEL_PAGE_BYTES,
    ordered_journal: bool = False,
    durable_symlinks: bool = False,
    flushes_ignored_from: int | None = None,
    flushes_ignored_for: frozenset[FileClass] = frozenset(),
    flush_left_out: int | None = None,
) -> DiskContract:
    """Return the named contract with these changes; `UsageProblem` for a name or tear size that does not exist.

    `flushes_ignored_from` None leaves the preset's own: never, and for `lying` from the first operation on.
    """
    if name not in _PRESETS:
        raise UsageProblem(f'unknown disk contract "{name}"', hint=f"Choose one of {', '.join(CONTRACT_NAMES)}.")
    if tear_bytes not in TEAR_SIZES:
        raise UsageProblem(
            f"cannot tear writes at {tear_bytes} bytes",
            detail="PostgreSQL takes the first 512 bytes of pg_control to be atomic; its pages have 8192 bytes.",
            hint=f"Choose one of {', '.join(map(str, TEAR_SIZES))}.",
        )
    preset = _PRESETS[name]
    return replace(
        preset,
        tear_bytes=tear_bytes,
        size_step_bytes=max(tear_bytes, KERNEL_PAGE_BYTES),
        ordered_journal=ordered_journal,
        durable_symlinks=durable_symlinks,
        flushes_ignored_from=preset.flushes_ignored_from if flushes_ignored_from is None else flushes_ignored_from,
        flushes_ignored_for=flushes_ignored_for,
        flush_left_out=flush_left_out,
    )
