"""Is a stranger's folder harmless: neither believed when damaged, nor a way out of itself? See `strangers`."""

import copy
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crashlab import evidence
from crashlab.campaign.store import INDEX
from crashlab.cli import invoke
from crashlab.exploration.recording import BASE
from crashlab.files import open_below
from crashlab.recording import base, iolog
from tests.examples import examples
from tests.power.strangers import DAMAGES, Scene, ask, fuzz

VALUES_TRIED = examples(6)
KINDS = [
    *("ledger", "observation", "trial", "verdict", "state", "recorded trial", "recorded ledger"),
    *("recording", "io.log", "base", "file of the base", "index", "profile"),
]

PAGES = [
    *(f"report of {name}" for name in ("ledger", "trial", "campaign", "recorded ledger", "recording", "base")),
    *(f"show --html of {name}" for name in ("recorded ledger", "io.log", "base")),
]
"""Those of which a page is made: a few of each, as a page takes longer; the program does all."""
DAMAGES_OF_A_PAGE = ("cut short", "deep nesting", "another one's", "missing", "a pipe")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("strangers"))


@pytest.mark.parametrize("name", KINDS)
def test_no_damage_is_believed(name, scene):
    """Every kind of damage, once; the undamaged file is the innocent twin, before and after."""
    assert {*KINDS, *PAGES} <= set(scene.targets())
    assert all(name in KINDS or " of " in name for name in scene.targets())
    assert len(DAMAGES) >= 10
    assert list(fuzz(scene, name, scene.targets()[name], 1, Random(f"1 {name}"))) == []


@pytest.mark.parametrize("name", PAGES)
def test_no_damage_is_drawn(name, scene):
    """A page says what it lacks, or there is an error: never a traceback, and never a drawing of what nobody wrote."""
    assert list(fuzz(scene, name, scene.targets()[name], 1, Random(f"1 {name}"), DAMAGES_OF_A_PAGE)) == []


@pytest.mark.parametrize("name", ["observation", "trial", "verdict", "state", "recording", "base"])
def test_json_that_was_only_laid_out_anew_is_as_good(name, scene):
    """Other blanks, and keys in another order: the digest is of what a file says."""
    target = scene.targets()[name]
    before, content = ask(target.command), target.path.read_bytes()
    try:
        target.path.write_text(json.dumps(json.loads(content), sort_keys=True, indent=7))
        after = ask(target.command)
    finally:
        target.path.write_bytes(content)
    assert (after.code, after.out) == (before.code, before.out)
    assert after.code in (0, 1)


@pytest.mark.parametrize("name", ["observation", "trial", "state"])
def test_an_older_file_without_a_digest_is_judged(name, scene):
    """Whoever takes it out tells nobody what he changed: that is not what it is for."""
    target = scene.targets()[name]
    content = target.path.read_bytes()
    trial = target.path.parent / evidence.TRIAL
    record = trial.read_bytes()
    try:
        for path in {trial, target.path}:
            table = json.loads(path.read_bytes())
            del table["digest"]
            table.pop("digests", None)
            path.write_text(json.dumps(table))
        assert ask(target.command).code in (0, 1)
    finally:
        trial.write_bytes(record)
        if target.path != trial:
            target.path.write_bytes(content)


