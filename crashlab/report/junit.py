"""How is a result told to continuous integration?

Choices:
    A trial is a testcase, a profile a testsuite and the class name; seed and version are properties.
    A broken promise is a failure. An inconclusive trial is an error, not a skip: CI shows skips as green, and a trial
    that nobody could judge has passed nothing.
    The message is the finding's one line, the text below it the paragraph and the timeline of each finding.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

from crashlab.errors import CrashlabError
from crashlab.model import Finding, Outcome, PromiseStatus
from crashlab.report.statistics import statistics_line
from crashlab.report.story import follow_up, printable, story
from crashlab.report.summary import NOTHING_DUE, tally
from crashlab.results import ProfileResult, RunResult, TrialResult


def report_bytes(run: RunResult, code: int = 0) -> bytes:
    """Return a JUnit XML document."""
    root = ElementTree.Element("testsuites", name="crashlab")
    errors = [("evidence", one) for one in run.damaged]
    if run.error is not None:
        errors.append(("environment", run.error))
    for result in run.profiles:
        root.append(_suite(result, errors if result is run.profiles[-1] else []))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(result: ProfileResult, others: Sequence[tuple[str, CrashlabError]]) -> ElementTree.Element:
    counts = tally(result)
    suite = ElementTree.Element(
        "testsuite",
        name=result.profile.name,
        tests=str(counts.trials + len(others)),
        failures=str(counts.broken),
        errors=str(counts.inconclusive + len(others)),
        skipped="0",
        time=f"{sum(_seconds(trial) for trial in result.trials):.3f}",
    )
    properties = ElementTree.SubElement(suite, "properties")
    server = result.server
    described = {
        "seed": str(result.seed),
        "crash_class": str(result.crash_class),
        "postgresql_version": server.version if server else "",
        "server": f"{server.kind} {server.source}" if server else "",
        "statistics": statistics_line(result) or "",
    }
    if result.recovered_with:
        described["recovered_with"] = ", ".join(f"{one.version} {one.source}" for one in result.recovered_with)
    for name, value in described.items():
        ElementTree.SubElement(properties, "property", name=name, value=printable(value))
    for trial in result.trials:
        suite.append(_case(result.profile.name, trial))
    for name, error in others:
        case = ElementTree.SubElement(suite, "testcase", classname=result.profile.name, name=name)
        ElementTree.SubElement(case, "error", message=printable(error.primary)).text = printable(str(error))
    return suite


def _case(profile: str, trial: TrialResult) -> ElementTree.Element:
    verdict = trial.verdict
    name = f"trial {trial.trial} (seed {trial.seed})"
    case = ElementTree.Element("testcase", classname=profile, name=name, time=f"{_seconds(trial):.3f}")
    said = "\n\n".join(
        [_told(finding) for finding in verdict.findings]
        + ([printable(trial.error)] if trial.error else [])
        + ["\n".join([f"evidence: {trial.folder}", *(f"{label}: {text}" for label, text in follow_up(trial))])]
    )
    if verdict.promise is PromiseStatus.BROKEN:
        broken = next((story(finding).line for finding in verdict.findings if not finding.permitted), "")
        message = f"{verdict.outcome}: {broken}" if broken else str(verdict.outcome)
        ElementTree.SubElement(case, "failure", type="broken", message=message).text = said
    elif verdict.outcome is Outcome.INCONCLUSIVE:
        lines = [story(finding).line for finding in verdict.findings] or ["inconclusive"]
        message = printable(trial.error or lines[0])
        ElementTree.SubElement(case, "error", type="inconclusive", message=message).text = said
    else:
        note = f"; {NOTHING_DUE}" if trial.proves_nothing else ""
        ElementTree.SubElement(case, "system-out").text = f"outcome: {verdict.outcome}{note}\n\n{said}"
    return case


def _told(finding: Finding) -> str:
    told = story(finding)
    return "\n".join([f"{told.code} ({told.grade}): {told.line}", told.paragraph, *told.timeline])


def _seconds(trial: TrialResult) -> float:
    return trial.seconds.get("total", 0.0)
