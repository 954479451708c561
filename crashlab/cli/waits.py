"""What did the server of an observed trial wait for?"""

from pathlib import Path

import click

from crashlab.cli.questions import json_option
from crashlab.cli.reports import json_target_checked, write_json
from crashlab.errors import EvidenceError, UsageProblem

OBSERVE = "Run it again with crashlab run PROFILE --observe; recorded trials are not sampled."


@click.command()
@click.argument("trial", metavar="DIR-or-ID")
@json_option
def waits(trial: str, json_target: str | None) -> int:
    """Say what the server of a trial waited for; the trial was run with --observe.

    DIR-or-ID is a trial's folder, or PROFILE:TRIAL of the latest run, such as async-commit:3.
    """
    from crashlab import evidence
    from crashlab.cli.stored import trial_folder
    from crashlab.observe import SAMPLES, Samples
    from crashlab.report.console import console
    from crashlab.report.observed import waits_json, waits_lines, waits_table

    json_target_checked(json_target)
    _choose_among_many(Path(trial))
    path = trial_folder(trial) / SAMPLES
    if not path.exists():
        raise EvidenceError(f'could not read "{path}": the trial was not observed', hint=OBSERVE)
    samples = evidence.load(Path(path), Samples)
    if json_target is not None:
        write_json(json_target, waits_json(samples))
    if json_target != "-":
        out = console()
        out.print(waits_table(samples))
        for line in waits_lines(samples):
            out.print(line, soft_wrap=True, highlight=False)
    return 0


def _choose_among_many(folder: Path) -> None:
    """Raise an error if a folder holds several trials: one that can be asked for, if there is any."""
    from crashlab.observe import SAMPLES
    from crashlab.trial.judged import folders_below

    found = sorted(folders_below(folder))
    if len(found) < 2:
        return
    observed = [one for one in found if (one / SAMPLES).exists()]
    if not observed:
        raise EvidenceError(f'no trial in "{folder}" was observed', hint=OBSERVE)
    raise UsageProblem(
        f'"{folder}" holds {len(found)} trials, {len(observed)} of them observed', hint=f"Choose one: {observed[0]}"
    )
