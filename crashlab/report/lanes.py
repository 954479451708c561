"""Where does each fact of a trial stand in its drawing?

Pure: a chronicle goes in, places come out. Across, in percent of the width, so that the picture fits a phone and a
wall, and its text is never scaled; down, in pixels.

Choices:
    One drawing has sections, each nearer to the cut than the one before. Whoever zooms chooses one: no script, and a
    printed page shows the one that was chosen.
    What would be narrower than a few pixels is drawn together with its neighbours of the same fate; the mark says how
    many it stands for. So the counts of all marks of the whole trial are those of the JSON report.
    A fate has a shape and a word beside its colour.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from crashlab.chronicle import Chronicle, Fate, Happening, Transaction
from crashlab.oracle.wal import lsn
from crashlab.report.places import Scale, plural, thousands

TRACK_PX, LANE_PX, WAL_PX, TOP_PX, AXIS_PX = 14, 36, 132, 24, 24
CLIENT_LANES_MAX = 16
"""Clients beyond these share the last lane."""
NEAR_PERCENT = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Marks of one fate closer than this, each narrower than twice that, are one: the first that makes a section light."""
MARKS_MAX = 450
"""Of a section: a page with six trials stays below 5 MB, and nobody tells more marks apart."""
_LEAST_PERCENT = 0.5
_WAL_COLUMNS = 48
_CLOSE_TRANSACTIONS, _NEAR_TRANSACTIONS = 14, 80
_WORTHWHILE = 0.6
"""A section is offered if it shows less than this share of the one before."""

ORDER = (
    *(Fate.READ_ONLY, Fate.TRACELESS, Fate.UNKNOWN, Fate.SURVIVED, Fate.PRESENT, Fate.UNDECIDED),
    *(Fate.ABSENT, Fate.PERMITTED, Fate.FORBIDDEN, Fate.PHANTOM),
)
"""From the ground to the top: what is worse is drawn over what is not."""
SAYS = {
    Fate.SURVIVED: "acknowledged, and there",
    Fate.PERMITTED: "acknowledged and gone, as the contract allows",
    Fate.FORBIDDEN: "acknowledged and gone, against the promise",
    Fate.PHANTOM: "refused or never sent, and there",
    Fate.PRESENT: "no answer came, so either is legal",
    Fate.ABSENT: "no answer came, so either is legal",
    Fate.UNDECIDED: "prepared, and not decided",
    Fate.TRACELESS: "refused, rolled back or never sent; not there",
    Fate.READ_ONLY: "wrote nothing, so nothing was promised",
    Fate.UNKNOWN: "nobody could look",
}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One thing that can be pointed at."""

    kind: str  # what it looks like
    x: float  # percent
    width: float
    says: str
    count: int = 0  # of transactions
    begin: float | None = None  # percent: where its transaction began, before COMMIT was sent
    y: tuple[float, float] | None = None  # percent of the lane, from its top; None: all of the track


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One row."""

    label: str
    y: int  # of its track
    height: int
    marks: list[Mark]
    paths: dict[str, str] = field(default_factory=dict)  # of the WAL: name -> path in a box of 1000 by 100
    gap: str = ""  # of the WAL: path around what was written and not durable
    valid: tuple[float, str] | None = None  # of the WAL: percent from its top, label
    redo_label: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One drawing."""

    name: str
    low: float
    high: float
    cut: float  # percent
    over: float  # percent: where the server was dead
    cut_label: str
    ticks: list[tuple[float, str, bool]]  # percent, label, whether it may be left out where it is narrow
    lanes: list[Lane]
    height: int

    @property
    def marks(self) -> int:
        """How many can be pointed at."""
        return sum(len(lane.marks) for lane in self.lanes)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A whole trial."""

    sections: list[Section]
    legend: list[tuple[str, str, str, int]]  # class, fate, what it means, count


