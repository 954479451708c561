"""How is a trial drawn on a terminal, in 100 columns of plain characters?

Each column is a part of the axis, and shows the worst that happened in it; a letter and not a colour says what.
"""

import textwrap
from collections.abc import Iterator

from crashlab.chronicle import Chronicle, Fate
from crashlab.report.lanes import ORDER, curves, place, redo_says, value_at
from crashlab.report.places import Scale, plural, thousands

COLUMNS = 100
_LABEL = 11
CLIENTS_MAX = 8
LETTERS = {
    Fate.SURVIVED: "#",
    Fate.PERMITTED: "o",
    Fate.FORBIDDEN: "X",
    Fate.PHANTOM: "!",
    Fate.PRESENT: "+",
    Fate.ABSENT: "-",
    Fate.UNDECIDED: "p",
    Fate.TRACELESS: ".",
    Fate.READ_ONLY: ".",
    Fate.UNKNOWN: "?",
}


def short_timeline(told: Chronicle, columns: int = COLUMNS) -> list[str]:
    """Return the lines of the drawing, none longer than so many columns."""
    width = columns - _LABEL - 1
    end = max([told.cut, *(one.told for one in told.transactions if one.told is not None)])
    scale = Scale(told.first, max(end, told.first + 1e-6))
    lines = [_row(f"client {client}", _client(told, client, scale, width)) for client in _clients(told)]
    if len(clients := [client for client in told.clients if client]) > CLIENTS_MAX:
        lines.append(f"{'':{_LABEL}}and {plural(len(clients) - CLIENTS_MAX, 'more client')}")
    if any(wal := _wal(told, scale, width)):
        lines.append(_row("WAL", wal))
    lines += [_row(name, row) for name, row in _server(told, scale, width) if row.strip()]
    lines.append(_axis(told, scale, width))
    lines += _legend(told, columns)
    if told.recovery.ran:
        lines += textwrap.wrap(f"redo {redo_says(told)}", columns, subsequent_indent="  ")
    return [line[:columns].rstrip() for line in lines]


def _clients(told: Chronicle) -> list[int]:
    return [client for client in told.clients if client][:CLIENTS_MAX]


def _row(label: str, cells: str) -> str:
    return f"{label:<{_LABEL}}{cells}"


def _column(scale: Scale, at: float, width: int) -> int:
    return min(width - 1, max(0, int(scale(at) * width / 100)))


def _client(told: Chronicle, client: int, scale: Scale, width: int) -> str:
    worst, ends = [-1] * width, told.ends()
    rank = {fate: number for number, fate in enumerate(ORDER)}
    for one in told.transactions:
        if one.client == client:
            low, high = (
                _column(scale, at, width) for at in (one.begin if one.sent is None else one.sent, ends[one.tx])
            )
            for column in range(low, high + 1):
                worst[column] = max(worst[column], rank[one.fate])
    return "".join(" " if number < 0 else LETTERS[ORDER[number]] for number in worst)


def _wal(told: Chronicle, scale: Scale, width: int) -> str:
    """Say for each column whether all that was written was durable."""
    found = curves(told)
    if "written" not in found:
        return ""
    cells = []
    for column in range(_column(scale, told.cut, width) + 1):
        at = scale.at(100 * (column + 1) / width)
        written, durable = value_at(found["written"], at), value_at(found.get("durable", []), at)
        cells.append(" " if not written else "=" if durable >= written else "~")
    return "".join(cells)


def _server(told: Chronicle, scale: Scale, width: int) -> Iterator[tuple[str, str]]:
    for label, letters in (
        ("flushes", {"flush": "f", "ignored flush": "x"}),
        ("checkpoint", {"checkpoint": "c", "WAL switch": "w"}),
    ):
        cells = [" "] * width
        for one in told.happenings:
            if one.kind in letters:
                until = told.cut if one.until is None else one.until
                last = one.at if one.kind == "WAL switch" else until
                for column in range(_column(scale, one.at, width), _column(scale, last, width) + 1):
                    cells[column] = letters[one.kind]
        yield label, "".join(cells)


def _axis(told: Chronicle, scale: Scale, width: int) -> str:
    begin = place(told, told.first)
    cut = f"{'power cut' if told.axis == 'operation' else 'fault'} at {place(told, told.cut)} |"
    return _row("", begin + cut.rjust(max(len(cut) + 1, _column(scale, told.cut, width) + 1 - len(begin))))


def _legend(told: Chronicle, columns: int) -> Iterator[str]:
    parts = [f"{LETTERS[fate]} {thousands(told.fates[fate])} {fate}" for fate in reversed(ORDER) if told.fates[fate]]
    kinds = {one.kind for one in told.happenings}
    parts += ["= WAL durable", "~ written, not durable"] if "written" in curves(told) else []
    signs = {
        "flush": "f flush",
        "ignored flush": "x ignored flush",
        "checkpoint": "c checkpoint",
        "WAL switch": "w switch",
    }
    parts += [says for kind, says in signs.items() if kind in kinds]
    line = ""
    for part in parts:
        if line and len(line) + 3 + len(part) > columns:
            yield line
            line = ""
        line += f"{'   ' if line else ''}{part}"
    yield line
