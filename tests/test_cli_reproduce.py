"""Does the reproduce line of a trial lead to the server that the trial had?"""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.server.builds import find_builds

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Everything is below the test's own folder."""
    monkeypatch.chdir(tmp_path)


def reproduce_lines(*args: str) -> Iterator[str]:
    """Run one short profile of each kind; return what its trials say, in the report and judged again."""
    for profile in (["kill9-all"], ["power-loss", "--set", "power_loss.acks=50", "--keep", "all"]):
        command = ["run", *profile, *args, "--trials", "1", "-j", "1", "--out", profile[0], "--json", "made.json"]
        assert invoke(command) == 0
        assert invoke(["judge", profile[0], "--json", "judged.json"]) == 0
        yielded = [json.loads(Path(name).read_text())["trials"][0] for name in ("made.json", "judged.json")]
        assert yielded[0]["reproduce"] == yielded[1]["reproduce"]
        yield yielded[0]["reproduce"].partition(yielded[0]["folder"])[2]


def test_the_reproduce_line_has_every_option_that_chose_the_server(capfd):
    """A build that was named is named again, in the report, judged again, and in the list; that command runs on it."""
    build = list(find_builds())[-1]
    options = ["--pg-bindir", str(build.bindir)]
    assert set(reproduce_lines(*options)) == {f" {shlex.join(options)}"}
    Path("kill9-all").rename("moved")
    capfd.readouterr()
    assert invoke(["results", "moved", "--json", "-"]) == 0
    again = json.loads(capfd.readouterr().out)[0]["reproduce"]
    assert again == shlex.join(["crashlab", "replay", "moved/kill9-all/trial-0000", *options])
    assert invoke([*shlex.split(again)[1:], "--out", "again", "--json", "again.json"]) == 0
    assert json.loads(Path("again.json").read_text())["server"]["source"] == str(build.bindir)


def test_the_reproduce_line_of_a_server_that_was_found_names_none():
    """Where crashlab searched by itself, so does the replay."""
    assert set(reproduce_lines()) == {""}
