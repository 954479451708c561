"""On which file system and device does a folder lie, and can a flush that fast have reached a medium? Judged from what
the kernel says of them and from how long a flush takes.

What it checks: file systems in memory; mount options without barriers; what kind of device it is; whether the time is
    long enough for any device, for a disk that turns, and for one without a protected cache.
What it does not check, and no program on this side of the cable can: whether a device, a controller or the host of a
    virtual machine answers before its medium has the data. A slow flush may lie, too; a fast one may be honest, from a
    cache with a battery or capacitors. Only a power cut shows it: `crashlab disk PATH --client`.

Choices: the limits are those of physics and of common devices, not of this machine.
    They bound every flush from below, so the quick ones count: the fifth percentile, for the quickest of all may have
    found its page already written.
    10 us: a command over PCIe and its answer take about as long, without any medium; the fastest flash with a protected
    cache takes 10 to 30 us.
    0.2 ms: flash has to be programmed for that, which takes from 0.2 ms (SLC) to some ms; what is faster answered from
    a cache.
    2 ms: a disk of 7200 turns waits 4.2 ms on average for the right place; 15000 turns make 2 ms.

Source: Linux Documentation/block/writeback_cache_control.rst, Documentation/ABI/stable/sysfs-block;
man 5 ext4, xfs (barrier); PostgreSQL manual, "Reliability" (caches that lose what they hold).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crashlab.flush.cost import FlushCost

IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
OVER_ANOTHER = {"overlay", "fuse", "9p", "virtiofs", "nfs", "nfs4", "cifs", "smb3"}
"""File systems whose flushes another one, or another machine, answers for."""
NO_BARRIER = {"nobarrier", "barrier=0"}
ANY_DEVICE_MS, FLASH_MS, TURNING_MS = 0.01, 0.2, 2.0

Plausibility = Literal["impossible", "cache", "plausible", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What the kernel says of the folder's file system and its device; None: it does not say."""

    path: str
    kind: str  # of the file system: ext4
    source: str  # what is mounted: /dev/sda1
    options: tuple[str, ...]
    device: str | None = None  # sda
    model: str | None = None
    turns: bool | None = None
    write_cache: str | None = None  # "write back": the kernel sends flushes; "write through": it sends none
    backing: str | None = None  # of a loop device: its file

    @property
    def virtual(self) -> bool:
        """Whether another machine's kernel may answer."""
        name = self.device or ""
        return name.startswith(("vd", "xvd")) or bool(re.search(r"QEMU|virtual|VBOX", self.model or "", re.I))

    @property
    def described(self) -> str:
        """In one line."""
        parts = [f"{self.kind} on {self.source}"]
        if self.model:
            parts.append(self.model)
        if self.backing:
            parts.append(f"a loop device over {self.backing}")
        if self.turns:
            parts.append("the kernel takes it for a disk that turns")
        if self.write_cache:
            parts.append(f"write cache: {self.write_cache}")
        return ", ".join(parts)


def place_of(path: Path) -> Place:
    """Ask the kernel. Raises OSError: there is no such folder."""
    number = path.stat().st_dev
    kind, source, options = _mount(path)
    name = f"{os.major(number)}:{os.minor(number)}"
    block = Path("/sys/dev/block") / name
    if not block.exists():  # such as btrfs, whose numbers are its own
        block = Path("/sys/class/block") / Path(source).name
    if not source.startswith("/dev/") or not block.exists():
        return Place(path=str(path), kind=kind, source=source, options=options)
    block = block.resolve()
    whole = block.parent if (block / "partition").exists() else block
    return Place(
        path=str(path),
        kind=kind,
        source=source,
        options=options,
        device=whole.name,
        model=_said(whole / "device" / "model"),
        turns={"1": True, "0": False}.get(_said(whole / "queue" / "rotational") or ""),
        write_cache=_said(whole / "queue" / "write_cache"),
        backing=_said(whole / "loop" / "backing_file"),
    )


def _mount(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return kind, source and options of what is mounted there: the last one of the longest way that leads there."""
    best, found = -1, ("unknown", "unknown", ())
    real = path.resolve()
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), left.split()[4])
        kind, source, more = (*right.split(), "", "")[:3]
        if real.is_relative_to(point) and len(point) >= best:
            options = tuple(dict.fromkeys([*left.split()[5].split(","), *more.split(",")]))
            best, found = len(point), (kind, source, options)  # type: ignore[assignment]
    return found


def _said(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """Whether a flush can have reached a medium, and why."""

    plausible: Plausibility
    says: str
    limits: tuple[str, ...]  # what it could not look through


def opinion(place: Place, flush_ms: float) -> Opinion:
    """Judge a place by how long a quick flush takes there (`FlushCost.quick_ms`); pure."""
    limits = ["a device that answers from a cache which a power cut empties looks like any other"]
    if place.virtual:
        limits.append("the disk is virtual: its host answers, and only it knows where the data is by then")
    if place.backing:
        limits.append("it is a loop device: what counts is the file system that holds its file")
    if place.kind.split(".")[0] in OVER_ANOTHER:
        limits.append(f"{place.kind}: what lies below it answers, and is not looked at")
    plausible, says = _judged(place, flush_ms)
    return Opinion(plausible=plausible, says=says, limits=tuple(limits))


def _judged(place: Place, flush_ms: float) -> tuple[Plausibility, str]:
    took = f"a quick flush takes {milliseconds(flush_ms)}"
    if place.kind in IN_MEMORY:
        return "impossible", f"{place.kind} lies in memory: a flush has nothing to do, and nothing survives a power cut"
    if flush_ms < ANY_DEVICE_MS:
        return "impossible", f"{took}: no device can be asked and answer so fast, so something answers in its place"
    off = sorted(NO_BARRIER & set(place.options))
    if off:
        return "cache", f"mounted with {off[0]}: the file system does not ask the device to empty its cache"
    if place.turns and flush_ms < TURNING_MS and not place.virtual:
        return "cache", f"{took}: less than a turn of the disk, so a cache answers; it has to survive a power cut"
    if flush_ms < FLASH_MS:
        return "cache", f"{took}: flash takes longer to program, so a cache answers; it has to survive a power cut"
    if place.device is None:
        return "unknown", f"{took}; the kernel names no device behind it"
    return "plausible", f"{took}: long enough for a medium to have been written"


def milliseconds(ms: float) -> str:
    """Return a time with three digits and its unit."""
    return f"{1000 * ms:.3g} us" if ms < 1 else f"{ms:.3g} ms"


def usual(costs: list[FlushCost]) -> FlushCost:
    """Return the cost of fdatasync, Linux's own default of wal_sync_method, by which a place is judged."""
    return next(one for one in costs if one.method == "fdatasync")
