"""How do places and numbers become what a reader sees: percent of a width, round figures on an axis, sizes, times?"""

import math
from dataclasses import dataclass

_TICKS = 6


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`, drawn over the whole width."""

    low: float
    high: float

    def __call__(self, at: float) -> float:
        """Return a place in percent of the width, rounded to what can be seen."""
        return round(100 * (at - self.low) / (self.high - self.low), 2)

    def at(self, percent: float) -> float:
        """Return which place is drawn there."""
        return self.low + (self.high - self.low) * percent / 100

    def ticks(self) -> list[float]:
        """Return round places, about _TICKS of them, that lie on the axis."""
        step = round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step)
        count = math.floor(self.high / step) - first + 1
        return [round((first + number) * step, 6) + 0.0 for number in range(count)]


def round_step(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value or step == 10))


def thousands(number: float) -> str:
    """Return a whole number with its digits in groups."""
    return f"{number:,.0f}"


def plural(number: int, what: str) -> str:
    """Return "1 flush", "2 flushes"."""
    ending = "" if number == 1 else "es" if what.endswith(("s", "sh", "ch", "x")) else "s"
    return f"{thousands(number)} {what}{ending}"


def sizes(size_bytes: float) -> str:
    """Return "12 kB", "3.4 MB": powers of 1024, as PostgreSQL counts."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1024 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 10 or unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    raise AssertionError


def duration(seconds: float) -> str:
    """Return "0.4 s", "12 s", "3 min 12 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
