"""What does `crashlab lesson` say, remember and refuse? Without a server: the runs are made up."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crashlab.cli import invoke
from crashlab.lessons import progress, steps
from crashlab.lessons.expectation import came
from crashlab.lessons.lesson import Lesson, lessons
from crashlab.lessons.puzzles import Puzzle
from crashlab.lessons.steps import EXIT, StepFailed, command_of, run_step
from tests.terminal import as_in_a_terminal

COUNTS = {"acked": 50, "lost": 7, "indeterminate": 1, "refused": 2}
ASYNC = 3
"""The lesson that is run here."""


@pytest.fixture(autouse=True)
def a_learner(tmp_path, monkeypatch):
    """Somebody new, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRASHLAB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LC_ALL", "C")


def report(lost: int, line: int = 77) -> dict[str, object]:
    """The JSON report of one crash, as far as lesson 3 reads it."""
    finding = {"code": "LOSS-ASYNC-WINDOW", "evidence": {"witnesses": [{"tx": 9, "intent_line": line}]}}
    trial = {
        "outcome": "loss" if lost else "intact",
        "counts": COUNTS | {"lost": lost},
        "findings": [finding] if lost else [],
        "folder": "elsewhere",
    }
    window = {"max_ms": 150.0} if lost else None
    return {"profile": "async-commit", "promise": "kept", "trials": [trial], "async_window": window}


@pytest.fixture
def runs(monkeypatch):
    """Let each step be answered by a report made by hand; the list says which steps were run."""
    asked: list[str] = []
    lost = {"off": 7, "on": 0}

    def answer(step, folder, seed, *, output=None):
        here = folder / step.name
        here.mkdir(parents=True)
        (here / "report.json").write_text(json.dumps(report(lost[step.name])))
        (here / EXIT).write_text("0\n")
        asked.append(step.name)
        if step.name == "stop":
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(steps, "run_step", answer)
    return asked, lost


def test_a_lesson_is_gone_through_and_its_exercise_checked(runs, capfd):
    """Run, refuse a wrong answer, accept the right one, and remember it."""
    assert invoke(["lesson", "3"]) == 0
    told = capfd.readouterr().out
    assert "as expected" in told
    assert "not this time" not in told
    assert invoke(["lesson", "3", "--check", "78"]) == 2
    wrong = capfd.readouterr().err
    assert '"78" is not the answer' in wrong
    assert "77" not in wrong
    assert progress.load().lessons["3"].done == ""
    assert invoke(["lesson", "3", "--check", " 77"]) == 0
    assert progress.load().lessons["3"].done
    capfd.readouterr()
    assert invoke(["lesson"]) == 0
    listed = capfd.readouterr().out
    assert re.search(r" 3 .*\[done ", listed)
    assert not re.search(r" 2 .*\[", listed)


def test_what_did_not_come_is_said(runs, capfd):
    """Nothing was lost: no text claims that it was, there is nothing to ask about, and the exit code says so."""
    _, lost = runs
    lost["off"] = 0
    assert invoke(["lesson", "3"]) == 3
    out, _ = capfd.readouterr()
    assert "not this time" in out
    assert "Nothing was lost this time" in out
    assert "left nothing to ask about" in out
    assert "What to read" in out
    assert invoke(["lesson", "3", "--check", "0"]) == 3
    assert progress.load().lessons["3"].done == ""


def test_something_that_did_not_come_is_in_the_exit_code_even_if_there_is_an_exercise(runs):
    """The twin lost something, too: the exercise can be asked, and yet the lesson did not show what it says."""
    _, lost = runs
    lost["on"] = 1
    assert invoke(["lesson", "3"]) == 3


def test_a_lesson_that_was_left_goes_on_where_it_was(runs, capfd, monkeypatch):
    """Steps that were run are not run again, unless it is begun anew."""
    asked, _ = runs
    answer = steps.run_step

    def interrupted(step, *arguments, **options):
        if step.name == "on":
            raise KeyboardInterrupt
        return answer(step, *arguments, **options)

    with monkeypatch.context() as impatient:
        impatient.setattr(steps, "run_step", interrupted)
        assert invoke(["lesson", "3"]) == 130
    assert progress.load().lessons["3"].steps == ["off"]
    capfd.readouterr()
    invoke(["lesson"])
    assert "[step 1 of 2]" in capfd.readouterr().out
    assert invoke(["lesson", "3"]) == 0
    assert asked == ["off", "on"]
    assert "was run before" in capfd.readouterr().out
    assert invoke(["lesson", "3", "--again"]) == 0
    assert asked == ["off", "on", "off", "on"]


