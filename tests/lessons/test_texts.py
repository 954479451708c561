"""Is each lesson whole, the same in both languages, and made of what there is?"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec
import pytest

import crashlab.lessons as lesson_package
from crashlab.cli import cli
from crashlab.lessons.expectation import ANY, parse
from crashlab.lessons.language import Text, glossary, language_of, phrases
from crashlab.lessons.lesson import Lesson, find_lesson, lessons
from crashlab.lessons.puzzles import PUZZLES
from crashlab.lessons.readings import READINGS
from crashlab.lessons.steps import DEMOS
from crashlab.profile import load_profile

HANGUL = re.compile("[가-힣]")
LESSONS = [pytest.param(lesson, id=lesson.name) for lesson in lessons().values()]


def texts_in(value: Any) -> Iterator[Text]:
    """Yield every text of a lesson, a phrase or a word."""
    if isinstance(value, Text):
        yield value
    elif isinstance(value, msgspec.Struct):
        yield from (text for field in value.__struct_fields__ for text in texts_in(getattr(value, field)))
    elif isinstance(value, dict):
        yield from (text for one in value.values() for text in texts_in(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in texts_in(one))


def differences(text: Text) -> list[str]:
    """Return what one language has and the other has not."""
    found = []
    if not HANGUL.search(text.ko) and re.search("[a-z]{4}", text.en) and text.en != text.ko:
        found.append("no Korean")
    if HANGUL.search(text.en):
        found.append("Korean in English")
    en, ko = text.in_("en"), text.in_("ko")
    if en.count("\n\n") != ko.count("\n\n"):
        found.append("paragraphs")
    for what, pattern in (("code", r"`[^`]+`"), ("stress", r"\*\*[^*]+\*\*"), ("items", r"(?m)^- ")):
        if len(re.findall(pattern, en)) != len(re.findall(pattern, ko)):
            found.append(what)
    if braces(en) != braces(ko):
        found.append("braces")
    return found


def braces(text: str) -> set[str]:
    """Return what is filled in."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@pytest.mark.parametrize(
    "whole", [*LESSONS, pytest.param(phrases(), id="phrases"), pytest.param(glossary(), id="words")]
)
def test_both_languages_have_the_same_structure(whole):
    """Paragraphs, items, code, stress and what is filled in; and each is in its own language."""
    assert [(text.en, wrong) for text in texts_in(whole) if (wrong := differences(text))] == []


@pytest.mark.parametrize(
    ("en", "ko", "wrong"),
    [
        ("many words", "many words here", ["no Korean"]),
        ("말", "말", ["Korean in English"]),
        ("one\n\ntwo", "하나", ["paragraphs"]),
        ("see `x`", "보세요", ["code"]),
        ("**so**", "그렇게", ["stress"]),
        ("- a", "가", ["items"]),
        ("of {tx}", "의", ["braces"]),
    ],
)
def test_what_only_one_language_has_is_caught(en, ko, wrong):
    """The guilty twins."""
    assert differences(Text(en=en, ko=ko)) == wrong


@pytest.mark.parametrize("lesson", LESSONS)
def test_a_lesson_is_made_of_what_there_is(lesson: Lesson):
    """Commands, readings, expectations, puzzles and files exist; the right answer is one of the choices."""
    assert lesson.question.right in lesson.question.choices
    known: dict[str, Any] = {}
    for step in lesson.steps:
        program, *words = shlex.split(step.run.format(lesson="before", here="here", seed=1))
        assert program in ("crashlab", "pytest", "python")
        if program == "crashlab":
            context = cli.commands[words[0]].make_context(words[0], list(words[1:]))
            names = context.params.get("profiles") or [name for name in (context.params.get("profile"),) if name]
            for name in names:
                load_profile(name, context.params["overrides"])
        assert all((DEMOS / file).is_file() for file in step.files)
        for one in step.observe:
            assert one.read.split()[0] in READINGS
            assert one.expect == ANY or parse(one.expect, known)
            if one.name:
                known[one.name] = 1
    name, *arguments = lesson.exercise.puzzle.split()
    assert name in PUZZLES
    assert not arguments or arguments[0] in {step.name for step in lesson.steps}
    assert all(bool(one.manual) != bool(one.source) for one in lesson.read)
    assert {bool(one.manual) for one in lesson.read} == {True, False}  # the manual and the source, both
    sentences = re.findall(r"[.?!](?:\s|$)", lesson.teacher.en)
    assert len(sentences) == 2, sentences


def test_the_lessons_are_numbered_from_one_and_found_by_number_and_name():
    """What `crashlab lesson` lists can be asked for."""
    assert list(lessons()) == sorted(lessons())
    assert all(find_lesson(str(number)) is find_lesson(one.name) is one for number, one in lessons().items())


def test_the_glossary_has_twenty_words():
    """Each once, in either language."""
    assert len({word.word.en for word in glossary()}) == len({word.word.ko for word in glossary()}) == 20


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "ko_KR.UTF-8"}, "ko"),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "ko_KR"}, "ko"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LANG": "ko"}, "ko"),
        ({}, "en"),
    ],
)
def test_the_language_is_that_of_the_locale(environment, language):
    """As gettext has it: LC_ALL before LC_MESSAGES before LANG; empty is not set."""
    assert language_of(environment) == language


def test_the_page_of_the_lessons_lists_them_and_its_commands_are_real():
    """What a reader copies can be parsed, and every lesson has its row."""
    page = (Path(lesson_package.__file__).parent.parent / "reference" / "lessons.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert rows == {str(number): lesson.title.en for number, lesson in lessons().items()}
    commands = re.findall(r"^crashlab (.+)", page, re.MULTILINE)
    for line in commands:
        command, *args = shlex.split(line, comments=True)
        cli.commands[command].make_context(command, args)
    assert commands
