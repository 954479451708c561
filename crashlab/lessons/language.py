"""In which language is a lesson told, and what are the words around it?

Choices: what the frame of a lesson says ("expected", "press Enter") is in `texts/phrases.toml`, one key for all
languages.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
TEXTS = Path(__file__).parent / "texts"


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same said in each language; Markdown, as far as paragraphs, lists, `code` and **stress** go."""

    en: str
    ko: str

    def in_(self, language: Language) -> str:
        """Return it in one language, without the line breaks around it."""
        return {"en": self.en, "ko": self.ko}[language].strip()


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the glossary."""

    word: Text
    means: Text


def language_of(environment: Mapping[str, str] = os.environ) -> Language:
    """Return the language that the locale's variables ask for, the most specific one first; English if we have none."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if asked := environment.get(name):
            return "ko" if asked.lower().startswith("ko") else "en"
    return "en"


@functools.cache
def phrases() -> dict[str, Text]:
    """Return the words around a lesson."""
    return msgspec.toml.decode((TEXTS / "phrases.toml").read_bytes(), type=dict[str, Text])


@functools.cache
def glossary() -> list[Word]:
    """Return the glossary, in the order in which the words are met."""
    return msgspec.toml.decode((TEXTS / "words.toml").read_bytes(), type=dict[str, list[Word]])["words"]


class Phrases:
    """The words around a lesson, in one language."""

    def __init__(self, language: Language) -> None:
        self.language: Language = language

    def __call__(self, key: str, **values: object) -> str:
        """Return a phrase with its values filled in."""
        return phrases()[key].in_(self.language).format(**values)
