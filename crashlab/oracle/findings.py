"""How do single witnesses become findings that a tired reader understands?

Witnesses of one code at one place become one finding with a count and the first few of them. Whether the contract
permits it is decided here and nowhere else.
"""

from collections.abc import Iterable
from typing import Any

from crashlab.contract import commit_clause
from crashlab.model import Clause, Contract, Family, Finding
from crashlab.oracle.codes import CODES, Code

WITNESSES_MAX = 10

_SETTINGS = {
    Family.LOSS: ("fsync", "disk", "synchronous_commit"),
    Family.CORRUPTION: ("fsync", "disk", "full_page_writes"),
    Family.NO_START: ("fsync", "disk", "full_page_writes"),
}
_WINDOW_SETTINGS = ("fsync", "synchronous_commit", "wal_writer_delay")
_ASYNC_CODES = ("LOSS-ASYNC-WINDOW", "LOSS-ASYNC-WINDOW-EXCEEDED")
_ALWAYS_PERMITTED = (*_ASYNC_CODES, "LOSS-NOTHING-PROMISED")


class Findings:
    """Everything witnessed so far in one judgement."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._groups: dict[tuple[str, str], _Group] = {}

    def add(self, code: str, place: str, says: str, *, files: Iterable[str | None] = (), **witness: Any) -> None:
        """Note one witness.

        Args:
            code: a key of `codes.CODES`.
            place: what is damaged: a table, an index, "transactions", a setting; with the code it makes one finding.
            says: one sentence about this witness; the first of a group is shown.
            files: files below the data directory that are concerned.
            witness: facts for the evidence.
        """
        assert code in CODES, code
        group = self._groups.get((code, place))
        if group is None:
            group = self._groups[(code, place)] = _Group(says)
        group.count += 1
        group.files.update(dict.fromkeys(file for file in files if file))
        if "sync" in witness:
            group.commits[witness["sync"], witness["flushed"]] = None
        if len(group.witnesses) < WITNESSES_MAX:
            group.witnesses.append(witness)

    def has(self, family: Family) -> bool:
        """Whether anything of this family was witnessed."""
        return any(CODES[code].family is family for code, _ in self._groups)

    def count(self, code: str) -> int:
        """How many witnesses of one code there are, at all places."""
        return sum(group.count for (known, _), group in self._groups.items() if known == code)

    def finish(self) -> list[Finding]:
        """Return all findings, worst first."""
        found = [self._finding(code, place, group) for (code, place), group in self._groups.items()]
        return sorted(found, key=lambda finding: (CODES[finding.code].rank, -finding.count, finding.code))

    def permits(self, code: str) -> bool:
        """Whether the contract allows what a code says."""
        family = CODES[code].family
        if family is Family.LOSS:
            return code in _ALWAYS_PERMITTED or not self._contract.sync_commits_survive
        if family in (Family.CORRUPTION, Family.NO_START):
            return not self._contract.corruption_excluded
        return True

    def _finding(self, code: str, place: str, group: "_Group") -> Finding:
        entry = CODES[code]
        files = list(group.files)[:WITNESSES_MAX]
        evidence: dict[str, Any] = {"place": place, "witnesses": group.witnesses}
        if files:
            evidence["files"] = files
        more = f" There are {group.count} such witnesses in all." if group.count > 1 else ""
        where = f" Look at {', '.join(files)} below the data directory." if files else ""
        times = f", {group.count} times" if group.count > 1 else ""
        return Finding(
            code=code,
            family=entry.family,
            permitted=self.permits(code),
            summary=f"{entry.title} ({place}{times})",
            explanation=f"{group.says}{more}{where} {entry.explanation}{self._promise(entry, group)}",
            count=group.count,
            evidence=evidence,
        )

    def _promise(self, entry: Code, group: "_Group") -> str:
        wanted = _WINDOW_SETTINGS if entry.code in _ASYNC_CODES else _SETTINGS.get(entry.family, ())
        clauses: list[Clause] = []
        for clause in self._contract.clauses:
            if clause.setting == "synchronous_commit" and clause.setting in wanted and group.commits:
                # Each transaction has its own; what the server's setting promises may be about none of these
                survives = self._contract.sync_commits_survive
                clauses += [commit_clause(mode, survives=survives, forced=forced) for mode, forced in group.commits]
            elif clause.setting in wanted:
                clauses.append(clause)
        if not clauses:
            return ""
        says = "; ".join(f"{clause.setting} = {clause.value}: {clause.says} [{clause.manual}]" for clause in clauses)
        crash = self._contract.crash_class.value.replace("_", " ")
        return f" Promised for a {crash}: {says}."


class _Group:
    def __init__(self, says: str) -> None:
        self.says = says
        self.count = 0
        self.files: dict[str, None] = {}
        self.commits: dict[tuple[str, bool], None] = {}  # synchronous_commit at commit; flushed before the answer
        self.witnesses: list[dict[str, Any]] = []
