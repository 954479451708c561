"""What can be asked on the command line, and which exit code answers?

Choices:
    Commands import what they need when they run, so that `--help` and shell completion stay fast.
    1 means only "a promise was broken": click's own use of 1 and Python's (a traceback) are mapped elsewhere.
"""

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from crashlab import __version__
from crashlab.cli.bisect import bisect
from crashlab.cli.clean import clean
from crashlab.cli.coverage import coverage
from crashlab.cli.disk import disk
from crashlab.cli.docs import docs
from crashlab.cli.inspect import doctor, explain, profiles, validate
from crashlab.cli.lesson import lesson
from crashlab.cli.matrix import matrix
from crashlab.cli.questions import compare, results
from crashlab.cli.recordings import explore, record, show
from crashlab.cli.report import report
from crashlab.cli.reports import show_error
from crashlab.cli.run import run
from crashlab.cli.signals import answer_interrupts
from crashlab.cli.stored import judge, replay, shrink
from crashlab.cli.tradeoff import tradeoff
from crashlab.cli.waits import waits
from crashlab.errors import CrashlabError, EvidenceError

EXIT_CODES = """\b
Exit codes:
  0    every promise kept (or none was made: void)
  1    a promise was broken
  2    wrong usage, or a profile with mistakes
  3    inconclusive: a trial could not be judged, or nothing ran
  4    the environment: no server, no evidence there, no permission, a bug in crashlab
  130  interrupted; the evidence so far is kept and reported

Each option has an environment variable: crashlab run --seed is CRASHLAB_RUN_SEED."""


HELP = {"help_option_names": ["-h", "--help"]}


@click.group(
    epilog=EXIT_CODES,
    context_settings={**HELP, "auto_envvar_prefix": "CRASHLAB", "max_content_width": 110},
)
@click.version_option(__version__, prog_name="crashlab")
def cli() -> None:
    """Crash real PostgreSQL servers, recover them, and say what was lost and what is corrupt."""


for command in (
    *(run, matrix, results, compare, coverage, waits, report, judge, replay, shrink, bisect),
    *(record, explore, show, profiles, validate, explain, docs, lesson, tradeoff, disk, doctor, clean),
):
    command.context_settings.update(HELP)  # click asks a command first, and keeps the answer
    cli.add_command(command)

OWN_INTERRUPTS = [command.name for command in (run, record, explore, matrix, replay, shrink, bisect, tradeoff)]
"""Commands that answer interrupts themselves, when they are loaded."""


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    if sys.stdout is None:  # somebody closed it
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # a terminal of an older code page lacks letters, of a table's name say
    try:
        code = invoke(sys.argv[1:])
    except KeyboardInterrupt:  # a second one, while the first was told
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what the code says is not taken back while Python ends
    sys.exit(code)


def invoke(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are told on stderr, in PostgreSQL's form."""
    try:
        if not args or args[0] not in [
            command.name for command in (run, record, explore, matrix, replay, shrink, bisect, tradeoff)
        ]:
            answer_interrupts()
        code = int(cli.main(list(args), prog_name="crashlab", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("crashlab: interrupted", err=True)
        return 130
    except CrashlabError as error:
        show_error(error)
        return error.exit_code
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:
            raise  # shell completion, which ends by itself
        _forget_stdout()  # whoever read our output has gone, which click and rich answer with 1
        return 141
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            return _tell_bug()
        _forget_stdout()  # it is of no file that anybody named: what stdout was sent to
        show_error(EvidenceError(f"could not write to stdout: {error.strerror}", hint="Make room there."))
        return 4
    except Exception:
        return _tell_bug()


def _tell_bug() -> int:
    traceback.print_exc()
    click.echo("crashlab: error: this is a bug in crashlab; please report it with the lines above", err=True)
    return 4


def _forget_stdout() -> None:
    """Send stdout to nobody: Python would complain once more when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
