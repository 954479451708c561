"""Is every kind of damage found and called by its name, and nothing that is none?

Each kind at one of its places; confusion.py goes through all of them.
"""

import time
from collections.abc import Sequence

import pytest

from crashlab.model import Family
from tests.power.confusion import Line, evidence_matrix, matrix, sample, summary
from tests.power.planting import KINDS, Kind

pytestmark = pytest.mark.server

SEED = 7
KINDS_MIN, REAL_MIN = 190, 130
EMPTIED = [kind for kind in KINDS if "emptied before" in kind.name]


@pytest.fixture(scope="module")
def done() -> Sequence[Line]:
    """The matrix, in part."""
    begun = time.monotonic()
    lines = [*evidence_matrix(seed=SEED), *matrix([*sample(), *EMPTIED], seed=SEED)]
    print(*lines, summary(lines, time.monotonic() - begun), sep="\n")
    return lines


def test_every_kind_of_damage_is_found_and_called_by_its_name(done: Sequence[Line]) -> None:
    """Each line has the outcome, one of the codes and the name that it must have; what is no damage is intact."""
    assert not [str(line) for line in done if line.problems]


def test_there_are_enough_kinds(done: Sequence[Line]) -> None:
    """So many kinds of damage, so many of them on real data directories, and none that nobody can see."""
    kinds = {(line.kind.group, line.kind.name) for line in done if line.kind.damage}
    assert len(kinds) >= KINDS_MIN
    assert sum(group != "evidence" for group, _ in kinds) >= REAL_MIN
    assert not [line.kind.name for line in done if line.kind.damage and line.kind.family is None]
    assert sum(line.kind.group == "undamaged" for line in done) >= 12


@pytest.mark.parametrize("kind", EMPTIED, ids=lambda kind: f"{kind.name}, {kind.where}")
def test_a_file_emptied_before_recovery_names_table_and_transactions(done: Sequence[Line], kind: Kind) -> None:
    """A clean start; the table is named, and the transactions whose rows are gone."""
    line = next(line for line in done if line.kind == kind)
    damage = [one for one in line.found if one.family is Family.CORRUPTION and line.named in str(one.evidence)]
    assert damage
    assert all(witness["tx"] > 0 for one in damage for witness in one.evidence["witnesses"] if one.code in kind.codes)
