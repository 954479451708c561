"""How is a recording shown on a page: a slider over its operations, and what is unflushed at each?

What moves with the slider is computed by the page's script, from the steps that the page holds. What a reader needs who
has none, or paper, is a table of the moments that matter.
"""

from collections import Counter
from dataclasses import dataclass

from crashlab.chronicle import Steps
from crashlab.report.page import data_block, render
from crashlab.report.places import Scale, plural, sizes, thousands
from crashlab.report.story import printable

_COLUMNS = 500
_MOMENTS_MAX = 40


@dataclass(frozen=True)
class Moment:
    """One operation, and what a power cut after it would have met."""

    position: int
    what: str
    units: int
    files: int
    names: int
    by_class: str


def page_bytes(steps: Steps, folder: str, at: int | None = None) -> bytes:
    """Return the page, UTF-8.

    Args:
        folder: where the recording is, to be told.
        at: the crash point at which the slider stands first; None: the end.
    """
    levels, moments = _replay(steps)
    top = max([1, *levels])
    scale = Scale(steps.first, max(steps.end, steps.first + 1))
    return render(
        "recording.html.jinja",
        scripts=("page.js", "recording.js"),
        title=f"recording {printable(folder)}",
        folder=folder,
        about=steps.about,
        first=steps.first,
        end=steps.end,
        at=max(steps.first, min(steps.end, steps.end if at is None else at)),
        curve=_curve(levels, scale, steps.first, top),
        top=f"{plural(top, 'unit')}, {sizes(top * steps.unit_bytes)}",
        ticks=[(scale(at), f"{at:g}") for at in scale.ticks()],
        checkpoints=[(scale(low), round(scale(high) - scale(low), 2), low, high) for low, high in steps.checkpoints],
        moments=moments,
        data=data_block(
            {
                "first": steps.first,
                "unit": steps.unit_bytes,
                "begin": steps.begin,
                "files": [[printable(path), part] for path, part in steps.files],
                "steps": [[printable(one.says), one.kind, one.changes, one.names, one.acked] for one in steps.steps],
                "checkpoints": steps.checkpoints,
            }
        ),
    )


def _replay(steps: Steps) -> tuple[list[int], list[Moment]]:
    """Return the units in flight before the first step and after each, and the moments that the table has."""
    flight = dict(steps.begin)
    total = sum(max(0, units) for units in flight.values())
    levels = [total]
    wanted = _wanted(steps)
    moments = []
    for number, step in enumerate(steps.steps):
        for file, units in step.changes:
            total += max(0, units) - max(0, flight.pop(file, 0))
            if units >= 0:
                flight[file] = units
        levels.append(total)
        position = steps.first + number + 1
        if position in wanted:
            moments.append(_moment(steps, position, wanted[position], flight, step.names))
    return levels, moments


def _wanted(steps: Steps) -> dict[int, str]:
    found = {}
    for low, high in steps.checkpoints[-_MOMENTS_MAX // 2 :]:
        found[low] = "before a checkpoint's first flush of data"
        found[high] = "after the flush of its control file began"
    found[steps.end] = "the end"
    return found


def _moment(steps: Steps, position: int, what: str, flight: dict[int, int], names: int) -> Moment:
    parts: Counter[str] = Counter()
    for file, units in flight.items():
        parts[steps.files[file][1]] += units
    by_class = ", ".join(f"{part.replace('_', ' ')} {thousands(units)}" for part, units in parts.most_common() if units)
    return Moment(position, what, sum(flight.values()), len(flight), names, by_class)


def _curve(levels: list[int], scale: Scale, first: int, top: int) -> str:
    """Return the area under what is in flight, in a box of 1000 by 100; of many steps a column shows the highest."""
    step = max(1, len(levels) // _COLUMNS)
    path = "M0 100"
    for begin in range(0, len(levels), step):
        x = 10 * scale(first + begin)
        path += f"H{x:.1f}V{100 - 96 * max(levels[begin : begin + step]) / top:.1f}"
    return path + "H1000V100Z"
