"""How do the bytes of all connections get in and out, and who says when to stop?

One process, one event loop, raw protocols. Its parent talks to it by lines of JSON on a pair of sockets; when the
parent ends, however it does, the observer ends too. What was learned is written before the bytes that it is about are
passed on, with one write(2) and no fsync: it outlives this process, and its parent.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec

from crashlab.observer.machine import Machine
from crashlab.observer.messages import fatal
from crashlab.observer.moment import Gate, Moment

REFUSAL = fatal("57P03", "the database system is starting up")  # CANNOT_CONNECT_NOW, which pools wait out
CONNECT_TIMEOUT_S = 10.0
SLOW_CLIENT_POLL_S = 0.002


class Conversation:
    """The file to which everything is appended, in one order."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._encode = msgspec.json.Encoder().encode
        self._number = 0
        self._position: int | None = None
        self._offset = 0

    def close(self) -> None:
        """Nothing more will be written."""
        os.close(self._fd)
        self.follow(None)

    def follow(self, file: Path | None, offset: int = 0) -> None:
        """From now on note with each event the number that stands at this place of a file."""
        if self._position is not None:
            os.close(self._position)
        self._position = None if file is None else os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = offset

    def _where(self) -> int:
        assert self._position is not None
        return int.from_bytes(os.pread(self._position, 8, self._offset), "little")

    def write(self, events: list[dict[str, Any]]) -> None:
        """Write down events, and forget them."""
        followed = self._position is not None
        before = {"io": self._where()} if followed else {}
        now_ns = time.monotonic_ns()
        common = {"at_ns": now_ns, **before, **({"io_then": self._where()} if followed else {})}
        lines = []
        for event in events:
            self._number += 1
            lines.append(self._encode({"number": self._number, **common, **event}) + b"\n")
        events.clear()
        data = b"".join(lines)
        while data:
            data = data[os.write(self._fd, data) :]


