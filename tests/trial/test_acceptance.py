"""Does a test fail for everything that it has not named, and for nothing else?"""

from collections.abc import Collection
from pathlib import Path

import pytest

from crashlab.errors import ProfileError, UsageProblem
from crashlab.model import CrashClass, PromiseStatus, Verdict
from crashlab.profile import load_profile
from crashlab.trial.acceptance import changed_for_a_test, for_a_test, objection
from tests.oracle.story import KILL_LOGGER, Story

FOLDER = Path("somewhere")


def lost(sync: str) -> Story:
    """One commit, which is to be lost."""
    story = Story()
    story.commit(1, "a", 1, sync=sync)
    return story


def permitted() -> Verdict:
    story = lost("off")
    return story.judge(story.left())


def forbidden() -> Verdict:
    story = lost("on")
    return story.judge(story.left())


def nothing_promised() -> Verdict:
    story = lost("on")
    return story.judge(story.left(), settings={"fsync": "off"}, crash_class=CrashClass.POWER_LOSS)


def not_looked() -> Verdict:
    story = lost("on")
    return story.judge(story.left(2), injections=())


def noted() -> Verdict:
    story = lost("on")
    return story.judge(story.left(2), injections=(KILL_LOGGER,))


@pytest.mark.parametrize(
    ("verdict", "allow", "accepted"),
    [
        (permitted(), (), False),
        (permitted(), ["LOSS-ASYNC-WINDOW"], True),
        (permitted(), {"LOSS-ASYNC-WINDOW", "CORRUPT-HOLE"}, True),
        (permitted(), "LOSS-ASYNC-WINDOW", True),
        (permitted(), "LOSS-ASYNC-WINDOW-EXCEEDED", False),
        (forbidden(), ["LOSS-ASYNC-WINDOW"], False),
        (forbidden(), ["LOSS-SYNC-COMMIT"], True),
        (nothing_promised(), (), False),
        (nothing_promised(), ["LOSS-NOTHING-PROMISED"], True),
        (not_looked(), ["LOSS-SYNC-COMMIT"], False),
        (noted(), (), True),
    ],
)
def test_a_test_names_what_it_accepts(verdict: Verdict, allow: Collection[str], accepted: bool) -> None:
    """Acknowledged and gone is a failure, permitted or not; a note is none."""
    text = objection(verdict, FOLDER, allow)
    assert (not text) == accepted, text
    if text:
        assert all(finding.code in text and finding.explanation in text for finding in verdict.findings)
        assert ("to accept it" in text) == (verdict.promise in (PromiseStatus.KEPT, PromiseStatus.VOID))


def test_a_code_that_does_not_exist_is_a_mistake() -> None:
    """Else a slip of the pen would accept nothing, and be found at the first loss."""
    with pytest.raises(UsageProblem, match='"LOSS-ASYNC-WINDOWS": there is no such finding') as raised:
        objection(permitted(), FOLDER, ["LOSS-ASYNC-WINDOWS"])
    assert raised.value.hint == 'Did you mean "LOSS-ASYNC-WINDOW"? crashlab explain lists all codes.'


@pytest.mark.parametrize("name", ["synchronous_commit", "Synchronous_Commit"])
def test_what_each_session_sets_for_itself_is_no_setting_of_a_tests_server(name: str) -> None:
    """The hint is one for a test, and names no key of a run's profile; other settings are taken."""
    with pytest.raises(UsageProblem, match="it is for each session to set") as raised:
        changed_for_a_test("kill9-all", None, {name: "off"})
    assert "SET synchronous_commit = off" in str(raised.value.hint)
    assert "workload" not in str(raised.value)
    assert changed_for_a_test("kill9-all", None, {"fsync": False}).server.settings["fsync"] == "off"


def test_a_mistake_in_a_marker_is_told_as_it_was_written() -> None:
    """Nobody wrote --set."""
    for disk, settings, says in (
        (None, {"port": 5}, "settings={'port': 5}: server.settings.port: crashlab sets this one itself"),
        ("slow", {}, "disk='slow': power_loss.disk: input should be"),
    ):
        with pytest.raises(ProfileError) as raised:
            changed_for_a_test("power-loss", disk, settings)
        assert says in str(raised.value.detail)
        assert "--set" not in str(raised.value)


def test_only_live_faults_are_for_tests() -> None:
    """A recorded run has none, and a tour is no profile of its own."""
    assert for_a_test(load_profile("async-commit")).name == "async-commit"
    for name in ("power-loss", "quick"):
        with pytest.raises(ProfileError, match=f'cannot use profile "{name}" in a test'):
            for_a_test(load_profile(name))


@pytest.mark.parametrize("name", ["kill9-recovery-end", "initdb-killed"])
def test_a_profile_that_kills_starts_is_for_runs_only(name: str) -> None:
    """A test starts its server by itself: it would pass without such a kill."""
    with pytest.raises(ProfileError, match="kills the server while it starts"):
        for_a_test(load_profile(name))
