"""Do the drivers' own regression tests pass through the observer as they do without it?

    python tests/power/suites.py [--suite asyncpg] [--suite psycopg2] [--folder DIR] [-k WORDS]

Each suite comes from the driver's own source package on PyPI, at a fixed version, and runs twice, each time with a
fresh server: over its Unix socket, and over the observer's. Told is how many tests ended in which way, and each test
that did not end the same both times. psycopg 3 is not among them: its source package has no tests (3.3.9).

Both sides have their clients' settings and their server alike; what is compared is pytest's word about each test.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parents[2]))  # when run as a program

from crashlab.observer import Observer, read_conversation
from crashlab.server import ServerSpec, create_server
from tests.observer.scene import upstream_of

SUITE_TIMEOUT_S = 1200
TEST_TIMEOUT_S = 60
SETTINGS = {"max_prepared_transactions": "10", "fsync": "off", "max_connections": "200"}


@dataclass(frozen=True)
class Suite:
    """A driver's tests: where they come from, how they are run, and what is left out, with the reason."""

    version: str
    folder: str  # of its tests, in the source package
    packages: tuple[str, ...]  # what has to be installed to run them
    environment: dict[str, str]  # {host}, {port}, {user} and {database} are filled in
    without: dict[str, str]


SUITES = {
    "asyncpg": Suite(
        "0.32.0",
        "tests",
        ("asyncpg==0.32.0",),
        {"PGHOST": "{host}", "PGPORT": "{port}", "PGUSER": "{user}", "PGDATABASE": "postgres"},
        {
            "test__sourcecode.py": "lint",
            "test__environment.py": "looks at the machine",
            "test_connect.py": "starts clusters of its own with pg_ctl",
            "test_subinterpreters.py": "is about no server",
        },
    ),
    "psycopg2": Suite(
        "2.9.13",
        "tests",
        ("psycopg2-binary",),
        {
            "PSYCOPG2_TESTDB": "{database}",
            "PSYCOPG2_TESTDB_HOST": "{host}",
            "PSYCOPG2_TESTDB_PORT": "{port}",
            "PSYCOPG2_TESTDB_USER": "{user}",
        },
        {},
    ),
}


def fetch(name: str, folder: Path) -> Path:
    """Return a folder with a suite's tests alone, their driver beside it; fetched if they are not there."""
    suite = SUITES[name]
    package = f"{name}-{suite.version}"
    there = folder / f"{package}-tests"
    pip = [sys.executable, "-m", "pip", "-q"]
    if not there.exists():
        wanted = f"{name}=={suite.version}"
        subprocess.run([*pip, "download", "--no-deps", "--no-binary", name, "-d", str(folder), wanted], check=True)
        there.mkdir()  # without the driver's own sources, which lack what has to be compiled
        tar = ["tar", "xzf", str(folder / f"{package}.tar.gz"), "-C", str(there), "--strip-components=1"]
        subprocess.run([*tar, f"{package}/{suite.folder}"], check=True)
    driver = folder / f"{name}-driver"
    if not driver.exists():
        subprocess.run([*pip, "install", "--target", str(driver), *suite.packages], check=True)
    return there


def run(
    name: str, source: Path, place: Mapping[str, str], report: Path, words: str | None
) -> dict[str, tuple[str, str]]:
    """Run a suite against one address; return how each test ended, and the first line of what it said."""
    suite = SUITES[name]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:crashlab"]
    command += ["-p", "no:randomly", f"--junitxml={report}", "-c", os.devnull, f"--rootdir={source}"]
    command += [f"--ignore={source / suite.folder / one}" for one in suite.without] + (["-k", words] if words else [])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment |= {key: value.format(**place) for key, value in suite.environment.items()}
    environment["PYTHONPATH"] = os.pathsep.join([str(source.parent / f"{name}-driver"), str(source)])
    log = report.with_suffix(".log")
    with log.open("wb") as output:
        subprocess.run(
            [*command, suite.folder], cwd=source, env=environment, stdout=output, stderr=output, timeout=SUITE_TIMEOUT_S
        )
    if not report.exists():
        raise SystemExit(f"{name}: no report; its last words are in {log}")
    cases = ElementTree.parse(report).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": _ended(case) for case in cases}


def _ended(case: ElementTree.Element) -> tuple[str, str]:
    for one in case:
        if one.tag in ("failure", "error", "skipped"):
            return one.tag, (one.get("message") or "").splitlines()[0][:200] if one.get("message") else ""
    return "passed", ""


def compare(name: str, folder: Path, words: str | None = None) -> list[str]:
    """Run a suite both ways, print how it went, and return the differences."""
    source = fetch(name, folder)
    ended = {}
    for how in ("directly", "observed"):
        with create_server(ServerSpec(kind="local", settings=SETTINGS)) as server:
            server.start()
            with server.connect(autocommit=True) as connection:
                connection.execute("CREATE DATABASE suite")
                user = connection.info.user
            upstream = upstream_of(server)
            place = {"host": upstream.host, "port": str(upstream.port), "user": user, "database": "suite"}
            report = folder / f"{name}-{how}.xml"
            report.unlink(missing_ok=True)
            if how == "directly":
                ended[how] = run(name, source, place, report, words)
                continue
            said = folder / f"{name}.jsonl"
            said.unlink(missing_ok=True)
            with Observer(upstream, said, folder=folder) as observer:
                address = observer.address
                place |= {"host": str(address.sockets), "port": str(address.port)}
                ended[how] = run(name, source, place, report, words)
            conversation = read_conversation(said)
            outcomes = dict(sorted(Counter(one.outcome for one in conversation.transactions).items()))
            print(f"{name}: the observer saw {len(conversation.connections)} connections, transactions {outcomes}")
    for how, tests in ended.items():
        print(f"{name} {how}: {dict(sorted(Counter(end for end, _ in tests.values()).items()))}")
    return differences(name, ended["directly"], ended["observed"])


def differences(name: str, first: Mapping[str, tuple[str, str]], second: Mapping[str, tuple[str, str]]) -> list[str]:
    """Say which tests did not end alike; a suite of which nothing passes says nothing, and that is told."""
    if not any(end == "passed" for end, _ in first.values()):
        return [f"{name}: not one test passed without the observer"]
    nothing = ("not run", "")
    return [
        f"{test}: directly {first.get(test, nothing)}, observed {second.get(test, nothing)}"
        for test in sorted({*first, *second})
        if first.get(test, nothing)[0] != second.get(test, nothing)[0]
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the suites that are asked for; 1 if a test ended in another way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=[*SUITES], action="append")
    parser.add_argument("--folder", type=Path, help="keeps what is fetched, and the reports")
    parser.add_argument("-k", dest="words", help="as pytest's: some of the tests")
    options = parser.parse_args(arguments)
    different = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.suite or SUITES:
            found = compare(name, folder, options.words)
            print(*found or [f"{name}: no difference"], sep="\n", flush=True)
            different += found
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