class Half(asyncio.Protocol):
    """One of a connection's two sockets."""

    def __init__(self, take: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self._take, self._lost = take, lost
        self.transport: asyncio.Transport | None = None
        self.other: Half | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._take(data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._lost()

    def pause_writing(self) -> None:
        """Whoever fills this socket has to wait."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self.other is not None and self.other.transport is not None:
            with contextlib.suppress(RuntimeError):  # it is closing
                self.other.transport.resume_reading()

    def send(self, data: bytearray) -> None:
        """Send bytes, and forget them."""
        if self.transport is not None and data:
            self.transport.write(bytes(data))
            data.clear()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()


class Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: "Proxy") -> None:
        self.proxy = proxy
        self.machine = Machine(proxy.gate)
        self.client = Half(self._from_client, self._client_lost)
        self.server = Half(self._from_server, self._server_lost)
        self.client.other, self.server.other = self.server, self.client
        self._connecting: asyncio.Task[None] | None = None
        self._over: str = ""  # who has ended it

    def _from_client(self, data: bytes) -> None:
        self.machine.from_client(data)
        self.flush()

    def _from_server(self, data: bytes) -> None:
        self.machine.from_server(data)
        self.flush()

    def flush(self) -> None:
        """Write down what was learned, then send what is to be sent."""
        machine, proxy = self.machine, self.proxy
        stops = proxy.gate.stopped and not proxy.told_stop
        if machine.events:
            if stops:
                proxy.told_stop = True
                reached = next(event for event in machine.events if event["kind"] == "reached")
            proxy.conversation.write(machine.events)
        if machine.to_server:
            if self.server.transport is not None:
                self.server.send(machine.to_server)
            elif self._connecting is None and machine.wants_server:
                self._connect()
        if machine.to_client:
            self.client.send(machine.to_client)
        if machine.ends and self.client.transport is not None:
            self.client.transport.close()
        if stops:
            self._tell_stop(reached)

    def _tell_stop(self, reached: dict[str, Any]) -> None:
        """Tell the parent once the client has all that it is to have: what it is slow to take would be lost."""
        client = self.client.transport
        if client is not None and client.get_write_buffer_size() and not self._over:
            asyncio.get_running_loop().call_later(SLOW_CLIENT_POLL_S, self._tell_stop, reached)
        else:
            self.proxy.tell({"reached": reached})

    def _connect(self) -> None:
        if self.proxy.down:
            self._refuse()
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        host, port = self.proxy.upstream
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if host.startswith("/"):
                    await loop.create_unix_connection(lambda: self.server, f"{host}/.s.PGSQL.{port}")
                else:
                    await loop.create_connection(lambda: self.server, host, port)
        except (OSError, TimeoutError):
            self._refuse()
        else:
            if self._over:
                self.server.abort()
            self.flush()

    def _refuse(self) -> None:
        self.machine.event("refused")
        self.proxy.conversation.write(self.machine.events)
        self._over = "server"
        if self.client.transport is not None and not self.machine.gate.stopped:
            self.client.transport.write(REFUSAL)
            self.client.transport.close()

    def _client_lost(self) -> None:
        self._end("client")
        if self.server.transport is not None and not self.proxy.gate.stopped:
            self.server.transport.close()
        self.proxy.links.discard(self)

    def _server_lost(self) -> None:
        self._end("server")
        if not self.proxy.gate.stopped and self.client.transport is not None:
            self.client.transport.close()

    def _end(self, by: str) -> None:
        if not self._over:
            self._over = by
            if self.machine.number:
                self.machine.event("closed", by=by)
                self.proxy.conversation.write(self.machine.events)

    def go(self) -> None:
        """Go on after a stop."""
        self.machine.go()
        self.flush()
        if self._over == "server" and self.client.transport is not None:
            self.client.transport.close()
        elif self._over == "client" and self.server.transport is not None:
            self.server.transport.close()

    def cut(self) -> None:
        """The server is dead."""
        self._end("cut")
        self.server.abort()
        self.client.abort()


class Proxy:
    """All connections, and what the parent asks for."""

    def __init__(self, upstream: tuple[str, int], conversation: Path) -> None:
        self.gate = Gate()
        self.upstream = upstream
        self.conversation = Conversation(conversation)
        self.links: set[Link] = set()
        self.down = False
        self.told_stop = False
        self.ended = asyncio.Event()
        self.control: asyncio.Transport | None = None
        self._line = b""
        self._along: dict[int, int] = {}  # leader of a process group -> its pidfd

    def accept(self) -> Half:
        """Take a new connection."""
        link = Link(self)
        self.links.add(link)
        return link.client

    def note(self, kind: str, **facts: object) -> None:
        """Note something that is about no connection."""
        self.conversation.write([{"kind": kind, **facts}])

    def tell(self, what: dict[str, Any]) -> None:
        """Say something to the parent."""
        if self.control is not None:
            self.control.write(json.dumps(what).encode() + b"\n")

    # asyncio.Protocol, of the parent's socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self.control = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            getattr(self, f"do_{asked['do']}")(asked)
            self.tell({"done": asked["id"], "epoch": self.gate.epoch})

    def eof_received(self) -> None:
        """The parent is gone."""
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.ended.set()

    # What the parent may ask for

    def do_arm(self, asked: dict[str, Any]) -> None:
        """Stop at a moment."""
        moment = asked["moment"]
        self.gate.arm(None if moment is None else Moment.parse(moment))
        self.note("armed", moment=moment, epoch=self.gate.epoch)

    def do_go(self, asked: dict[str, Any]) -> None:
        """Go on after the moment."""
        self.gate.stopped = self.told_stop = False
        self.note("went on")
        for link in list(self.links):
            link.go()

    def do_cut(self, asked: dict[str, Any]) -> None:
        """End all connections, and let nobody in."""
        self.down = True
        self.note("cut")
        for link in list(self.links):
            link.cut()
        self.gate.stopped = self.told_stop = False
        self.gate.armed = None

    def do_resume(self, asked: dict[str, Any]) -> None:
        """Let clients in again."""
        self.upstream, self.down = (asked["host"], asked["port"]), False
        self.note("resumed")

    def do_follow(self, asked: dict[str, Any]) -> None:
        """Note with each event where a file says that it is."""
        file = asked["file"]
        self.conversation.follow(None if file is None else Path(file), asked["offset"])
        self.note("follows")

    def do_take_along(self, asked: dict[str, Any]) -> None:
        """Kill a process group once the parent is gone, however it went."""
        for leader in [one for one, fd in self._along.items() if _has_ended(fd)]:
            os.close(self._along.pop(leader))
        with contextlib.suppress(ProcessLookupError):
            self._along[asked["leader"]] = os.pidfd_open(asked["leader"])

    def end(self) -> None:
        """Nobody is left to ask for anything: end all connections, and what is to go along."""
        for link in list(self.links):
            link.client.abort()
            link.server.abort()
        for leader, fd in self._along.items():
            if not _has_ended(fd):  # so its number is its own
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(leader, signal.SIGKILL)

    def do_settle(self, asked: dict[str, Any]) -> None:
        """Answer, behind whatever was said before."""

    def do_begin(self, asked: dict[str, Any]) -> None:
        """Begin anew: another conversation, with another server."""
        self.do_cut(asked)
        self.gate.__init__()  # type: ignore[misc]
        self.conversation.close()
        self.conversation = Conversation(Path(asked["conversation"]))
        self.upstream, self.down = (asked["host"], asked["port"]), False


def _has_ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 0)[0])


async def serve(control: socket.socket, proxy: Proxy, sockets: Path, parent: int) -> None:
    """Serve until the parent closes its socket, or ends."""
    loop = asyncio.get_running_loop()
    # Its socket alone would not do: a forked child may have it too. Nor would PR_SET_PDEATHSIG, which comes when the
    # parent's thread ends.
    fd = os.pidfd_open(parent)
    loop.add_reader(fd, proxy.ended.set)
    await loop.create_connection(lambda: cast(asyncio.Protocol, proxy), sock=control)
    tcp = await loop.create_server(proxy.accept, "127.0.0.1", 0)
    port = tcp.sockets[0].getsockname()[1]
    unix = await loop.create_unix_server(proxy.accept, f"{sockets}/.s.PGSQL.{port}")
    proxy.tell({"port": port})
    async with tcp, unix:
        await proxy.ended.wait()
        proxy.end()
