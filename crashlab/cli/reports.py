"""Where do results and errors go: console, report files, exit code?

Choices:
    Report files are opened before any server starts: a typing mistake must not cost a run.
    With `--json -` stdout is the JSON document and nothing else.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.errors import CrashlabError, EvidenceError

if TYPE_CHECKING:
    from crashlab.campaign import ProfileResult
    from crashlab.report.summary import Failure

REPORT = "report.json"


def show_error(error: CrashlabError) -> None:
    """Tell an error on stderr: primary, detail, hint, as PostgreSQL's own programs do."""
    click.echo(f"crashlab: error: {error.primary}", err=True)
    for label, text in (("detail", error.detail), ("hint", error.hint)):
        if text:
            text = text if "\n" not in text else "\n  " + text.replace("\n", "\n  ")
            click.echo(f"crashlab: {label}: {text}", err=True)


class Reports:
    """The consoles and files of one command."""

    def __init__(self, json_target: str | None, junit_target: str | None) -> None:
        from crashlab.report.console import console

        self._json = json_target
        self._junit = junit_target
        self.out = console(stderr=json_target == "-")
        self.progress = console(stderr=True)
        for option, target in (("--json", json_target), ("--junit-xml", junit_target)):
            if target and not (option == "--json" and target == "-"):
                _require_writable(option, Path(target))

    def finish(
        self,
        results: Sequence["ProfileResult"],
        failure: "Failure | None" = None,
        *,
        folder: Path | None = None,
        again: str | None = None,
    ) -> int:
        """Print and write everything; return the exit code.

        Raises:
            EvidenceError: a report could not be written.
        """
        from crashlab.report import json_report, junit
        from crashlab.report.console import print_closing, print_results
        from crashlab.report.summary import exit_code

        code = exit_code(results, failure)
        as_json = json_report.report_bytes(results, failure)
        if folder is not None and any(result.trials for result in results):
            _write(folder / REPORT, as_json)
        if self._junit:
            _write(Path(self._junit), junit.report_bytes(results, failure))
        if self._json and self._json != "-":
            _write(Path(self._json), as_json)
        if results:
            print_results(self.out, results)
        print_closing(self.out, results, code, folder=folder, again=again)
        if self._json == "-":
            sys.stdout.buffer.write(as_json)
        if failure is not None:
            show_error(failure.error)
        return code


def _require_writable(option: str, target: Path) -> None:
    try:
        with target.open("ab"):
            pass
    except OSError as error:
        raise EvidenceError(f'could not write {option} "{target}": {error.strerror}') from error


def _write(target: Path, content: bytes) -> None:
    try:
        target.write_bytes(content)
    except OSError as error:
        raise EvidenceError(f'could not write report "{target}": {error.strerror}') from error
