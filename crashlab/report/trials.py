"""How are single trials of a run listed? A line each, in columns; whoever pipes it can cut and grep it."""

from collections.abc import Iterator, Sequence

from rich.text import Text

HEADS = ("profile", "trial", "outcome", "promise", "codes", "cut at", "seconds", "again")
_RIGHT = ("trial", "cut at", "seconds")
_STYLES = {"broken": "bold red", "void": "magenta", "kept": "green"}


def trial_lines(rows: Sequence[Sequence[str]]) -> Iterator[Text]:
    """Yield the heads and a line for each trial, its columns as `HEADS` names them."""
    table = [HEADS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADS) - 1)]
    for number, row in enumerate(table):
        line = Text()
        for head, cell, width in zip(HEADS, row, [*widths, 0], strict=True):
            padded = cell.rjust(width) if head in _RIGHT else cell.ljust(width)
            line.append(padded, "bold" if number == 0 else _STYLES.get(cell, "") if head == "promise" else "")
            line.append("  " if width else "")
        line.rstrip()
        yield line
