"""Where do results and errors go: console, report files, exit code?

Choices:
    Report files are opened before any server starts: a typing mistake must not cost a run.
    With `--json -` stdout is that document and nothing else.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crashlab import files
from crashlab.cli.options import Telling
from crashlab.errors import CrashlabError, EvidenceError

if TYPE_CHECKING:
    from crashlab.campaign import Plan
    from crashlab.results import RunResult, TrialResult

REPORT = "report.json"


def show_error(error: CrashlabError) -> None:
    """Tell an error on stderr: primary, detail, hint, as PostgreSQL's own programs do."""
    _show("error", error)


def show_warning(problem: CrashlabError) -> None:
    """Tell on stderr what a command could do without, in the same form."""
    _show("warning", problem)


def _show(severity: str, error: CrashlabError) -> None:
    click.echo(f"crashlab: {severity}: {error.primary}", err=True)
    for label, text in (("detail", error.detail), ("hint", error.hint)):
        if text:
            text = text if "\n" not in text else "\n  " + text.replace("\n", "\n  ")
            click.echo(f"crashlab: {label}: {text}", err=True)


class Reports:
    """The consoles and files of one command."""

    def __init__(self, telling: Telling) -> None:
        from crashlab.report.console import console

        self.telling = telling
        self.out = console(stderr=telling.on_stdout is not None)
        self.progress = console(stderr=True, quiet=telling.quiet)
        for form, target in telling.files():
            _require_writable(form.option, target)

    def finish(self, run: "RunResult", folder: Path, plan: "Plan | None" = None, *, own: bool = False) -> int:
        """Print and write what was run, beside its evidence too; return the exit code.

        Args:
            plan: what was asked for, so that the run can be resumed; None: a replay.
            own: nobody asked for this folder: it goes if there is no evidence in it.

        Raises:
            EvidenceError: a report could not be written.
        """
        from crashlab.campaign import forget_plan, save_run, unfinished
        from crashlab.report import json_report
        from crashlab.report.summary import exit_code

        evidence = any(result.trials for result in run.profiles)
        if plan is not None and (evidence or not own):
            run.unfinished = unfinished(folder, run, plan)
            if run.unfinished is None and not evidence:
                forget_plan(folder)
        if evidence:
            try:
                save_run(folder, run, plan)
                write_own(folder / REPORT, json_report.report_bytes(run))
            except EvidenceError as error:  # such as a full disk: what was finished is told all the same
                run.error = run.error or error
        code = self._tell(run, exit_code(run), folder)
        if run.error is not None:
            show_error(run.error)
        return code

    def judged(self, run: "RunResult", out: Path | None = None) -> int:
        """Print and write what was judged again; return the exit code, which is about the evidence alone.

        What of it is damaged is told last.

        Args:
            out: takes the JSON report, too.

        Raises:
            EvidenceError: a report could not be written.
        """
        from crashlab.report import json_report
        from crashlab.report.summary import evidence_code

        if out is not None:
            write_own(out / REPORT, json_report.report_bytes(run))
        code = self._tell(run, evidence_code(run), None)
        for error in run.damaged:
            show_error(error)
        return code

    def _tell(self, run: "RunResult", code: int, folder: Path | None) -> int:
        from crashlab.report import markdown_report
        from crashlab.report.console import print_closing, print_results
        from crashlab.report.github import annotations
        from crashlab.report.story import Length

        telling = self.telling
        if telling.verbose or any(form.draws for form in telling.targets):
            tell_trials(run)
        self.write(run, code)
        length = Length.LINE if telling.quiet else Length.TIMELINE if telling.verbose else Length.PARAGRAPH
        print_results(self.out, run, length)
        print_closing(self.out, run, code, folder)
        if os.environ.get("GITHUB_ACTIONS"):
            if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
                _append(Path(summary), markdown_report.report_bytes(run, code))
            for line in annotations(run):
                click.echo(line, err=telling.on_stdout is not None)
        return code

    def write(self, run: "RunResult", code: int) -> None:
        """Write the files, and what is to be on stdout. Raises EvidenceError: one could not be written."""
        for form, target in self.telling.files():
            write_file(target, form.content(run, code))
        if self.telling.on_stdout is not None:
            sys.stdout.buffer.write(self.telling.on_stdout.content(run, code))
            sys.stdout.flush()


def tell_trials(run: "RunResult", wanted: "Sequence[tuple[str, TrialResult]]" = ()) -> None:
    """Have what happened in some trials told, for a report that draws it; without a wish in those that show most."""
    from crashlab.campaign import chronicles_of
    from crashlab.report.chosen import trials_to_draw

    run.told = chronicles_of(wanted or trials_to_draw(run))


def json_target_checked(target: str | None) -> None:
    """Raise EvidenceError: a file that is named for JSON cannot be written."""
    if target is not None and target != "-":
        _require_writable("--json", Path(target))


def write_json(target: str, value: Any) -> None:
    """Write a value as one JSON document, to a file or, for "-", to stdout. Raises EvidenceError: the file cannot."""
    import msgspec

    content = msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"
    if target == "-":
        sys.stdout.buffer.write(content)
    else:
        write_file(Path(target), content)


def _require_writable(option: str, target: Path) -> None:
    try:
        with target.open("ab"):
            pass
    except OSError as error:
        raise EvidenceError(f'could not write {option} "{target}": {error.strerror}') from error


def write_own(target: Path, content: bytes) -> None:
    """Write a file of crashlab's own beside evidence. Raises EvidenceError: it cannot be written."""
    try:
        files.write_whole(target, content)
    except OSError as error:
        raise EvidenceError(f'could not write report "{target}": {error.strerror}') from error


def _append(target: Path, content: bytes) -> None:
    """Append to the summary of a CI job, which other steps write, too; without one the run is told all the same."""
    try:
        with target.open("ab") as file:
            file.write(content)
    except OSError as error:
        show_warning(EvidenceError(f'could not write the job summary "{target}": {error.strerror}'))


def write_file(target: Path, content: bytes) -> None:
    """Write a file that the user named, who may have a pipe or a link there. Raises EvidenceError: it cannot be."""
    try:
        target.write_bytes(content)
    except OSError as error:
        raise EvidenceError(f'could not write report "{target}": {error.strerror}') from error
