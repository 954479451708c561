"""Is an invariant whose table is not there damage, unless the table may be younger than what is looked at?"""

import pytest

from crashlab.recovery.contents import invariants
from crashlab.recovery.session import Facts, Looked, Reading
from crashlab.server import Server
from crashlab.workload.relations import InvariantQuery

pytestmark = pytest.mark.server


@pytest.mark.parametrize("may_lack", [False, True])
def test_what_an_invariant_reads_may_be_missing_only_where_it_may_be_younger(
    local_server: Server, may_lack: bool
) -> None:
    """The complaint stays, or the invariant is named as not asked; another one is asked in both cases."""
    wanted = [
        InvariantQuery("gone", "SELECT FROM nowhere", None),
        InvariantQuery("there", "SELECT 1 WHERE false", None),
    ]
    reading = Reading(relations=[], invariants=wanted, xids=[], invariants_may_lack=may_lack)
    facts = Facts()
    with local_server.connect(autocommit=True) as connection:
        looked = invariants(connection, reading, facts)
    assert [one.name for one in facts.invariants] == ["there"]
    assert [one.object for one in facts.complaints] == ([] if may_lack else ["gone"])
    assert isinstance(looked, Looked) == may_lack
    assert not may_lack or "gone" in looked.detail  # type: ignore[union-attr]
