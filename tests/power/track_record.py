"""Are the bugs of the track record still found, in the releases that have them and in no other?

    python tests/power/track_record.py --builds DIR             all of it, on the releases that DIR holds (VERSION/bin)
    python tests/power/track_record.py --builds DIR empty-table one bug
    python tests/power/track_record.py --builds DIR --write     ... and note the day in track_record.toml

A guilty release ends its trials with the first find; an innocent one has `trials` of the bug, 100 if that says nothing.
Exit code 1 if a release is other than the record says; one that is not there is named, and was not tried.
"""

import re
import sys
import tempfile
import tomllib
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from crashlab.campaign.bisect import Release, releases_in
from crashlab.profile import load_profile
from crashlab.server import ServerChoice
from tests.running import RunRequest, run_profile

FILE = Path(__file__).with_name("track_record.toml")
SEED = 31


@dataclass(frozen=True, kw_only=True)
class Bug:
    """One bug of the track record."""

    name: str
    what: str  # as the page has it
    guilty: list[str]
    innocent: list[str]
    profile: str
    code: str
    first_seen: date
    says: str = ""  # in the finding's explanation
    set: list[str] = field(default_factory=list)
    trials: int = 100
    reproduced: dict[str, date] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that finds it."""
        return " ".join(["crashlab run", self.profile, *(f"--set '{one}'" for one in self.set)])


def track_record() -> list[Bug]:
    """Return all of it."""
    return [Bug(**table) for table in tomllib.loads(FILE.read_text(encoding="utf-8"))["bug"]]


def found_in(bug: Bug, release: Release, out: Path) -> int | None:
    """Return after how many trials a bug is found in a release; None: in none of them."""
    request = RunRequest(
        profile=load_profile(bug.profile, overrides=bug.set),
        seed=SEED,
        trials=bug.trials,
        time_limit_s=None,
        server=ServerChoice(kind="local", pg_bindir=release.bindir),
        out=out,
        keep="none",
        fail_fast=not bug.code.startswith("NOTE-"),
    )
    for trial in run_profile(request).trials:
        for finding in trial.verdict.findings:
            if finding.code == bug.code and bug.says in finding.explanation:
                return trial.trial + 1
    return None


def noted(text: str, name: str, days: dict[str, date]) -> str:
    """Return the file with these days in a bug's table."""
    head, mark, rest = text.partition(f'name = "{name}"\n')
    body, between, tail = rest.partition("\n[[bug]]")
    found = re.search(r"^reproduced = \{(.*)\}\n", body, re.MULTILINE)
    known = dict(re.findall(r'"([\d.]+)" = ([\d-]+)', found[1])) if found else {}
    known |= {version: day.isoformat() for version, day in days.items()}
    line = "reproduced = { " + ", ".join(f'"{version}" = {day}' for version, day in sorted(known.items())) + " }\n"
    body = re.sub(r"^reproduced = .*\n", "", body, flags=re.MULTILINE).rstrip("\n") + "\n" + line
    return head + mark + body + between + tail


@click.command()
@click.argument("names", nargs=-1)
@click.option("--builds", required=True, type=click.Path(path_type=Path, exists=True), help="Holds VERSION/bin.")
@click.option("--write", is_flag=True, help="Note the day of each release that is as the record says.")
def main(names: tuple[str, ...], builds: Path, write: bool) -> None:
    """Run the track record."""
    there = {release.version.text: release for release in releases_in(builds)}
    wrong = 0
    for bug in track_record():
        if names and bug.name not in names:
            continue
        days = {}
        for version in (*bug.guilty, *bug.innocent):
            expected = version in bug.guilty
            if version not in there:
                click.echo(f"{bug.name:22} {version:7} not tried: no such build")
                continue
            with tempfile.TemporaryDirectory() as folder:
                after = found_in(bug, there[version], Path(folder) / "run")
            as_said = (after is not None) is expected
            wrong += not as_said
            says = f"not found in {bug.trials} trials" if after is None else f"{bug.code} in trial {after}"
            click.echo(f"{bug.name:22} {version:7} {'as recorded' if as_said else 'OTHER THAN RECORDED'}: {says}")
            if as_said:
                days[version] = date.today()
        if write and days:
            FILE.write_text(noted(FILE.read_text(encoding="utf-8"), bug.name, days), encoding="utf-8")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
