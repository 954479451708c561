"""Which types of WAL records did the recoveries of a run replay, of those that a single server can write?

A redo routine that no recovery ran is one that the run says nothing about. Types are counted, not records: pages that
were damaged need the right record in front of them, not many.

Choices: trials of different major versions are told apart, for each has a table of its own.
    "written" is what is known to stand in the WAL: of a recorded trial, in that of the whole run, so there is a crash
    point from which it is replayed; of a live one, from the redo point on, which is what was replayed.

Does not tell: whether a record's replay was right, which is the verdicts' matter; what a recovery replayed that did not
    come to its end, or whose WAL nobody could read.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crashlab.recordtypes import RecordTypes, record_types
from crashlab.results import ProfileResult, TrialResult


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One type that was replayed."""

    name: str
    trials: int  # in so many of them
    plain: int  # records, over all trials
    imaged: int  # ... with the image of a page


@dataclass(frozen=True, kw_only=True)
class RedoCoverage:
    """What the recoveries of one major version replayed."""

    major: int
    recoveries: int  # of which it is known what they replayed
    unknown: int  # other trials: no recovery was due, it did not end, or its WAL was not read
    replayed: list[Replayed]  # reachable types, in the order of the table
    written: list[str]  # ... written, and never replayed
    never: list[str]  # ... never written
    out_of_reach: dict[str, str]  # type -> why
    beside: list[Replayed]  # replayed, and not in the table: of an extension, or thought to be out of reach

    @property
    def reachable(self) -> int:
        """How many types a single server can write."""
        return len(self.replayed) + len(self.written) + len(self.never)


def redo_coverage(results: Iterable[ProfileResult]) -> list[RedoCoverage]:
    """Return the coverage of each major version that the table of types has, oldest first."""
    by_major: dict[int, list[TrialResult]] = {}
    for result in results:
        for trial in result.trials:
            if trial.server is not None:
                by_major.setdefault(trial.server.version_num // 10_000, []).append(trial)
    tables = {major: record_types(major) for major in sorted(by_major)}
    return [_coverage(major, types, by_major[major]) for major, types in tables.items() if types is not None]


def _coverage(major: int, types: RecordTypes, trials: Sequence[TrialResult]) -> RedoCoverage:
    known = [trial.redo for trial in trials if trial.redo is not None]
    seen: dict[str, Counter[str]] = {}
    written: set[str] = set()
    for redo in known:
        written.update(redo.written)
        for kind in redo.replayed:
            seen.setdefault(kind.name, Counter()).update(trials=1, plain=kind.plain, imaged=kind.imaged)
    replayed = {name: Replayed(name=name, **_whole(counts)) for name, counts in seen.items()}
    reachable = types.reachable
    return RedoCoverage(
        major=major,
        recoveries=len(known),
        unknown=len(trials) - len(known),
        replayed=[replayed[name] for name in reachable if name in replayed],
        written=[name for name in reachable if name in written and name not in replayed],
        never=[name for name in reachable if name not in written and name not in replayed],
        out_of_reach=types.out_of_reach,
        beside=[replayed[name] for name in sorted(set(replayed).difference(reachable))],
    )


def _whole(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in ("trials", "plain", "imaged")}


def coverage_line(results: Iterable[ProfileResult]) -> str | None:
    """Say it in one line, as in "redo: 97 of 112 record types"; None: no recovery is known that replayed anything."""
    found = [one for one in redo_coverage(results) if one.recoveries]
    parts = [
        f"{len(one.replayed)} of {one.reachable} record types{f' of PostgreSQL {one.major}' if len(found) > 1 else ''}"
        for one in found
    ]
    return f"redo: {', '.join(parts)}" if parts else None


def coverage_text(one: RedoCoverage, *, every: bool) -> list[str]:
    """Return the coverage of one version in lines.

    Args:
        every: name also what was replayed, and how often.
    """
    lines = [f"PostgreSQL {one.major}: redo of {len(one.replayed)} of {one.reachable} record types"]
    others = f"; of {one.unknown} more trials it is not known, or none was due" if one.unknown else ""
    lines.append(f"  in {one.recoveries} recoveries{others}")
    if every:
        lines.append("replayed (trials; records without and with the image of a page)")
        lines += [f"  {kind.name:<34} {kind.trials:>6} {kind.plain:>9} {kind.imaged:>9}" for kind in one.replayed]
    for head, names in (("written but never replayed", one.written), ("never written", one.never)):
        if names:
            lines.append(head)
            lines += [f"  {name}" for name in names]
    if one.beside:
        lines.append("replayed and not counted")
        lines += [f"  {kind.name}" for kind in one.beside]
    if every:
        lines.append("out of reach")
        lines += [f"  {name}: {why}" for name, why in one.out_of_reach.items()]
    return lines


def as_json(one: RedoCoverage) -> dict[str, Any]:
    """Return the coverage of one version for programs."""
    return {
        "major": one.major,
        "recoveries": one.recoveries,
        "unknown": one.unknown,
        "reachable": one.reachable,
        "replayed": [asdict(kind) for kind in one.replayed],
        "written_never_replayed": one.written,
        "never_written": one.never,
        "out_of_reach": one.out_of_reach,
        "not_counted": [kind.name for kind in one.beside],
    }
