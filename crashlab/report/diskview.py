"""How is the disk at the cut drawn: files by class, and their pages?

Pure. A page is a cell; many pages in a row to which the same happened are one wider cell that says how many.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from crashlab.chronicle import PAGE_BYTES, DiskMap, MappedFile
from crashlab.report.places import plural, sizes

STATUSES = {
    "durable": "on disk before the cut, for certain",
    "kept": "in flight, and it survived",
    "lost": "in flight, and lost",
    "torn": "in flight, and only a part of the page survived",
}
SINGLE_PAGES_MAX = 6
CELLS_MAX = 160
FILES_MAX = 80
NAMES_MAX = 200
"""The last ones."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Some pages in a row."""

    status: str
    label: str  # empty: one page
    says: str


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One file."""

    path: str
    counts: dict[str, int]  # status -> pages
    size: str
    cells: list[Cell]
    says: str


@dataclass(frozen=True, kw_only=True)
class ClassRows:
    """The files of one class."""

    name: str
    rows: list[FileRow]
    more: int  # files that are not listed
    quiet: str  # those with nothing in flight


@dataclass(frozen=True, kw_only=True)
class DiskView:
    """The whole disk."""

    classes: list[ClassRows]
    legend: list[tuple[str, str, int]]  # status, what it means, pages in files with something in flight
    names: list[tuple[int, str, bool]]  # operation, what, whether it survived
    name_counts: tuple[int, int]  # all of them, and those that survived
    position: int
    note: str
    unit: str


def disk_view(disk: DiskMap) -> DiskView:
    """Return what to draw of a disk."""
    quiet = {one.file_class: one for one in disk.quiet}
    names = sorted({file.file_class for file in disk.files} | set(quiet), key=lambda name: _rank(disk, name))
    classes = []
    for name in names:
        own = sorted((file for file in disk.files if file.file_class == name), key=_by_damage)
        still = quiet.get(name)
        classes.append(
            ClassRows(
                name=name.replace("_", " "),
                rows=[_row(file) for file in own[:FILES_MAX]],
                more=max(0, len(own) - FILES_MAX),
                quiet="" if still is None else f"{plural(still.files, 'file')}, {plural(still.pages, 'page')}",
            )
        )
    counts = {status: sum(file.pages(status) for file in disk.files) for status in STATUSES}
    return DiskView(
        classes=classes,
        legend=[(status, says, counts[status]) for status, says in STATUSES.items()],
        names=[(name.position, name.says, name.kept) for name in disk.names[-NAMES_MAX:]],
        name_counts=(len(disk.names), sum(name.kept for name in disk.names)),
        position=disk.position,
        note=disk.note,
        unit=sizes(disk.unit_bytes),
    )


def _rank(disk: DiskMap, name: str) -> tuple[int, str]:
    """Put first what lost most."""
    return -sum(file.pages("lost") + file.pages("torn") for file in disk.files if file.file_class == name), name


def _by_damage(file: MappedFile) -> tuple[int, str]:
    return -file.pages("lost") - file.pages("torn"), file.path


def _row(file: MappedFile) -> FileRow:
    counts = {status: file.pages(status) for status in STATUSES}
    told = ", ".join(f"{number} {status}" for status, number in counts.items() if number) or "no page"
    left = "no name leads to it" if file.left_bytes < 0 else f"{sizes(file.left_bytes)} left"
    size = sizes(file.seen_bytes) if file.left_bytes == file.seen_bytes else f"{sizes(file.seen_bytes)}, {left}"
    return FileRow(
        path=file.path or "(no name left)",
        counts=counts,
        size=size,
        cells=list(_cells(file)),
        says=f"{file.path or 'a file without a name'}: {told}; {size}",
    )


def _cells(file: MappedFile) -> Iterator[Cell]:
    page, made = 0, 0
    for run in file.runs:
        first, last = page, page + run.pages - 1
        page += run.pages
        if made > CELLS_MAX:
            continue
        where = f"page {first}" if run.pages == 1 else f"pages {first} to {last}"
        says = f"{where} ({sizes(first * PAGE_BYTES)} on): {run.status}, {STATUSES[run.status]}"
        single = run.pages <= SINGLE_PAGES_MAX
        made += run.pages if single else 1
        if made > CELLS_MAX:
            yield Cell(status="more", label="...", says="more pages: the table below counts them")
        elif single:
            for number in range(first, last + 1):
                one = f"page {number} ({sizes(number * PAGE_BYTES)} on): {run.status}, {STATUSES[run.status]}"
                yield Cell(status=run.status, label="", says=one)
        else:
            yield Cell(status=run.status, label=f"{run.pages}", says=says)
