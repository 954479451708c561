"""Is every single kind of damage seen, and called by its name?"""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from crashlab.contract import contract_for
from crashlab.model import CrashClass, Family, Outcome, PromiseStatus
from crashlab.oracle.codes import CODES
from crashlab.seeds import stream
from tests.examples import examples
from tests.oracle.mutations import MUTATIONS
from tests.oracle.reference import crashed_world

OUTCOMES = {
    Family.CORRUPTION: Outcome.CORRUPTION,
    Family.LOSS: Outcome.LOSS,
    Family.NO_START: Outcome.NO_START,
}


@pytest.mark.parametrize("name", MUTATIONS)
@given(seed=st.integers(0, 2**32), crash_class=st.sampled_from(CrashClass))
@settings(max_examples=examples(8), deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_one_damage_one_finding_of_the_right_name(name, seed, crash_class):
    """A planted damage is the worst finding, and nothing else is forbidden; its healthy twin has none."""
    mutation, code = MUTATIONS[name]
    world = crashed_world(seed, steps=250, two_phase_share=0.3, crash_class=crash_class)
    healthy = world.observation()
    damaged = mutation(world, healthy, stream(seed, name))
    assume(damaged is not None)
    assert not [finding for finding in world.judge(healthy).findings if not finding.permitted]
    verdict = world.judge(damaged)
    assert {finding.code for finding in verdict.findings if not finding.permitted} == {code}
    worst = verdict.findings[0]
    assert worst.code == code
    assert verdict.outcome is OUTCOMES[worst.family]
    assert verdict.promise is PromiseStatus.BROKEN
    assert worst.count >= 1
    assert worst.evidence["witnesses"]
    assert worst.explanation


@pytest.mark.parametrize("name", MUTATIONS)
def test_damage_is_void_where_nothing_is_promised(name):
    """Under fsync = off and a power loss the same damage keeps its name and outcome, and breaks no promise."""
    mutation, code = MUTATIONS[name]
    contract = contract_for({"fsync": "off"}, CrashClass.POWER_LOSS)
    for seed in range(200):
        world = crashed_world(seed, steps=250, two_phase_share=0.3)
        damaged = mutation(world, world.observation(), stream(seed, name))
        if damaged is not None:
            break
    verdict = world.judge(damaged, contract=contract)
    assert verdict.findings[0].code == code
    assert verdict.outcome is OUTCOMES[CODES[code].family]
    assert verdict.promise is PromiseStatus.VOID
    assert all(finding.permitted for finding in verdict.findings)
