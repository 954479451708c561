"""A client that says exactly what a test wants it to say, and keeps every byte that it hears."""

import contextlib
import select
import socket
import struct
from pathlib import Path

from crashlab.observer.messages import message, read_failure

TIMEOUT_S = 20.0
PROTOCOL_3_0, PROTOCOL_3_2 = 196608, 196610


def query(sql: str) -> bytes:
    """A message of the simple protocol."""
    return message(b"Q", sql.encode() + b"\0")


def parse(sql: str, name: str = "") -> bytes:
    return message(b"P", f"{name}\0{sql}\0".encode() + bytes(2))


def bind(name: str = "", portal: str = "") -> bytes:
    return message(b"B", f"{portal}\0{name}\0".encode() + bytes(6))


def describe(portal: str = "") -> bytes:
    return message(b"D", f"P{portal}\0".encode())


def execute(portal: str = "", rows: int = 0) -> bytes:
    return message(b"E", f"{portal}\0".encode() + struct.pack("!I", rows))


def whole(sql: str) -> bytes:
    """One statement of the extended protocol, without Sync."""
    return parse(sql) + bind() + describe() + execute()


SYNC, FLUSH, COPY_DONE, TERMINATE = (message(kind) for kind in (b"S", b"H", b"c", b"X"))


def copy_data(text: str) -> bytes:
    return message(b"d", text.encode())


def startup(user: str, database: str, more: dict[str, str], protocol: int = PROTOCOL_3_0) -> bytes:
    words = {"user": user, "database": database, **more}
    body = struct.pack("!I", protocol) + b"".join(f"{k}\0{v}\0".encode() for k, v in words.items()) + b"\0"
    return struct.pack("!I", len(body) + 4) + body


class Client:
    """A raw connection by Unix socket."""

    def __init__(self, folder: Path, port: int, user: str, database: str, more: dict[str, str] | None = None) -> None:
        self.path = f"{folder}/.s.PGSQL.{port}"
        self._socket = self._connect()
        self._rest = b""
        self.heard: list[tuple[str, bytes]] = []  # what came, by message
        self.key = b""
        self.send(startup(user, database, more or {}))
        self.until_ready()

    def _connect(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(TIMEOUT_S)
        opened.connect(self.path)
        return opened

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def has_heard(self) -> bool:
        """Something came that was not read yet."""
        return bool(self._rest) or bool(select.select([self._socket], [], [], 0)[0])

    def next(self) -> tuple[str, bytes]:
        """The next message. Raises EOFError."""
        while len(self._rest) < 5 or len(self._rest) < 1 + int.from_bytes(self._rest[1:5], "big"):
            data = self._socket.recv(65536)
            if not data:
                raise EOFError
            self._rest += data
        end = 1 + int.from_bytes(self._rest[1:5], "big")
        kind, body, self._rest = chr(self._rest[0]), self._rest[5:end], self._rest[end:]
        if kind == "K":
            self.key = body
        self.heard.append((kind, body))
        return kind, body

    def until(self, kinds: str) -> list[tuple[str, bytes]]:
        """Read up to a message of one of these kinds."""
        begin = len(self.heard)
        while self.next()[0] not in kinds:
            pass
        return self.heard[begin:]

    def until_ready(self, count: int = 1) -> list[tuple[str, bytes]]:
        begin = len(self.heard)
        for _ in range(count):
            self.until("Z")
        return self.heard[begin:]

    def ask(self, sql: str) -> list[str]:
        """Say a Query and return what came, in short."""
        self.send(query(sql))
        return shorts(self.until_ready())

    def cancel(self) -> None:
        """Ask on another connection that what runs here be cancelled, and wait until that has been read."""
        with self._connect() as other:
            other.sendall(struct.pack("!II", 12 + len(self.key) - 4, 80877102) + self.key)
            with contextlib.suppress(ConnectionError):
                other.recv(1)

    def close(self, *, politely: bool = True) -> None:
        with contextlib.suppress(OSError):
            if politely:
                self.send(TERMINATE)
        self._socket.close()


def shorts(heard: list[tuple[str, bytes]]) -> list[str]:
    """Tags, SQLSTATEs and states, in order: what an account of the conversation must say too."""
    words = []
    for kind, body in heard:
        if kind == "C":
            words.append(body[:-1].decode())
        elif kind == "E":
            words.append(read_failure(body).code)
        elif kind == "I":
            words.append("")
        elif kind == "s":
            words.append("suspended")
        elif kind == "Z":
            words.append(body.decode())
    return words
