"""How do single witnesses become findings that a tired reader understands?

Witnesses of one code at one place become one finding with a count and the first few of them. It is told in three
lengths, all about the first witness: one line; a paragraph that says what happened, where to look, which fault looks
like that, what is promised and what would have helped; a timeline.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from crashlab.contract import Ground
from crashlab.model import Family, Finding
from crashlab.oracle.case import Case
from crashlab.oracle.code import Code
from crashlab.oracle.codes import CODES
from crashlab.oracle.promise import Commit, is_permitted, promised, remedy

WITNESSES_MAX = 10
FILES_TOLD_MAX = 3
TRANSACTIONS = "transactions"
"""The place of what is missing as a whole, see `order`."""

Witness = dict[str, Any]
Tell = Callable[[str, Witness], list[str]]
"""place, first witness -> its timeline."""

_TWO_STOPS = re.compile(r"(?<!\.)\.\.(?=\s|$)")
_GRADED = (Family.LOSS, Family.CORRUPTION, Family.NO_START)


class Findings:
    """Everything witnessed so far in one judgement."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._groups: dict[tuple[str, str], _Group] = {}

    def add(
        self,
        code: str,
        place: str,
        says: str,
        *,
        files: Iterable[str | None] = (),
        like: str = "",
        ground: Ground | None = None,
        remedy: str = "",
        **witness: Any,
    ) -> None:
        """Note one witness.

        Args:
            code: a key of `codes.CODES`.
            place: what is damaged: a table, an index, "transactions", a setting; with the code it makes one finding.
            says: whole sentences about this witness; those of the first of a group are shown.
            files: files below the data directory that are concerned.
            like: which fault this looks like, if more is known of it than of its kind; one sentence.
            ground: which promise excludes it, if more is known of it than of its kind.
            remedy: what to do about it, if that of its kind does not fit; for what is inconclusive.
            witness: facts for the evidence. `tx` is the transaction that it is about, `key` the row, `sync` and
                `flushed` how that transaction was committed; the timeline follows them.
        """
        assert code in CODES, code
        group = self._groups.get((code, place))
        if group is None:
            group = self._groups[(code, place)] = _Group(says, like, ground or CODES[code].ground, remedy)
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

    def permits(self, code: str) -> bool:
        """Whether the contract allows what a code says."""
        return is_permitted(self._case, CODES[code])

    def finish(self, tell: Tell) -> list[Finding]:
        """Return all findings, worst first."""
        found = [self._finding(CODES[code], place, group, tell) for (code, place), group in self._groups.items()]
        return sorted(found, key=lambda finding: (CODES[finding.code].rank, -finding.count, finding.code))

    def _finding(self, entry: Code, place: str, group: "_Group", tell: Tell) -> Finding:
        files = list(group.files)[:WITNESSES_MAX]
        evidence: dict[str, Any] = {"place": place, "witnesses": group.witnesses}
        if files:
            evidence["files"] = files
        told = (
            group.says,
            _more(entry, place, group),
            f"Look at {_listed(files)} below the data directory." if files else "",
            self._torn(files) or group.like or entry.like,
            promised(self._case, entry, group.commits, group.ground),
            group.remedy or remedy(self._case, entry, group.commits),
        )
        return Finding(
            code=entry.code,
            family=entry.family,
            permitted=self.permits(entry.code),
            summary=f"{entry.title}: {_subject(place, group)}",
            explanation=_one_stop(" ".join(part for part in told if part).replace("\n", " ")),
            timeline=tell(place, group.witnesses[0]) if entry.family in _GRADED else [],
            count=group.count,
            evidence=evidence,
        )

    def _torn(self, files: list[str]) -> str:
        """Name the pages of these files that the power cut tore, where no image of them is in the log."""
        pages = [page for page in self._case.observation.torn_pages if page.file in files]
        if not pages:
            return ""
        names = _listed([_pages(file, [page.page for page in pages if page.file == file]) for file in files])
        return (
            f"The likely cause: the power cut left {names} half old and half new, and with full_page_writes = off "
            "the log holds no image to mend that."
        )


@dataclass
class _Group:
    says: str
    like: str
    ground: Ground
    remedy: str
    count: int = 0
    files: dict[str, None] = field(default_factory=dict)
    commits: dict[Commit, None] = field(default_factory=dict)
    witnesses: list[Witness] = field(default_factory=list)


def _one_stop(text: str) -> str:
    """Take away the full stop that was put behind a message which ends with its own."""
    return _TWO_STOPS.sub(".", text)


def _more(entry: Code, place: str, group: _Group) -> str:
    others = group.count - 1
    if not others:
        return ""
    if entry.family is Family.LOSS and place == TRANSACTIONS:  # they come in the order of their commits
        return f"Transaction {group.witnesses[0]['tx']} is the oldest of {group.count} such losses."
    if entry.family is Family.LOSS:
        return f"{others} more were lost." if others > 1 else "One more was lost."
    return f"{others} more are like it." if others > 1 else "One more is like it."


def _pages(file: str, pages: list[int]) -> str:
    if not pages:
        return ""
    return f"page{'s' if len(pages) > 1 else ''} {_listed([str(page) for page in pages])} of {file}"


def _listed(names: list[str]) -> str:
    names = [name for name in names if name]
    more = f" and {len(names) - FILES_TOLD_MAX} more" if len(names) > FILES_TOLD_MAX else ""
    return f"{', '.join(names[:FILES_TOLD_MAX])}{more}"


def _subject(place: str, group: _Group) -> str:
    witness = group.witnesses[0]
    more = f" and {group.count - 1} more" if group.count > 1 else ""
    if "told" in witness:
        return f"key {witness['told']}{more}"
    if "key" in witness:
        return f"{place} key {witness['key']}{more}"
    if witness.get("tx") and "client" in witness:
        return f"transaction {witness['tx']}{more}"
    return f"{place}, {group.count} times" if more else place
