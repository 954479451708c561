"""How does what an older crashlab wrote read today?

Plain changes of plain tables, one function for each step of a file's schema: nothing here asks what a profile may say
today, so evidence stays readable whatever becomes of a profile's keys.
"""

from collections.abc import Callable
from typing import Any

Table = dict[str, Any]


def upgraded(kind: str, schema: int, table: Table) -> Table:
    """Return a file's table as today's schema has it.

    Args:
        kind: the record's class, such as "TrialRecord".
        schema: the one that the file was written with; older than today's.
    """
    while (step := _STEPS.get((kind, schema))) is not None:
        schema += 1
        table = step(table) | {"schema": schema}
    return table


def _trial_2(table: Table) -> Table:
    """Schema 1 told neither the kind of a trial nor its disk; a replay's command was stored like any other."""
    reproduce = table["reproduce"]
    recorded = table.get("recording") is not None
    return table | {
        "kind": "recorded" if recorded else "live" if reproduce.startswith("crashlab ") else "application",
        "disk": _promised_disk(table["profile_resolved"].get("power_loss")),
        "reproduce": None if reproduce.startswith("crashlab replay ") else reproduce,
    }


def _promised_disk(power_loss: Table | None) -> str:
    """Return what a profile's [power_loss] table meant when schema 1 was written, with its defaults of then."""
    if power_loss is None:
        return "linux"
    if power_loss.get("swallow"):
        return "lying"
    disk: str = power_loss.get("disk", "linux")
    ordered = power_loss.get("ordered_journal", True) or power_loss.get("durable_symlinks", False)
    return disk if ordered or disk != "linux" else "unordered"


_STEPS: dict[tuple[str, int], Callable[[Table], Table]] = {("TrialRecord", 1): _trial_2}
"""Kind and schema -> the step to the next schema."""