def drawing(told: Chronicle) -> Drawing:
    """Return the drawing of a trial."""
    clients = _by_client(told)
    return Drawing(
        sections=[_section(told, clients, name, low) for name, low in _sections(told)],
        legend=[
            (kind_of(fate), str(fate), SAYS[fate], told.fates[fate]) for fate in reversed(ORDER) if told.fates[fate]
        ],
    )


def kind_of(fate: Fate) -> str:
    """Return what a fate looks like: a class of the page's style."""
    return f"fate-{fate.name.lower().replace('_', '-')}"


def place(told: Chronicle, at: float) -> str:
    """Say where something is on the chronicle's axis."""
    return f"{at:+.1f} ms" if told.axis == "ms" else f"operation {at:.0f}"


def sentence(told: Chronicle, one: Transaction) -> str:
    """Say all that is known of a transaction."""
    who = f"client {one.client}" if one.client else "the set-up"
    parts = [f"{SAYS[one.fate]}; it began at {place(told, one.begin)} (ledger line {one.begin_line})"]
    if one.sent is not None:
        parts.append(f"COMMIT sent at {place(told, one.sent)} (line {one.sent_line})")
    if one.told is not None:
        parts.append(f"{one.answer} at {place(told, one.told)} (line {one.told_line})")
    elif one.answer not in ("acknowledged", "refused or rolled back"):
        parts.append(one.answer)
    parts.append(f"synchronous_commit = {one.sync}" + (f", xid {one.xid}" if one.xid else ""))
    if one.wrote:
        parts.append(f"it wrote {one.wrote}")
    if one.record_fate:
        end = f"ends at {lsn(one.record_end)}, " if one.record_end else ""
        parts.append(f"its commit record {end}{one.record_fate}")
    return f"Transaction {one.tx} of {who}: {one.fate}. " + "; ".join(parts) + "."


# --- sections


def _sections(told: Chronicle) -> Iterator[tuple[str, float]]:
    """Yield the name of each section and where it begins."""
    yield "Whole trial", told.first
    begins = sorted(one.begin for one in told.transactions if one.client)
    gone = [one.begin for one in told.transactions if one.fate in (Fate.PERMITTED, Fate.FORBIDDEN, Fate.PHANTOM)]
    end = end_of(told)
    span = end - told.first
    for name, count in (
        (f"Last {_NEAR_TRANSACTIONS} transactions", _NEAR_TRANSACTIONS),
        ("Close to the cut", _CLOSE_TRANSACTIONS),
    ):
        if len(begins) <= count:
            continue
        low = begins[-count]
        if name != "Close to the cut" and gone and min(gone) < low and end - min(gone) < _WORTHWHILE * span:
            low, name = min(gone), "From the first loss on"
        if 0 < end - low < _WORTHWHILE * span:
            yield name, low
            span = end - low


def end_of(told: Chronicle) -> float:
    """Return the last place that is drawn: answers may come until the server is dead."""
    answers = [one.told for one in told.transactions if one.told is not None]
    faults = [one.at for one in told.happenings if one.kind == "fault"]
    return max([told.cut, *answers, *faults])


def _section(told: Chronicle, clients: "_Clients", name: str, low: float) -> Section:
    end = end_of(told)
    span = max(end - low, 1e-6)
    scale = Scale(low - 0.01 * span, end + 0.06 * span)
    for near in NEAR_PERCENT:
        lanes, y = _stacked(told, clients, scale, near)
        if sum(len(lane.marks) for lane in lanes) <= MARKS_MAX:
            break
    return Section(
        name=name,
        low=low,
        high=end,
        cut=scale(told.cut),
        over=scale(end),
        cut_label="power cut" if told.axis == "operation" else "fault",
        ticks=[
            (scale(at), f"{at:g}{' ms' if told.axis == 'ms' else ''}", number % 2 == 1)
            for number, at in enumerate(scale.ticks())
        ],
        lanes=lanes,
        height=y + AXIS_PX,
    )


