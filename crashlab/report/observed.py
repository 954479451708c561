"""How is it told what a server was waiting for?

Choices: shares below one in a thousand of a kind of process are left out, and so are processes that slept all along.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from crashlab.observe.samples import CLIENTS, Samples, cost_line, flushes, slots, wait_table

if TYPE_CHECKING:
    from rich.table import Table

LEAST_SHARE = 0.001
_ASLEEP = "Activity"
_COUNTED = {
    "pg_stat_wal.wal_bytes": "bytes of WAL",
    "pg_stat_wal.wal_fpi": "full-page images",
    "pg_stat_wal.wal_buffers_full": "WAL writes because the buffers were full",
    "pg_stat_checkpointer.num_timed": "checkpoints by time",
    "pg_stat_checkpointer.num_requested": "checkpoints by request or WAL volume",
    "pg_stat_bgwriter.checkpoints_timed": "checkpoints by time",
    "pg_stat_bgwriter.checkpoints_req": "checkpoints by request or WAL volume",
}
"""Counter, by whichever version has it -> the words for it."""


def waits_table(samples: Samples) -> "Table":
    """Return the table of waits: who, what for, how often."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("process", "waits for", "share", "samples", "that is", box=SIMPLE_HEAD, title_justify="left")
    for row in wait_table(samples):
        if row.share >= LEAST_SHARE and row.kind != _ASLEEP:
            event = ".".join(filter(None, (row.kind, row.event)))
            table.add_row(row.backend, event, f"{100 * row.share:.1f} %", str(row.seen), row.says)
    return table


def waits_lines(samples: Samples) -> Iterator[str]:
    """Yield what was counted, how far the WAL came, and what looking cost."""
    counted = samples.counted()
    told = [f"{value:,.0f} {_COUNTED[name]}" for name, value in sorted(counted.items()) if name in _COUNTED]
    flushed = flushes(counted)
    if flushed is not None:
        told.append(f"{flushed:,.0f} flushes of the WAL")
    if told:
        yield "Counted by the server: " + ", ".join(told)
    found = samples.samples
    if found:
        most = max(sample.insert_lsn - sample.flush_lsn for sample in found)
        yield f"WAL: {found[-1].insert_lsn - found[0].insert_lsn:,} bytes inserted; up to {most:,} of them not flushed"
    if samples.profile:
        awake = {event: count for event, count in samples.profile.items() if not event.startswith(_ASLEEP)}
        shown = sorted(awake.items(), key=lambda item: -item[1])[:8]
        yield "pg_wait_sampling, since the server's start: " + ", ".join(f"{event} {count}" for event, count in shown)
    yield f"PostgreSQL {samples.version_num // 10000}; {cost_line(samples)}"
    if samples.ended is not None:
        yield f"Sampling ended with the session: {samples.ended}"


def waits_json(samples: Samples) -> dict[str, Any]:
    """Return the same facts, and the pieces of time that a timeline draws."""
    return {
        "schema": 1,
        "server_version_num": samples.version_num,
        "samples": len(samples.samples),
        "seconds": round(samples.seconds, 3),
        "busy": samples.busy,
        "clients": CLIENTS,
        "waits": [vars(row) for row in wait_table(samples)],
        "counted": samples.counted(),
        "pg_wait_sampling": samples.profile,
        "slots": [vars(slot) for slot in slots(samples)],
        "ended": samples.ended,
    }
