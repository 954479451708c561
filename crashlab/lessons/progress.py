"""How far is a learner?

One file, `lessons.json` in CRASHLAB_STATE_DIR, else $XDG_STATE_HOME/crashlab or ~/.local/state/crashlab. It holds no
answer and no figure: only which steps were run, where their evidence is, and what was answered rightly.
"""

import os
from pathlib import Path

import msgspec

from crashlab import files
from crashlab.errors import EvidenceError

STATE = "lessons.json"


class Attempt(msgspec.Struct, kw_only=True):
    """One learner's way through one lesson."""

    seed: int
    folder: str  # absolute: takes the evidence of its steps, a folder each
    steps: list[str] = []  # those that were run to their end
    guess: str = ""  # the letter chosen before anything was run
    done: str = ""  # the day on which the exercise was solved, ISO


class Progress(msgspec.Struct, kw_only=True):
    """Everything that is remembered."""

    schema: int = 1
    lessons: dict[str, Attempt] = {}  # by number


def state_file() -> Path:
    """Return where it is kept."""
    if chosen := os.environ.get("CRASHLAB_STATE_DIR"):
        return Path(chosen) / STATE
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "crashlab" / STATE


def load() -> Progress:
    """Return what is remembered; nothing if there is no file. Raises EvidenceError: it cannot be read."""
    path = state_file()
    try:
        return msgspec.json.decode(files.read_whole(path), type=Progress)
    except FileNotFoundError:
        return Progress()
    except (OSError, msgspec.MsgspecError) as error:
        raise EvidenceError(
            f'could not read "{path}": {getattr(error, "strerror", None) or error}',
            hint="Remove it to begin anew; the evidence of lessons stays where it is.",
        ) from error


def save(progress: Progress) -> None:
    """Remember it. Raises EvidenceError: it cannot be written."""
    path = state_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, msgspec.json.format(msgspec.json.encode(progress), indent=1) + b"\n")
    except OSError as error:
        raise EvidenceError(
            f'could not write "{path}": {error.strerror}', hint="Choose another folder with CRASHLAB_STATE_DIR."
        ) from error
