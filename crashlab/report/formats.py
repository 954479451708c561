"""In which forms can a run be written into a file? A form is one line here and one module.

Each module has `report_bytes(run, code)`: the whole run and the exit code of the command go in, the file's content
comes out. It is imported when it is asked for, so that `--help` needs no template engine.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crashlab.results import RunResult

STDOUT = "-"


@dataclass(frozen=True)
class Format:
    """One form of report."""

    name: str  # of the option: --NAME FILE
    module: str  # in this package
    help: str
    draws: bool = False  # it needs what happened in some of the trials
    to_stdout: bool = False  # may be asked for instead of the console's report, as "-"

    @property
    def option(self) -> str:
        """The option that asks for it."""
        return f"--{self.name}"

    @property
    def metavar(self) -> str:
        """What the option takes."""
        return f"FILE|{STDOUT}" if self.to_stdout else "FILE"

    @property
    def parameter(self) -> str:
        """What the command line calls its file."""
        return f"{self.name.replace('-', '_')}_target"

    def content(self, run: "RunResult", code: int) -> bytes:
        """Return a run in this form."""
        made: bytes = import_module(f"crashlab.report.{self.module}").report_bytes(run, code)
        return made


FORMATS = (
    Format("json", "json_report", "Write the JSON report; - is stdout.", to_stdout=True),
    Format("junit-xml", "junit", "Write a JUnit XML report."),
    Format("html", "html_report", "Write the report as one HTML page.", draws=True),
    Format("markdown", "markdown_report", "Write Markdown, for a pull request; - is stdout.", to_stdout=True),
    Format("trace", "trace_report", "Write the drawn trials as Chrome trace events, for Perfetto.", draws=True),
)
