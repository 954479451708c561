"""What have all pages in common: one file, no network, and no way for evidence to become markup?

Choices:
    All that comes from evidence goes through the template's escaping, and through `printable`. Should that ever fail,
    the page's own policy lets no script run but the one whose digest it names, and nothing be fetched.
    The script only moves the focus and shows the details of what has it; without it the tables say the same.
"""

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import crashlab
from crashlab.report.places import duration, plural, sizes, thousands
from crashlab.report.story import printable

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, *, scripts: tuple[str, ...] = ("page.js",), **view: Any) -> bytes:
    """Return a page, UTF-8.

    Args:
        scripts: files beside the templates.
    """
    sources = [(TEMPLATES / name).read_text(encoding="utf-8") for name in scripts]
    page = (
        _environment()
        .get_template(template)
        .render(
            version=crashlab.__version__,
            style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
            scripts=[Markup(source) for source in sources],
            digests=" ".join(f"'sha256-{_digest(source)}'" for source in sources),
            **view,
        )
    )
    return page.encode()


@cache
def _environment() -> Environment:
    """Return where templates are compiled: each once in a process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"sizes": sizes, "thousands": thousands, "plural": plural, "duration": duration}
    return environment


def data_block(value: Any) -> Markup:
    """Return a value as JSON that can stand inside of a script element: nothing in there ends it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _digest(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _printable(value: Any) -> Any:
    """Make texts printable; what jinja has made safe itself stays as it is."""
    return printable(value) if type(value) is str else value
