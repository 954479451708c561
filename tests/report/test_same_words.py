"""Is the same said everywhere: on the console, in JSON, in JUnit XML, on the page?"""

import base64
import dataclasses
import hashlib
import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace
from rich.console import Console

from crashlab.errors import ServerError
from crashlab.model import Family, Held, Outcome, PromiseStatus
from crashlab.report import html_report, json_report, junit, markdown_report
from crashlab.report.console import print_closing, print_results, trial_line
from crashlab.report.github import annotations
from crashlab.report.opening import opening, servers
from crashlab.report.story import Length, printable, story
from crashlab.report.summary import NOTHING_DUE, distinct_findings, promise
from crashlab.results import RunResult
from tests.made_results import (
    FACTS,
    HOLE,
    broken,
    inconclusive,
    intact,
    permitted_loss,
    recovered_by,
    result,
    run,
    shut_down,
    trial,
)

RUN = run(
    result("async-commit", permitted_loss(), permitted_loss(1, oldest_ms=12.0), intact(2)),
    result("kill9-all", intact(), broken(1), inconclusive(2)),
    command="crashlab run async-commit kill9-all --seed 42",
)


class Page(HTMLParser):
    """The visible text of a page, its tags with their attributes, and whether they are closed in order."""

    VOID = {"meta", "br", "rect", "line", "path", "input"}

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def on_the_console(told: RunResult, length: Length = Length.TIMELINE, width: int = 80) -> str:
    """What a terminal shows."""
    target = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    print_results(target, told, length)
    print_closing(target, told, 1, Path("out"))
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def in_json(told: RunResult) -> str:
    """All texts of the JSON report."""
    reports = json.loads(json_report.report_bytes(told))
    findings = [one for report in reports for trial in report["trials"] for one in trial["findings"]]
    return printable(" ".join(" ".join([one["summary"], one["explanation"], *one["timeline"]]) for one in findings))


def in_json_whole(told: RunResult) -> str:
    """The JSON report as it is."""
    return json_report.report_bytes(told).decode()


def in_markdown(told: RunResult) -> str:
    """What a pull request shows."""
    return html.unescape(markdown_report.report_bytes(told, 0).decode())


def in_junit(told: RunResult) -> str:
    """All texts of the JUnit report, and its messages."""
    root = ElementTree.fromstring(junit.report_bytes(told))
    return " ".join([*root.itertext(), *(element.get("message", "") for element in root.iter())])


def in_junit_whole(told: RunResult) -> str:
    """The JUnit report as it is."""
    return junit.report_bytes(told).decode()


def on_the_page(told: RunResult) -> str:
    """The visible text of the page."""
    return " ".join(Page(html_report.report_bytes(told, 1)).text)


def plain(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


@pytest.mark.parametrize("tell", [on_the_console, in_json, in_junit, on_the_page])
def test_each_finding_has_the_same_three_texts_in_every_report(tell: Callable[[RunResult], str]) -> None:
    """One line, paragraph and timeline, word by word, however hostile the characters in them are."""
    text = plain(tell(RUN))
    told = [story(found.finding) for found in distinct_findings(RUN.profiles)]
    assert len(told) == 2
    for one in told:
        assert one.timeline
        for part in (one.line, one.paragraph, *one.timeline):
            assert plain(part) in text


def test_the_console_tells_as_much_as_it_is_asked_to():
    """Quiet: a table and one line each. Usual: the paragraph, too. Verbose: the timeline, too."""
    quiet, usual, verbose = (on_the_console(RUN, length, 200) for length in Length)
    for found in distinct_findings(RUN.profiles):
        told = story(found.finding)
        (line,) = (line for line in quiet.splitlines() if line.startswith(told.code))
        assert line.endswith(told.line)
        assert [told.paragraph in text for text in (quiet, usual, verbose)] == [False, True, True]
        assert [told.timeline[0] in text for text in (quiet, usual, verbose)] == [False, False, True]
    assert ["reproduce: " in text for text in (quiet, usual, verbose)] == [False, True, True]
    assert all("A promise was broken." in text for text in (quiet, usual, verbose))
    assert "\x1b" not in verbose


def test_the_page_needs_nothing_but_itself():
    """Nothing from elsewhere; one script, whose digest its policy names; links into itself or to the manual."""
    page = html_report.report_bytes(RUN, 1)
    tags = Page(page).tags
    assert {"link", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in tags} == set()
    (script,) = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = next(attributes["content"] for _, attributes in tags if "http-equiv" in attributes) or ""
    assert {"default-src 'none'", f"script-src 'sha256-{digest}'"} <= {part.strip() for part in policy.split(";")}
    assert not re.search(rb"url\(|@import", page)
    assert not [name for _, attributes in tags for name in attributes if name == "src" or name.startswith("on")]
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for tag, attributes in tags if tag == "a"]
    assert links
    for link in links:
        assert link.startswith("https://www.postgresql.org/docs/") or link.removeprefix("#") in ids
    assert len([tag for tag, attributes in tags if tag == "tr" and "id" in attributes]) == 6


