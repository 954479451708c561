"""What may the clients of a recorded or live run be made to do?

A strategy of [workload] tables for `parse_profile`, which adds the settings that they need. They shrink towards one
client, one kind of transaction, and nothing but plain commits.
"""

from typing import Any

from hypothesis import strategies as st

from crashlab.contract import SYNC_MODES
from crashlab.workload.kinds import KINDS
from crashlab.workload.kinds.sql import Sql

SIMPLE = "register"
"""The kind of transaction that is left when nothing matters: one row, one new version."""
CLIENTS_MAX = 8
SHARES = (0.0, 0.05, 0.2)
"""Of a style of transaction; even five of the largest leave no more than the whole."""
STYLES = ("two_phase", "rollbacks", "savepoints", "errors", "read_only")
PACES = ("500ms", "100ms")


def workloads(*, clients_max: int = CLIENTS_MAX) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a profile's table [workload], of all kinds but a user's own SQL."""
    kinds = [SIMPLE, *sorted(KINDS.keys() - {SIMPLE, Sql.name})]
    pace = st.sampled_from(PACES)
    return st.fixed_dictionaries(
        {
            "kinds": st.lists(st.sampled_from(kinds), min_size=1, max_size=4, unique=True),
            "clients": st.integers(1, clients_max),
            "synchronous_commit": st.lists(st.sampled_from(SYNC_MODES), min_size=1, max_size=2, unique=True).map(_even),
            **{style: st.sampled_from(SHARES) for style in STYLES},
        },
        optional={"checkpoint_every": pace, "vacuum_every": pace},
    )


def _even(modes: list[str]) -> dict[str, float]:
    return {mode: 1 / len(modes) for mode in modes}
