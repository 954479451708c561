"""Would a driver's test be told that ends in another way through the observer? The suites themselves: suites.py."""

from tests.power.suites import differences

DIRECTLY = {"a": ("passed", ""), "b": ("failure", "no such role"), "c": ("skipped", "")}


def test_each_other_end_is_told():
    """A test that fails only there, that passes only there, or that is not there; and nothing of those that agree."""
    assert differences("x", DIRECTLY, DIRECTLY) == []
    assert len(differences("x", DIRECTLY, DIRECTLY | {"a": ("error", "gone")})) == 1
    assert len(differences("x", DIRECTLY, DIRECTLY | {"b": ("passed", "")})) == 1
    assert len(differences("x", DIRECTLY, {"a": ("passed", "")})) == 2


def test_what_fails_both_times_alike_is_not_always_agreement():
    """A suite that cannot run at all."""
    broken = dict.fromkeys(DIRECTLY, ("error", "no module"))
    assert "not one test passed" in differences("x", broken, broken)[0]
