"""Which settings of a server go together, whatever the major version?

The names are those that decide what is promised after a crash, and those that change how it is kept. Each shrinks
towards PostgreSQL's default, so a minimal example shows which ones matter.

Choices: values that depend on how a build was made (lz4, zstd, io_uring) are left out, and so are those that wait for
    a standby. Checksums are no setting, but an option of initdb.

Source: postgres-contract.md 1.3; what does not go together was refused by servers (tests/test_strategies.py).
"""

from dataclasses import dataclass

from hypothesis import strategies as st

from crashlab.contract import SYNC_MODES
from crashlab.errors import UsageProblem, did_you_mean

OLDEST, NEWEST = 14, 19


@dataclass(frozen=True)
class Axis:
    """One setting: its values, the default first, and the first major version that has it."""

    values: tuple[str, ...]
    since: int = OLDEST


SWITCH = ("on", "off")
SWITCH_OFF = ("off", "on")
AXES: dict[str, Axis] = {
    "fsync": Axis(SWITCH),
    "synchronous_commit": Axis(SYNC_MODES),
    "full_page_writes": Axis(SWITCH),
    "wal_sync_method": Axis(("fdatasync", "fsync", "open_datasync", "open_sync")),
    "wal_level": Axis(("replica", "logical", "minimal")),
    "max_wal_senders": Axis(("10", "0")),
    "archive_mode": Axis(SWITCH_OFF),
    "summarize_wal": Axis(SWITCH_OFF, since=17),
    "wal_log_hints": Axis(SWITCH_OFF),
    "wal_compression": Axis(("off", "pglz"), since=15),  # 14 has another word for it
    "wal_init_zero": Axis(SWITCH),
    "wal_recycle": Axis(SWITCH),
    "wal_writer_delay": Axis(("200ms", "1ms", "10s")),
    "wal_writer_flush_after": Axis(("1MB", "0")),
    "commit_delay": Axis(("0", "1000")),
    "track_commit_timestamp": Axis(SWITCH_OFF),
    "io_method": Axis(("worker", "sync"), since=18),
}
"""In the order in which they are drawn."""
MINIMAL = ("wal_level", "minimal")
APART = frozenset(
    frozenset({MINIMAL, other})
    for other in (("max_wal_senders", "10"), ("archive_mode", "on"), ("summarize_wal", "on"))
)
"""Pairs with which no server starts."""


def server_settings(major: int, **pinned: str | None) -> st.SearchStrategy[dict[str, str]]:
    """Draw settings with which a server of a major version starts, as for `ServerSpec.settings`.

    Args:
        pinned: a setting of AXES that has this value in every example; None: it is left out. So a profile's
            `server.settings` takes `server_settings(18, synchronous_commit=None)`.

    Raises:
        UsageProblem: an unknown version or setting, or pinned settings that do not go together.
    """
    if not OLDEST <= major <= NEWEST:
        raise UsageProblem(f"cannot draw settings for PostgreSQL {major}", hint=f"Known are {OLDEST} to {NEWEST}.")
    axes = {name: axis for name, axis in AXES.items() if axis.since <= major}
    for name in pinned:
        if name not in axes:
            hint = did_you_mean(name, axes) or f"The settings are {', '.join(axes)}."
            raise UsageProblem(f'cannot pin "{name}": PostgreSQL {major} has it not among the settings', hint=hint)
    fixed = {name: value for name, value in pinned.items() if value is not None}
    if clashing := clash(fixed):
        raise UsageProblem(f"cannot draw settings: {clashing}")
    free = {name: axis.values for name, axis in axes.items() if name not in pinned}
    return _draw(free, fixed)


@st.composite
def _draw(draw: st.DrawFn, free: dict[str, tuple[str, ...]], fixed: dict[str, str]) -> dict[str, str]:
    chosen = dict(fixed)
    for name, values in free.items():
        # As many choices whatever was drawn before: fewer would count as simpler, and minimal be what all shrinks to
        wanted = draw(st.sampled_from(values))
        chosen[name] = next(value for value in (wanted, *values) if not clash({**chosen, name: value}))
    return chosen


def clash(settings: dict[str, str]) -> str | None:
    """Say which two settings keep a server from starting; None: none do."""
    given = set(settings.items())
    for pair in APART:
        if pair <= given:
            return " and ".join(f"{name} = {value}" for name, value in sorted(pair)) + " do not go together"
    return None
