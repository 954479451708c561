"""Does a run count the records that recovery replays as pg_waldump counts them in the same crash state?

The count behind `crashlab coverage`, for crash states of recordings of five profiles that reach far. The other reader
is PostgreSQL's own: pg_waldump, from the redo point that pg_controldata says, in the directory as the crash left it.
"""

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from crashlab.disk.model import CrashState
from crashlab.disk.states import everything
from crashlab.exploration.explorer import Explorer
from crashlab.exploration.recording import Recording
from crashlab.model import RecordCount
from crashlab.profile import Profile, load_profile
from crashlab.results import make_trial_folder
from crashlab.server import ServerChoice
from tests.running import RunRequest, record, states_of

pytestmark = pytest.mark.server

PROFILES = ("structure", "rebuilt", "two-phase", "decoded", "minimal")
STATES = 3  # as a run tries them; and one with everything, at the end
LINE = re.compile(r"rmgr: (\S+) .* desc: (\S+)")
TYPES_MIN = 12  # fewer, and the recording has little of what it is there for
Counts = Counter[tuple[str, bool]]  # type and whether with the image of a page -> records


def recorded(profile: Profile, out: Path) -> Recording:
    """A short run, with everything that the profile varies drawn by its seed."""
    choice = ServerChoice(kind="local")
    made = record(RunRequest(profile=profile, seed=7, trials=1, time_limit_s=None, server=choice, out=out))
    if not (Path(made.record.server.source) / "pg_waldump").exists():
        pytest.skip(f"no pg_waldump beside the server in {made.record.server.source}")
    return made


def tool(recording: Recording, name: str, *words: str | Path) -> str:
    """What a program of the recorded server's build prints."""
    program = Path(recording.record.server.source) / name
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=120).stdout


def printed(recording: Recording, data: Path) -> Counts:
    """What pg_waldump prints from the redo point on, but for a clean stop's checkpoint, behind which redo begins.

    It takes the size of segments from the one that it is given, or from any: one that lost what was in it has none.
    """
    control = tool(recording, "pg_controldata", "-D", data)
    (redo,) = re.findall(r"Latest checkpoint's REDO location: +(\S+)", control)
    (segment,) = re.findall(r"Latest checkpoint's REDO WAL file: +(\S+)", control)
    last = max(path.name for path in (data / "pg_wal").iterdir() if re.fullmatch(r"[0-9A-F]{24}", path.name))
    lines = tool(recording, "pg_waldump", "-p", data / "pg_wal", "-s", redo, segment, last).splitlines()
    found = [(match, " FPW" in line) for line in lines if (match := LINE.match(line)) is not None]
    if found and found[0][0][2] == "CHECKPOINT_SHUTDOWN":
        found.pop(0)
    return Counter((f"{match[1]}/{match[2]}", image) for match, image in found)


def counted(kinds: list[RecordCount]) -> Counts:
    """The same of what a trial says."""
    counts: Counts = Counter()
    for kind in kinds:
        counts[kind.name, False] += kind.plain
        counts[kind.name, True] += kind.imaged
    return +counts


@pytest.mark.parametrize("name", PROFILES)
def test_the_count_of_a_crash_state_is_that_of_pg_waldump(name: str, tmp_path: Path) -> None:
    """Type by type, with and without an image; what was replayed is among what was written."""
    profile = load_profile(f"reach-{name}-power-loss", overrides=["power_loss.acks=80", "afterlife=0"])
    recording = recorded(profile, tmp_path)
    names: set[str] = set()
    with Explorer(recording, profile) as explorer:
        states: list[CrashState] = [
            *states_of(explorer, STATES),
            everything(explorer.walk.to(explorer.conditions.survey.end)),
        ]
        for number, state in enumerate(states):
            explorer.make_real(state)
            there = printed(recording, explorer.worker.images.data_directory)
            trial = explorer.try_state(state, number, make_trial_folder(tmp_path, number))
            assert trial.redo is not None
            assert counted(trial.redo.replayed) == there
            assert {kind for kind, _ in there} <= set(trial.redo.written)
            names |= {kind for kind, _ in there}
    assert len(names) >= TYPES_MIN
