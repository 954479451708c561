"""Is every kind of damage found, and called by its name? Prints the confusion matrix.

    python tests/power/confusion.py [--seed N] [--only PATTERN] [--pg-bindir DIR]

Each line is one kind of damage at one place: in a copy of a real data directory before recovery (image), or after
recovery and a clean stop (stopped), with or without checksums; or in what was read from a server (evidence, the kinds
of tests/oracle/mutations.py). Undamaged copies stand between them.

Further lines are of damage that only one kind of transaction shows (workload), or only one step of the afterlife. Below
each stands the same damage without that kind, or without that step: nobody sees it.
"""

import argparse
import dataclasses
import importlib
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.model import Family, Finding, Outcome, PromiseStatus, Verdict
from crashlab.seeds import stream
from tests.power import damage_kinds, damage_life
from tests.power.planting import AFTER, AFTER_SUMS, BEFORE, BEFORE_SUMS, KINDS, Copy, Kind, Where
from tests.power.scene import Scene

for _name in ("damage_tables", "damage_indexes", "damage_files", "damage_wal"):
    importlib.import_module(f"tests.power.{_name}")

INNOCENTS = 3
"""Undamaged copies at each place."""
WORLDS_MAX = 200
"""Histories in which an evidence mutation looks for something to damage."""
OUTCOMES = {
    Family.CORRUPTION: Outcome.CORRUPTION,
    Family.LOSS: Outcome.LOSS,
    Family.NO_START: Outcome.NO_START,
    Family.INCONCLUSIVE: Outcome.INCONCLUSIVE,
    None: Outcome.INTACT,
}


def nothing(copy: Copy) -> str:
    """Plant no damage: the innocent twin of all the others."""
    return ""


def twin(where: Where) -> Kind:
    """Return what stands between the damage at one place."""
    return Kind("undamaged", "nothing", where, nothing, None, damage=False)


class Line(NamedTuple):
    """One line of the matrix."""

    kind: Kind
    verdict: Verdict
    named: str  # what had to be named
    seconds: float

    @property
    def found(self) -> list[Finding]:
        """What was found, notes apart."""
        return [finding for finding in self.verdict.findings if finding.family is not Family.NOTE]

    @property
    def names_it(self) -> bool:
        """Whether the findings say where the damage is."""
        return self.named in "".join(f"{one.summary} {one.explanation} {one.evidence}" for one in self.found)

    @property
    def problems(self) -> list[str]:
        """What is not as it must be."""
        kind, wrong = self.kind, []
        if self.verdict.outcome is not OUTCOMES[kind.family]:
            wrong.append(f"{self.verdict.outcome} instead of {OUTCOMES[kind.family]}")
        if kind.codes and not {finding.code for finding in self.found} & set(kind.codes):
            wrong.append(f"none of {', '.join(kind.codes)}")
        if kind.family is None and self.found:
            wrong.append("accused wrongly")
        promise = {None: PromiseStatus.KEPT, Family.INCONCLUSIVE: None}.get(kind.family, PromiseStatus.BROKEN)
        if self.verdict.promise is not promise:
            wrong.append(f"promise {self.verdict.promise} instead of {promise}")
        if not self.names_it:
            wrong.append(f"{self.named} is not named")
        return wrong

    def __str__(self) -> str:
        """As the table has it."""
        kind = self.kind
        codes = list(dict.fromkeys(finding.code for finding in self.found))
        first = next((code for code in codes if code in kind.codes), codes[0] if codes else "-")
        if self.problems:
            said = "WRONG"
        elif kind.family is None:
            said = "undetectable" if kind.damage else "no damage"
        else:
            said = "told apart" if kind.family is Family.INCONCLUSIVE else "detected"
        named = "named" if self.named and self.names_it else ""
        row = f"{kind.group:15} {kind.name:42} {kind.where!s:18} {said:12} {self.verdict.outcome:12} {first:28} "
        row += f"{named:5} {self.seconds:5.2f} s"
        others = ", ".join(code for code in codes if code != first)
        return "  ".join([row, *filter(None, [others and f"also {others}", kind.reason, "; ".join(self.problems)])])


