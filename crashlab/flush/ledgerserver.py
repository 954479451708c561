"""Who keeps the ledger of flushed pages, on a machine that is not cut off, and how is it spoken to?

One JSON object a line, one answer for each. `begin` opens a run, `flushed` notes one number more, `last` asks for the
newest run. The ledger is those lines of the first two kinds, in one file; a line is in it before it is answered.

Choices: no password and no encryption: it is for two machines on one's own network, and takes nothing but numbers.
    A line that is too long or says something else ends that connection.
"""

import os
import socket
import socketserver
import threading
from pathlib import Path
from typing import Any

import msgspec

from crashlab.errors import EvidenceError, UsageProblem

LEDGER = "power-cut.jsonl"
LINE_BYTES_MAX = 4096
TIMEOUT_S = 30.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
DEFAULT_PORT = 5499


class Begin(msgspec.Struct, frozen=True, tag_field="event", tag="begin"):
    """A run whose file is durable."""

    seed: int
    pages: int
    method: str
    boot: str  # of the machine whose disk it is: another one after a restart


class Flushed(msgspec.Struct, frozen=True, tag_field="event", tag="flushed", gc=False):
    """The n-th write was flushed."""

    number: int


class Last(msgspec.Struct, frozen=True, tag_field="event", tag="last"):
    """Which run was the last one, and how far did it come?"""


class Run(msgspec.Struct, frozen=True):
    """The newest run: all that is needed to hold its disk against it."""

    begun: Begin
    flushed: int


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """To every line."""

    ok: bool = True
    error: str = ""
    run: Run | None = None


def boot_id() -> str:
    """Return what names this life of this machine."""
    return BOOT_ID.read_text().strip()


def address_of(text: str) -> tuple[str, int]:
    """Read HOST:PORT, HOST or :PORT. Raises UsageProblem: it is none of these."""
    host, colon, port = text.rpartition(":") if ":" in text else (text, "", "")
    if (colon and not (port.isdigit() and int(port) < 65536)) or not (host or colon):
        raise UsageProblem(
            f'cannot use the address "{text}"', hint=f"Write HOST:PORT, such as 10.0.0.2:{DEFAULT_PORT}."
        )
    return host.strip("[]"), int(port) if colon else DEFAULT_PORT


class Ledger:
    """The file, and what it says so far."""

    def __init__(self, folder: Path) -> None:
        """Open it, or make it. Raises EvidenceError: it cannot be written, or is damaged."""
        self.path = folder / LEDGER
        self.run: Run | None = None
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._read()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise EvidenceError(f'could not open the ledger "{self.path}": {error.strerror}') from error

    def _read(self) -> None:
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                self._apply(msgspec.json.decode(line, type=Begin | Flushed))
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                raise EvidenceError(f'damaged ledger "{self.path}", line {number}: {error}') from error

    def note(self, event: Begin | Flushed) -> None:
        """Append one event. Raises ValueError: it does not follow from the last one; OSError: the disk refuses."""
        with self._lock:
            self._apply(event)
            os.write(self._fd, msgspec.json.encode(event) + b"\n")

    def _apply(self, event: Begin | Flushed) -> None:
        if isinstance(event, Begin):
            self.run = Run(event, 0)
        elif self.run is None or event.number != self.run.flushed + 1:
            raise ValueError(f"write {event.number} does not follow the last one")
        else:
            self.run = Run(self.run.begun, event.number)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class LedgerServer(socketserver.ThreadingTCPServer):
    """Listens; `serve_forever` until it is interrupted or shut down."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], ledger: Ledger) -> None:
        """Listen. Raises EvidenceError: the address cannot be had."""
        self.ledger = ledger
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Conversation)
        except OSError as error:
            raise EvidenceError(f"could not listen on {address[0]}:{address[1]}: {error.strerror}") from error


class _Conversation(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: LedgerServer

    def handle(self) -> None:
        while line := self.rfile.readline(LINE_BYTES_MAX):
            try:
                answer = self._answer(msgspec.json.decode(line, type=Begin | Flushed | Last))
            except (msgspec.DecodeError, ValueError, RecursionError, OSError) as error:
                answer = Answer(ok=False, error=str(error))
            self.wfile.write(msgspec.json.encode(answer) + b"\n")
            if not answer.ok:
                return

    def _answer(self, event: Begin | Flushed | Last) -> Answer:
        if isinstance(event, Last):
            return Answer(run=self.server.ledger.run)
        self.server.ledger.note(event)
        return Answer()


class LedgerClient:
    """Speaks to the machine that keeps the ledger; a context manager closes the connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        """Connect. Raises EvidenceError: nobody is there."""
        self._where = f"{address[0]}:{address[1]}"
        try:
            self._socket = socket.create_connection((address[0] or "localhost", address[1]), timeout=TIMEOUT_S)
        except OSError as error:
            raise EvidenceError(
                f"could not reach the ledger at {self._where}: {error}",
                hint=f"On the other machine: crashlab disk FOLDER --listen :{address[1]}",
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def ask(self, event: Begin | Flushed | Last) -> Answer:
        """Send one line and return its answer. Raises EvidenceError: it does not come, or is a refusal."""
        try:
            self._socket.sendall(msgspec.json.encode(event) + b"\n")
            line = self._answers.readline(LINE_BYTES_MAX)
            answer = msgspec.json.decode(line, type=Answer)
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            raise EvidenceError(f"could not speak with the ledger at {self._where}: {error}") from error
        if not answer.ok:
            raise EvidenceError(f"the ledger at {self._where} refused: {answer.error}")
        return answer

    def __enter__(self) -> "LedgerClient":
        """Nothing to do."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Close it."""
        self._answers.close()
        self._socket.close()
