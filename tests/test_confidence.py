"""Are bounds on shares those of the binomial distribution, is a rule sure in time, and is chance told from change?"""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crashlab.confidence import Until, fisher, lower_bound, mean_interval, student, upper_bound
from crashlab.seeds import stream


def at_most(broken: int, trials: int, share: float) -> float:
    """The same in exact arithmetic."""
    p = Fraction(share)
    return float(sum(comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(broken + 1)))


@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_a_share_at_the_bound_gives_so_few_only_as_seldom_as_was_asked(
    trials: int, data: st.DataObject, confidence: float
) -> None:
    """By definition of Clopper and Pearson's bound, from above and from below."""
    broken = data.draw(st.integers(0, trials))
    high, low = upper_bound(broken, trials, confidence), lower_bound(broken, trials, confidence)
    assert 0 <= low <= broken / trials <= high <= 1
    if broken < trials:
        assert at_most(broken, trials, high) == pytest.approx(1 - confidence, abs=1e-6)
    if broken:
        assert 1 - at_most(broken - 1, trials, low) == pytest.approx(1 - confidence, abs=1e-6)


def test_well_known_values() -> None:
    """The rule of three, and what no trial at all says."""
    assert upper_bound(0, 300) == pytest.approx(0.00994, abs=5e-5)
    assert upper_bound(0, 0) == 1.0
    assert lower_bound(0, 0) == 0.0
    assert upper_bound(3, 100_000) == pytest.approx(7.754e-5, rel=1e-3)


@pytest.mark.parametrize("text", ["99%<0.5%", " 95 % < 1 % "])
def test_a_rule_is_read_as_it_is_written(text: str) -> None:
    """Spaces do not matter."""
    rule = Until.parse(text)
    assert Until.parse(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "99%", "99<1", "100%<1%", "99%<0%", "99%<100%", "-1%<1%", "99%>1%"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    """With the form that it should have."""
    with pytest.raises(ValueError, match="%"):
        Until.parse(text)


def test_a_rule_is_sure_one_way_or_the_other() -> None:
    """299 sound trials are enough for 95 % and 1 %, 298 are not; many broken ones end it, too."""
    rule = Until.parse("95%<1%")
    assert not rule.decided(0, 298)
    assert rule.decided(0, 299)
    assert rule.decided(4, 20)
    assert not rule.decided(1, 100)


@given(st.integers(0, 40), st.integers(0, 40), st.data())
def test_fishers_test_adds_up_all_tables_that_are_no_likelier(trials: int, others: int, data: st.DataObject) -> None:
    """By its definition, in exact arithmetic; and it does not matter which of the two comes first."""
    broken, other_broken = data.draw(st.integers(0, trials)), data.draw(st.integers(0, others))
    together = broken + other_broken
    ways = [comb(trials, k) * comb(others, together - k) for k in range(together + 1)]
    exact = Fraction(sum(way for way in ways if way <= ways[broken]), comb(trials + others, together))
    assert fisher(broken, trials, other_broken, others) == pytest.approx(float(exact), rel=1e-6)
    assert fisher(other_broken, others, broken, trials) == pytest.approx(float(exact), rel=1e-6)


def test_well_known_cases_of_fishers_test() -> None:
    """The lady tasting tea, nothing at all, and lots of trials."""
    assert fisher(3, 4, 1, 4) == pytest.approx(34 / 70)
    assert fisher(0, 0, 3, 4) == 1.0
    assert fisher(50, 100_000, 120, 100_000) < 1e-6
    with pytest.raises(ValueError, match="5 of 4"):
        fisher(5, 4, 0, 4)


TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 30: 2.042, 120: 1.980}
"""Two-sided 95 % quantiles of Student's t, as any table of them has it."""


@pytest.mark.parametrize("freedom", TABLE)
def test_students_quantiles_are_those_of_the_tables(freedom: int) -> None:
    """Odd and even degrees of freedom, few and many; another confidence moves it the right way."""
    assert student(freedom) == pytest.approx(TABLE[freedom], abs=0.0006)
    assert student(freedom, 0.90) < student(freedom) < student(freedom, 0.99)


def test_an_interval_is_around_the_mean_and_needs_two_values() -> None:
    """By hand: 1, 2, 3 have mean 2 and standard error 1 / sqrt 3. One value says nothing about the next."""
    low, mean, high = mean_interval([1.0, 2.0, 3.0])
    assert (low, mean, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert mean_interval([5.0, 5.0]) == (5.0, 5.0, 5.0)
    with pytest.raises(ValueError, match=r"no interval from 1 value$"):
        mean_interval([1.0])


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of 2,000 samples of five from a known distribution between 94 and 96 % cover its mean."""
    rng = stream(1, "student")
    found = [mean_interval([rng.gauss(3, 2) for _ in range(5)]) for _ in range(2000)]
    assert 0.94 < sum(low <= 3 <= high for low, _, high in found) / 2000 < 0.96
