"""How is a stored run put before somebody? As one page, and in whatever other form is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from crashlab.cli.options import FORMAT_OPTIONS, Telling
from crashlab.cli.out_folder import BASE
from crashlab.cli.reports import Reports, show_warning, tell_trials, write_own
from crashlab.errors import EvidenceError, UsageProblem
from crashlab.report.formats import FORMATS

if TYPE_CHECKING:
    from crashlab.results import RunResult, TrialResult

PAGE = "report.html"


def _formats(command: "click.decorators.FC") -> "click.decorators.FC":
    for option in reversed(FORMAT_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="[RUN]", default=BASE / "latest")
@click.option(
    "--trial", "wanted", multiple=True, metavar="PROFILE:N", help="Draw this trial. [default: each finding's first]"
)
@_formats
@click.option("--open", "open_it", is_flag=True, help="Open the page in a browser.")
def report(run: Path, wanted: tuple[str, ...], open_it: bool, **targets: str | None) -> int:
    """Make the report of a stored RUN, as it was judged: one page, to be sent, printed or opened.

    RUN is the folder of a whole run, of a profile or of one trial. [default: .crashlab/latest] The page is
    RUN/report.html unless --html says otherwise. Each file that was written is named. The exit code is 0, whatever the
    trials showed; crashlab judge answers that.
    """
    from crashlab.campaign import stored_run
    from crashlab.report.summary import evidence_code

    given = {form: target for form in FORMATS if (target := targets[form.parameter])}
    (page,) = (form for form in FORMATS if form.name == "html")
    reports = Reports(Telling(given))
    stored = stored_run(run, warn=show_warning)
    tell_trials(stored, [_found(stored, name) for name in wanted])
    code = evidence_code(stored)
    reports.write(stored, code)
    place = Path(given.get(page) or run / PAGE)
    if page not in given:
        try:
            write_own(place, page.content(stored, code))  # beside a stranger's evidence: no link is followed
        except EvidenceError as error:
            raise EvidenceError(error.primary, hint="Have it elsewhere: --html FILE.") from error
    if reports.telling.on_stdout is None:
        for written in dict.fromkeys([place, *(target for _, target in reports.telling.files())]):
            click.echo(written)
    if open_it and click.launch(str(place)):
        raise UsageProblem(f'could not open "{place}": no browser was found', hint="Open the file yourself.")
    return 0


def _found(run: "RunResult", name: str) -> "tuple[str, TrialResult]":
    """Return the trial that PROFILE:N names."""
    profile, _, number = name.rpartition(":")
    for result in run.profiles:
        for trial in result.trials:
            if result.profile.name == profile and str(trial.trial) == number:
                return profile, trial
    raise UsageProblem(f'the run has no trial "{name}"', hint="crashlab results lists them; write PROFILE:N.")
