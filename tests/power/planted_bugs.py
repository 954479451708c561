"""Are six bugs that applications have caught in each of six stacks, every time, and called by their names?

    python tests/power/planted_bugs.py [--runs 20] [--stack NAME] [--pg-bindir DIR ...] [--log FILE]

Each shop of `shops/` does six things right. A bug is a few words of it changed (`STACKS`). For each stack and each bug
there is a test of at most 15 lines (`test_of`), the same for all stacks but for how the shop is opened. A run is that
test at every moment of every commit, beside the shop as it stands and beside the one with the bug, with a seed of its
own, and with the next one of the builds if there are several.

    caught     the shop with the bug fails, at some moment, and each finding of each failure is the one that it is
               accused of; no more and no other
    innocent   the shop as it stands passes at every moment, and no moment was skipped

A line of the log is one run of one pair; those that are there already are not run again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
SHOPS = Path(__file__).parent / "shops"
MOST_LINES = 15
RUN_TIMEOUT_S = 900
IMPORTS = "import asyncio, sys\nimport psycopg, pytest\nfrom tests.power.shops import TABLES"
CODE = re.compile(r"^([A-Z]+(?:-[A-Z]+)+): ", re.MULTILINE)


@dataclass(frozen=True)
class Bug:
    """One kind of bug: the test that is to catch it, in lines, and what it is to be accused of."""

    name: str
    codes: tuple[str, ...]
    block: str  # {a} is "await " where the shop needs it
    check: str
    command: str  # what the worker is asked to do
    before: str = ""
    profile: str = ""


MONEY = 'crash.invariant("all the money is there", "SELECT FROM accounts HAVING sum(balance) <> 100")'
SENT = 'crash.invariant("marked means sent", "SELECT id FROM outbox WHERE sent EXCEPT SELECT id FROM mailbox")'
ORDER = "for number in range(2):\n    {a}shop.order(number, crash.told)"
BOOK = "for number in range(2):\n    if {a}shop.book(number, seat=1):\n        crash.told(number)"
TAKE = "for _ in range(2):\n    crash.told({a}shop.take())"
ORDERS, BOOKINGS = 'crash.check("SELECT id FROM orders")', 'crash.check("SELECT id FROM bookings")'
NUMBERS = 'crash.check("SELECT generate_series(1, last) FROM numbers")'

BUGS = {
    bug.name: bug
    for bug in (
        Bug("told before COMMIT", ("TOLD-BEFORE-COMMIT",), ORDER, ORDERS, "order"),
        Bug("error of COMMIT swallowed", ("TOLD-AFTER-FAILURE",), BOOK, BOOKINGS, "book"),
        Bug(
            "asynchronous by accident",
            ("LOSS-ASYNC-WINDOW", "TOLD-ASYNC-COMMIT"),
            ORDER,
            ORDERS,
            "order",
            before="{a}shop.view(1)\n{a}shop.order(9, crash.told)",
            profile='profile="async-commit", ',
        ),
        Bug("two transactions for one", ("APPLICATION-INVARIANT",), "{a}shop.transfer(10)", "crash.check()", "transfer",
            before=MONEY),
        Bug("marked before sent", ("APPLICATION-INVARIANT",), "{a}shop.send_all()", "crash.check()", "send_all",
            before=SENT),
        Bug("numbers from memory", ("TOLD-BEFORE-COMMIT",), TAKE, NUMBERS, "take"),
    )
}  # fmt: skip
EARLY, SWALLOWED, ASYNC, TWO, MARKED, MEMORY = BUGS


@dataclass(frozen=True)
class Stack:
    """One way to speak to the database: how a test opens its shop, and how the shop gets its six bugs."""

    file: str
    opening: (
        str  # a first line that ends with a colon takes the rest inside, but for a loop; none: a process of its own
    )
    wrong: dict[str, tuple[str, str]]  # bug -> the right text, which is there once, and the wrong one


def _swap(first: str, second: str, *, spaces: int = 8) -> tuple[str, str]:
    pair = [" " * spaces + line + "\n" for line in (first, second)]
    return "".join(pair), "".join(reversed(pair))


SAME = {
    SWALLOWED: ("            return False\n", "            pass\n"),
    ASYNC: ("SET LOCAL synchronous_commit", "SET synchronous_commit"),
    MARKED: _swap("self.send(number)", "self.mark(number)", spaces=12),
    MEMORY: ("        self.save()\n", "        if self.last % 2 == 0:\n            self.save()\n"),
}
"""What is the same text in most shops."""
_WORKER_TELLS = "            assert row is not None\n            self.tell(row[0])\n"
_INSIDE = ("        tell(number)", "            tell(number)")
_BETWEEN = "# both, or none"
_TOGETHER = f"with {{}}:  {_BETWEEN}"
STACKS = {
    "psycopg": Stack(
        "psycopg_shop",
        "shop = Shop(crash.url)",
        SAME | {EARLY: _swap("self.connection.commit()", "tell(number)"), TWO: (_BETWEEN, "self.connection.commit()")},
    ),
    "SQLAlchemy": Stack(
        "sqlalchemy_shop",
        "shop = Shop(crash.url)",
        SAME | {EARLY: _swap("session.commit()", "tell(number)", spaces=12), TWO: (_BETWEEN, "session.commit()")},
    ),
    "asyncpg": Stack(
        "asyncpg_shop",
        "async def work():\n    shop = await Shop.open(crash.url)",
        {bug: (right.replace("self.s", "await self.s").replace("self.m", "await self.m"),
               wrong.replace("self.s", "await self.s").replace("self.m", "await self.m"))
         for bug, (right, wrong) in SAME.items()}
        | {EARLY: _INSIDE, TWO: ("async " + _TOGETHER.format("self.connection.transaction()"), "if amount:")},
    ),
    "Django": Stack(
        "django_shop",
        "for name, value in crash.env.items():\n    monkeypatch.setenv(name, value)\n"
        "connection.close()  # that of the test before\nshop = Shop()",
        SAME
        | {
            EARLY: ("transaction.on_commit(lambda: tell(number))", "tell(number)"),
            TWO: (_TOGETHER.format("transaction.atomic()"), "if amount:"),
        },
    ),
    "psycopg_pool": Stack(
        "pool_shop",
        "with ConnectionPool(crash.url, min_size=1, max_size=1) as pool:\n    shop = Shop(pool)",
        SAME | {EARLY: _INSIDE, TWO: (_BETWEEN, "connection.commit()")},
    ),
    "worker process": Stack(
        "worker_shop",
        "",
        SAME
        | {
            EARLY: (_WORKER_TELLS, textwrap.indent(_WORKER_TELLS, "    ")),
            SWALLOWED: ("                continue\n", "                pass\n"),
            ASYNC: ("autocommit=True)", 'autocommit=True, options="-c synchronous_commit=off")'),
            TWO: (_TOGETHER.format("self.connection.transaction()"), "if self.connection:"),
            MEMORY: ("            self.save(last)\n", "            if last == 2:\n                self.save(last)\n"),
        },
    ),
}  # fmt: skip


def _indented(text: str, depth: int) -> list[str]:
    return textwrap.indent(text, "    " * depth).splitlines() if text else []


def test_of(stack: Stack, bug: Bug) -> str:
    """Return the test that is to catch a bug; the same lines for the shop that has it and the one that has not."""
    a = "await " if stack.opening.startswith("async ") else ""
    depth = 2 if stack.opening.startswith(("async ", "with ")) else 1
    takes = "crash, monkeypatch" if "monkeypatch" in stack.opening else "crash"
    lines = [f'@pytest.mark.crashlab({bug.profile}points="commits")', f"def test_shop({takes}):"]
    if not stack.opening:
        return "\n".join([*lines, *_of_worker(bug)]) + "\n"
    lines += _indented(stack.opening, 1)
    lines += _indented(bug.before.replace("{a}", a), depth)
    lines += _indented("async with crash:" if a else "with crash:", depth)
    lines += _indented(bug.block.replace("{a}", a), depth + 1)
    lines += ["", "    asyncio.run(work())"] if a else []
    return "\n".join([*lines, f"    {bug.check}"]) + "\n"


def _of_worker(bug: Bug) -> Iterator[str]:
    yield "    psycopg.connect(crash.url, autocommit=True).execute(TABLES)"
    if bug.before.startswith("crash."):
        yield from _indented(bug.before, 1)
    yield "    with crash:"
    yield f'        crash.process([sys.executable, WORKER, "{bug.command}"], restart=False).wait()'
    yield f"    {bug.check}"


def write_twins(folder: Path, stack: Stack, bug: Bug, number: int) -> None:
    """Write the shop with its test, as it stands and with the bug; a worker has a file of its own."""
    shop = (SHOPS / f"{stack.file}.py").read_text(encoding="utf-8")
    right, wrong = stack.wrong[bug.name]
    assert shop.count(right) == 1, (stack.file, bug.name, shop.count(right))
    test = f"{IMPORTS}\n\n# --- the test\n{test_of(stack, bug)}"
    for twin, text in (("right", shop), ("wrong", shop.replace(right, wrong))):
        if not stack.opening:
            worker = folder / f"worker_{number}_{twin}.py"
            worker.write_text(text, encoding="utf-8")
            text = f'WORKER = "{worker}"\n'
        (folder / f"test_{number}_{twin}.py").write_text(f"{text}\n{test}", encoding="utf-8")


@dataclass
class Result:
    """One run of one pair."""

    stack: str
    bug: str
    run: int
    build: str
    caught: bool
    innocent: bool
    found: list[str]  # the codes of all failures of the guilty one
    failures: int  # moments at which it failed, the run that counts among them
    passed: int  # moments at which the other one passed, and the run that counts
    seconds: float
    said: str = ""  # if it is not as it should be


def run_stack(name: str, run: int, bugs: Sequence[str] = tuple(BUGS), pg_bindir: Path | None = None) -> list[Result]:
    """Run the pairs of one stack once, each at all its moments, in one pytest."""
    stack = STACKS[name]
    with tempfile.TemporaryDirectory(prefix="crashlab-bugs-") as text:
        folder = Path(text)
        for number, bug in enumerate(bugs):
            write_twins(folder, stack, BUGS[bug], number)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--show-capture=no"]
        command += ["-c", os.devnull, f"--rootdir={folder}", f"--basetemp={folder}/tmp", f"--junitxml={folder}/out.xml"]
        command += [f"--crashlab-seed={run}"] + ([f"--crashlab-pg-bindir={pg_bindir}"] if pg_bindir else [])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        begun = time.monotonic()
        done = subprocess.run(
            [*command, str(folder)], cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S
        )
        seconds = time.monotonic() - begun
        report = folder / "out.xml"
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
        build = str(pg_bindir or "")
        return [
            _result(name, bug, run, build, seconds / len(bugs), _cases(cases, number), done.stdout)
            for number, bug in enumerate(bugs)
        ]


def _cases(cases: Sequence[ElementTree.Element], number: int) -> dict[str, list[ElementTree.Element]]:
    return {
        twin: [one for one in cases if one.get("classname", "").endswith(f"test_{number}_{twin}")]
        for twin in ("right", "wrong")
    }


def _texts(case: ElementTree.Element) -> list[str]:
    return [f"{one.get('message', '')}\n{one.text or ''}" for one in case if one.tag in ("failure", "error")]


def _result(
    stack: str, bug: str, run: int, build: str, seconds: float, cases: dict[str, list[ElementTree.Element]], said: str
) -> Result:
    failed = [text for case in cases["wrong"] for text in _texts(case)]
    codes = [CODE.findall(text.replace("\nE       ", "\n")) for text in failed]
    found = sorted({code for each in codes for code in each})
    caught = bool(failed) and all(codes) and found == sorted(BUGS[bug].codes)
    passed = [case for case in cases["right"] if len(case) == 0]
    innocent = len(passed) == len(cases["right"]) > 1
    told = ""
    if not (caught and innocent):
        of_both = [text for twin in ("right", "wrong") for case in cases[twin] for text in _texts(case)]
        told = "\n".join(of_both)[:6000] or said[-6000:]
    return Result(stack, bug, run, build, caught, innocent, found, len(failed), len(passed), round(seconds, 2), told)


def read_log(log: Path) -> list[Result]:
    """Return what was run before."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return [Result(**json.loads(line)) for line in lines]


