"""How is a result told in a pull request, or in the summary of a job? In Markdown, as GitHub and GitLab take it.

Choices: whatever comes from evidence is written with character references, so that it is no markup, no link, no mention
    of anybody, and ends no table; commands stand in code blocks whose fence is longer than any in them.

Source: the GitHub Flavored Markdown Spec, "Entity and numeric character references", "Fenced code blocks".
"""

import re
from collections.abc import Iterator

from crashlab.report.coverage import coverage_line
from crashlab.report.matrix import cell_results, matrix_line
from crashlab.report.opening import opening, surprises
from crashlab.report.story import follow_up, printable, story
from crashlab.report.summary import counted, distinct_findings, how_to_go_on, promise, sentence, tally, verdict
from crashlab.report.window import window_line
from crashlab.results import RunResult

FINDINGS_MAX = 20
"""GitHub takes 1 MB for the summary of a step."""
_MARKUP = re.compile(r"[&<>\\`*_\[\](){}#|~@!$\"']|(?<=www)\.|:(?=//)|^[-+=]|^\d+(?=[.)])")
_SIGNS = {"kept": "✅ kept", "broken": "❌ broken", "void": "➖ void", "inconclusive": "❔ inconclusive"}


def report_bytes(run: RunResult, code: int) -> bytes:
    """Return the summary, UTF-8."""
    return ("\n".join(_lines(run, code)) + "\n").encode()


def text(words: str) -> str:
    """Return words that may come from anybody as text of one line, whatever stands in them."""
    return _MARKUP.sub(lambda match: "".join(f"&#{ord(one)};" for one in match[0]), " ".join(printable(words).split()))


def code_block(words: str) -> list[str]:
    """Return a code block that holds these words, and nothing of them ends it."""
    content = " ".join(printable(words).split())
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", content)), default=0))
    return [f"{fence}text", content, fence]


def _lines(run: RunResult, code: int) -> Iterator[str]:
    yield f"## crashlab: {verdict(run, code)} (exit code {code})"
    yield ""
    yield text(opening(run))
    if (how := how_to_go_on(run)) is not None:
        yield from ("", text(how))
    for error in ([] if run.error is None else [run.error]) + run.damaged:
        yield from ("", f"**Error:** {text(str(error))}")
    yield from (
        "",
        "**Different from expectation:**" if surprises(run) else "Nothing is different from expectation.",
        "",
    )
    for one in surprises(run):
        yield f"- {_SIGNS[one.promise]}, {text(one.profile)}: {text(one.says)}"
    yield from ("", *_table(run), "")
    cells = cell_results(run.profiles)
    more = [coverage_line(run.profiles), f"matrix: {matrix_line(cells)}" if cells else None]
    more += [f"{result.profile.name}: {line}" if (line := window_line(result)) else None for result in run.profiles]
    yield from (f"- {text(line)}" for line in more if line)
    yield from _findings(run)
    if run.command is not None:
        yield from ("", "Run again:", "", *code_block(run.command))


def _table(run: RunResult) -> Iterator[str]:
    heads = ("profile", "promise", "trials", "intact", "loss", "corrupt", "no start", "inconclusive", "acked", "lost")
    yield f"| {' | '.join(heads)} | what it showed |"
    yield "|---|---|" + "---:|" * (len(heads) - 2) + "---|"
    for result in run.profiles:
        counts = tally(result)
        numbers = (counts.trials, counts.intact, counts.loss, counts.corruption, counts.no_start, counts.inconclusive)
        cells = [text(result.profile.name), _SIGNS[promise(result)], *map(str, (*numbers, counts.acked, counts.lost))]
        yield f"| {' | '.join(cells)} | {text(sentence(result))} |"


def _findings(run: RunResult) -> Iterator[str]:
    found = distinct_findings(run.profiles)
    for one in found[:FINDINGS_MAX]:
        told = story(one.finding)
        where = f"{one.result.profile.name}, {one.trials} of {counted(len(one.result.trials))}"
        yield from (
            "",
            f"<details><summary><b>{text(told.code)}</b> ({text(told.grade)}): {text(told.line)}</summary>",
            "",
        )
        yield f"{text(where)}. {text(told.paragraph)}"
        for label, words in follow_up(one.first):
            yield from ("", f"{label}:", "", *code_block(words))
        yield from ("", "</details>")
    if len(found) > FINDINGS_MAX:
        yield from ("", f"{len(found) - FINDINGS_MAX} more findings are in the other reports.")
