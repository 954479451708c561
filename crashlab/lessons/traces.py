"""What did a step of a lesson leave, to be read by readings and puzzles?"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from crashlab.errors import EvidenceError
from crashlab.evidence import LEDGER, load_observation
from crashlab.history import History, read_ledger

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from crashlab.exploration.overview import Overview
    from crashlab.exploration.recording import Recording
    from crashlab.model import Observation

REPORT = "report.json"
JUNIT = "junit.xml"


@dataclass(frozen=True)
class Trace:
    """The folder of one step; each part is read when it is asked for."""

    folder: Path

    @functools.cached_property
    def profiles(self) -> list[dict[str, Any]]:
        """The JSON report, a profile each. Raises EvidenceError: there is none."""
        try:
            report = msgspec.json.decode((self.folder / REPORT).read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise EvidenceError(f'could not read "{self.folder / REPORT}": {error}') from error
        return report if isinstance(report, list) else [report]

    def trials(self, profile: str = "") -> list[dict[str, Any]]:
        """Return the trials of a profile as the report has them; of all without a name."""
        return [trial for one in self.profiles if profile in ("", one["profile"]) for trial in one["trials"]]

    def observation(self, trial: Mapping[str, Any]) -> "Observation":
        """Return what was read from a recovered server."""
        return load_observation(Path(trial["folder"]))

    def ledger(self, trial: Mapping[str, Any]) -> History:
        """Return what the clients of a live trial were told."""
        return read_ledger(Path(trial["folder"]) / LEDGER)

    @functools.cached_property
    def recording(self) -> "Recording":
        """The recording. Raises RecordingError: there is none."""
        from crashlab.exploration.recording import find

        return find(self.folder)

    @functools.cached_property
    def overview(self) -> "Overview":
        """The recording in numbers."""
        from crashlab.exploration.overview import overview

        return overview(self.recording)

    @functools.cached_property
    def tests(self) -> "list[Element]":
        """The tests that pytest ran. Raises EvidenceError: it has left no report."""
        from xml.etree import ElementTree

        try:
            return list(ElementTree.parse(self.folder / JUNIT).iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            raise EvidenceError(f'could not read "{self.folder / JUNIT}": {error}') from error

    @functools.cached_property
    def failures(self) -> list[str]:
        """What those tests said that failed."""
        return ["".join(failure.itertext()) for test in self.tests for failure in test.iter("failure")]

    def facts(self, name: str) -> dict[str, Any]:
        """Return what a program of `demos` wrote down. Raises EvidenceError: it did not."""
        try:
            found: dict[str, Any] = msgspec.json.decode((self.folder / name).read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise EvidenceError(f'could not read "{self.folder / name}": {error}') from error
        return found


Traces = Mapping[str, Trace]
"""Name of a step -> what it left."""