def test_nothing_outside_is_written_through_a_link(scene, tmp_path):
    """Whatever stands where the judge writes: it is replaced, and what a link led to stays as it is."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (trial, *_) = sorted(file.parent for file in scene.live.rglob(evidence.TRIAL))
    partial = trial / ".verdict.json.partial"
    places = [partial, trial / evidence.VERDICT, scene.live / INDEX, scene.live / f"{INDEX}-journal"]
    kept = {path: path.read_bytes() for path in places if path.exists()}
    for path in places:
        path.unlink(missing_ok=True)
        path.symlink_to(outside)
    try:
        assert invoke(["judge", str(scene.live)]) == 0
        assert outside.read_text() == "mine"
        assert stat.S_ISREG((trial / evidence.VERDICT).lstat().st_mode)
    finally:
        for path in places:
            path.unlink(missing_ok=True)
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_trial_that_is_a_link_out_is_told_not_to_be_looked_at(scene, tmp_path, capfd):
    """The others are judged; one that leads to a folder of the run itself is looked at there, without a word."""
    trials = sorted(file.parent for file in scene.live.rglob(evidence.TRIAL))
    link = trials[0].with_name("trial-0007")
    link.symlink_to(trials[0])
    try:
        assert invoke(["judge", str(scene.live)]) == 0
        link.unlink()
        away = sorted(file.parent for file in scene.recorded.rglob(evidence.TRIAL))[0]
        link.symlink_to(away)
        capfd.readouterr()
        assert invoke(["judge", str(scene.live)]) == 4
        assert f'did not look at "{link}": it is a symbolic link' in capfd.readouterr().err
    finally:
        link.unlink()


def test_judge_writes_to_another_folder_if_asked(scene, tmp_path):
    """Verdicts and report go there, and the evidence stays byte for byte; on a read-only folder, too."""
    before = {path: path.stat().st_mtime_ns for path in scene.live.rglob("*")}
    out = tmp_path / "judged"
    assert invoke(["judge", str(scene.live), "--out", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in scene.live.rglob("*")} == before
    assert (out / "report.json").is_file()
    for trial in scene.live.rglob(evidence.TRIAL):
        stored, again = trial.parent, out / trial.parent.relative_to(scene.live)
        assert evidence.load_verdict(again) == evidence.load_verdict(stored)


@pytest.mark.parametrize(
    "path", ["pgdata/../../../escaped", "/escaped", "pgdata//x", "pgdata/link/x", "nowhere/x", "."]
)
def test_a_base_image_names_nothing_outside_of_itself(path, scene, tmp_path):
    """A crash state is written where its recording says: only below its own folder, and through no link of its own."""
    folder = scene.recording / BASE
    manifest = folder / "base.json"
    content = manifest.read_bytes()
    table = json.loads(content)
    del table["digest"]
    last = max(entry["file"] for entry in table["files"])
    link = {"file": last + 1, "path": "pgdata/link", "kind": "link", "link": str(tmp_path)}
    try:
        manifest.write_text(json.dumps({**table, "files": [*table["files"], link]}))
        base.load(folder)  # the innocent twin: a link alone
        more = [*table["files"], link, {"file": last + 2, "path": path, "kind": "file"}]
        manifest.write_text(json.dumps({**table, "files": more}))
        answer = ask(["show", str(scene.recording)])
        assert answer.code == 4
        assert "its files are no tree" in answer.said
    finally:
        manifest.write_bytes(content)


def test_a_file_below_is_reached_through_no_link(tmp_path):
    """Neither its folder nor its name may be one."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    for folder in (inside / "real", outside):
        (folder / "file").write_text("x")
    (inside / "folder").symlink_to(outside)
    (inside / "real" / "name").symlink_to(outside / "file")
    os.close(open_below(inside, "real/file"))
    for path in ("folder/file", "real/name", "real/../real/file", "/etc/passwd", "real"):
        with pytest.raises(OSError, match=r"link|folder|leads out|directory"):
            open_below(inside, path)


def test_an_io_log_is_its_owners_alone(tmp_path: Path) -> None:
    """Whoever could write to it could make up a recording."""
    iolog.create(tmp_path / "io.log")
    assert (tmp_path / "io.log").stat().st_mode & 0o777 == 0o600


VALUES: list[Any] = [
    *(None, True, -1, 0, 10**18, 10**40, 1e308),
    *("", "x" * 10_000, "0/FFFFFFFF", "../../..", "a\0b"),
    *([], [[]], {}, {"a": {}}),
]
"""What a forger may write, or an older release: there is no digest that tells."""


def places_in(table: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value in a JSON table."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places_in(value, (*path, key))


@pytest.mark.parametrize("name", ["observation", "trial", "state", "recorded trial", "recording", "base", "verdict"])
def test_a_valid_file_of_any_content_leads_to_no_traceback(name, scene):
    """A verdict is no mistake there, and neither is an error: what was changed may be another valid value."""
    target, rng = scene.targets()[name], Random(f"values {name}")
    trial = target.path.parent / evidence.TRIAL
    kept = {path: path.read_bytes() for path in {trial, target.path} if path.is_file()}
    try:
        for path, content in kept.items():
            table = json.loads(content)
            del table["digest"]
            table.pop("digests", None)
            path.write_text(json.dumps(table))
        whole = json.loads(target.path.read_bytes())
        places = list(places_in(whole))
        for _ in range(VALUES_TRIED):
            table = copy.deepcopy(whole)
            *way, last = rng.choice(places) if rng.random() < 0.5 else rng.choice(places[:400])
            inner = table
            for key in way:
                inner = inner[key]
            inner[last] = rng.choice(VALUES)
            target.path.write_text(json.dumps(table))
            answer = ask(target.command)
            assert answer.clean, ([*way, last], inner[last], answer.said)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
