"""How does a learner go through a lesson?"""

import datetime
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.out_folder import BASE
from crashlab.errors import UsageProblem

if TYPE_CHECKING:
    from crashlab.lessons.language import Language
    from crashlab.lessons.lesson import Lesson
    from crashlab.lessons.progress import Attempt, Progress
    from crashlab.lessons.puzzles import Puzzle
    from crashlab.lessons.telling import Telling

SEEDS = 10_000
"""A lesson's own seeds are short: a class compares them."""


@click.command()
@click.argument("lesson", required=False, metavar="[LESSON]")
@click.option("--check", metavar="ANSWER", help="Check the answer to the lesson's exercise.")
@click.option("--again", is_flag=True, help="Begin the lesson anew, with another seed.")
@click.option("--seed", type=click.IntRange(min=0), metavar="S", help="The seed to begin with. [default: a new one]")
@click.option("--yes", is_flag=True, help="Do not wait and do not ask; so it is when this is no terminal.")
@click.option("--lang", type=click.Choice(["en", "ko"]), help="English or Korean. [default: as LANG says]")
@click.option("--words", is_flag=True, help="Print the glossary: twenty words in both languages.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="PATH", help="Render all lessons: one FILE.html, or a folder."
)
def lesson(
    lesson: str | None,
    check: str | None,
    again: bool,
    seed: int | None,
    yes: bool,
    lang: str | None,
    words: bool,
    html: Path | None,
) -> int:
    """Learn what is durable, and see it: LESSON by number or name. Without one, list them.

    A lesson asks for a guess, crashes servers, shows what your run left beside what was to be expected, says why, and
    has an exercise about your own run. One that was left is gone on with.
    """
    from crashlab.lessons.language import LANGUAGES, language_of
    from crashlab.lessons.lesson import find_lesson
    from crashlab.lessons.telling import Telling

    language = next((one for one in LANGUAGES if one == lang), None) or language_of()
    if lesson is None and (check is not None or again or seed is not None):
        raise UsageProblem("no lesson is named", hint="Say which: crashlab lesson 3.")
    if lesson is not None and (words or html is not None):
        raise UsageProblem(
            f"--{'words' if words else 'html'} is about all lessons, and one is named", hint="Leave the lesson out."
        )
    if check is not None and (again or seed is not None):
        raise UsageProblem(
            f"--check is about the run that was, and {'--again' if again else '--seed'} begins one",
            hint="Give one of the two: first the run, then the answer.",
        )
    telling = Telling(language)
    if words or html is not None:
        if words:
            telling.words()
        if html is not None:
            _render(html, language)
        return 0
    if lesson is None:
        _list(telling)
        return 0
    wanted = find_lesson(lesson)
    if check is not None:
        return _check(wanted, check, telling)
    ask = not yes and sys.stdin.isatty() and sys.stdout.isatty()
    return _Walk(wanted, telling, ask=ask, again=again, seed=seed).through()


def _list(telling: "Telling") -> None:
    from crashlab.lessons.lesson import lessons
    from crashlab.lessons.progress import load

    progress = load()
    telling.console.print(telling.say("list"))
    telling.console.print()
    for number, one in lessons().items():
        state = _state_of(one, progress, telling)
        title = one.title.in_(telling.language)
        telling.console.print(f"  {number:>2}  {title}{f'  [{state}]' if state else ''}", markup=False, soft_wrap=True)
    telling.console.print()
    left = [number for number in lessons() if not _attempt(progress, number).done]
    telling.line("begin" if left else "all_done", number=left[0] if left else 0)
    telling.line("glossary")


def _attempt(progress: "Progress", number: int) -> "Attempt":
    from crashlab.lessons.progress import Attempt

    return progress.lessons.get(str(number)) or Attempt(seed=0, folder="")


def _state_of(lesson: "Lesson", progress: "Progress", telling: "Telling") -> str:
    attempt = _attempt(progress, lesson.number)
    if attempt.done:
        return telling.say("state_done", day=attempt.done)
    if len(attempt.steps) == len(lesson.steps):
        return telling.say("state_run")
    return telling.say("state_begun", count=len(attempt.steps), of=len(lesson.steps)) if attempt.steps else ""


def _check(lesson: "Lesson", answer: str, telling: "Telling") -> int:
    """Hold an answer against the learner's own run; a wrong one is an error of whoever typed it."""
    from crashlab.lessons.progress import load, save

    progress = load()
    attempt = _attempt(progress, lesson.number)
    puzzle = _puzzle(lesson, attempt, telling)
    if not puzzle.accepts(answer):
        hint = lesson.exercise.hint.in_(telling.language).format(**_typed(puzzle))
        raise UsageProblem(telling.say("wrong", answer=answer), hint=hint)
    attempt.done = datetime.date.today().isoformat()
    save(progress)
    telling.line("correct", style="green", number=lesson.number)
    _next(lesson, progress, telling)
    return 0


def _puzzle(lesson: "Lesson", attempt: "Attempt", telling: "Telling") -> "Puzzle":
    from crashlab.lessons.puzzles import puzzle_of
    from crashlab.lessons.steps import is_run, traces_of

    folder = _near(Path(attempt.folder))
    if not attempt.folder or not all(is_run(step, folder) for step in lesson.steps):
        raise UsageProblem(
            telling.say("not_run", number=lesson.number), hint=telling.say("run_first", number=lesson.number)
        )
    return puzzle_of(lesson, traces_of(lesson, folder), attempt.seed)


