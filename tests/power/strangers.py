"""Does damage of any kind to any file of evidence end in a clear error, and never in a verdict, a traceback or a hang?

    python tests/power/strangers.py --rounds 200 --seed 7

Every kind of damage is done to every kind of file, at places that a seed chooses, and the command that reads the file
is run in this process, against the clock. `tests/power/test_strangers.py` does it in one round.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from crashlab import evidence, sealed
from crashlab.campaign import Asked, Plan, judge_run, reindex, save_run
from crashlab.campaign.store import INDEX
from crashlab.cli import invoke
from crashlab.disk.model import CrashState
from crashlab.exploration.recording import BASE, LOG, RECORDING, RecordingRecord, digests_of
from crashlab.profile import find_profile, load_profile
from crashlab.results import trial_name
from crashlab.server import ServerChoice
from crashlab.trial.judged import judge_trial
from crashlab.trial.written import write_evidence
from tests.campaign.test_replay_stored import ARCHIVE as RECORDED
from tests.oracle.test_stored import ARCHIVE as LIVE

SECONDS_MAX = 20.0
HUGE = "9" * 40
DEEP = 100_000


@dataclass(frozen=True)
class Target:
    """One kind of file, and the command that reads it."""

    path: Path
    other: Path  # another one of its kind
    command: list[str]
    derived: bool = False  # it is made from other files, and made again where it is of no use: the answer stays
    written_by_hand: bool = False  # without a digest: what is valid is meant
    page: Path | None = None  # the command writes it, and may do so without the file, if the page says so
    warned: bool = False  # a warning is enough: the command can do without the file


class Scene:
    """A live run of two trials, a recorded one of six, and a profile, undamaged."""

    def __init__(self, home: Path) -> None:
        self.live, self.recorded = home / "live", home / "recorded"
        _unpack(LIVE, home / "old")
        _unpack(RECORDED, self.recorded)
        shutil.move(home / "old" / "async-commit", self.live)
        (first,) = _trials(self.live)
        shutil.copytree(first, first.with_name(trial_name(1)))
        for number, trial in enumerate(_trials(self.live)):
            if number:
                lay_out_anew(trial / evidence.LEDGER)
            _seal(trial, msgspec.structs.replace(evidence.load_trial(trial), trial=number))
        _save_run(self.live)
        for trial in _trials(self.recorded):
            _seal(trial, evidence.load_trial(trial), evidence.load(trial / evidence.STATE, CrashState))
        (self.recording,) = (file.parent for file in self.recorded.rglob(RECORDING))
        recorded = evidence.load(self.recording / RECORDING, RecordingRecord)
        evidence.save(self.recording, RECORDING, msgspec.structs.replace(recorded, digests=digests_of(self.recording)))
        manifest = self.recording / BASE / "base.json"
        manifest.write_bytes(sealed.sealed(msgspec.json.decode(manifest.read_bytes()))[0])
        self.profile = home / "profile.toml"
        shutil.copy(find_profile("own-application"), self.profile)
        self.page = home / "page.html"
        self.other_profile = home / "other.json"
        self.other_profile.write_text('{"not": "a profile"}')

    def targets(self) -> dict[str, Target]:
        """Return every kind of file by its name."""
        live, recorded = _trials(self.live), _trials(self.recorded)
        judge_live, judge_recorded = ["judge", str(live[0])], ["judge", str(recorded[0])]
        show = ["show", str(self.recording)]
        base = self.recording / BASE / "image" / "pgdata"
        files = {
            "ledger": Target(live[0] / evidence.LEDGER, live[1] / evidence.LEDGER, judge_live),
            "observation": Target(live[0] / evidence.OBSERVATION, recorded[1] / evidence.OBSERVATION, judge_live),
            "trial": Target(live[0] / evidence.TRIAL, live[1] / evidence.TRIAL, judge_live),
            "verdict": Target(live[0] / evidence.VERDICT, live[1] / evidence.VERDICT, judge_live, derived=True),
            "state": Target(recorded[0] / evidence.STATE, recorded[1] / evidence.STATE, judge_recorded),
            "recorded trial": Target(recorded[0] / evidence.TRIAL, recorded[1] / evidence.TRIAL, judge_recorded),
            "recorded ledger": Target(self.recording / evidence.LEDGER, live[1] / evidence.LEDGER, judge_recorded),
            "recording": Target(self.recording / RECORDING, recorded[0] / evidence.TRIAL, show),
            "io.log": Target(self.recording / LOG, base / "global" / "pg_control", show),
            "base": Target(self.recording / BASE / "base.json", recorded[0] / evidence.STATE, show),
            "file of the base": Target(base / "global" / "pg_control", base / "PG_VERSION", show),
            "index": Target(self.live / INDEX, live[0] / evidence.VERDICT, ["results", str(self.live)], derived=True),
            "profile": Target(self.profile, self.other_profile, ["validate", str(self.profile)], written_by_hand=True),
        }
        files |= self._pages(files)
        assert all(target.path.is_file() and target.other.is_file() for target in files.values())
        return files

    def _pages(self, files: dict[str, Target]) -> dict[str, Target]:
        """Return the files once more as those of which a page is made."""

        def read_by(words: str, kinds: list[str], folder: Path, *, told: bool) -> dict[str, Target]:
            command = [words.split()[0], str(folder), "--html", str(self.page)]
            page = self.page if told else None
            one = {name: replace(files[name], command=command, page=page) for name in kinds}
            return {f"{words} of {name}": target for name, target in one.items()}

        live = ["ledger", "observation", "trial", "verdict", "index"]
        recorded = ["state", "recorded trial", "recorded ledger", "recording", "io.log", "base", "file of the base"]
        pages = read_by("report", live, self.live, told=True) | read_by("report", recorded, self.recorded, told=True)
        pages |= read_by("show --html", ["recorded ledger", *recorded[3:]], self.recording, told=False)
        campaign = replace(pages["report of trial"], path=self.live / evidence.CAMPAIGN, page=None, warned=True)
        return pages | {"report of campaign": campaign}


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="tar")


def _trials(run: Path) -> list[Path]:
    return sorted(file.parent for file in run.rglob(evidence.TRIAL))


def lay_out_anew(ledger: Path) -> None:
    """Make it another ledger that says the same: only its digest tells."""
    ledger.write_bytes(ledger.read_bytes().replace(b"{", b"{ ", 1))


def _seal(trial: Path, record: evidence.TrialRecord, state: Any = None) -> None:
    write_evidence(trial, record, evidence.load_observation(trial), server_log="", state=state)
    judge_trial(trial)


def _save_run(run: Path) -> None:
    judged = judge_run(run)
    for result in judged.profiles:
        result.complete = True
    plan = Plan(asked=[Asked(profile=load_profile("async-commit"))], seed=1, trials=2, server=ServerChoice())
    save_run(run, judged, plan)
    reindex(run, judged)


Damage = Callable[[Target, Random], None]


def _bytes(change: Callable[[bytes, Random], bytes]) -> Damage:
    def damage(target: Target, rng: Random) -> None:
        target.path.write_bytes(change(target.path.read_bytes(), rng))

    return damage


def _flip(content: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _zeros(content: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(content))
    length = rng.randint(1, 512)
    return content[:at] + bytes(len(content[at : at + length])) + content[at + length :]


def _repeat_line(content: bytes, rng: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    return b"".join([*lines[: at + 1], *lines[at:]])


def _huge_number(content: bytes, rng: Random) -> bytes:
    digits = [found.start() for found in re.finditer(rb"\d", content)]
    at = rng.choice(digits) if digits else 0
    return content[:at] + HUGE.encode() + content[at:]


def _other_type(content: bytes, rng: Random) -> bytes:
    ends = [at for at, byte in enumerate(content) if byte in b":="]
    at = rng.choice(ends) + 1 if ends else 0
    return content[:at] + rng.choice([b" [[]], ", b' {"a": 1}, ', b" null, ", b' "\xff", ']) + content[at:]


def _deep(content: bytes, rng: Random) -> bytes:
    at = rng.choice([0, len(content), content.find(b":") + 1, content.find(b"=") + 1])
    return content[:at] + b"[" * DEEP + content[at:]


def _replaced(make: Callable[[Target], object]) -> Damage:
    def damage(target: Target, _: Random) -> None:
        target.path.unlink()
        make(target)

    return damage


def _link_elsewhere(target: Target) -> None:
    """A link to what the file was: right content, wrong place."""
    target.path.symlink_to(target.other)


DAMAGES: dict[str, Damage] = {
    "emptied": _bytes(lambda content, rng: b""),
    "cut short": _bytes(lambda content, rng: content[: rng.randrange(len(content))]),
    "a flipped bit": _bytes(_flip),
    "zeros": _bytes(_zeros),
    "garbage": _bytes(lambda content, rng: rng.randbytes(4096)),
    "a repeated line": _bytes(_repeat_line),
    "a huge number": _bytes(_huge_number),
    "another type": _bytes(_other_type),
    "deep nesting": _bytes(_deep),
    "another one's": _replaced(lambda target: shutil.copy(target.other, target.path)),
    "missing": _replaced(lambda target: None),
    "a folder": _replaced(lambda target: target.path.mkdir()),
    "a pipe": _replaced(lambda target: os.mkfifo(target.path)),
    "a link": _replaced(_link_elsewhere),
    "a link to itself": _replaced(lambda target: target.path.symlink_to(target.path.name)),
    "far too large": _replaced(lambda target: _sparse(target.path)),
}


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


@contextlib.contextmanager
def damaged(target: Target, damage: Damage, rng: Random) -> Iterator[bool]:
    """Damage a file for a while. Gives False if nothing has changed."""
    before = target.path.read_bytes()
    damage(target, rng)
    try:
        yield not target.path.is_file() or target.path.is_symlink() or not same(before, target.path)
    finally:
        if target.path.is_dir() and not target.path.is_symlink():
            shutil.rmtree(target.path)
        else:
            target.path.unlink(missing_ok=True)
        target.path.write_bytes(before)


def same(before: bytes, path: Path) -> bool:
    """Say whether a file says what it said before, if in other bytes."""
    if path.stat().st_size > 1 << 30:
        return False
    after = path.read_bytes()
    if before == after:
        return True
    try:
        return bool(json.loads(before) == json.loads(after))
    except (ValueError, RecursionError):
        return False


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    said: str
    seconds: float
    page: str = ""

    @property
    def clean(self) -> bool:
        """Whether nothing of crashlab itself went wrong."""
        return "Traceback" not in self.said and "bug in crashlab" not in self.said and self.seconds < SECONDS_MAX


class _TooLong(BaseException):
    """The clock ran out."""


def _ring(*_: object) -> None:
    raise _TooLong


def ask(command: list[str], page: Path | None = None) -> Answer:
    """Run a command in this process, against the clock."""
    if page is not None:
        page.unlink(missing_ok=True)
    out, said = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    before = signal.signal(signal.SIGALRM, _ring)
    begun = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SECONDS_MAX)
    code = -1
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
            code = invoke(command)
    except _TooLong:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    out.seek(0)
    written = page.read_text(errors="replace") if page is not None and page.exists() else ""
    return Answer(code, out.read(), said.getvalue(), time.monotonic() - begun, written)


def complaint(target: Target, answer: Answer, undamaged: Answer) -> str | None:
    """Say what is wrong with the answer about a damaged file."""
    if not answer.clean:
        return f"no clean end after {answer.seconds:.1f} s: {answer.said[-1500:]}"
    if target.derived and (answer.code, answer.out, answer.page) == (undamaged.code, undamaged.out, undamaged.page):
        return None
    if target.warned and (answer.code, answer.out) == (undamaged.code, undamaged.out):
        return None if "crashlab: warning: " in answer.said or not os.path.lexists(target.path) else "no warning"
    if target.page is not None and answer.code == 0:
        return None if troubles(answer.page) > troubles(undamaged.page) else "the page does not say what it lacks"
    if target.written_by_hand and answer.code == 0:
        return None
    if answer.code not in (2, 4):
        return f"exit code {answer.code}: {answer.out[-800:]}"
    if "crashlab: error: " not in answer.said:
        return f"no error is told: {answer.said}"
    return None


def troubles(page: str) -> int:
    """Count what a page says that it could not do."""
    return len(re.findall("could not|cannot|damaged|does not belong", page))


def fuzz(
    scene: Scene, name: str, target: Target, rounds: int, rng: Random, damages: Iterable[str] = tuple(DAMAGES)
) -> Iterator[str]:
    """Yield what went wrong with one kind of file."""
    undamaged = ask(target.command, target.page)
    if undamaged.code not in (0, 1) or not undamaged.clean:
        yield f"{name}, undamaged: {undamaged}"
        return
    for number in range(rounds):
        for damage_name in damages:
            with damaged(target, DAMAGES[damage_name], rng) as changed:
                wrong = complaint(target, ask(target.command, target.page), undamaged) if changed else None
            if wrong:
                yield f"{name}, {damage_name}, round {number}: {wrong}"
    after = ask(target.command, target.page)
    if (after.code, after.out, after.page) != (undamaged.code, undamaged.out, undamaged.page):
        yield f"{name}: repaired, the answer is another one: {after}"


def main() -> int:
    """Be the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one kind of file")
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        scene = Scene(Path(home))
        for name, target in scene.targets().items():
            if options.only in (None, name):
                for line in fuzz(scene, name, target, options.rounds, Random(f"{options.seed} {name}")):
                    wrong += 1
                    print(line, flush=True)
    print(f"{wrong} wrong answers in {options.rounds} rounds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