class Job(NamedTuple):
    """All kinds of one cluster, by their number in KINDS."""

    checksums: bool
    numbers: Sequence[int]
    seed: int
    pg_bindir: Path | None
    show: bool


Result = tuple[int | Where, Verdict, str, float]
"""Number of the kind, or the place of an undamaged copy; and what became of it."""


def matrix(kinds: Iterable[Kind], *, seed: int, pg_bindir: Path | None = None, show: bool = False) -> Iterator[Line]:
    """Plant, recover and judge each of KINDS that is asked for; one process for each of the two clusters."""
    numbers = [number for number, kind in enumerate(KINDS) if kind in set(kinds)]
    jobs = []
    for checksums in (False, True):
        some = [number for number in numbers if KINDS[number].where.checksums is checksums]
        jobs += [Job(checksums, some, seed, pg_bindir, show)] if some else []
    with ProcessPoolExecutor(max_workers=2) as executor:
        for results in executor.map(run, jobs):
            for number, verdict, named, seconds in results:
                kind = KINDS[number] if isinstance(number, int) else twin(number)
                yield Line(kind, verdict, named, seconds)


def sample() -> list[Kind]:
    """Return each kind of damage at one of its places, in turn: what pytest runs."""
    places: dict[tuple[str, str], list[Kind]] = {}
    for kind in KINDS:
        places.setdefault((kind.group, kind.name), []).append(kind)
    return [some[number % len(some)] for number, some in enumerate(places.values())]


def run(job: Job) -> list[Result]:
    """Do one job; the kinds of one place together, undamaged copies before and behind them."""
    results: list[Result] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no server behind
    with Scene(checksums=job.checksums, seed=job.seed, pg_bindir=job.pg_bindir) as scene:
        for where in (AFTER_SUMS, BEFORE_SUMS) if job.checksums else (AFTER, BEFORE):
            here: list[int | Where] = [number for number in job.numbers if KINDS[number].where == where]
            twins: list[int | Where] = [where] * INNOCENTS
            for number in [*twins[1:], *here, *twins[:1]] if here else []:
                kind = KINDS[number] if isinstance(number, int) else twin(number)
                line = try_one(scene, kind, job.seed)
                results.append((number, *line[1:]))
                if job.show:
                    show(line)
    return results


def try_one(scene: Scene, kind: Kind, seed: int) -> Line:
    """Plant one kind of damage and judge it."""
    begun = time.monotonic()
    variant = kind.where.variant
    assert variant in ("image", "stopped")
    copy = Copy(scene, scene.copy(variant), variant, stream(seed, kind.name, str(kind.where)))
    named = kind.plant(copy)
    return Line(kind, scene.look(variant, at_all=kind.plant is nothing), named, time.monotonic() - begun)


def show(line: Line) -> None:
    """Print a line; what is wrong with it, too."""
    text = [str(line)]
    if line.problems:
        text += [f"    {finding.summary}: {finding.explanation[:400]}" for finding in line.verdict.findings]
    print("\n".join(text), flush=True)


def evidence_matrix(*, seed: int) -> Iterator[Line]:
    """Yield a line for each kind of damage to evidence; a history that offers a place for it is looked for."""
    mutations = importlib.import_module("tests.oracle.mutations").MUTATIONS
    crashed_world = importlib.import_module("tests.oracle.reference").crashed_world
    for name, (mutation, code) in mutations.items():
        begun = time.monotonic()
        for number in range(WORLDS_MAX):
            world = crashed_world(seed + number, steps=250, two_phase_share=0.3)
            damaged = mutation(world, world.observation(), stream(seed, name))
            if damaged is not None:
                break
        else:
            raise AssertionError(f"no history offers a place for {name}")
        family = {"LOSS": Family.LOSS, "NO": Family.NO_START}.get(code.split("-")[0], Family.CORRUPTION)
        kind = Kind("evidence", name.replace("_", " "), EVIDENCE, nothing, family, (code,))
        yield Line(kind, world.judge(damaged), "", time.monotonic() - begun)


EVIDENCE, WORKLOAD, AFTERLIFE = Where("evidence", False), Where("workload", False), Where("afterlife", False)


