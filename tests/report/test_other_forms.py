"""Do Markdown, traces and the terminal say what the page says, and nothing that evidence could slip in?"""

import json
from collections import Counter
from typing import Any

import pytest
from markdown_it import MarkdownIt

from crashlab.chronicle import Fate
from crashlab.report import markdown_report, trace_report
from crashlab.report.short_timeline import COLUMNS, LETTERS, short_timeline
from tests.made_results import broken, inconclusive, intact, permitted_loss, result, run
from tests.report.made_chronicles import chronicle, told, transaction

HOSTILE = (
    "a|b\n# head\n- item <script>alert(1)</script> [x](javascript:alert(1)) ![](http://x) `tick` *bold* "
    "https://evil.example www.evil.example @everyone #12 ~~gone~~ | ``` \\"
)


def parsed(text: str):
    """The tokens of a Markdown text, those inside of others, too."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [*tokens, *(child for token in tokens for child in token.children or ())]


@pytest.mark.parametrize("words", [HOSTILE, "1. one", "- one", "+ one", "=", "2) two", "    code", "> quote"])
def test_words_of_evidence_are_text_in_markdown(words):
    """No link, no element, no heading, no item, no end of a table; what is read is what stood there."""
    tokens = parsed(f"| {markdown_report.text(words)} | x |\n|---|---|\n| y | z |\n")
    assert {"th_open", "text", "table_open"} <= {token.type for token in tokens}
    allowed = {"inline", "text", "text_special"}
    assert {token.type for token in tokens if not token.type.endswith(("_open", "_close"))} <= allowed
    first = next(token for token in tokens if token.type == "inline")
    assert "".join(child.content for child in first.children or ()) == " ".join(words.split())
    assert [token.type for token in parsed(markdown_report.text(words))][:1] == ["paragraph_open"]
    assert "://" not in markdown_report.text(words)
    assert "@" not in markdown_report.text(words)


def test_a_command_stays_in_its_block():
    """Whatever ticks stand in it."""
    block = "\n".join(markdown_report.code_block("run ``` and ```` <b>\n```"))
    (fence,) = [token for token in parsed(block) if token.type == "fence"]
    assert fence.content == "run ``` and ```` <b> ```\n"


def test_the_summary_has_verdict_surprises_table_findings_and_command():
    """As the other reports; the table has a row a profile."""
    made = run(
        result("async-commit", permitted_loss()),
        result("kill9-all", broken(), inconclusive(1)),
        command="crashlab run async-commit kill9-all --seed 42",
    )
    text = markdown_report.report_bytes(made, 1).decode()
    assert text.startswith("## crashlab: A promise was broken. (exit code 1)\n\n3 crashes of PostgreSQL 18.6")
    assert [token.type for token in parsed(text)].count("tr_open") == 3
    assert "- ❌ broken, kill9-all: promise broken in 1 of 2 trials" in text
    assert "async-commit: every promise kept" not in text
    assert text.count("<details>") == 2
    assert text.endswith("```text\ncrashlab run async-commit kill9-all --seed 42\n```\n")
    innocent = markdown_report.report_bytes(run(result("kill9-all", intact())), 0).decode()
    assert "Nothing is different from expectation." in innocent


def test_github_takes_the_summary_of_a_job(tmp_path, monkeypatch, recorded_folder, capsys):
    """It is appended to what other steps wrote; without GitHub nobody writes."""
    from crashlab.cli import invoke

    summary = tmp_path / "job-summary"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert invoke(["judge", str(recorded_folder), "-q", "--out", str(tmp_path / "one")]) == 0
    assert summary.read_text() == "before\n"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert invoke(["judge", str(recorded_folder), "-q", "--out", str(tmp_path / "two")]) == 0
    assert summary.read_text().startswith("before\n## crashlab: No promise was broken. (exit code 0)\n")


@pytest.mark.parametrize("name", ["recorded", "live"])
def test_a_trace_has_every_transaction_once(name, request):
    """Slices of a client's thread that do not cross, pairs of asynchronous ones, times from 0 on."""
    stored = request.getfixturevalue(name)
    document = json.loads(trace_report.report_bytes(stored, 0))
    events = document["traceEvents"]
    assert all(event["ts"] >= 0 and event.get("dur", 0) >= 0 for event in events if event["ph"] != "M")
    for number, one in enumerate(stored.told, 1):
        assert one.chronicle is not None
        slices = [event for event in events if event["pid"] == number and event.get("cat") == "transaction"]
        whole = [event for event in slices if event["name"].startswith("transaction")]
        assert Counter(event["name"].partition(": ")[2] for event in whole) == one.chronicle.fates
        pairs = [(event["id"], event["ph"]) for event in events if event["pid"] == number and event["ph"] in "be"]
        assert [ph for _, ph in sorted(pairs)] == ["b", "e"] * (len(pairs) // 2)


KEYS = {
    "M": {"args"},
    "X": {"ts", "tid", "dur", "args"},
    "b": {"ts", "tid", "cat", "id", "args"},
    "e": {"ts", "tid", "cat", "id"},
    "i": {"ts", "tid", "s"},
    "C": {"ts", "args"},
}
"""Kind of event -> what it needs beside its name and its process, by the trace event format."""


def faults_of(events: list[dict[str, Any]]) -> list[str]:
    """Say what a viewer of traces would leave out, or put in the wrong place."""
    wrong = []
    for event in events:
        lacks = ({"name", "ph", "pid"} | KEYS.get(event["ph"], {"a known kind"})) - event.keys()
        wrong += [f"{event}: lacks {lacks}"] if lacks else []
        wrong += [f"{event}: no whole microsecond" for key in ("ts", "dur") if type(event.get(key, 0)) is not int]
        wrong += [f"{event}: no number" for value in event["args"].values() if event["ph"] == "C" and value < 0]
    opened: Counter[tuple[str, Any]] = Counter()
    whose: dict[tuple[str, Any], int] = {}
    for event in sorted((one for one in events if one["ph"] in "be"), key=lambda one: (one["ts"], one["ph"])):
        key = event["cat"], event["id"]
        opened[key] += 1 if event["ph"] == "b" else -1
        wrong += (
            [f"{event}: also of process {whose[key]}"] if whose.setdefault(key, event["pid"]) != event["pid"] else []
        )
    wrong += [f"{key} does not end" for key, count in opened.items() if count]
    named = {(one["pid"], one["tid"]) for one in events if one["name"] == "thread_name"}
    for pid, tid in {(one["pid"], one["tid"]) for one in events if one["ph"] == "X"}:
        wrong += [] if (pid, tid) in named else [f"thread {pid}, {tid} has no name"]
        ends: list[int] = []
        spans = [(one["ts"], one["ts"] + one["dur"]) for one in events if one["ph"] == "X"
                 if (one["pid"], one["tid"]) == (pid, tid)]  # fmt: skip
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while ends and ends[-1] <= begin:
                ends.pop()
            wrong += (
                [f"thread {tid}: {begin} to {end} crosses the end at {ends[-1]}"] if ends and end > ends[-1] else []
            )
            ends.append(end)
    return wrong


@pytest.mark.parametrize("name", ["recorded", "live"])
def test_a_trace_is_what_a_viewer_expects(name, request):
    """Each event has what its kind needs; slices of a thread lie in each other or apart; what begins ends, once."""
    events = json.loads(trace_report.report_bytes(request.getfixturevalue(name), 0))["traceEvents"]
    assert {"M", "X", "C", "i"} <= {event["ph"] for event in events}
    assert faults_of(events) == []
    broken = [event | {"ts": event["ts"] + 1} if event["name"] == "COMMIT" else event for event in events]
    assert faults_of(broken) != []


@pytest.mark.parametrize("name", ["recorded", "live"])
def test_the_terminal_draws_in_a_hundred_columns(name, request):
    """A lane a client; every fate that is there has its letter in the lanes and its count below them."""
    for one in request.getfixturevalue(name).told:
        assert one.chronicle is not None
        lines = short_timeline(one.chronicle)
        assert max(map(len, lines)) <= COLUMNS
        lanes = [line for line in lines if line.startswith("client ")]
        assert len(lanes) == len([client for client in one.chronicle.clients if client])
        for fate, number in one.chronicle.fates.items():
            assert f"{LETTERS[fate]} {number:,} {fate}" in "\n".join(lines)


def test_one_loss_among_thousands_is_seen_on_the_terminal():
    """The worst of a column is shown; without a loss there is no such letter."""
    kept = [transaction(tx, Fate.SURVIVED, begin=tx - 5000.0) for tx in range(1, 5000)]
    lost = transaction(2500, Fate.FORBIDDEN, begin=-2500.0)
    lane = next(line for line in short_timeline(chronicle(*kept, lost)) if line.startswith("client 1"))
    innocent = next(line for line in short_timeline(chronicle(*kept)) if line.startswith("client 1"))
    assert (lane.count("X"), innocent.count("X")) == (1, 0)
    assert told(chronicle(*kept)).chronicle is not None
