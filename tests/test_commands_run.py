"""Does every command of the README and of the manual do something, in the order in which a reader meets them?

Each document's lines run one after the other in one folder, which holds a run already; made shorter, but else as they
stand. Not here: what needs Docker, a second release, a second machine or a cluster, what takes minutes however short it
is made, and `clean`, which would meet the neighbours' runs. Their own tests are in `tests/server`, `tests/trial`,
`tests/flush`, `tests/campaign`, `tests/tradeoff` and `tests/test_cli_clean.py`.
"""

import shlex
import shutil
import webbrowser
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.server.builds import find_build
from tests.documents import DOCUMENTS, ROOT, shell_lines

pytestmark = pytest.mark.server

OTHER_RUN = Path(".crashlab/20260101-120000")
ONE_CELL = ("fsync=off", "full_page_writes=on", "wal_sync_method=fsync", "data_checksums=on", "synchronous_commit=on")
SHORTER = {
    "run": ["--trials", "2", "-j", "1"],
    "explore": ["--trials", "2", "-j", "1"],
    "matrix": ["--states", "1", "-j", "1", *(f"--only={key}" for key in ONE_CELL)],
    "shrink": ["--time-limit", "20s", "--trials", "0"],
    "disk": ["--seconds", "0.2s"],
    "lesson": ["--yes"],
}
ELSEWHERE = (
    "10.0.0.",
    "0.0.0.0",
    "--image ",
    "crashlab clean",
    "crashlab tradeoff",
    "--recover-with",
    "crashlab bisect",
)
DRAWN = ("lesson 3 --check 1498", "shrink ddl-power-loss:1 --code CORRUPT-UNREADABLE")
"""The answer, and what a trial found, differ from run to run: 2 says that this is not it."""


def lines_of(name: str) -> list[str]:
    """Return the lines of a document that can run here."""
    lines = [line for line in shell_lines(DOCUMENTS[name]) if line.startswith("crashlab ")]
    return [line for line in lines if not any(word in line for word in ELSEWHERE)]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory) -> Path:
    """A folder where runs have been, with losses and a recording; and a profile of one's own."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke(["run", "async-commit", "fsync-off-power-loss", *SHORTER["run"], "-q"]) == 0
        shutil.copytree(Path(".crashlab/latest").resolve(), OTHER_RUN, symlinks=True)
    shutil.copytree(ROOT / "fault_profiles", folder / "fault_profiles")
    shutil.copy(ROOT / "fault_profiles" / "kill9-all.toml", folder / "own.toml")
    return folder


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if lines_of(name)])
def test_the_commands_of_a_document_run(name, two_runs, tmp_path, monkeypatch, capfd):
    """To the exit code of a run that went well."""
    monkeypatch.chdir(shutil.copytree(two_runs, tmp_path / "reader", symlinks=True))
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setenv("CRASHLAB_STATE_DIR", str(tmp_path / "state"))
    for line in lines_of(name):
        command, *args = shlex.split(line.removeprefix("crashlab "), comments=True)
        code = invoke([command, *shortened(command, args)])
        told = capfd.readouterr()
        right = (0, 2) if shlex.join([command, *args]) in DRAWN else (0,)
        assert code in right, f"{line}\n{told.out}\n{told.err}"


def shortened(command: str, args: list[str]) -> list[str]:
    """Return a command's arguments, for this machine and for less time; of what is said twice the last counts."""
    build = find_build()
    assert build is not None
    mine = {"/usr/lib/postgresql/15/bin": str(build.bindir), "ddl-power-loss:1": "fsync-off-power-loss:1"}
    args = [mine.get(arg, arg) for arg in args]
    if "--resume" in args or (command == "lesson" and args and args[0].startswith("-")):
        return args
    return [*args, *SHORTER.get(command, [])]