@pytest.mark.parametrize("answers", [0, 1])
def test_a_lesson_that_was_left_at_a_question_goes_on_with_its_seed(answers, runs, capfd, monkeypatch):
    """Ctrl-C at the first question or after the guess: the next time asks for no other seed."""
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    left = iter(["a"] * answers)

    def prompt(*args, **kwargs):
        for letter in left:
            return letter
        raise KeyboardInterrupt

    monkeypatch.setattr("click.prompt", prompt)
    monkeypatch.setattr("click.pause", prompt)
    assert invoke(["lesson", "3", "--seed", "7"]) == 130
    assert runs[0] == []
    assert progress.load().lessons["3"].guess == "a" * answers
    capfd.readouterr()
    assert invoke(["lesson", "3", "--yes"]) == 0
    assert {int(seed) for seed in re.findall(r"--seed (\d+)", capfd.readouterr().out)} == {7}


def test_evidence_that_is_gone_is_made_again(runs):
    """Whoever cleaned up is not locked out of the lesson."""
    asked, _ = runs
    assert invoke(["lesson", "3", "--seed", "5"]) == 0
    Path(".crashlab/lesson-03-5/on", EXIT).unlink()
    Path(".crashlab/lesson-03-5/on/report.json").unlink()
    Path(".crashlab/lesson-03-5/on").rmdir()
    assert invoke(["lesson", "3"]) == 0
    assert asked == ["off", "on", "on"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["lesson", "99"], 2, 'unknown lesson "99"'),
        (["lesson", "async-comit"], 2, 'Did you mean "async-commit"?'),
        (["lesson", "3", "--check", "1"], 2, "lesson 3 has no run yet"),
        (["lesson", "--check", "1"], 2, "no lesson is named"),
        (["lesson", "3", "--check", "1", "--seed", "5"], 2, "--check is about the run that was, and --seed begins one"),
        (["lesson", "3", "--check", "1", "--lang", "ko"], 2, "먼저 crashlab lesson 3을 실행하세요"),
        (["lesson", "--html", "/dev/null/x.html"], 4, "could not write --html"),
        (["lesson", "--html", "none/x.html"], 4, 'could not write --html "none/x.html": No such file or directory'),
        (["lesson", "--html", "none/course"], 4, 'could not write --html "none/course": No such file or directory'),
    ],
)
def test_bad_input_is_named(args, code, said, capfd):
    """With a way out, and nothing is left behind."""
    assert invoke(args) == code
    assert said in capfd.readouterr().err
    assert list(Path().iterdir()) == []


def test_a_damaged_state_file_is_an_error(capfd):
    """It is not overwritten: it may hold a term's work."""
    progress.state_file().parent.mkdir()
    progress.state_file().write_text("{")
    assert invoke(["lesson"]) == 4
    assert "could not read" in capfd.readouterr().err
    assert progress.state_file().read_text() == "{"


@pytest.mark.parametrize(
    ("value", "expected", "result"),
    [
        (1, "> 0", True),
        (0, "> 0", False),
        (0, "= 0", True),
        (2.5, ">= 2.5", True),
        ("kept", "= kept", True),
        ("broken", "= kept", False),
        ("-", "= 0", False),
        ("-", "> 0", False),
        (3, "< before", True),
        (5, "< before", False),
        (5, "any", None),
    ],
)
def test_an_expectation_can_fail(value, expected, result):
    """Each operator both ways; a figure of which nothing is expected is neither."""
    assert came(value, expected, {"before": 4}) is result


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("1234", "1,234", True),
        ("1234", "1235", False),
        ("158 177", "177, 158", True),
        ("158 177", "158,177", True),
        ("158 177", "158", False),
        ("158 177", "158 177 180", False),
        ("0/16EF490", "0/16ef490", True),
        ("7", "", False),
    ],
)
def test_only_the_right_answer_is_accepted(answer, said, right):
    """How it is typed does not matter; what it says does."""
    assert Puzzle(answer).accepts(said) is right


