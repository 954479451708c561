"""How is a lesson told on a terminal, or to a pipe?"""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.table import Table

from crashlab.lessons.expectation import ANY, Value, shown
from crashlab.lessons.language import Language, Phrases, Text, glossary, phrases
from crashlab.lessons.lesson import Lesson, Observe, Reading
from crashlab.lessons.steps import Seen

MANUAL = "https://www.postgresql.org/docs/current/"
WIDTH_MAX = 100


class Telling:
    """What is said, in one language."""

    def __init__(self, language: Language, console: Console | None = None) -> None:
        self.language: Language = language
        self.say = Phrases(language)
        self.console = console or Console(highlight=False, soft_wrap=False)
        self.console.width = min(self.console.width, WIDTH_MAX)

    def head(self, lesson: Lesson) -> None:
        """Say which lesson this is."""
        title = self.say("lesson", number=lesson.number, title=lesson.title.in_(self.language))
        self.console.print()
        self.console.print(title, style="bold", markup=False)
        self.console.print(self.say("minutes", minutes=lesson.minutes), style="dim")

    def section(self, key: str, **values: object) -> None:
        """Begin a part of a lesson."""
        self.console.print()
        self.console.print(self.say(key, **values), style="bold cyan", markup=False)

    def text(self, text: Text, values: Mapping[str, object] | None = None) -> None:
        """Say some paragraphs."""
        said = text.in_(self.language)
        self._put(Markdown(said.format(**values) if values is not None else said))

    def line(self, key: str, style: str = "", **values: object) -> None:
        """Say one phrase, as it is: a command in it can be copied."""
        self.console.print(self.say(key, **values), style=style, markup=False, soft_wrap=True)

    def command(self, words: str) -> None:
        """Show what is run."""
        self.console.print()
        self.console.print(f"$ {words}", style="bold", markup=False, soft_wrap=True)

    def choices(self, choices: Mapping[str, Text]) -> None:
        """Show what may be guessed."""
        for letter, text in choices.items():
            self.console.print(Padding(f"{letter})  {text.in_(self.language)}", (0, 0, 0, 2)), markup=False)

    def observations(self, seen: Sequence[Seen]) -> None:
        """Show what was read beside what was to be expected."""
        if not seen:
            return
        self.section("seen")
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
        table.add_column(self.say("what"), overflow="fold")
        table.add_column(self.say("observed"), justify="right", no_wrap=True)
        table.add_column(self.say("expected"), no_wrap=True)
        table.add_column("", no_wrap=True)
        for one in seen:
            mark, style = self.mark(one)
            text = one.observe.text.in_(self.language)
            table.add_row(text, self.value(one.value), self.expected(one.observe), f"[{style}]{mark}[/]")
        self._put(table)
        for one in seen:
            if one.came is False and one.observe.unless is not None:
                self.text(one.observe.unless)

    def mark(self, seen: Seen) -> tuple[str, str]:
        """Return in words whether something came, and their style."""
        if seen.came is None:
            return self.say("figure"), "dim"
        return (self.say("came"), "green") if seen.came else (self.say("not_came"), "yellow")

    def value(self, value: Value) -> str:
        """Return what was read as a reader sees it."""
        return self._word(value) if isinstance(value, str) else shown(value)

    def expected(self, observe: Observe) -> str:
        """Return an expectation as a reader sees it."""
        return self.say("any") if observe.expect == ANY else self._word(observe.expect.removeprefix("= "))

    def _word(self, word: str) -> str:
        """Return one of the tool's own words with its meaning, anything else as it is."""
        key = f"value_{word}"
        return self.say(key) if key in phrases() else word

    def reading(self, readings: Iterable[Reading]) -> None:
        """Say what to read."""
        self.section("read")
        for one in readings:
            kind, where = where_of(one)
            said = f"  {self.say(kind)}: {one.text.in_(self.language)}  {where}"
            self.console.print(said, markup=False, soft_wrap=True)

    def words(self) -> None:
        """Print the glossary: each word in both languages."""
        self.section("words")
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for one in glossary():
            first, second = (one.word.ko, one.word.en) if self.language == "ko" else (one.word.en, one.word.ko)
            table.add_row(first, second, one.means.in_(self.language))
        self._put(table)

    def _put(self, block: RenderableType) -> None:
        """Print something that rich fills up with blanks; nobody wants them in a file."""
        if self.console.is_terminal:
            self.console.print(block)
            return
        with self.console.capture() as said:
            self.console.print(block)
        self.console.file.write("".join(f"{line.rstrip()}\n" for line in said.get().splitlines()))


def where_of(reading: Reading) -> tuple[str, str]:
    """Return the kind of what is to be read, and its address."""
    return ("manual", MANUAL + reading.manual) if reading.manual else ("source", reading.source)
