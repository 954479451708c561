"""The manual: pages that open with what they answer, links that lead somewhere, and `crashlab docs`."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crashlab import pages
from crashlab.cli import cli, invoke
from crashlab.oracle.codes import CODES
from tests.documents import DOCUMENTS, PAGES, ROOT

SUMMARY_MOST = 92
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_with_what_it_answers(name):
    """A title, then one short sentence by itself: the line of `crashlab docs`."""
    title, empty, summary, after, *_ = PAGES[name].splitlines()
    assert title.startswith("# ")
    assert empty == after == ""
    assert summary.endswith(".")
    assert len(summary) <= SUMMARY_MOST


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_link_is_broken(name):
    """To a page, a file of the repository or a heading of the page itself; also on GitHub, from where the text lies."""
    folder = ROOT if name == "README" else ROOT / "crashlab" / "reference"
    for link in _LINK.findall(DOCUMENTS[name]):
        if not re.match(r"[a-z]+:", link):
            file, _, heading = link.partition("#")
            assert (folder / file).exists(), link
            if heading:
                text = (folder / file).read_text(encoding="utf-8") if file else DOCUMENTS[name]
                assert heading in anchors(text), link


def anchors(text: str) -> list[str]:
    """Return what GitHub calls the headings of a text."""
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_readme_leads_to_every_page():
    """In a few steps from link to link, so that nothing can be found on a terminal only."""
    reached, left = set[str](), {"README"}
    while left:
        reached |= left
        links = {Path(link).stem for name in left for link in _LINK.findall(DOCUMENTS[name]) if link.endswith(".md")}
        left = links & set(PAGES) - reached
    assert reached == set(DOCUMENTS)


def test_the_pages_are_listed(capsys):
    """Each with its line; those for contributors apart."""
    assert invoke(["docs"]) == 0
    users, contributors = capsys.readouterr().out.split("\nFor those who change crashlab:\n")
    assert dict(re.findall(r"^(\S+) +(.*)$", users, re.MULTILINE)) == {
        name: pages.pages()[name].summary for name in PAGES
    }
    assert [line.split()[0] for line in contributors.splitlines()] == list(pages.pages(pages.CONTRIBUTORS))


@pytest.mark.parametrize("name", ["resume", "Resume", "resume.md"])
def test_a_page_in_a_pipe_is_its_markdown(capsys, name):
    """Word for word, to be searched and kept."""
    assert invoke(["docs", name]) == 0
    assert capsys.readouterr().out == PAGES["resume"]


def test_a_page_for_contributors_is_printed_too(capsys):
    """They are in the package for whoever reads its source notes."""
    assert invoke(["docs", "house-rules"]) == 0
    assert capsys.readouterr().out.startswith("# Which habits")


@pytest.mark.parametrize(
    ("word", "hint"),
    [("resmue", 'hint: Did you mean "resume"?'), ("../secret", "hint: crashlab docs lists"), ("", "hint: crashlab")],
)
def test_an_unknown_page_is_an_error_that_helps(capsys, word, hint):
    """With the nearest name; nothing outside of the folder is read."""
    assert invoke(["docs", word]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert f'there is no page "{word}"' in told.err
    assert hint in told.err


def test_every_code_and_command_is_found():
    """Somewhere in the pages, or as the page of that name."""
    missing = [word for word in (*CODES, *cli.commands) if not pages.find_page(word) and not any(pages.passages(word))]
    assert missing == []


def test_a_name_is_found_with_its_place_and_what_says_more(capsys):
    """In any spelling: its own row of a table before all else, the page and heading above it, and the command."""
    assert invoke(["docs", "loss-async-window"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("crashlab docs findings: Findings\n    | `LOSS-ASYNC-WINDOW` |")
    assert "LOSS-ASYNC-WINDOW-EXCEEDED" not in told
    assert told.endswith("\nMore: crashlab explain LOSS-ASYNC-WINDOW\n")


def test_an_option_is_a_name(capsys):
    """Though it looks like one of the command's own."""
    assert invoke(["docs", "--junit-xml"]) == 0
    assert "    crashlab run " in capsys.readouterr().out


def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "page").with_suffix(".md").write_text(text)
    monkeypatch.setattr(pages.pages, "__defaults__", (tmp_path,))


def test_passages_are_whole_and_no_larger(tmp_path, monkeypatch):
    """Paragraphs, points, rows; of code only the lines; a comment in code is no heading; bare words do not count."""
    text = "# T\n\nS.\n\none `x y` here\nand there\n\nx is bare, `xx` and `x-y` are others\n\n## H\n\n"
    text += "```sh\n# x\nno\n```\n\n- a\n- b `X`\n  goes on\n\n| n | m |\n|---|---|\n| `x` | 1 |\n| `z` | 2 |\n"
    made_up(tmp_path, monkeypatch, text)
    assert [(one.heading, one.text) for one in pages.passages("x")] == [
        ("T", "one `x y` here\nand there"),
        ("H", "# x"),
        ("H", "- b `X`\n  goes on"),
        ("H", "| `x` | 1 |"),
    ]


def on_a_terminal(*args: str, **environment: str) -> str:
    """Run crashlab on a terminal of its own; return what appears there."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "crashlab", *args],
        stdin=slave,
        stdout=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"} | environment,
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 1 << 16):
            shown += piece
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    finally:
        os.close(master)
    assert child.wait(timeout=60) == 0
    return shown.decode().replace("\r\n", "\n")


def test_a_page_on_a_terminal_is_laid_out_and_goes_through_a_pager(tmp_path):
    """No bars of a table, no links; the pager is the user's own."""
    seen = tmp_path / "paged"
    pager = tmp_path / "pager"
    pager.write_text(f'#!/bin/sh\nexec tee "{seen}"\n')
    pager.chmod(0o755)
    shown = on_a_terminal("docs", "exit-codes", PAGER=str(pager))
    assert "|---|" not in shown
    assert "](" not in shown
    assert "a promise was broken" in shown
    assert "a promise was broken" in seen.read_text()
