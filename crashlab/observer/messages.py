"""How are messages of PostgreSQL's protocol cut out of bytes, and which of their fields does the observer read?

Source: the manual's "Frontend/Backend Protocol", "Message Formats". A codec of all messages (pygwire 0.2.0, a beta
whose interface may change with each version) would decode what the observer only passes on.
"""

import struct
from typing import NamedTuple

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
ENDING = ("FATAL", "PANIC")
"""Severities of an error after which nothing comes on its connection."""
STARTUP_BYTES_MAX = 10_000  # PostgreSQL's MAX_STARTUP_PACKET_LENGTH


class Failure(NamedTuple):
    """An ErrorResponse."""

    severity: str  # not translated: "ERROR", "FATAL", "PANIC"
    code: str  # SQLSTATE
    message: str
    position: int  # in characters from 1, of the query; 0: none

    @property
    def ends_connection(self) -> bool:
        """Nothing comes after it."""
        return self.severity in ENDING


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return a message with its type and length."""
    return kind + struct.pack("!I", len(body) + 4) + body


def read_failure(body: bytes) -> Failure:
    """Read the body of an ErrorResponse."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    position = fields.get(b"P", "")
    return Failure(
        fields.get(b"V", fields.get(b"S", "ERROR")),
        fields.get(b"C", ""),
        fields.get(b"M", ""),
        int(position) if position.isdigit() else 0,
    )


def fatal(code: str, text: str) -> bytes:
    """Return the ErrorResponse of a server that lets nobody in."""
    fields = {"S": "FATAL", "V": "FATAL", "C": code, "M": text}
    return message(b"E", b"".join(f"{key}{value}".encode() + b"\0" for key, value in fields.items()) + b"\0")


def read_startup(body: bytes) -> dict[str, str]:
    """Read the parameters of a StartupMessage, behind length and version."""
    words = [word.decode(errors="replace") for word in body.split(b"\0")]
    return {name: value for name, value in zip(words[::2], words[1::2], strict=False) if name}


def c_strings(body: bytes, count: int) -> list[bytes]:
    """Return the first strings of a message's body."""
    return body.split(b"\0", count)[:count]


def first_row(body: bytes) -> list[bytes | None]:
    """Read a DataRow."""
    (count,) = struct.unpack_from("!H", body)
    at, values = 2, []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if length < 0 else bytes(body[at : at + length]))
        at += max(length, 0)
    return values
