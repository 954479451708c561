"""Which pages are there to read, and where do they say something about a name?

The pages are Markdown files of the package: those for users in `reference`, those for contributors below it. A page
opens with its title, and with one line that says what it answers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from crashlab.errors import UsageProblem, did_you_mean

FOLDER = Path(__file__).parent / "reference"
CONTRIBUTORS = FOLDER / "for-contributors"
_BLOCKS = ("paragraph_open", "tr_open", "fence")


@dataclass(frozen=True)
class Page:
    """One page: its name, which `crashlab docs` takes, and its Markdown."""

    name: str
    text: str

    @property
    def title(self) -> str:
        """What stands in its first line."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def summary(self) -> str:
        """What it answers, in one line."""
        return self.text.split("\n", 3)[2].removesuffix(".")


@dataclass(frozen=True)
class Passage:
    """A paragraph, a point of a list, a line of a table or a block of code, and where it stands."""

    page: str
    heading: str
    text: str

    def defines(self, word: str) -> bool:
        """Whether this is the name's own line in a table."""
        return self.text.lower().startswith(f"| `{word.lower()}")


def pages(folder: Path = FOLDER) -> dict[str, Page]:
    """Return the pages of a folder by name."""
    return {path.stem: Page(path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.md"))}


def find_page(name: str) -> Page | None:
    """Return the page of this name, whoever it is for; None: there is none."""
    wanted = name.lower().removesuffix(".md")
    return (pages() | pages(CONTRIBUTORS)).get(wanted)


def unknown_page(word: str) -> UsageProblem:
    """Return the error for a word that is no page, and that no page names."""
    near = did_you_mean(word.lower(), [*pages(), *pages(CONTRIBUTORS)])
    return UsageProblem(
        f'there is no page "{word}", and no page names it',
        hint=f"{near + ' ' if near else ''}crashlab docs lists all pages.",
    )


def passages(word: str) -> Iterator[Passage]:
    """Yield what the pages for users say of a name: where it stands in backquotes or in code, alone or with others."""
    here = rf"(?<![\w-]){re.escape(word)}(?![\w-])"
    quoted, in_code = re.compile(rf"`[^`]*{here}[^`]*`", re.IGNORECASE), re.compile(here, re.IGNORECASE)
    for page in pages().values():
        heading = page.title
        for kind, lines in _blocks(page.text):
            if kind == "heading_open":
                heading = lines[0].lstrip("# ")
            elif kind == "fence":
                if found := [line for line in lines if in_code.search(line)]:
                    yield Passage(page.name, heading, "\n".join(found))
            elif quoted.search("\n".join(lines)):
                yield Passage(page.name, heading, "\n".join(lines))


@cache
def _blocks(text: str) -> list[tuple[str, list[str]]]:
    """Return each heading, paragraph, line of a table and block of code: its kind and its lines."""
    from markdown_it import MarkdownIt

    lines = text.splitlines()
    return [
        (token.type, lines[slice(*token.map)])
        for token in MarkdownIt().enable("table").parse(text)
        if token.map is not None and token.type in ("heading_open", *_BLOCKS)
    ]
