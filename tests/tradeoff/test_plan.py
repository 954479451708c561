"""Is every plan that comes along usable, and every mistake in another one named?"""

import pytest

from crashlab.errors import UsageProblem
from crashlab.tradeoff.crashes import profiles
from crashlab.tradeoff.plan import DEFAULT, load_plan, shipped
from tests.documents import PAGES, blocks, rows


@pytest.mark.parametrize("name", shipped())
def test_shipped_plans_can_be_used(name):
    """Each loads, says what it is about, has something to compare, and profiles for its crashes."""
    plan = load_plan(name)
    assert plan.description
    assert len(plan.variation) > 1
    assert len(list(plan.cells())) == len(plan.variation) * len(plan.sessions)
    made = list(profiles(plan))
    assert len(made) == 2 * len(plan.variation)
    for (process, own), (power, maker) in zip(made[::2], made[1::2], strict=True):
        assert (own, maker) == (None, process.name)
        assert power.power_loss is not None


def test_the_default_compares_what_people_turn_off():
    """The promise of the README: these are in it."""
    settings = [one.settings for one in load_plan(DEFAULT).variation]
    assert {} in settings
    for wanted in ({"fsync": "off"}, {"synchronous_commit": "off"}, {"full_page_writes": "off"}):
        assert wanted in settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "missing required field `variation`"),
        ("variation = []", "variation: there is none"),
        ("blocks = 2\n[[variation]]", "blocks: at least 3"),
        ("sessions = [0]\n[[variation]]", "sessions: from 1 to"),
        ("[[variation]]\n[[variation]]", '"defaults" is there twice'),
        ('[[variation]]\nsettings = { fsync = "perhaps" }', "fsync: must be on or off"),
        ('[[variation]]\nsettings = { port = "1" }', "port: crashlab chooses it"),
        ('[[variation]]\nsettings = { wal_sync_metod = "fsync" }', 'setting. Did you mean "wal_sync_method"?'),
        ('color = "red"\n[[variation]]', "unknown field `color`"),
        ("[[variation", "cannot use plan"),
    ],
)
def test_mistakes_are_named(tmp_path, text, said):
    """Each is an error of usage that says what is wrong; the twin without it is taken."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageProblem) as error:
        load_plan(str(file))
    assert said in str(error.value)
    file.write_text("[[variation]]\n[[variation]]\nsettings = { fsync = false, commit_delay = 100 }")
    assert load_plan(str(file)).settings_of("fsync=off, commit_delay=100") == {"fsync": "off", "commit_delay": "100"}


def test_an_unknown_name_is_answered_with_the_known_ones():
    """And with the nearest."""
    with pytest.raises(UsageProblem) as error:
        load_plan("quik")
    assert 'Did you mean "quick"?' in (error.value.hint or "")
    assert "wal-buffers" in (error.value.hint or "")


def test_the_page_has_the_plans_and_an_example_that_can_be_used(tmp_path):
    """Each shipped plan with its own description, and no other; the example is a plan as it stands."""
    page = PAGES["costs"]
    assert {name: cells[0] for name, cells in rows(page, "plan").items()} == {
        name: load_plan(name).description for name in shipped()
    }
    (example,) = [block for block in blocks(page, "text") if "[[variation]]" in block]
    (tmp_path / "mine.toml").write_text(example)
    assert load_plan(str(tmp_path / "mine.toml")).baseline == "defaults"
