"""Do imports only go down, and does judgement stay free of input and output?"""

import ast
import subprocess
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent / "crashlab"

BASE = {"errors", "seeds", "model", "duration", "confidence", "files", "sealed"}
DATA = BASE | {"ledger", "ledgerfile", "history", "ledgercursor", "evidence", "profile", "profile_schema", "layers"}
DATA |= {"toml_text", "contract", "recordtypes", "chronicle"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "sealed": set(),
    "seeds": set(),
    "duration": set(),
    "confidence": set(),
    "model": set(),
    "chronicle": {"model"},
    "toml_text": set(),
    "sql_text": set(),
    "declared": set(),
    "recordtypes": set(),
    "layers": {"errors", "toml_text"},
    "pages": {"errors"},
    "ledger": {"errors"},
    "ledgerfile": {"errors", "ledger"},
    "history": {"errors", "files", "ledger", "ledgerfile"},
    "ledgercursor": {"errors", "files", "ledger", "ledgerfile", "history"},
    "evidence": {"errors", "files", "sealed", "model", "disk", "evidence_upgrade"},
    "evidence_upgrade": set(),
    "profile": BASE | {"profile_schema", "layers", "toml_text"},
    "profile_schema": BASE | {"recordtypes", "sql_text", "contract", "disk", "server", "workload", "fault", "observer"},
    "contract": BASE,
    "disk": {"errors", "model"},
    "server": {"errors", "seeds"},
    "workload": {"errors", "ledger", "seeds", "sql_text", "declared"},
    "fault": {"errors", "model", "ledger", "declared", "server"},
    "recording": {"errors", "files", "sealed", "seeds", "model", "server", "disk"},
    "observer": {"errors", "server"},
    "observe": {"errors"},
    "flush": {"errors", "seeds", "confidence"},
    "recovery": DATA | {"server", "workload"},
    "oracle": {"model", "ledger", "history", "contract"},
    "results": DATA | {"server"},
    "matrix": DATA | {"results"},
    "tradeoff": DATA | {"server", "observe", "flush", "matrix", "results"},
    "trial": DATA
    | {"server", "disk", "workload", "fault", "recording", "recovery", "oracle", "results", "observer", "observe"},
    "testing": DATA
    | {"server", "disk", "fault", "recording", "observer", "recovery", "results", "trial", "exploration"},
    "exploration": DATA | {"server", "workload", "recording", "disk", "recovery", "results", "trial"},
    "strategies": DATA | {"server", "workload", "disk", "fault", "recovery", "exploration"},
    "campaign": DATA | {"server", "disk", "recording", "oracle", "results", "trial", "exploration"},
    "report": DATA | {"results", "oracle", "matrix", "observe", "flush", "tradeoff"},
    "lessons": DATA | {"server", "observe", "disk", "recording", "exploration", "oracle", "testing"},
    "doctor": DATA | {"server", "recording"},
    "cli": DATA
    | {
        "server",
        "fault",
        "oracle",
        "results",
        "matrix",
        "trial",
        "exploration",
        "campaign",
        "disk",
        "report",
        "lessons",
        "doctor",
        "pages",
        "observe",
        "flush",
        "tradeoff",
    },
    "pytest_plugin": BASE | {"trial", "profile", "results", "server", "observer", "testing"},
    "__main__": {"cli"},
}
"""A part -> the parts that it may import; a folder is one part."""

IMPURE = {"os", "subprocess", "socket", "time", "random", "pathlib", "shutil", "tempfile", "psycopg", "threading"}
INNER = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a statement holds others. No expression does: most nodes of a tree need not be looked at."""
PURE_PARTS = ("oracle", "contract", "model", "duration", "confidence", "disk")


def part_of(path: Path) -> str:
    """Return the part that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def statements_of(path: Path) -> tuple[ast.stmt, ...]:
    """Return every statement of a file, also inside of others."""
    found: list[ast.stmt] = []
    waiting: list[Any] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        for field in INNER:
            waiting += getattr(node, field, ())
        if isinstance(node, ast.stmt):
            found.append(node)
    return tuple(found)


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Return every module that a file imports anywhere, types included."""
    names: set[str] = set()
    for node in statements_of(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


SOURCES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def test_imports_go_down_only() -> None:
    """A part imports only what the table allows it."""
    known = {part_of(source) for source in SOURCES}
    assert known - set(ALLOWED) == set(), "parts without a row in the table of imports"
    for path in SOURCES:
        part = part_of(path)
        parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("crashlab.")}
        assert (parts & known) - ALLOWED[part] - {part} == set(), path


def test_judgement_does_no_input_or_output() -> None:
    """The oracle, the contract and the disk model import nothing that touches the world."""
    paths = [path for path in SOURCES if part_of(path) in PURE_PARTS]
    for path in paths:
        modules = {name.split(".")[0] for name in imports_of(path)}
        assert modules & IMPURE == set(), path


def test_only_seeds_makes_randomness() -> None:
    """`random` is used for its types only; streams come from `seeds`."""
    for path in SOURCES:
        if part_of(path) == "seeds":
            continue
        made = {name for name in imports_of(path) if name.startswith(("random.", "secrets"))}
        assert made <= {"random.Random"}, path


def test_functions_fit_a_screen() -> None:
    """No function is longer than 70 lines."""
    for path in SOURCES:
        for node in statements_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 70, f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize("module", ["crashlab", "crashlab.pytest_plugin", "crashlab.cli"])
def test_light_modules_stay_light(module: str) -> None:
    """Importing the plugin or the command line loads no driver and no container library."""
    code = f"import sys, {module}; print(sorted({{'psycopg', 'testcontainers', 'docker', 'rich'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_pytest_loads_crashlab_as_any_program_does() -> None:
    """Its assertions are not rewritten, which would take a third of a second from each run of a user's tests."""
    from crashlab import history

    assert history.__spec__ is not None
    assert isinstance(history.__spec__.loader, SourceFileLoader)