def _stacked(told: Chronicle, clients: "_Clients", scale: Scale, near: float) -> tuple[list[Lane], int]:
    """Return the lanes, one below the other, and where they end."""
    lanes: list[Lane] = []
    y = TOP_PX
    for lane in (
        *_client_lanes(told, clients, scale, near),
        *_wal_lane(told, scale),
        *_server_lanes(told, scale, near),
    ):
        lanes.append(replace(lane, y=y + LANE_PX - TRACK_PX - 4))
        y += LANE_PX - TRACK_PX + lane.height
    return lanes, y


# --- lanes


@dataclass(frozen=True)
class _Clients:
    """The transactions of a trial, sorted once for all sections."""

    ends: dict[int, float]  # transaction -> where it is over
    rows: list[tuple[str, dict[Fate, list[Transaction]]]]  # label, transactions by fate and begin


def _by_client(told: Chronicle) -> _Clients:
    alone = told.clients if len(told.clients) <= CLIENT_LANES_MAX else told.clients[: CLIENT_LANES_MAX - 1]
    rows: dict[int, dict[Fate, list[Transaction]]] = {client: {} for client in alone}
    rest: dict[Fate, list[Transaction]] = {}
    for one in sorted(told.transactions, key=lambda one: one.begin):
        rows.get(one.client, rest).setdefault(one.fate, []).append(one)
    found = [(f"client {client}" if client else "set-up", row) for client, row in rows.items()]
    others = [(f"{len(told.clients) - len(alone)} more clients", rest)] if rest else []
    return _Clients(told.ends(), found + others)


def _client_lanes(told: Chronicle, clients: _Clients, scale: Scale, near: float) -> Iterator[Lane]:
    for label, row in clients.rows:
        marks = [mark for fate in ORDER for mark in _fate_marks(told, row.get(fate, ()), clients.ends, scale, near)]
        if marks:
            counts = " · ".join(f"{thousands(len(row[fate]))} {fate}" for fate in reversed(ORDER) if fate in row)
            yield Lane(label=label, y=0, height=TRACK_PX + 4, marks=marks, note=counts)


def _fate_marks(
    told: Chronicle, own: Sequence[Transaction], ends: Mapping[int, float], scale: Scale, near: float
) -> Iterator[Mark]:
    """Yield the marks of transactions of one fate, which are sorted by their begin."""
    group: list[Transaction] = []
    end = -math.inf
    for one in own:
        low, high = _extent(one, ends, scale)
        if high < 0:
            if scale.low > told.first:  # it belongs to an earlier section
                continue
            low = high = 0.0  # the set-up came before
        if group and not (low - end < near and high - low < 2 * near):
            yield _fate_mark(told, group, ends, scale)
            group = []
        group.append(one)
        end = high
    if group:
        yield _fate_mark(told, group, ends, scale)


def _extent(one: Transaction, ends: Mapping[int, float], scale: Scale) -> tuple[float, float]:
    """Return from where to where a transaction is drawn: from its COMMIT to its end."""
    sent = one.begin if one.sent is None else one.sent
    return scale(sent), scale(max(sent, ends[one.tx]))


def _fate_mark(told: Chronicle, group: Sequence[Transaction], ends: Mapping[int, float], scale: Scale) -> Mark:
    extents = [_extent(one, ends, scale) for one in group]
    low, high = max(0.0, min(low for low, _ in extents)), max(high for _, high in extents)
    width = max(_LEAST_PERCENT, min(high, 100.0) - low)
    if any(one.told is None for one in group):  # the cut came before the answer
        low = max(0.0, min(low, scale(told.cut) - width))
    first, last, fate = group[0], group[-1], group[0].fate
    if len(group) == 1:
        begin = max(0.0, scale(first.begin))
        says = sentence(told, first)
        return Mark(kind=kind_of(fate), x=low, width=width, says=says, count=1, begin=begin if begin < low else None)
    says = (
        f"{thousands(len(group))} transactions, {min(one.tx for one in group)} to {max(one.tx for one in group)}: "
        f"{fate}, {SAYS[fate]}; from {place(told, first.begin)} to {place(told, _last(last))}"
    )
    return Mark(kind=kind_of(fate), x=low, width=width, says=f"{says}.", count=len(group))


