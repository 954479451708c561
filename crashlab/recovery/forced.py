"""How is a query made to read a table in one certain way, and no other?

The ways that the planner may choose from are switched off but for the wanted ones, the query is prepared, its plan is
looked at, and that very plan is run: a statement without parameters keeps the plan that EXPLAIN showed.

Choices: many queries are prepared in one message and run in a second one. A query whose plan does not fit is not run.
    Of what may die or turn in a circle of damage, as GIN does, each is run in a message of its own.
    If the server raises an error in between, nothing is known, and each query is prepared and run on its own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors

from crashlab.recovery.session import at_once, results

_PLANS = (
    *("seqscan", "indexscan", "indexonlyscan", "bitmapscan"),
    *("sort", "incremental_sort", "memoize"),
)
_RESETS = (*(f"RESET enable_{name}" for name in _PLANS), "RESET jit")
IN_THE_HEAP = ("seqscan", "sort")
IN_ORDER = ("indexscan",)
BY_VALUE = ("indexscan", "bitmapscan", "sort")


@dataclass(frozen=True)
class Plan:
    """What a prepared query will scan, each scan with the bare name of its index or nothing."""

    scans: list[tuple[str, str]]
    problem: str = ""  # why there is no plan

    def __str__(self) -> str:
        """Say it in words."""
        return self.problem or ", ".join(f"{kind} on {index}" if index else kind for kind, index in self.scans)


@dataclass(frozen=True)
class Question:
    """A query without parameters, and how it may be answered."""

    query: str
    ways: tuple[str, ...]  # IN_THE_HEAP, IN_ORDER or BY_VALUE
    fits: Callable[[Plan], bool]
    about: str  # the table or index
    alone: bool = False  # what damage of it may kill the server, which has to be blamed on nothing else


Rows = list[tuple[Any, ...]]
_Text = tuple[str, tuple[str, ...]]  # of a question: the query and its ways


class Forced:
    """Asks questions of one session, whose settings it changes until it is closed."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        connection.prepare_threshold = None  # the driver's own statements would go with DEALLOCATE
        self._connection = connection
        self._to_reset = False
        self._known: dict[_Text, tuple[Plan, Rows | str]] = {}  # not run yet: its name

    def ask_ahead(self, questions: Sequence[Question]) -> None:
        """Ask them all in two round trips; `ask` then knows the answers, or asks again if there was an error.

        Those that are to be asked alone are prepared only.
        """
        about = [question.about for question in questions]  # planning reads of each of them, too
        self._known = at_once(self._connection, lambda: self._in_two(questions), about) or {}

    def ask(self, question: Question) -> Plan | Rows:
        """Return the rows of a query, or its plan if that does not fit.

        Raises:
            psycopg.Error: a damaged catalog, a table that is gone, or a page that cannot be read.
        """
        if (question.query, question.ways) in self._known:
            plan, rows = self._known[question.query, question.ways]
            if not question.fits(plan):
                return plan
            return self._connection.execute(f"EXECUTE {rows}").fetchall() if isinstance(rows, str) else rows
        self._to_reset = True
        self._connection.execute(_allow(question.ways))
        plan = self._prepare(question.query)
        if not question.fits(plan):
            return plan
        return self._connection.execute("EXECUTE crashlab_read").fetchall()

    def close(self) -> None:
        """Leave the choice to the planner again."""
        if self._to_reset:
            self._connection.execute("; ".join(_RESETS))

    def _in_two(self, questions: Sequence[Question]) -> dict[_Text, tuple[Plan, Rows | str]]:
        if not questions:
            return {}
        same: dict[_Text, list[Question]] = {}  # two indexes on one column are asked the same
        for question in questions:
            same.setdefault((question.query, question.ways), []).append(question)
        names = {text: f"crashlab_read_{number}" for number, text in enumerate(same)}
        statements = ["DEALLOCATE ALL"]
        before: tuple[str, ...] | None = None
        for text, name in names.items():
            query, ways = text
            if ways != before:
                statements.append(_allow(ways))
                before = ways
            statements += _prepare(name, query)
        self._to_reset = True
        said = results(self._connection, statements)
        plans = {text: _plan(rows) for text, rows in zip(same, said, strict=True)}
        fitting = [
            text for text, asked in same.items() if any(one.fits(plans[text]) and not one.alone for one in asked)
        ]
        answers = results(self._connection, [*(f"EXECUTE {names[text]}" for text in fitting), *_RESETS])
        self._to_reset = False
        rows = dict(zip(fitting, answers, strict=True))
        return {text: (plan, rows.get(text, names[text])) for text, plan in plans.items()}

    def _prepare(self, query: str) -> Plan:
        try:
            (rows,) = results(self._connection, ["DEALLOCATE ALL", *_prepare("crashlab_read", query)])
        except errors.UndefinedTable:
            raise
        except (errors.ProgrammingError, errors.NotSupportedError) as error:
            return Plan([], f"no plan: {error.diag.message_primary}")
        return _plan(rows)


def _prepare(name: str, query: str) -> list[str]:
    return [f"PREPARE {name} AS {query}", f"EXPLAIN (FORMAT JSON, COSTS OFF) EXECUTE {name}"]


def _allow(ways: Sequence[str]) -> str:
    settings = [f"SET enable_{name} = {'on' if name in ways else 'off'}" for name in _PLANS]
    return "; ".join([*settings, "SET jit = off"])  # the cost of a forced plan would start it


def _plan(rows: Rows) -> Plan:
    ((said,),) = rows
    found = said if isinstance(said, list) else json.loads(said)
    return Plan(list(_scans(found[0]["Plan"])))


def _scans(node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "Relation Name" in node or "Index Name" in node:
        yield node["Node Type"], node.get("Index Name", "")
    for below in node.get("Plans", ()):
        yield from _scans(below)
