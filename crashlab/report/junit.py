"""How is a result told to continuous integration?

Choices:
    A trial is a testcase, a profile a testsuite and the class name; seed and version are properties.
    A broken promise is a failure. An inconclusive trial is an error, not a skip: CI shows skips as green, and a trial
    that nobody could judge has passed nothing.
"""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from crashlab.campaign.results import ProfileResult, TrialResult
from crashlab.model import Outcome, PromiseStatus
from crashlab.report.summary import Failure, tally

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report_bytes(results: Sequence[ProfileResult], failure: Failure | None = None) -> bytes:
    """Return a JUnit XML document."""
    root = ElementTree.Element("testsuites", name="crashlab")
    for result in results:
        root.append(_suite(result))
    if failure is not None:
        suite = ElementTree.SubElement(
            root, "testsuite", name=failure.profile.name, tests="1", failures="0", errors="1"
        )
        case = ElementTree.SubElement(suite, "testcase", classname=failure.profile.name, name="environment")
        ElementTree.SubElement(case, "error", message=_xml(failure.error.primary)).text = _xml(str(failure.error))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(result: ProfileResult) -> ElementTree.Element:
    counts = tally(result)
    suite = ElementTree.Element(
        "testsuite",
        name=result.profile.name,
        tests=str(counts.trials),
        failures=str(counts.broken),
        errors=str(counts.inconclusive),
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
    }
    for name, value in described.items():
        ElementTree.SubElement(properties, "property", name=name, value=_xml(value))
    for trial in result.trials:
        suite.append(_case(result.profile.name, trial))
    return suite


def _case(profile: str, trial: TrialResult) -> ElementTree.Element:
    verdict = trial.verdict
    name = f"trial {trial.trial} (seed {trial.seed})"
    case = ElementTree.Element("testcase", classname=profile, name=name, time=f"{_seconds(trial):.3f}")
    story = "\n\n".join(
        [f"{finding.code}: {finding.summary}\n{finding.explanation}" for finding in verdict.findings]
        + ([f"Cut at {trial.state}"] if trial.state else [])
        + ([trial.error] if trial.error else [])
        + [f"Evidence: {trial.folder}", f"Reproduce: {trial.reproduce}"]
    )
    if verdict.promise is PromiseStatus.BROKEN:
        message = f"{verdict.outcome}: {verdict.findings[0].summary}" if verdict.findings else str(verdict.outcome)
        ElementTree.SubElement(case, "failure", type="broken", message=_xml(message)).text = _xml(story)
    elif verdict.outcome is Outcome.INCONCLUSIVE:
        message = trial.error or (verdict.findings[0].summary if verdict.findings else "inconclusive")
        ElementTree.SubElement(case, "error", type="inconclusive", message=_xml(message)).text = _xml(story)
    else:
        ElementTree.SubElement(case, "system-out").text = _xml(f"outcome: {verdict.outcome}\n\n{story}")
    return case


def _seconds(trial: TrialResult) -> float:
    return trial.seconds.get("total", 0.0)


def _xml(text: str) -> str:
    """Replace what XML 1.0 cannot carry: a server's message may quote a damaged page."""
    return _NOT_XML.sub("\ufffd", text)
