"""Where do the texts lie that users read, and what stands in them?"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "crashlab/reference").glob("*.md"))}
"""The pages of the package for users, by the name that `crashlab docs` takes."""
DOCUMENTS = {"README": README, **PAGES}
WHOLE = "\n".join(DOCUMENTS.values())


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shell_lines(text: str) -> list[str]:
    """Return the lines that a reader may copy into a shell."""
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


def rows(text: str, head: str) -> dict[str, list[str]]:
    """Return the tables whose first column is called `head`: first cell without its quotes -> the other cells."""
    found: dict[str, list[str]] = {}
    for table in re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found |= {first.strip("`"): rest for first, *rest in cells}
    return found