def _next(lesson: "Lesson", progress: "Progress", telling: "Telling") -> None:
    from crashlab.lessons.lesson import lessons

    for number, other in lessons().items():
        if number > lesson.number and not _attempt(progress, number).done:
            telling.line("next", number=number, title=other.title.in_(telling.language))
            return


def _typed(puzzle: "Puzzle") -> dict[str, object]:
    """Return what a puzzle drew, paths as somebody types them who is here."""
    return {name: _near(value) if isinstance(value, Path) else value for name, value in puzzle.values.items()}


def _near(folder: Path) -> Path:
    """Return a folder as somebody types it who is here."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _render(path: Path, language: "Language") -> None:
    from crashlab.lessons.page import write_course

    for written in write_course(path, language):
        click.echo(written)


class _Walk:
    """One learner's walk through one lesson, from where they left it."""

    def __init__(self, lesson: "Lesson", telling: "Telling", *, ask: bool, again: bool, seed: int | None) -> None:
        from crashlab.lessons.progress import Attempt, load
        from crashlab.seeds import new_seed

        self.lesson, self.telling, self.ask = lesson, telling, ask
        self.progress = load()
        known = self.progress.lessons.get(str(lesson.number))
        if known is None or again or seed is not None:
            seed = new_seed() % SEEDS if seed is None else seed
            folder = _free(BASE / f"lesson-{lesson.number:02d}-{seed}")
            known = Attempt(seed=seed, folder=str(folder.absolute()), done=known.done if known else "")
            self.progress.lessons[str(lesson.number)] = known
        self.attempt = known
        self.folder = _near(Path(known.folder))
        self._remember()  # whoever leaves at the first question comes back to this seed

    def through(self) -> int:
        """Go through all of it; 3 if something did not come that was expected."""
        self.telling.head(self.lesson)
        self._guess()
        missed = [self._step(number) for number in range(len(self.lesson.steps))]
        if any(missed):
            self.telling.console.print()
            self.telling.line("misses", style="yellow")
        self._answer_to_the_question()
        self.telling.section("why")
        self.telling.text(self.lesson.why)
        asked = self._exercise()
        self.telling.section("teacher")
        self.telling.text(self.lesson.teacher)
        self.telling.reading(self.lesson.read)
        _next(self.lesson, self.progress, self.telling)
        return 3 if any(missed) or not asked else 0

    def _guess(self) -> None:
        question = self.lesson.question
        self.telling.section("question")
        self.telling.text(question.text)
        self.telling.choices(question.choices)
        if self.ask and not self.attempt.guess:
            letters = list(question.choices)
            prompt = self.telling.say("guess", letters="/".join(letters))
            said = click.prompt(
                prompt, default="", show_default=False, type=click.Choice(["", *letters]), show_choices=False
            )
            self.attempt.guess = said
            self._remember()

    def _step(self, number: int) -> bool:
        """Run a step, or look at what it left; return whether something was missed."""
        from crashlab.lessons.steps import command_of, is_run, observe, run_step

        step, telling = self.lesson.steps[number], self.telling
        telling.section("step", number=number + 1, count=len(self.lesson.steps))
        telling.text(step.text)
        telling.command(shlex.join(command_of(step, self.folder, self.attempt.seed)))
        if is_run(step, self.folder):
            telling.line("there", style="dim", folder=self.folder / step.name)
        else:
            if self.ask:
                click.pause(telling.say("pause"))
            sys.stdout.flush()
            code = run_step(step, self.folder, self.attempt.seed)
            if code != step.exit:
                telling.line("exit", style="yellow", code=code, expected=step.exit)
            self.attempt.steps = [one.name for one in self.lesson.steps if is_run(one, self.folder)]
            self._remember()
        ((_, seen),) = observe(self.lesson, self.folder, [step])
        telling.observations(seen)
        return any(one.came is False for one in seen)

    def _answer_to_the_question(self) -> None:
        question, guess, telling = self.lesson.question, self.attempt.guess, self.telling
        telling.console.print()
        if guess:
            telling.line("guessed", letter=guess, text=question.choices[guess].in_(telling.language))
        right = question.choices[question.right].in_(telling.language)
        telling.line("right", style="bold", letter=question.right, text=right)

    def _exercise(self) -> bool:
        """Ask about the learner's own run; False: it left nothing to ask about."""
        from crashlab.lessons.puzzles import NothingToAsk

        telling, lesson = self.telling, self.lesson
        telling.section("exercise")
        try:
            puzzle = _puzzle(lesson, self.attempt, telling)
        except NothingToAsk:
            telling.line("nothing_to_ask", style="yellow")
            return False
        values = _typed(puzzle)
        telling.text(lesson.exercise.text, values)
        if lesson.exercise.look:
            telling.command(lesson.exercise.look.format(**values))
            telling.console.print()
        telling.line("check", style="dim", number=lesson.number)
        while self.ask and not self.attempt.done:
            said = click.prompt(telling.say("answer"), default="", show_default=False)
            if not said:
                break
            if puzzle.accepts(said):
                self.attempt.done = datetime.date.today().isoformat()
                self._remember()
                telling.line("correct", style="green", number=lesson.number)
            else:
                telling.line("wrong", style="yellow", answer=said)
                telling.text(lesson.exercise.hint, values)
        return True

    def _remember(self) -> None:
        from crashlab.lessons.progress import save

        save(self.progress)


def _free(folder: Path) -> Path:
    """Return a folder that is not there yet: the seed may have been used before."""
    BASE.mkdir(exist_ok=True)
    ignore = BASE / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return next(one for n in range(1, 1000) if not os.path.lexists(one := folder if n == 1 else Path(f"{folder}-{n}")))