def _last(one: Transaction) -> float:
    return next(at for at in (one.told, one.sent, one.begin) if at is not None)


def _wal_lane(told: Chronicle, scale: Scale) -> Iterator[Lane]:
    found = curves(told)
    values = [value for curve in found.values() for at, value in curve if scale.low <= at <= scale.high]
    values += [value for value in (told.wal_end,) if value]
    before = [value_at(curve, scale.low) for curve in found.values()]
    values += [value for value in before if value]
    if len(set(values)) < 2:
        return
    low, high = min(values), max(values)

    def height(value: int) -> float:
        return round(96 - 92 * (max(value, low) - low) / (high - low), 2)

    paths = {name: _steps(curve, scale, height, end_of(told)) for name, curve in found.items()}
    valid = (height(told.wal_end), f"valid up to {lsn(told.wal_end)}") if told.wal_end else None
    marks = list(_wal_marks(told, found, scale))
    if told.recovery.ran and told.wal_end:
        over, top = scale(end_of(told)), height(told.wal_end)
        says = f"redo: {redo_says(told)}."
        marks.append(Mark(kind="redo", x=over + 0.8, width=1.2, says=says, y=(top, max(1.0, height(told.redo) - top))))
    yield Lane(
        label="WAL",
        y=0,
        height=WAL_PX,
        marks=marks,
        paths=paths,
        gap=_between(paths.get("written", ""), paths.get("durable", "")),
        valid=valid,
        redo_label=told.recovery.ran,
        note=f"{lsn(low)} to {lsn(high)}",
    )


def _between(upper: str, lower: str) -> str:
    """Return the path around the area between two curves, which end at the same place; empty: there is none."""
    if not upper or not lower:
        return ""
    corners = _corners(lower)
    return upper + "L" + " L".join(f"{x:g} {y:g}" for x, y in reversed(corners)) + "Z"


def _corners(path: str) -> list[tuple[float, float]]:
    x, y = 0.0, 0.0
    found = []
    for command, numbers in re.findall(r"([MHV])([-\d. ]+)", path):
        values = [float(number) for number in numbers.split()]
        x, y = (values[0], values[1]) if command == "M" else (values[0], y) if command == "H" else (x, values[0])
        found.append((x, y))
    return found


def redo_says(told: Chronicle) -> str:
    """Say what the server's log tells of its recovery."""
    recovery = told.recovery
    begin = recovery.redo_start or lsn(told.redo)
    end = f", the last record replayed is at {recovery.redo_end}" if recovery.redo_end else ""
    why = f"; it ended there because: {recovery.end_reason}" if recovery.end_reason else ""
    return f"from {begin}{end}{why}; {recovery.seconds:.2f} s"


def curves(told: Chronicle) -> dict[str, list[tuple[float, int]]]:
    """Return by name (inserted, written, durable) how the WAL grew, by how safe it was; each ascends."""
    inserted = [(one.at, one.inserted) for one in told.levels if one.inserted]
    written = told.written or [(one.at, one.written) for one in told.levels if one.written]
    durable = told.durable if told.written else [(one.at, one.durable) for one in told.levels if one.durable]
    found = {"inserted": inserted, "written": written, "durable": durable}
    return {name: _ascending(curve) for name, curve in found.items() if curve}


