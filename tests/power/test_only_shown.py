"""Has each kind of transaction, and each step of the afterlife, a damage that it shows and nobody else?

The tables are those of damage_kinds.py and damage_life.py; confusion.py goes through them one by one. Here the damage
of many is planted in one server.
"""

import pytest

from crashlab.model import Outcome
from crashlab.recovery.afterlife import STEPS, is_sound
from crashlab.workload.kinds import KINDS
from tests.power import damage_kinds, damage_life
from tests.power.confusion import kind_matrix
from tests.power.damage_life import BATCH, facts, lived, wanted

SEED = 7


def test_every_kind_and_every_step_has_a_damage_of_its_own() -> None:
    """A new one comes with a damage that only it shows, or nobody knows whether it shows any."""
    assert set(damage_kinds.DAMAGE) == set(KINDS)
    assert list(damage_life.DAMAGE) == list(STEPS)


@pytest.mark.server
def test_what_a_kind_shows_is_not_seen_without_it() -> None:
    """Named with its code; undamaged, and without the kind in the workload, everything is intact."""
    world = damage_kinds.make_world(SEED)
    lines = list(kind_matrix(world))
    assert not [str(line) for line in lines if line.problems]
    assert len(lines) == 1 + 2 * len(KINDS)
    assert world.after.complaints == []  # nobody but the kinds' own tables and indexes tells of it
    alone = set().union(*(damage_kinds.findings(world.with_damage(kind)) for kind in KINDS))
    assert damage_kinds.findings(world.of_all()) == alone  # none of it shows at another kind's
    assert world.of_all().outcome is Outcome.CORRUPTION


@pytest.mark.server
@pytest.mark.parametrize(
    "left_out",
    [(), ("decide", "vacuum", "crash"), ("locks", "use", "create")],
    ids=lambda steps: " ".join(steps) or "none",
)
def test_what_a_step_shows_is_not_seen_without_it(left_out: tuple[str, ...]) -> None:
    """All damage at once, and reading finds nothing; each step tells of its own, and of those left out nobody does."""
    read, life = lived(BATCH, left_out)
    assert is_sound(read)
    assert facts(life) == wanted(set(BATCH) - set(left_out))
    assert life.died is None


@pytest.mark.server
@pytest.mark.parametrize("step", sorted(set(STEPS) - set(BATCH)))
def test_what_ends_a_life_is_shown_by_its_step_first(step: str) -> None:
    """Without the step it is the next start that meets it."""
    read, life = lived([step])
    assert is_sound(read)
    assert facts(life)[:1] == wanted([step])
    _, life = lived([step], [step])
    assert [(fact[0], fact[1]) for fact in facts(life)] == [
        (also, "no start") for also in damage_life.DAMAGE[step].also
    ]
