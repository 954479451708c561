"""Is a sound database ever accused? Runs every profile that promises to keep its promises, on given servers.

    python tests/power/innocent.py --trials 40 --pg-bindir DIR --pg-bindir DIR ... [--buffers 128kB] [PROFILE ...]

Trials come in batches of one seed: a batch is one recording, or as many live crashes. Each finished batch is a line of
the log; a batch that the log has is not run again, so an interrupted run goes on where it was. Evidence of a trial that
was accused, or could not be judged, stays below --out; everything else is removed.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.errors import CrashlabError
from crashlab.model import Outcome, PromiseStatus
from crashlab.profile import Profile, load_profile
from crashlab.results import TrialResult
from crashlab.server import ServerChoice
from crashlab.server.builds import find_build
from tests.running import RunRequest, run_profile

PROFILES = Path(__file__).parent.parent.parent / "fault_profiles"
BATCH_TRIALS = {True: 40, False: 10}
"""Of a recorded profile, one recording; of a live one."""
ACCUSED = (Outcome.CORRUPTION, Outcome.NO_START)
SEEN = ("accused", "inconclusive")


class Batch(msgspec.Struct, frozen=True):
    """What became of the trials of one seed. One line of the log."""

    profile: str
    version: str  # and shared_buffers, if not the profile's
    seed: int
    asked: int
    trials: int
    accused: int
    inconclusive: int
    codes: list[str]
    error: str | None = None  # the environment did not allow it


def is_innocent(profile: Profile) -> bool:
    """Whether the documentation promises that nothing goes wrong, on a server of this machine."""
    expect = profile.expect
    return (
        not profile.tour
        and "local" in profile.server.kinds
        and expect.promise == [PromiseStatus.KEPT]
        and not set(expect.outcomes) & set(ACCUSED)
    )


def accuses(trial: TrialResult) -> bool:
    """Whether a trial says that something is wrong that must not be."""
    return trial.verdict.promise is PromiseStatus.BROKEN or trial.verdict.outcome in ACCUSED


def run_batch(profile: Profile, bindir: Path | None, version: str, seed: int, trials: int, out: Path) -> Batch:
    """Run some trials; keep the evidence of those that are worth a look."""
    folder = Path(tempfile.mkdtemp(prefix="crashlab-innocent-"))
    request = RunRequest(
        profile=profile,
        seed=seed,
        trials=trials,
        time_limit_s=None,
        server=ServerChoice(kind="local", pg_bindir=bindir),
        out=folder / f"{profile.name}-{version.replace(' ', '-')}-{seed}",
        keep="failed",
    )
    done: list[TrialResult] = []
    error = None
    try:
        done = run_profile(request).trials
    except CrashlabError as raised:
        error = str(raised)
    accused = [trial for trial in done if accuses(trial)]
    unclear = [trial for trial in done if trial.verdict.outcome is Outcome.INCONCLUSIVE]
    if accused or unclear:
        out.mkdir(parents=True, exist_ok=True)
        shutil.move(request.out, out)
    shutil.rmtree(folder, ignore_errors=True)
    codes = {finding.code for trial in accused + unclear for finding in trial.verdict.findings}
    counts = len(done), len(accused), len(unclear)
    return Batch(profile.name, version, seed, trials, *counts, sorted(codes), error)


def table(batches: Iterable[Batch]) -> str:
    """Return profile x version: trials, accusations, inconclusive."""
    batches = list(batches)
    cells: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for batch in batches:
        for number, value in enumerate((batch.trials, batch.accused, batch.inconclusive)):
            cells[batch.profile, batch.version][number] += value
    versions = sorted(
        {version for _, version in cells}, key=lambda text: ([int(part) for part in text.split()[0].split(".")], text)
    )
    lines = [f"{'trials / accused / inconclusive':32}" + "".join(f"{version:>14}" for version in versions)]
    for name in sorted({name for name, _ in cells}):
        row = ["/".join(map(str, cells[name, v])) if (name, v) in cells else "-" for v in versions]
        lines.append(f"{name:32}" + "".join(f"{cell:>14}" for cell in row))
    trials, accused, unclear = (sum(cell[number] for cell in cells.values()) for number in range(3))
    lines.append(f"\n{trials} innocent trials: {accused} accused, {unclear} inconclusive")
    lines += [f"{one.profile} {one.version} seed {one.seed}: {one.error or ' '.join(one.codes)}"
              for one in batches if one.error or one.codes]  # fmt: skip
    return "\n".join(lines)


def _version_order(label: str) -> tuple[list[int], str]:
    return [int(part) for part in label.split()[0].split(".")], label


def known(log: Path) -> list[Batch]:
    """Return the batches that were finished."""
    return msgspec.json.Decoder(Batch).decode_lines(log.read_bytes()) if log.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table; the exit status is 1 if anybody was accused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("profiles", nargs="*", help="default: every innocent profile of fault_profiles")
    parser.add_argument("--trials", type=int, default=40, help="of each profile on each server")
    parser.add_argument("--pg-bindir", type=Path, action="append", help="may be given many times")
    parser.add_argument("--buffers", action="append", help="shared_buffers in place of the profile's; many times")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch; the others follow")
    parser.add_argument("--out", type=Path, default=Path("innocent"))
    parser.add_argument("--log", type=Path, help="default: innocent.jsonl below --out")
    options = parser.parse_args(arguments)
    log = options.log or options.out / "innocent.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    names = options.profiles or sorted(path.stem for path in PROFILES.glob("*.toml"))
    names = [name for name in names if is_innocent(load_profile(name))]
    done = {(one.profile, one.version, one.seed, one.asked) for one in known(log)}
    for bindir, buffers in itertools.product(options.pg_bindir or [None], options.buffers or [""]):
        build = find_build(bindir)
        assert build is not None, bindir
        label = f"{build.version.text} {buffers}".rstrip()
        changes = [f"server.settings.shared_buffers={buffers}"] if buffers else []
        for profile in (load_profile(name, changes) for name in names):
            size = BATCH_TRIALS[profile.power_loss is not None]
            for number, first in enumerate(range(0, options.trials, size)):
                seed, trials = options.seed + number, min(size, options.trials - first)
                if (profile.name, label, seed, trials) in done:
                    continue
                batch = run_batch(profile, bindir, label, seed, trials, options.out)
                with log.open("ab") as opened:
                    opened.write(msgspec.json.encode(batch) + b"\n")
                what = batch.error or " ".join(batch.codes)
                counts = f"{batch.trials} trials, {batch.accused} accused, {batch.inconclusive} inconclusive"
                print(f"{batch.profile} {batch.version} seed {seed}: {counts} {what}", flush=True)
    found = known(log)
    print("", table(found), sep="\n")
    return 1 if any(one.accused for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