def table(results: Sequence[Result]) -> str:
    """Return caught and innocent runs out of all, a row a bug and a column a stack."""
    cells: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for one in results:
        cells[one.bug, one.stack].append(one)
    rows = [["caught / innocent, of", *STACKS]]
    for bug in BUGS:
        row = [bug]
        for stack in STACKS:
            ran = cells[bug, stack]
            row.append(f"{sum(one.caught for one in ran)} / {sum(one.innocent for one in ran)}, {len(ran)}")
        rows.append(row)
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing in the log and print the table; 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--stack", choices=[*STACKS], action="append")
    parser.add_argument("--pg-bindir", type=Path, action="append", default=[])
    parser.add_argument("--log", type=Path, default=Path("planted_bugs.jsonl"))
    options = parser.parse_args(arguments)
    done = {(one.stack, one.run) for one in read_log(options.log)}
    for run in range(1, options.runs + 1):
        builds = options.pg_bindir
        for stack in options.stack or STACKS:
            if (stack, run) in done:
                continue
            results = run_stack(stack, run, pg_bindir=builds[run % len(builds)] if builds else None)
            with options.log.open("a", encoding="utf-8") as log:
                log.writelines(json.dumps(asdict(one)) + "\n" for one in results)
            for one in results:
                if not (one.caught and one.innocent):
                    print(f"run {run}, {stack}, {one.bug}: {one}", flush=True)
            print(f"run {run}, {stack}: {sum(one.seconds for one in results):.0f} s", flush=True)
    results = read_log(options.log)
    print(table(results))
    return int(not all(one.caught and one.innocent for one in results))


if __name__ == "__main__":
    sys.exit(main())
