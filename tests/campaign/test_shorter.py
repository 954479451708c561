"""Does the search for the shortest run end at what the finding needs, and nothing else?"""

from collections.abc import Callable

import pytest

from crashlab.campaign.shorter import Shorter, Tried, asked_for, used_shares
from crashlab.profile import Profile, load_profile

RECORDED = load_profile("power-loss", ['workload.kinds=["transfer", "register", "append", "toast"]', "two_phase=0.1"])


def shortest(
    profile: Profile, needs: Callable[[Profile], bool], *, begun: int = 500, runs: int = 1000
) -> tuple[Shorter, list[Tried]]:
    """Search with a finding that shows whenever its needs are met, right before the end of a run."""
    told: list[Tried] = []
    ran: list[Profile] = []

    def found(tried: Profile, begun_max: int) -> int | None:
        ran.append(tried)
        count = asked_for(tried)
        return count if count is not None and count <= begun_max and needs(tried) else None

    search = Shorter(profile, begun, found=found, may_go_on=lambda: len(ran) < runs, told=told.append)
    search.run()
    assert search.tried == len(ran) == len(told)
    return search, told


def test_what_a_finding_needs_is_left_and_nothing_else() -> None:
    """Twelve transactions of one kind, one client, and two-phase commit."""

    def needs(profile: Profile) -> bool:
        asked = asked_for(profile)
        return (
            asked is not None and asked >= 12 and "append" in profile.workload.kinds and profile.workload.two_phase > 0
        )

    search, _ = shortest(RECORDED, needs)
    best = search.best
    assert search.transactions == asked_for(best)
    assert 12 <= search.transactions < 24
    assert best.workload.kinds == ["append"]
    assert best.workload.clients == 1
    assert list(used_shares(best)) == ["two_phase"]
    assert search.complete
    assert search.tried < 40


def test_kinds_and_clients_that_need_each_other_stay() -> None:
    """Two kinds, and more than one client."""

    def needs(profile: Profile) -> bool:
        return {"transfer", "toast"} <= set(profile.workload.kinds) and profile.workload.clients > 1

    search, _ = shortest(RECORDED, needs)
    assert search.best.workload.kinds == ["transfer", "toast"]
    assert search.best.workload.clients == 2


def test_where_nothing_shorter_shows_it_the_run_stays() -> None:
    """Nothing is found, or only after more transactions than before."""
    search, told = shortest(RECORDED, lambda profile: False)
    assert search.best is RECORDED
    assert not any(one.found for one in told)

    def one_too_many(profile: Profile, begun_max: int) -> int | None:
        begun = 501 + profile.workload.clients
        return begun if begun <= begun_max else None

    late = Shorter(RECORDED, 500, found=one_too_many)
    assert late.run() is RECORDED
    assert late.transactions == 500


@pytest.mark.parametrize(("profile", "left"), [("objects", [1]), ("async-commit", [1, 0])])
def test_a_live_run_that_time_would_end_is_ended_by_a_count(profile: str, left: list[int]) -> None:
    """The moment of its first fault is other than it was, so that there is a number to make smaller; of all faults."""
    search, _ = shortest(load_profile(profile), lambda profile: True)
    assert [fault.when.acks for fault in search.best.faults] == left
    assert search.best.faults[0].when.between_ms is None
    assert search.best.workload.acked_min == asked_for(search.best) == 1


def test_a_users_own_transactions_stay() -> None:
    """Their invariants need them."""
    own = load_profile("own-application-power-loss", ['workload.kinds=["sql", "transfer"]'])
    search, _ = shortest(own, lambda profile: True)
    assert search.best.workload.kinds == ["sql"]
    assert search.best.workload.clients == 1


@pytest.mark.parametrize("runs", [0, 3])
def test_a_search_that_is_cut_short_says_so_and_keeps_what_it_has(runs: int) -> None:
    """The best run so far was seen to show it."""
    search, told = shortest(RECORDED, lambda profile: True, runs=runs)
    assert not search.complete
    assert search.tried == runs
    assert (search.best is RECORDED) == (not any(one.found for one in told))
