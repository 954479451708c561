"""Does every citation lead somewhere? Source notes, pages of the package, guides: each to a section, file or name."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "crashlab" / "reference"
CONTRIBUTORS = REFERENCE / "for-contributors"
PAGES = sorted(REFERENCE.rglob("*.md"))
GUIDES = [ROOT / "crashlab" / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]
SUFFIXES = {".py", ".c", ".h", ".toml", ".jinja", ".md"}
SOURCES = sorted(
    path
    for folder in ("crashlab", "tests", "fault_profiles")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES and path != Path(__file__)
)

Sections = Mapping[str, str]
"""Number of a section, or its heading without the number -> its text, without the sections after it."""

_NAME = re.compile(r"[\w./:-]*[\w-]\.md\b")
_ITEM = re.compile(
    r'(?:sections? )?(?:(?P<number>\d+(?:\.\d+)?[a-z]?)\b(?!\.\w)|"(?P<heading>[^"]+)")'
    r"(?: (?P<label>[A-Z]\d?)\b| \((?P<in_brackets>[A-Z]\d?)\))?(?: \([^()]*\))?"
)
_AND = re.compile(r",? and |, ")
_ISSUE = re.compile(r'\bissue "[^"]*"')
_PLACE = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/?)(?::(\w+(?:\.\w+)?))?`")


def sections_of(page: str) -> Sections:
    """Split a page at its headings."""
    found: dict[str, str] = {}
    for part in re.split(r"^#+ ", page, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        match = re.fullmatch(r"(\d[\d.]*[a-z]?)? ?(.+)", heading)
        assert match is not None
        number, title = match.groups()
        found |= {key: text for key in (number, title) if key}
    return found


def citations(text: str) -> Iterator[tuple[str, str, str | None]]:
    """Yield page, section and label of each citation; a section "" where a whole page is meant."""
    flat = re.sub(r"\s+(?:#+ |\* )?", " ", text)
    for name in _NAME.finditer(flat):
        yield name.group(), "", None
        at, following = name.end(), " "
        while flat.startswith(following, at) and (item := _ITEM.match(flat, at + len(following))):
            yield name.group(), item["number"] or item["heading"], item["label"] or item["in_brackets"]
            at = item.end()
            separator = _AND.match(flat, at)
            following = separator.group() if separator else "\0"


def dangling(text: str, pages: Mapping[str, Sections]) -> list[str]:
    """Return what a text cites and is not in the package."""
    wrong = _ISSUE.findall(text)
    for name, section, label in citations(text):
        path = name.removeprefix("crashlab/").removeprefix("reference/")
        page = pages.get(path.removeprefix("for-contributors/"))
        if page is None:
            if "://" not in name and not any((ROOT / folder / name).is_file() for folder in ("", ".github")):
                wrong.append(name)
        elif section and section not in page:
            wrong.append(f"{name} {section}")
        elif label and f"**{label}**" not in page[section]:
            wrong.append(f"{name} {section} ({label})")
    return wrong


@cache
def package() -> Mapping[str, Sections]:
    """Return the pages of the package."""
    return {path.name: sections_of(path.read_text(encoding="utf-8")) for path in PAGES}


CITING = [*SOURCES, ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]


def test_no_citation_dangles():
    """Every page that is cited lies in the package, with the section and the label that are meant."""
    wrong = {path.relative_to(ROOT): dangling(path.read_text(encoding="utf-8"), package()) for path in CITING}
    assert len(wrong) > 700
    assert {str(path): found for path, found in wrong.items() if found} == {}


MADE_UP = {
    "facts.md": sections_of("# F\n## 1 One\n### 1.2 Two\n**O1** holds\n### 1.2b Three\n"),
    "rules.md": sections_of("# R\n## Words\n## The model\n"),
}


@pytest.mark.parametrize(
    "text",
    [
        "facts.md 1, 1.2 (O1), 1.2b; the manual",
        "facts.md 1.2 O1 (why), 1 (what, and how).",
        "(facts.md sections 1\n    and 1.2). Other things, 14 .. 19",
        "# facts.md\n# section 1.2b: more",
        'rules.md "Words", "The\n    model"; facts.md',
        "crashlab/reference/facts.md 1.2. And 7.9 more",
        "README.md and https://example.org/else.md",
    ],
)
def test_an_innocent_text_is_let_pass(text):
    """In all spellings that source notes use."""
    assert dangling(text, MADE_UP) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("facts.md 1, 1.3", "facts.md 1.3"),
        ("facts.md sections 1.2, 2 and 1", "facts.md 2"),
        ("facts.md 1.2 (O1), 1.2c (words)", "facts.md 1.2c"),
        ("facts.md 1.2 (O2)", "facts.md 1.2 (O2)"),
        ("facts.md 1.2b O1", "facts.md 1.2b (O1)"),
        ("# see facts.md\n    # section 3", "facts.md 3"),
        ('rules.md "Words", "The\n    end"', "rules.md The end"),
        ("the story is in tale.md", "tale.md"),
        ("crashlab/reference/tale.md 1", "crashlab/reference/tale.md"),
        ('as issue "Power" says', 'issue "Power"'),
    ],
)
def test_a_guilty_text_is_caught(text, wrong):
    """A page, section, heading or label that does not exist, and a citation of an issue."""
    assert dangling(text, MADE_UP)[:1] == [wrong]


def missing_places(text: str, root: Path) -> list[str]:
    """Return the files, folders and names in `folder/file.py:name` that do not exist; NAME stands for any."""
    wrong = []
    for place, name in _PLACE.findall(text):
        if not ("/" in place or place.endswith(".py")) or "NAME" in place:
            continue
        path = next((folder / place for folder in (root, root / "crashlab") if (folder / place).exists()), None)
        lines = "" if path is None or not name else path.read_text(encoding="utf-8")
        defined = all(
            re.search(rf"^ *(?:(?:async )?def|class) {part}\b|^{part}\b[^\n]* =", lines, re.MULTILINE)
            for part in name.split(".")
        )
        if path is None or (name and not defined):
            wrong.append(f"{place}:{name}" if name else place)
    return wrong


OURS = [path for path in CONTRIBUTORS.glob("*.md") if path.name != "postgres-contract.md"]  # its paths are PostgreSQL's


@pytest.mark.parametrize("path", [*OURS, *GUIDES], ids=lambda path: path.name)
def test_every_place_in_the_guides_exists(path):
    """A newcomer who is sent to a file, a folder or a function finds it."""
    assert missing_places(path.read_text(encoding="utf-8"), ROOT) == []


@pytest.mark.parametrize(
    ("place", "exists"),
    [
        ("tests/test_citations.py:dangling", True),
        ("crashlab/disk/", True),
        ("disk/model.py:DiskModel.apply", True),
        ("seeds.py:derive", True),
        ("fault/NAME.py", True),
        ("nowhere/", False),
        ("tests/no.py", False),
        ("no.py", False),
        ("seeds.py:nobody", False),
        ("disk/model.py:DiskModel.undo", False),
    ],
)
def test_a_place_that_does_not_exist_is_caught(place, exists):
    """Files, folders, functions, classes and methods; NAME may be any."""
    assert missing_places(f"see `{place}`, and `a.b`", ROOT) == ([] if exists else [place])
