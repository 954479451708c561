"""Does each lesson show what it says? Its commands are run, and everything that is expected has to come."""

import sys
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.lessons import progress
from crashlab.lessons.lesson import Lesson, lessons
from crashlab.lessons.puzzles import puzzle_of
from crashlab.lessons.steps import traces_of

pytestmark = pytest.mark.server

SEED = 4711


def wrong(answer: str) -> str:
    """An answer that is as near to the right one as can be."""
    head, last = answer[:-1], answer[-1]
    return head + ("1" if last == "0" else "0" if last.isdigit() else "x")


@pytest.mark.parametrize("lesson", [pytest.param(lesson, id=lesson.name) for lesson in lessons().values()])
def test_a_lesson_shows_what_it_says(lesson: Lesson, tmp_path, monkeypatch, capfd):
    """Everything expected came; a wrong answer to the exercise is refused, and the right one accepted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRASHLAB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LC_ALL", "C")
    number = str(lesson.number)
    assert invoke(["lesson", number, "--seed", str(SEED)]) == 0, capfd.readouterr().out[-9000:]
    attempt = progress.load().lessons[number]
    puzzle = puzzle_of(lesson, traces_of(lesson, Path(attempt.folder)), attempt.seed)
    assert invoke(["lesson", number, "--check", wrong(puzzle.answer)]) == 2
    assert invoke(["lesson", number, "--check", puzzle.answer]) == 0
    assert progress.load().lessons[number].done
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    sys.stdout.write(out)