def lesson_with(run: str) -> Lesson:
    """A lesson with one step of this command."""
    from msgspec.structs import replace

    one = lessons()[ASYNC]
    return replace(one, steps=[replace(one.steps[0], run=run, name="only")])


def test_a_step_whose_command_looks_at_nothing_is_an_error(tmp_path):
    """No server: nothing is observed, and the step is not done."""
    (step,) = lesson_with("crashlab run async-commit --pg-bindir /nowhere").steps
    with pytest.raises(StepFailed):
        run_step(step, tmp_path, 1)
    assert not steps.is_run(step, tmp_path)


def test_a_command_names_its_folder_and_the_seed_of_the_attempt(tmp_path):
    """What is shown is what is run; programs that are no runs of crashlab get neither."""
    (run,) = lesson_with("crashlab run async-commit").steps
    assert command_of(run, Path("out"), 7)[-4:] == ["--seed", "7", "--out", "out/only"]
    (shown,) = lesson_with("python {here}/x.py {lesson}/y").steps
    assert command_of(shown, Path("out"), 7) == ["python", "out/only/x.py", "out/y"]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_course_is_one_page_or_a_folder_and_needs_no_network(language, tmp_path, capfd):
    """Every lesson with its words; no script, no picture, no style from elsewhere; links lead to what is there."""
    assert invoke(["lesson", "--html", "all.html", "--lang", language]) == 0
    assert invoke(["lesson", "--html", "course", "--lang", language]) == 0
    pages = {path.name: path.read_text() for path in [Path("all.html"), *Path("course").iterdir()]}
    assert len(pages) == len(lessons()) + 2
    for page in pages.values():
        assert f'<html lang="{language}">' in page
        assert not re.search(r"<(script|img|link|iframe)|url\(|@import|src=", page)
        for target in re.findall(r'href="([^"]+)"', page):
            known = target.startswith("https://www.postgresql.org/docs/") or target in pages
            assert known or f'id="{target.removeprefix("#")}"' in page, target
    for lesson in lessons().values():
        title = lesson.title.in_(language).replace("'", "&#39;")
        assert title in pages["all.html"]
        assert title in pages["index.html"]


def test_the_page_shows_what_was_observed_here(runs):
    """Beside what is expected, with its seed; a lesson that was not run shows no figures."""
    assert invoke(["lesson", "3", "--seed", "5"]) == 0
    assert invoke(["lesson", "--html", "course"]) == 0
    page = Path("course/03-async-commit.html").read_text()
    assert "with seed 5" in page
    assert re.search(r'class="number">7</td>', page)
    assert 'class="number"' not in Path("course/02-kill9.html").read_text()


TIDY = """\
import sys, time
from pathlib import Path
try:
    Path(sys.argv[1], "started").touch()
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    Path(sys.argv[1], "tidied").touch()
    sys.exit(130)
"""
PARENT = """\
import sys
from pathlib import Path
from msgspec.structs import replace
from crashlab.lessons.lesson import lessons
from crashlab.lessons.steps import run_step
step = replace(lessons()[3].steps[0], name="only", run=f"python {sys.argv[1]}/tidy.py {sys.argv[1]}")
run_step(step, Path(sys.argv[1]), 1)
"""


def test_an_interrupted_step_is_left_to_tidy_up(tmp_path):
    """Its command has servers to remove: it is told of the interrupt, not killed, and waited for."""
    (tmp_path / "tidy.py").write_text(TIDY)
    with subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], preexec_fn=as_in_a_terminal) as parent:
        while not (tmp_path / "started").exists():
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(30) != 0
    assert (tmp_path / "tidied").exists()
    assert not (tmp_path / "only" / EXIT).exists()


@pytest.mark.parametrize("option", [["--words"], ["--html", "page.html"]])
def test_what_is_about_all_lessons_takes_none(option, tmp_path, monkeypatch, capfd):
    """Whoever names one would get something else than he asked for."""
    monkeypatch.chdir(tmp_path)
    assert invoke(["lesson", "2", *option]) == 2
    assert f"{option[0]} is about all lessons" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert invoke(["lesson", *option, "--lang", "en"]) == 0


def test_a_terminal_that_lacks_the_letters_is_no_bug(tmp_path):
    """Each is replaced; what is left can be read as far as it can."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "CRASHLAB_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "crashlab", "lesson", "--words", "--lang", "ko"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "WAL" in done.stdout
    assert "?" in done.stdout