def test_the_page_holds_what_was_run_and_promised():
    """Server, seed, command, sentence, contract with its manual, reproduce commands, and no text taken for a tag."""
    page = Page(html_report.report_bytes(RUN, 1))
    text = plain(" ".join(page.text))
    for expected in (
        "A promise was broken. (exit code 1)",
        "PostgreSQL 18.6, local, /opt/postgres/bin",
        "42",
        "crashlab run async-commit kill9-all --seed 42",
        "fsync = off",
        "crashlab replay out/profile/trial-0001",
        "promise broken in 1 of 3 trials",
        "async window: oldest lost commit 12 to 188 ms before the fault in 2 of 3 trials, median 100, bound 600 ms",
        "<b>&amp;",
        "the workload acknowledged nothing",
    ):
        assert expected in text, expected
    assert [attributes for tag, attributes in page.tags if tag == "svg" and "async-commit" in str(attributes)]
    assert "could not start" in on_the_page(run(result("kill9-all"), error=ServerError("could not start")))


EVERY_FORM = [on_the_console, in_markdown, in_json_whole, in_junit_whole, on_the_page]


@pytest.mark.parametrize("tell", EVERY_FORM)
def test_the_release_that_recovered_is_named_in_every_report(tell: Callable[[RunResult], str]) -> None:
    """Where it is another one than the one that crashed; where it is the same, not a word of it."""
    told = plain(tell(run(result("kill9-all", intact(), recovered_by(broken(1))))))
    assert "18.6" in told
    assert "18.9" in told
    itself = run(result("kill9-all", intact(), recovered_by(broken(1), FACTS.version, FACTS.source)))
    assert tell(itself) == tell(run(result("kill9-all", intact(), broken(1))))


def test_the_header_names_who_recovered_behind_who_crashed():
    """In one line for each server, with each other one once; the opening of Markdown and of the page has no folders."""
    two = [recovered_by(intact()), recovered_by(broken(1)), recovered_by(intact(2), "18.2", "/opt/older/bin")]
    told = run(result("kill9-all", *two), result("async-commit", intact()))
    line = "PostgreSQL 18.6, local, /opt/postgres/bin"
    others = f"{line}, recovered by 18.9, /opt/newer/bin and by 18.2, /opt/older/bin"
    assert servers(told) == [others, line]
    for text in (plain(on_the_console(told, width=200)), plain(on_the_page(told))):
        assert others in text
    sentence = "4 crashes of PostgreSQL 18.6 (local, recovered by 18.9 and by 18.2) and PostgreSQL 18.6 (local)"
    assert opening(told).startswith(sentence)
    first, second = json.loads(in_json_whole(told))
    assert [one["version"] for one in first["recovered_with"]] == ["18.9", "18.2"]
    assert second["recovered_with"] == []
    properties = [one.attrib for one in ElementTree.fromstring(in_junit_whole(told)).iter("property")]
    named = [one["value"] for one in properties if one["name"] == "recovered_with"]
    assert named == ["18.9 /opt/newer/bin, 18.2 /opt/older/bin"]


