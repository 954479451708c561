"""Can old evidence be judged anywhere, at any time?"""

import ast
from pathlib import Path

import crashlab

FORBIDDEN = {"os", "io", "subprocess", "socket", "time", "datetime", "random", "psycopg", "pathlib", "threading"}
PACKAGE = Path(crashlab.__file__).parent
FILES = [PACKAGE / "contract.py", *sorted((PACKAGE / "oracle").glob("*.py"))]


def test_judgement_imports_nothing_that_touches_the_world():
    """Neither files nor clocks nor chance: the oracle and the contract are functions of their arguments."""
    for file in FILES:
        tree = ast.parse(file.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in imported} & FORBIDDEN, file
        called = {
            node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & {"open", "print", "input"}, file


def test_every_checker_says_what_it_does_not_check():
    """What is checked, what is not, and where that comes from."""
    checkers = "assumptions commit_status leftovers objects order physical rows serverlog start survivors wal"
    for name in checkers.split():
        text = ast.get_docstring(ast.parse((PACKAGE / "oracle" / f"{name}.py").read_text())) or ""
        assert text.splitlines()[0].endswith("?"), name
        for part in ("Checks:", "Does not check:", "Source"):
            assert part in text, (name, part)
