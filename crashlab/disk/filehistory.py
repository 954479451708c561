"""What may one file hold after a power cut?

A file has a durable side (size, content of each unit) and what happened since: versions of units, steps of its size.

Choices:
    A version of a unit is the file as the server saw it right after one write: a later version of the same unit
    includes the earlier writes to it. Each unit holds its durable content or any version since, independently.
    Truncations survive in their order: a state keeps the first k of them. The blocks wholly beyond a surviving one are
    freed, so their old bytes never come back. A unit in a block that lay wholly beyond a *lost* truncation cannot hold
    what was written after it: the file system gave that write new blocks, which the lost change names.
    The rest of a block that a truncation cuts in two is zeroed in place, which is a version like any other write: if
    the file grows again and that version is lost, the old bytes are back, as found on xfs. (A block is the size step.)
    Sizes: with k truncations kept, the size after the k-th or any that the file grew to before the next one; a write
    or an allocation also passes through every multiple of the size step on its way. While the growth before it is
    pending, an allocation below the size may leave its own end as the size, as found on ext4. Sizes and units are
    independent: a unit beyond the size does not exist, a size without its data reads as zeros.
    A write through an O_DSYNC descriptor makes its own units durable, and the truncations before it, and its end.

Source: design.md "The disk model"; postgres-contract.md 5.4; Linux fs/ext4/inode.c (i_disksize, ordered truncate).
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from heapq import merge

from crashlab.disk.content import BASE, EMPTY, MASK, Content, FileImage, clip, mixed, original, overlay, written

DURABLE = -1
"""The position of the version that is on disk already."""


class Step(IntEnum):
    """How a file came to a size."""

    GROWN = 0  # by a write or an allocation, through the sizes between
    SET = 1  # extended by a truncate, at once
    CUT = 2
    PASSED = 3  # allocated below its size


class FileHistory:
    """The durable and the volatile side of one regular file."""

    __slots__ = (
        "_durable_sum",
        "base_bytes",
        "cuts",
        "durable",
        "durable_size",
        "number",
        "size",
        "size_step",
        "steps",
        "unit_bytes",
        "versions",
    )

    def __init__(self, number: int, unit_bytes: int, size_step: int, base_size: int = 0) -> None:
        self.number = number
        self.unit_bytes = unit_bytes
        self.size_step = size_step
        self.size = base_size  # as the server sees it
        self.durable_size = base_size
        self.base_bytes = base_size  # the base image's bytes below this are on disk where no unit is listed
        self.durable: dict[int, Content] = {}  # unit -> content, where it is not the base image's
        self.versions: dict[int, list[tuple[int, Content]]] = {}  # unit -> (position, content), ascending
        self.steps: list[tuple[int, int, Step]] = []  # (position, size afterwards, how)
        self.cuts: list[tuple[int, int]] = []  # the truncations among the steps: (position, size)
        self._durable_sum = 0

    @property
    def volatile(self) -> bool:
        """Whether a power cut may find the file other than as the server sees it."""
        return bool(self.versions or self.steps)

    # --- what the server does

    def write(self, position: int, offset: int, data: bytes) -> None:
        """Note a write; later reads of the server see it at once."""
        if not data:
            return
        unit_bytes, versions = self.unit_bytes, self.versions
        end = offset + len(data)
        for unit in range(offset // unit_bytes, (end - 1) // unit_bytes + 1):
            start = unit * unit_bytes
            low, high = max(offset, start), min(end, start + unit_bytes)
            chunk = data[low - offset : high - offset]
            if high - low == unit_bytes:
                content = written(chunk, position, low - offset)
            else:
                content = overlay(self._seen(unit), low - start, chunk, position, low - offset)
            history = versions.get(unit)
            if history is None:
                versions[unit] = [(position, content)]
            else:
                history.append((position, content))
        self.grow(position, end, Step.GROWN)

    def grow(self, position: int, end: int, how: Step) -> None:
        """Note that the file reaches up to `end` at least."""
        if end > self.size:
            self.size = end
            self.steps.append((position, end, how))

    def allocate(self, position: int, end: int) -> None:
        """Note that the file has space, and a size, up to `end` at least."""
        if end < self.size and self.steps:
            self.steps.append((position, end, Step.PASSED))
        else:
            self.grow(position, end, Step.GROWN)

    def truncate(self, position: int, size: int) -> None:
        """Note that the file was cut or extended to `size`."""
        if size >= self.size:
            self.grow(position, size, Step.SET)
            return
        for unit in range(size // self.unit_bytes, self._block_end(size) // self.unit_bytes):
            seen = self._seen(unit)
            content = clip(seen, max(0, size - unit * self.unit_bytes))
            if content is not seen:
                self.versions.setdefault(unit, []).append((position, content))
        self.size = size
        self.steps.append((position, size, Step.CUT))
        self.cuts.append((position, size))

    def _block_end(self, size: int) -> int:
        return -(-size // self.size_step) * self.size_step

    def replace(self, position: int, data: bytes) -> None:
        """Note that the file holds `data` and nothing else: cut to nothing, then written."""
        self.truncate(position, 0)
        self.write(position, 0, data)

    def _seen(self, unit: int) -> Content:
        """Return the unit as the server sees it."""
        position, content = self.versions[unit][-1] if unit in self.versions else (DURABLE, self._on_disk(unit))
        return self._masked(content, unit, position, len(self.cuts))

    def _on_disk(self, unit: int) -> Content:
        content = self.durable.get(unit)
        if content is not None:
            return content
        start = unit * self.unit_bytes
        return original(start, min(self.base_bytes - start, self.unit_bytes))

    def _masked(self, content: Content, unit: int, position: int, kept_cuts: int) -> Content:
        for cut_position, size in self.cuts[:kept_cuts]:
            if cut_position > position and unit * self.unit_bytes >= self._block_end(size):
                return EMPTY
        return content

    def last_change(self, before: int) -> int:
        """Return the position of the last pending change below `before`, or DURABLE."""
        changes = [position for position, _, _ in self.steps]
        changes += [position for history in self.versions.values() for position, _ in history]
        return max((position for position in changes if position < before), default=DURABLE)

    # --- what becomes durable

    def settle(self, before: int) -> None:
        """Make durable what happened at positions below `before`."""
        while self.cuts and self.cuts[0][0] < before:
            position, size = self.cuts.pop(0)
            self._settle_versions(position)
            self._cut_durable(size)
        self._settle_versions(before)
        done = 0
        for position, size, how in self.steps:
            if position >= before:
                break
            self.durable_size = size if how is Step.CUT else max(self.durable_size, size)
            done += 1
        del self.steps[:done]

    def settle_range(self, offset: int, length: int) -> None:
        """Make durable the units of this range as they are, every truncation so far, and a size that covers it."""
        for cut_position, size in self.cuts:
            self._cut_durable(size)
            for unit in list(self.versions):
                if unit * self.unit_bytes >= self._block_end(size):
                    self._cut_versions(unit, cut_position)
        if self.cuts:
            self.durable_size = self.cuts[-1][1]
            self.steps = [step for step in self.steps if step[0] >= self.cuts[-1][0] and step[2] is not Step.CUT]
            self.cuts.clear()
        for unit in range(offset // self.unit_bytes, (offset + length - 1) // self.unit_bytes + 1):
            if history := self.versions.pop(unit, None):
                self._set_durable(unit, history[-1][1])
        self.durable_size = max(self.durable_size, offset + length)
        self.steps = [step for step in self.steps if step[1] > self.durable_size]

    def _settle_versions(self, before: int) -> None:
        for unit in [unit for unit, history in self.versions.items() if history[0][0] < before]:
            history = self.versions[unit]
            count = sum(position < before for position, _ in history)
            self._set_durable(unit, history[count - 1][1])
            if count == len(history):
                del self.versions[unit]
            else:
                del history[:count]

    def _cut_versions(self, unit: int, cut_position: int) -> None:
        history = [version for version in self.versions[unit] if version[0] >= cut_position]
        if history:
            self.versions[unit] = history
        else:
            del self.versions[unit]

    def _cut_durable(self, size: int) -> None:
        end = self._block_end(size)
        self.base_bytes = min(self.base_bytes, end)
        for unit in [unit for unit in self.durable if unit * self.unit_bytes >= end]:
            self._set_durable(unit, EMPTY)

    def _set_durable(self, unit: int, content: Content) -> None:
        old = self.durable.get(unit)
        if old is not None:
            self._durable_sum -= mixed(unit, old.digest)
        if not self._is_base(unit, content, self.base_bytes):
            self.durable[unit] = content
            self._durable_sum += mixed(unit, content.digest)
        elif old is not None:
            del self.durable[unit]

    def _is_base(self, unit: int, content: Content, base_bytes: int) -> bool:
        """Whether a unit holds what it holds where nothing is said of it: the base image's bytes, or none."""
        extents, start = content.extents, unit * self.unit_bytes
        if not extents or start >= base_bytes:
            return not extents and start >= base_bytes
        low, high, source, offset, _ = extents[0]
        end = min(base_bytes - start, self.unit_bytes)
        return source == BASE and (low, high, offset) == (0, end, start) and len(extents) == 1

    # --- what a power cut may leave

    def sizes(self, kept_cuts: int) -> Iterator[int]:
        """Yield the sizes, ascending, that the file may have if its first `kept_cuts` truncations survive."""
        size = self.cuts[kept_cuts - 1][1] if kept_cuts else self.durable_size
        growth = list(self._growth(kept_cuts))
        passed = sorted(end for _, end, how in growth if how is Step.PASSED and end > size)
        last = -1
        for found in merge(self._grown_sizes(size, growth), passed):
            if found > last:
                yield found
                last = found

    def _grown_sizes(self, size: int, growth: Iterable[tuple[int, int, Step]]) -> Iterator[int]:
        yield size
        for _, grown, how in growth:
            if how is Step.PASSED:
                continue
            if how is Step.GROWN:
                yield from range(size - size % self.size_step + self.size_step, grown, self.size_step)
            size = grown
            yield size

    def _growth(self, kept_cuts: int) -> Iterator[tuple[int, int, Step]]:
        seen = 0
        for step in self.steps:
            seen += step[2] is Step.CUT
            if seen == kept_cuts and step[2] is not Step.CUT:
                yield step

    def largest(self, kept_cuts: int) -> int:
        """Return the largest of `sizes`."""
        start = self.cuts[kept_cuts - 1][1] if kept_cuts else self.durable_size
        return max([start, *(end for _, end, _ in self._growth(kept_cuts))])

    def choices(self, unit: int, kept_cuts: int) -> list[int]:
        """Return the positions of the versions that the unit may hold, DURABLE first."""
        start = unit * self.unit_bytes
        lost = next((at for at, size in self.cuts[kept_cuts:] if self._block_end(size) <= start), None)
        found = [DURABLE]
        for position, _ in self.versions.get(unit, ()):
            if lost is not None and position >= lost:
                break
            found.append(position)
        return found

    def version(self, unit: int, position: int, kept_cuts: int) -> Content:
        """Return what the unit holds if the version of that position is on disk."""
        if position == DURABLE:
            return self._masked(self._on_disk(unit), unit, DURABLE, kept_cuts)
        history = self.versions[unit]
        at, content = history[-1]
        if at != position:
            content = next(content for at, content in history if at == position)
        return self._masked(content, unit, position, kept_cuts) if kept_cuts else content

    def _resolve(self, kept_cuts: int, size: int, chosen: Mapping[int, int]) -> tuple[int, dict[int, Content]]:
        """Return how much of the base image is left, and the units that are other than the durable ones."""
        changed: dict[int, Content] = {}
        base_bytes = self.base_bytes
        if kept_cuts:
            end = self._block_end(min(cut_size for _, cut_size in self.cuts[:kept_cuts]))
            base_bytes = min(base_bytes, end)
            changed = {unit: EMPTY for unit in self.durable if unit * self.unit_bytes >= end}
        for unit in range(size // self.unit_bytes, self._block_end(size) // self.unit_bytes):
            if unit in self.durable:  # bytes beyond the size, which may come back when the file grows
                changed.setdefault(unit, clip(self.durable[unit], max(0, size - unit * self.unit_bytes)))
        base_bytes = min(base_bytes, size)
        for unit, position in chosen.items():
            rest = size - unit * self.unit_bytes
            if rest > 0:
                changed[unit] = clip(self.version(unit, position, kept_cuts), rest)
        return base_bytes, changed

    def fingerprint(self, kept_cuts: int, size: int, chosen: Mapping[int, int]) -> int:
        """Return a number that is equal for equal contents of this file, without building them."""
        base_bytes, changed = self._resolve(kept_cuts, size, chosen)
        total = self._durable_sum
        for unit, content in changed.items():
            old = self.durable.get(unit)
            if old is not None:
                total -= mixed(unit, old.digest)
            if not self._is_base(unit, content, base_bytes):
                total += mixed(unit, content.digest)
        # A file without bytes of the base image is the same as any other with this content.
        return mixed(self.number if base_bytes else 0, base_bytes, size, total & MASK)

    def image(self, kept_cuts: int, size: int, chosen: Mapping[int, int]) -> FileImage:
        """Return the file as a state has it; a copy, which later operations do not change."""
        base_bytes, changed = self._resolve(kept_cuts, size, chosen)
        units = {
            unit: content
            for unit, content in (self.durable | changed).items()
            if not self._is_base(unit, content, base_bytes)
        }
        return FileImage(
            file=self.number,
            size=size,
            base_bytes=base_bytes,
            unit_bytes=self.unit_bytes,
            units=units,
            fingerprint=self.fingerprint(kept_cuts, size, chosen),
        )