def _ascending(curve: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the points at which a curve rises; two clients may have asked at almost the same time."""
    found: list[tuple[float, int]] = []
    for at, value in sorted(curve):
        if not found or value > found[-1][1]:
            found.append((at, value))
    return found


def value_at(curve: Sequence[tuple[float, int]], at: float) -> int:
    """Return the last value of a curve at a place; 0: it has not begun."""
    after = bisect_right(curve, at, key=lambda point: point[0])
    return curve[after - 1][1] if after else 0


def _steps(curve: Sequence[tuple[float, int]], scale: Scale, height: Callable[[int], float], end: float) -> str:
    """Return the path of a curve that rises in steps, up to the cut, in a box of 1000 by 100."""
    start = value_at(curve, scale.low)
    inside = [(at, value) for at, value in curve if scale.low < at <= scale.high]
    if not start:
        if not inside:
            return ""
        start = inside[0][1]
    path = [f"M{0 if value_at(curve, scale.low) else 10 * scale(inside[0][0]):.1f} {height(start)}"]
    last = None
    for at, value in inside:
        across = f"{10 * scale(at):.1f}"
        path.append(f"{'' if across == last else f'H{across}'}V{height(value)}")
        last = across
    return "".join(path) + f"H{10 * scale(end):.1f}"


def _wal_marks(told: Chronicle, found: dict[str, list[tuple[float, int]]], scale: Scale) -> Iterator[Mark]:
    """Yield columns of the WAL's lane, each with what was known at its end; none where nothing changed."""
    end = end_of(told)
    step = scale(end) / _WAL_COLUMNS
    before: list[int] = []
    for number in range(_WAL_COLUMNS):
        at = scale.at((number + 1) * step)
        values = [value_at(curve, at) for curve in found.values()]
        if values == before or not any(values):
            continue
        before = values
        known = ", ".join(f"{name} up to {lsn(value)}" for name, value in zip(found, values, strict=True) if value)
        says = f"WAL at {place(told, min(at, end))}: {known}."
        yield Mark(kind="column", x=round(number * step, 2), width=round(step, 2), says=says)


_SERVER_LANES = (
    ("flushes of WAL", ("flush", "ignored flush"), True),
    ("other flushes", ("flush", "ignored flush"), False),
    ("checkpoints, WAL switches", ("checkpoint", "WAL switch"), None),
    ("clients at work, sampled", ("WAL wait", "busy spell"), None),
    ("faults", ("fault",), None),
)


def _server_lanes(told: Chronicle, scale: Scale, near: float) -> Iterator[Lane]:
    for label, kinds, of_wal in _SERVER_LANES:
        own = [one for one in told.happenings if one.kind in kinds and of_wal in (None, "pg_wal" in one.says)]
        marks = list(_happening_marks(told, own, scale, near))
        if marks:
            kinds_there = [kind for kind in kinds if any(one.kind == kind for one in own)]
            counts = ", ".join(plural(sum(one.kind == kind for one in own), kind) for kind in kinds_there)
            yield Lane(label=label, y=0, height=TRACK_PX + 4, marks=marks, note=counts)


def _happening_marks(told: Chronicle, own: Sequence[Happening], scale: Scale, near: float) -> Iterator[Mark]:
    for kind in dict.fromkeys(one.kind for one in own):
        group: list[tuple[float, float, Happening]] = []
        for one in sorted((one for one in own if one.kind == kind), key=lambda one: one.at):
            low = scale(one.at)
            high = scale(told.cut if one.until is None and kind != "WAL switch" else one.until or one.at)
            high = max(low, high) if kind != "fault" else low
            if high < 0:
                continue
            if group and not (low - group[-1][1] < near and high - low < 2 * near):
                yield _happening_mark(told, group)
                group = []
            group.append((max(0.0, low), high, one))
        if group:
            yield _happening_mark(told, group)


def _happening_mark(told: Chronicle, group: Sequence[tuple[float, float, Happening]]) -> Mark:
    low, (_, high, last) = group[0][0], group[-1]
    kind = last.kind
    says = f"{place(told, last.at)}: {last.says}."
    if len(group) > 1:
        where = f"{place(told, group[0][2].at)} to {place(told, last.at)}"
        says = f"{plural(len(group), kind)}, {where}; the last: {last.says}."
    return Mark(kind=f"on-{kind.replace(' ', '-').lower()}", x=low, width=max(_LEAST_PERCENT, high - low), says=says)
