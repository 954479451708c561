"""How is a course handed to a class: all lessons on pages that need no network, no script and no server?

A path that ends in .html is one page with everything; any other is a folder with an index and a page a lesson. Where
a lesson was run on this machine, what was observed stands beside what is expected. The template is `page.html.jinja`.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

import crashlab
from crashlab import files
from crashlab.errors import CrashlabError, EvidenceError
from crashlab.lessons import progress
from crashlab.lessons.language import Language, Phrases, Text, glossary
from crashlab.lessons.lesson import Lesson, lessons
from crashlab.lessons.steps import Seen, observe
from crashlab.lessons.telling import Telling, where_of

TEMPLATE = "page.html.jinja"
INDEX = "index.html"


class _Blanks(dict[str, str]):
    """What a learner's own run fills in."""

    def __missing__(self, key: str) -> str:
        return f"‹{key}›"


def write_course(path: Path, language: Language) -> Iterator[Path]:
    """Write the course, and yield each file. Raises EvidenceError: it cannot be written."""
    course = list(lessons().values())
    if path.suffix in (".html", ".htm"):
        yield _write(path, _page(course, course, language, linked=False))
        return
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    yield _write(path / INDEX, _page([], course, language, linked=True))
    for lesson in course:
        yield _write(path / file_of(lesson), _page([lesson], course, language, linked=True))


def file_of(lesson: Lesson) -> str:
    """Return the name of a lesson's page."""
    return f"{lesson.number:02d}-{lesson.name}.html"


def _write(path: Path, page: str) -> Path:
    try:
        files.write_whole(path, page.encode())
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> EvidenceError:
    return EvidenceError(f'could not write --html "{path}": {error.strerror}')


def _page(told: list[Lesson], course: list[Lesson], language: Language, *, linked: bool) -> str:
    markdown = MarkdownIt("commonmark", {"html": False})

    def text(said: Text, *, blanks: bool = False) -> Markup:
        words = said.in_(language)
        return Markup(markdown.render(words.format_map(_Blanks()) if blanks else words))

    return _template().render(
        language=language,
        say=Phrases(language),
        text=text,
        told=told,
        course=course,
        seen={lesson.number: _seen(lesson) for lesson in told},
        telling=Telling(language),
        glossary=[] if linked and told else glossary(),
        link=lambda lesson: file_of(lesson) if linked else f"#lesson-{lesson.number}",
        index=INDEX if linked and told else "",
        where_of=where_of,
        blanks=_Blanks(),
        version=crashlab.__version__,
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _seen(lesson: Lesson) -> dict[str, Any]:
    """Return what was observed on this machine, by step, and the seed; nothing if it was not run, or is damaged."""
    attempt = progress.load().lessons.get(str(lesson.number))
    if attempt is None:
        return {}
    try:
        steps: dict[str, list[Seen]] = {step.name: seen for step, seen in observe(lesson, Path(attempt.folder))}
    except CrashlabError:
        return {}
    return {"seed": attempt.seed, "steps": steps} if steps else {}
