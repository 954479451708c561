"""What can go wrong outside the database under test?

These exceptions are for the user's input and environment. What is wrong with a database is data
(`model.Finding`), never an exception; what is wrong with crashlab itself is an assertion.
Wording follows PostgreSQL's Error Message Style Guide: primary, detail, hint.
"""

import difflib
from collections.abc import Callable, Iterable


class CrashlabError(Exception):
    """An input or environment error: lower-case primary without a full stop, optional detail and hint."""

    exit_code = 4

    def __init__(self, primary: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(primary)
        self.primary = primary
        self.detail = detail
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.primary]
        if self.detail:
            lines.append(f"Detail: {self.detail}")
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        return "\n".join(lines)


Warn = Callable[[CrashlabError], None]
"""Is told what can be done without, or is done in another way than asked for."""


class UsageProblem(CrashlabError):
    """The command line or an argument asks for something that makes no sense."""

    exit_code = 2


class ProfileError(UsageProblem):
    """A fault profile cannot be used; the detail lists every mistake, one a line."""


class ServerError(CrashlabError):
    """A PostgreSQL build, server or container could not be found, started, reached or stopped."""


class Unreachable(ServerError):
    """The user that a server runs as cannot reach the folder that it is to run in."""


class ServerTimeout(ServerError):
    """A bounded wait for a server ran out. `hangs` says what its recovery does if that stands still."""

    hangs: str | None = None


class SessionRefused(ServerError):
    """The server runs and ends every session with an error that waiting does not mend, such as a damaged catalog."""


class FaultError(CrashlabError):
    """A fault could not be injected: no such process role, not available in this version."""


class LedgerError(CrashlabError):
    """A ledger is damaged: the message names file, line and reason."""


class EvidenceError(CrashlabError):
    """A trial's folder is missing, damaged, of another schema, or in use."""


class RecordingError(EvidenceError):
    """A recording is cut short, damaged, void, or of another base image; or the recorder cannot be built."""


class NoSuchPoint(RecordingError):
    """A profile cuts the power only where a recording, which is whole, has no crash point."""


class NoRoom(CrashlabError):
    """A disk is full: what was to be made there could not be made, so there is nothing to judge."""

    exit_code = 3

    def __init__(self, primary: str, *, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(primary, detail=detail, hint=hint or "Make room there, or work elsewhere (TMPDIR, --out).")


def did_you_mean(word: str, known: Iterable[str], alike: float = 0.7) -> str:
    """Return 'Did you mean "x"?' for the nearest known word that is alike enough (1: the same), or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=alike)
    return f'Did you mean "{near[0]}"?' if near else ""