@pytest.mark.parametrize("tell", [on_the_console, in_markdown, in_json_whole, on_the_page])
def test_a_server_that_had_shut_down_is_told_in_every_report(tell: Callable[[RunResult], str]) -> None:
    """How many trials were no crash; and nothing of the kind where all were, or where a promise was broken."""
    some = run(result("docker-stop", intact(), shut_down(intact(1)), intact(2)))
    assert f"every promise kept; in 1 of 3 trials {NOTHING_DUE}" in plain(tell(some))
    every = run(result("docker-stop", shut_down(intact()), shut_down(intact(1))))
    assert f"no promise was put to the test; in 2 of 2 trials {NOTHING_DUE}" in plain(tell(every))
    assert [promise(one.profiles[0]) for one in (some, every)] == ["kept", "inconclusive"]
    assert opening(some).startswith("2 crashes of PostgreSQL")
    assert opening(every).startswith("0 crashes of PostgreSQL")
    for innocent in (intact(1), shut_down(broken(1)), shut_down(inconclusive(1))):
        assert NOTHING_DUE not in plain(tell(run(result("docker-stop", intact(), innocent))))


def test_the_line_of_a_trial_says_that_its_server_had_shut_down():
    """And not that a promise was kept; in JUnit beside its outcome."""
    assert trial_line(shut_down(intact())).startswith(f"intact, {NOTHING_DUE} (812 acked")
    assert trial_line(intact()).startswith("intact, promise kept (")
    assert trial_line(shut_down(broken())).startswith("corruption, promise broken (")


def test_what_nobody_could_look_for_is_not_called_kept():
    """Of a server that does not start nobody knows what is lost."""
    dead = trial(0, Outcome.NO_START, PromiseStatus.VOID)
    assert "acked, nobody could look for them, " in trial_line(dead)
    assert "acked, 0 lost, " in trial_line(intact())
    lost = re.compile(r"\b812\s+(–|0)\s")  # behind the number that were acknowledged
    found = [lost.findall(on_the_page(run(result("fsync-off-power-loss", one)))) for one in (dead, intact())]
    assert found == [["0", "–"], ["0", "0"]]  # of the profile, and of the trial
    assert f"outcome: intact; {NOTHING_DUE}" in in_junit(run(result("docker-stop", shut_down(intact()))))
    assert NOTHING_DUE not in in_junit(run(result("docker-stop", intact())))


def test_what_was_drawn_for_a_trial_is_told_with_it():
    """Its settings, and how long processes were held; nothing of the kind where nothing was drawn."""
    held = Held(place="before unlink", met=9, held=2, cut_off=0, milliseconds=30.4)
    one = dataclasses.replace(intact(), drawn={"wal_buffers": "32kB"}, held=[held])
    around = "wal_buffers=32kB, held 2 times for 30 ms"
    assert trial_line(one).endswith(f" s, {around})")
    assert around in plain(on_the_page(run(result("reach", one))))
    assert "held" not in trial_line(intact()) + on_the_page(run(result("kill9-all", intact())))


def test_github_is_told_once_what_fails_a_run():
    """An error for what is broken, a warning for what could not be judged, nothing for what is permitted."""
    lines = list(annotations(RUN))
    assert lines == [
        '::error title=CORRUPT-HOLE::transaction 7 is missing, 9 is there: "\ufffd[bold]" (kill9-all, 1 of 3 trials)'
    ]
    assert list(annotations(run(result("kill9-all", intact(), permitted_loss(1))))) == []
    unseen = replace(HOLE, family=Family.INCONCLUSIVE, permitted=True, summary="100% unseen\nor so")
    (line,) = annotations(run(result("kill9-all", trial(0, Outcome.INCONCLUSIVE, None, unseen))))
    assert line == "::warning title=CORRUPT-HOLE::100%25 unseen or so (kill9-all, 1 of 1 trial)"