def kind_matrix(world: damage_kinds.World) -> Iterator[Line]:
    """Yield two lines for each kind of transaction: the damage that it shows, and the same without that kind."""
    begun = time.monotonic()
    yield Line(twin(WORKLOAD), world.judge(world.before), "", time.monotonic() - begun)
    for name, shown in damage_kinds.DAMAGE.items():
        begun = time.monotonic()
        kind = Kind("workload", name, WORKLOAD, nothing, Family.CORRUPTION, tuple(f"CORRUPT-{c}" for c in shown.codes))
        yield Line(kind, world.with_damage(name), shown.place, time.monotonic() - begun)
        yield Line(_unseen(kind), world.without(name), "", 0.0)


def life_matrix(seed: int, pg_bindir: Path | None = None) -> Iterator[Line]:
    """Yield two lines for each step of the afterlife: the damage that it shows, and the same without that step."""
    world = importlib.import_module("tests.oracle.reference").crashed_world(seed, steps=250)

    def line(kind: Kind, named: str, damaged: Sequence[str], left_out: Sequence[str] = ()) -> Line:
        begun = time.monotonic()
        life = damage_life.lived(damaged, left_out, pg_bindir).life
        verdict = world.judge(msgspec.structs.replace(world.observation(), afterlife=life))
        return Line(kind, verdict, named, time.monotonic() - begun)

    yield line(twin(AFTERLIFE), "", ())
    for step, shown in damage_life.DAMAGE.items():
        family = Family.NO_START if shown.also else Family.CORRUPTION
        kind = Kind("afterlife", step, AFTERLIFE, nothing, family, (shown.code,))
        yield line(kind, shown.named, [step])
        if shown.also:
            kind = dataclasses.replace(kind, codes=("NO-START-AGAIN",), reason="the next start meets it", damage=False)
            yield line(dataclasses.replace(kind, name=f"{step}, without it"), "", [step], [step])
        else:
            yield line(_unseen(kind), "", [step], [step])


def _unseen(kind: Kind) -> Kind:
    """What is expected of the same damage where nobody looks for it."""
    name = f"{kind.name}, without it"
    return dataclasses.replace(kind, name=name, family=None, codes=(), reason="only it looks there", damage=False)


def summary(done: Sequence[Line], seconds: float) -> str:
    """Return the last lines of the table."""
    damage = [line for line in done if line.kind.damage]
    hidden = [line for line in damage if line.kind.family is None]
    harmless = [line for line in done if not line.kind.damage]
    accused = [line for line in harmless if line.kind.family is None and line.found]
    kinds = {(line.kind.group, line.kind.name) for line in damage}
    evidence = [kind for kind in kinds if kind[0] == "evidence"]
    detected = sum(not line.problems for line in damage) - sum(not line.problems for line in hidden)
    return (
        f"{len(kinds)} kinds of damage ({len(evidence)} of them to evidence) at {len(damage)} places: "
        f"{detected} of {len(damage) - len(hidden)} detected, {len(hidden)} undetectable; "
        f"{len(harmless)} copies without damage: {len(accused)} accused; "
        f"{sum(bool(line.problems) for line in done)} lines wrong; {seconds:.0f} s"
    )


def main() -> int:
    """Print the matrix; the exit status is 1 if a line is not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="kinds whose group and name match this regular expression")
    parser.add_argument("--pg-bindir", type=Path)
    options = parser.parse_args()
    wanted = [kind for kind in KINDS if re.search(options.only, f"{kind.group} {kind.name}")]
    begun = time.monotonic()
    done = [
        line for line in evidence_matrix(seed=options.seed) if re.search(options.only, f"evidence {line.kind.name}")
    ]
    for line in done:
        show(line)
    for group, names, table in (
        ("workload", damage_kinds.DAMAGE, lambda *given: kind_matrix(damage_kinds.make_world(*given))),
        ("afterlife", damage_life.DAMAGE, life_matrix),
    ):
        if any(re.search(options.only, f"{group} {name}") for name in names):
            for line in table(options.seed, options.pg_bindir):
                show(line)
                done.append(line)
    done += matrix(wanted, seed=options.seed, pg_bindir=options.pg_bindir, show=True)
    print("", summary(done, time.monotonic() - begun), sep="\n")
    return 1 if any(line.problems for line in done) else 0


if __name__ == "__main__":
    sys.exit(main())
