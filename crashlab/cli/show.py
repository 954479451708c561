"""How is a recording told to people?"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from crashlab.exploration.overview import in_flight, overview

if TYPE_CHECKING:
    from crashlab.disk.model import Flush, Pending
    from crashlab.exploration.recording import Recording

MOMENTS_MAX = 12


def print_summary(recording: "Recording") -> None:
    """Print how a recording came about, what it holds, and which points of it are worth a look."""
    record, whole = recording.record, overview(recording)
    found, server = whole.survey, recording.record.server
    click.echo(f"Recording {recording.folder}")
    click.echo(f"Profile {record.profile}, seed {record.run_seed}; PostgreSQL {server.version}, {server.kind}")
    click.echo(f"{found.end} operations, {record.end_bytes / 1e6:.1f} MB of log; cuts from operation {found.first} on")
    click.echo("Self-check: " + ("; ".join(record.differences) or "replaying the log gives the live files"))
    for one in record.held:
        click.echo(f"Jitter: {one.place}: {one.held} of {one.met} held, {one.milliseconds:.0f} ms in all")
    for error in record.workload_errors:
        click.echo(f"Workload error: {error}")
    click.echo()
    rows = [
        (str(part), str(one.writes), f"{one.written_bytes / 1e3:.0f}", str(one.flushes), str(one.others))
        for part, one in sorted(whole.classes.items(), key=lambda item: -item[1].written_bytes)
    ]
    _print_table(("class", "writes", "kB", "flushes", "other"), rows)
    click.echo()
    click.echo("Points of interest, as --at takes them:")
    _print_moments("checkpoints", [f"{low}-{high}" for low, high in found.checkpoints])
    _print_moments("WAL switches", [str(point) for point in found.switches[::2] if point >= found.first])
    _print_moments("flushes", [str(point) for point in found.flushes[1::2] if point >= found.first])


def print_point(recording: "Recording", at: int) -> None:
    """Print what a power cut at a point would have met."""
    pending = in_flight(recording, at)
    power_loss = recording.record.profile_resolved["power_loss"]
    click.echo(f"At operation {at}, on a {power_loss['disk']} disk:\n")
    _print_files(pending, power_loss["tear_bytes"])
    if pending.names:
        click.echo(f"\n{len(pending.names)} changes of names are not durable:")
        for name in pending.names:
            arrow = f" -> {name.target}" if name.target else ""
            click.echo(f"  {name.position}  {name.kind.name.lower()}  {name.path}{arrow}")
    else:
        click.echo("\nAll names are durable.")
    if pending.flushes:
        click.echo("\nThe last flushes, from their begin to their end:")
        for flush in pending.flushes:
            click.echo(f"  {_flush(flush)}")
    for path, reason in pending.blind.items():
        click.echo(f"Not seen: {path}: {reason}")


def _print_files(pending: "Pending", unit_bytes: int) -> None:
    if not pending.files:
        click.echo("All data is durable.")
        return
    click.echo(f"{len(pending.files)} files hold data that is not durable, in units of {unit_bytes} bytes:")
    rows = [
        (
            str(file.file_class),
            str(file.units),
            str(file.versions),
            str(file.durable_size_bytes),
            str(file.size_bytes),
            file.path or "(no name left)",
        )
        for file in sorted(pending.files, key=lambda file: (file.file_class, file.path))
    ]
    _print_table(("class", "units", "versions", "durable size", "size", "file"), rows)


def _flush(flush: "Flush") -> str:
    end = flush.end if flush.end is not None else "(not ended)"
    kind = "fdatasync" if flush.datasync else "fsync" if flush.path else "sync of everything"
    return f"{flush.begin}-{end}  {kind}  {flush.path}".rstrip()


def _print_moments(title: str, moments: Sequence[str]) -> None:
    """Print an even choice of the moments if they are many."""
    step = -(-len(moments) // MOMENTS_MAX) or 1
    shown = " ".join(moments[::step]) or "none"
    click.echo(f"  {title} ({len(moments)}): {shown}{' ...' if step > 1 else ''}")


def _print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns: the first and, if it is a name, the last to the left, numbers to the right."""
    table = [heads, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    left = {0, len(heads) - 1} if heads[-1] == "file" else {0}
    for row in table:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  " + "  ".join(cells).rstrip())
