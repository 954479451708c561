"""What did the recoveries of a stored run replay, and what never?"""

from pathlib import Path

import click

from crashlab.cli.reports import json_target_checked, show_warning, write_json
from crashlab.errors import EvidenceError


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option("--every", is_flag=True, help="List also what was replayed, how often, and what is out of reach.")
@click.option("--json", "json_target", metavar="FILE|-", help="Write it as JSON; - is stdout.")
def coverage(folders: tuple[Path, ...], every: bool, json_target: str | None) -> int:
    """Say which types of WAL records were replayed, out of all that a single server can write.

    DIR is a run's folder, or that of a profile or of one trial; several are taken together. For each major version it
    names what was written but never replayed, and what was never written.
    """
    from crashlab.campaign.rejudge import stored_results
    from crashlab.report.coverage import as_json, coverage_text, redo_coverage

    json_target_checked(json_target)
    results = [result for folder in folders for result in stored_results(folder, warn=show_warning).values()]
    found = [one for one in redo_coverage(results) if one.recoveries]
    if not found:
        raise EvidenceError(
            "no recovery is known that replayed anything",
            detail="The trials are of an older crashlab, or of a release that the table of record types lacks, "
            "or nothing was to be recovered.",
        )
    if json_target is not None:
        write_json(json_target, [as_json(one) for one in found])
    if json_target != "-":
        for one in found:
            click.echo("\n".join(coverage_text(one, every=every)))
    return 0
