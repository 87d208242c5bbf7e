"""The other end of a port-forward, played by hand: a pod behind the tunnel, or behind channel pairs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from peers import BINARY, CLOSE, PAIRS, Peer, server_frame, tcp_pair
from support import eventually, seconds

from kubews.protocol.events import Data, End, GoAway, Opened, Reset
from kubews.protocol.forwards import forwards
from kubews.protocol.spdy import CANCEL, SUBPROTOCOL, Session
from kubews.transport.loop import Loop
from kubews.transport.tunnel import Tunnel
from kubews.transport.wire import Wire

V4 = "v4.channel.k8s.io"
PORT = 80


class TunnelPod:
    """What the client says, by stream; and what the pod says, in frames of its own."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.session = Session(server=True)
        #: The connections in the order of their requests: the ids of data and error stream.
        self.ids: list[tuple[int, int]] = []
        self.data: dict[int, bytearray] = {}
        #: Ended and reset streams, in order.
        self.ended: list[int] = []
        self.resets: list[int] = []
        #: Whether the client has said goodbye.
        self.goodbye = False
        self._errors: dict[str, int] = {}

    def read(self) -> None:
        """Take one frame of the client."""
        opcode, payload = self.peer.read_frame()
        if opcode == CLOSE:
            self.goodbye = True
            return
        assert opcode == BINARY, opcode
        for event in self.session.receive(payload):
            if isinstance(event, Opened):
                self._opened(event)
            elif isinstance(event, Data):
                self.data[event.stream_id] += event.payload
            elif isinstance(event, End):
                self.ended.append(event.stream_id)
            elif isinstance(event, Reset):
                self.resets.append(event.stream_id)
            else:
                assert not isinstance(event, GoAway)

    def _opened(self, event: Opened) -> None:
        self.session.reply(event.stream_id)
        self.data[event.stream_id] = bytearray()
        request = event.headers["requestid"]
        if event.headers["streamtype"] == "error":
            self._errors[request] = event.stream_id
        else:
            self.ids.append((event.stream_id, self._errors[request]))

    def until(self, condition: Callable[[], Any]) -> None:
        """Take frames until something is so."""
        while not condition():
            self.read()

    def accept(self, number: int = 0) -> tuple[int, int]:
        """Wait for a connection; return the ids of its data and error stream."""
        self.until(lambda: len(self.ids) > number)
        self.say()
        return self.ids[number]

    def heard(self, data: bytes, number: int = 0) -> None:
        """Wait until the pod has been sent these bytes, and nothing else."""
        stream_id = self.ids[number][0]
        self.until(lambda: len(self.data[stream_id]) >= len(data))
        assert self.data[stream_id] == data

    def frames(self, *pieces: bytes) -> bytes:
        return self.session.pending_to_send() + b"".join(pieces)

    def say(self, *pieces: bytes) -> None:
        """Send frames of SPDY in one of the WebSocket, behind what is pending."""
        if payload := self.frames(*pieces):
            self.peer.send(server_frame(payload))

    def bytes(self, data: bytes, number: int = 0) -> bytes:
        stream_id = self.ids[number][0]
        return b"".join(
            self.session.data_to_send(stream_id, data[start : start + 32768])
            for start in range(0, len(data), 32768)
        )

    def end(self, number: int = 0, text: bytes = b"") -> bytes:
        """The end as runtimes tell it, in order or with a text."""
        data, error = self.ids[number]
        if not text:
            end = self.session.end_to_send
            return end(error) + end(data)
        told = self.session.data_to_send(error, text)
        self.session.reset(data, CANCEL)
        self.session.reset(error, CANCEL)
        return told + self.session.pending_to_send()


class PairPod:
    """A pod behind channel pairs."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.peer.send(server_frame(b"\x00\x50\x00") + server_frame(b"\x01\x50\x00"))

    def heard(self, data: bytes) -> None:
        got = b""
        while len(got) < len(data):
            got += self.peer.read_data()
        assert got == data

    def say(self, data: bytes, channel: int = 0) -> None:
        self.peer.send(server_frame(bytes((channel,)) + data))


class Ended:
    """Notes the end of a connection, which comes once."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.errors: list[Exception | None] = []

    def __call__(self, error: Exception | None) -> None:
        assert self.loop.is_current() or self.loop.ended.done()
        self.errors.append(error)

    @property
    def error(self) -> Exception | None:
        """How it has ended."""
        assert eventually(lambda: self.errors)
        assert len(self.errors) == 1
        return self.errors[0]


class World:
    """A tunnel with its loop, the pod, and any number of local programs."""

    def __init__(self, subprotocol: str, pair: str, lasting: bool, options: dict[str, Any]) -> None:
        client, server = PAIRS[pair]()
        client.setblocking(False)
        self.peer = Peer(server)
        self.loop = Loop("test")
        self.done: list[None] = []
        self.stop_when_done = not lasting
        self.tunnel = Tunnel(
            Wire(client, subprotocol),
            forwards(subprotocol, PORT),
            self.loop,
            where="port 80 of pod shop/web-0",
            lasting=lasting,
            done=self._done,
            **{"ping": None, **options},
        )
        self.programs: list[socket.socket] = []
        self.ends: list[Ended] = []

    def _done(self) -> None:
        assert self.loop.is_current()
        self.done.append(None)
        if self.stop_when_done:
            self.loop.stop()

    def attach(self, kind: str = "unix") -> tuple[socket.socket, Ended]:
        """Connect a local program."""
        program, near = tcp_pair() if kind == "tcp" else socket.socketpair()
        program.settimeout(seconds(10))
        ended = Ended(self.loop)
        self.programs.append(program)
        self.ends.append(ended)
        self.tunnel.attach(near, PORT, ended)
        return program, ended

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function in the loop's thread, and wait until it has run."""
        ran: list[None] = []
        self.loop.call_soon(lambda: (function(*args), ran.append(None)))
        assert eventually(lambda: ran)

    def close(self) -> None:
        for program in self.programs:
            program.close()
        self.tunnel.abort()
        if not self.loop.ended.done():
            assert eventually(lambda: self.done), "local sockets are left"
        self.loop.stop()
        self.loop.join(seconds(5))
        self.peer.close()


@contextmanager
def world(
    subprotocol: str = SUBPROTOCOL,
    *,
    pair: str = "unix",
    lasting: bool = False,
    **options: Any,
) -> Iterator[World]:
    """Give a tunnel that is yet to begin."""
    made = World(subprotocol, pair, lasting, options)
    try:
        yield made
    finally:
        made.close()
    assert len(made.done) <= 1


@contextmanager
def forwarded(
    kind: str = "unix", **options: Any
) -> Iterator[tuple[World, TunnelPod, socket.socket, Ended]]:
    """Give a tunnel with one connection, which the pod has accepted."""
    with world(**options) as made:
        program, ended = made.attach(kind)
        made.tunnel.begin()
        pod = TunnelPod(made.peer)
        pod.accept()
        yield made, pod, program, ended


@contextmanager
def paired(
    kind: str = "unix", **options: Any
) -> Iterator[tuple[World, PairPod, socket.socket, Ended]]:
    """The same with channel pairs."""
    with world(V4, **options) as made:
        program, ended = made.attach(kind)
        made.tunnel.begin()
        yield made, PairPod(made.peer), program, ended


def read_all(program: socket.socket) -> bytes:
    """Everything up to the end."""
    gathered = bytearray()
    while piece := program.recv(65536):
        gathered += piece
    return bytes(gathered)
