"""Are the processes of a trial's server held while its workload runs, and is it written down how often?"""

from pathlib import Path

import pytest

from crashlab import evidence
from crashlab.cli.show import print_summary
from crashlab.errors import ProfileError, ServerError
from crashlab.exploration.record import make
from crashlab.model import Held, Outcome
from crashlab.profile import load_profile, parse_profile, stored_profile, to_toml
from crashlab.report.console import trial_line
from crashlab.results import TrialResult, make_trial_folder
from crashlab.server import ServerChoice, ServerSpec, create_server
from crashlab.trial.acceptance import for_a_test
from crashlab.trial.jitter import live_jitter
from crashlab.trial.live import run_trial
from crashlab.trial.setup import TrialPlan
from tests.overrides import kill_after

LOCAL = ServerChoice(kind="local")
DDL = ("workload.kinds=['ddl', 'transfer']", "checkpoint_every=100ms", kill_after(100))
OFTEN = ("jitter.share=0.5", "jitter.between=['1ms', '5ms']")
SMALL = ("power_loss.acks=60", "workload.acked_min=5", "workload.kinds=['ddl', 'transfer']")


def run(folder: Path, *overrides: str, name: str = "kill9-all") -> TrialResult:
    """Run one trial."""
    plan = TrialPlan(profile=load_profile(name, overrides=[*overrides]), run_seed=5, server=LOCAL)
    return run_trial(plan, 0, make_trial_folder(folder, 0))


def by_place(held: list[Held]) -> dict[str, Held]:
    return {one.place: one for one in held}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("jitter.hold=['unlink']", '"unlink" must begin with before or after, as in "before unlink of relation"'),
        ("jitter.hold=['before unlnk']", 'did you mean "unlink"?'),
        ("jitter.hold=['before fsync']", "create, write, truncate, rename, unlink, flush"),
        ("jitter.hold=['after write of wall']", 'did you mean "wal"?'),
        ("jitter.hold=['after write of ']", "is no class of files"),
        ("jitter.hold=['before unlink', 'before unlink']", "names one place twice"),
        ("jitter.hold=[]", "at least 1 value, not []"),
        ("jitter.share=0.5", "jitter.hold: this key is needed"),
        ("jitter={ hold = ['before unlink'], share = 1.5 }", "less than or equal to 1"),
        ("jitter={ hold = ['before unlink'], between = ['5ms', '1ms'] }", "the shorter time first"),
        ("jitter={ hold = ['before unlink'], between = ['1ms', '11s'] }", "less than or equal to 10000"),
        ("jitter={ hold = ['before unlink'], between = [1, 2] }", 'a time with a unit, such as "500ms"'),
        ("jitter={ hold = ['before unlink'], shares = 1 }", 'did you mean "share"?'),
    ],
)
def test_what_makes_no_sense_is_refused(override: str, said: str) -> None:
    """With what could have been meant."""
    with pytest.raises(ProfileError) as caught:
        load_profile("kill9-all", overrides=[override])
    assert said in (caught.value.detail or "").replace("Did", "did")


def test_the_table_survives_being_written() -> None:
    """As TOML, and as the plain values of evidence, from which a replay starts."""
    profile = load_profile("power-loss", overrides=["jitter.hold=['before unlink of relation', 'after flush']"])
    assert profile.jitter is not None
    assert (profile.jitter.share, profile.jitter.between_ms) == (0.1, [0, 20])
    assert parse_profile(profile.table()) == profile
    assert "before unlink of relation" in to_toml(profile)
    assert stored_profile(profile.model_dump(mode="json", by_alias=True)).profile == profile


def test_a_test_of_an_application_has_none() -> None:
    """It says so, instead of holding nobody."""
    with pytest.raises(ProfileError, match="holds processes"):
        for_a_test(load_profile("kill9-all", overrides=["jitter.hold=['before unlink']"]))
    assert for_a_test(load_profile("kill9-all"))


@pytest.mark.server
def test_a_live_server_is_held_and_stays_intact(tmp_path: Path) -> None:
    """Its evidence counts the holds; the same without them has none, and one with a share of 0 meets the places."""
    places = "jitter.hold=['before truncate of relation', 'after write of wal', 'after flush of wal']"
    result = run(tmp_path / "held", *DDL, places, *OFTEN)
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    record = evidence.load_trial(result.folder)
    assert record.held == result.held
    for one in result.held:
        assert one.met > one.held > 5
        assert one.held <= one.milliseconds <= 5 * one.held
    assert f"held {sum(one.held for one in result.held)} times for" in trial_line(result)
    assert [one.bounds_window for one in result.injections] == [False]
    twin = run(tmp_path / "twin", *DDL)
    assert twin.verdict.outcome is Outcome.INTACT, twin.verdict.findings
    assert evidence.load_trial(twin.folder).held == []
    assert "held" not in trial_line(twin)
    assert [one.bounds_window for one in twin.injections] == [True]
    silent = run(tmp_path / "silent", *DDL, places, "jitter.share=0")
    assert silent.verdict.outcome is Outcome.INTACT, silent.verdict.findings
    assert len(silent.held) == 3
    assert all(one.met > 10 and one.held == 0 and one.milliseconds == 0 for one in silent.held)


@pytest.mark.server
def test_neither_the_set_up_nor_what_follows_the_crash_is_held(tmp_path: Path) -> None:
    """Also where the same server goes on, whose set-up and afterlife make tables; its workload makes none."""
    places = "jitter.hold=['before create of relation', 'after write of wal']"
    crash = 'faults=[{ kind = "kill", target = "backend", when = { acks = 60 } }]'
    result = run(tmp_path, places, *OFTEN, crash, name="kill9-backend")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    assert evidence.load_observation(result.folder).afterlife is not None
    held = by_place(result.held)
    assert held["before create of relation"].met == 0
    assert held["after write of wal"].held > 5


@pytest.mark.server
def test_a_hold_does_not_outlive_the_crash(tmp_path: Path) -> None:
    """Everything is killed while somebody is held for ten seconds; recovery begins at once."""
    place = "jitter={ hold = ['before truncate of relation'], share = 1, between = ['10s', '10s'] }"
    crash = 'faults=[{ kind = "kill", target = "all", when = { after = "1s" } }]'
    result = run(tmp_path, *DDL[:2], place, crash, "clients=8")
    assert result.verdict.outcome is Outcome.INTACT, result.verdict.findings
    (held,) = result.held
    assert held.met == held.held == held.cut_off > 0
    assert held.milliseconds == held.held * 10_000
    assert result.seconds["workload"] < 10


@pytest.mark.server
def test_a_recorded_server_is_held_and_its_recording_is_sound(tmp_path: Path, capsys) -> None:
    """The holds stand in the recording's record and in its summary; its twin has none."""
    wanted = (*SMALL, "jitter.hold=['before truncate of relation', 'before flush of wal']", *OFTEN)
    plans = [TrialPlan(profile=load_profile("power-loss", overrides=one), run_seed=2) for one in (wanted, SMALL)]
    made, twin = (make(plan, tmp_path / str(number)) for number, plan in enumerate(plans))
    assert made.record.differences == twin.record.differences == []
    assert made.record.workload_errors == []
    assert len(made.record.held) == 2
    assert all(one.met > one.held > 3 and one.cut_off == 0 for one in made.record.held)
    assert twin.record.held == []
    print_summary(made)
    said = capsys.readouterr().out
    assert all(f"Jitter: {one.place}: {one.held} of {one.met} held, " in said for one in made.record.held)
    print_summary(twin)
    assert "Jitter" not in capsys.readouterr().out


@pytest.mark.server
def test_a_server_out_of_reach_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container is that does not share its files; without jitter it is none of its business."""
    jittered = load_profile("kill9-all", overrides=["jitter.hold=['before unlink']"])
    with create_server(ServerSpec(kind="local")) as server:

        def refuse() -> None:
            raise ServerError("cannot record in a container: crashlab does not run as root", hint="Run it as root.")

        monkeypatch.setattr(server, "share_data", refuse)
        with pytest.raises(ServerError, match="cannot hold the processes") as caught:
            live_jitter(server, jittered, 1)
        assert "does not run as root" in (caught.value.detail or "")
        assert caught.value.hint == "Run it as root."
        assert live_jitter(server, load_profile("kill9-all"), 1).held() == []
        assert server.environment == {}
