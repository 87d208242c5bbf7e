"""The other end of a WebSocket, played by hand: pairs of sockets, and frames as a server sends them."""

from __future__ import annotations

import functools
import json
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trustme
from faults import reset
from support import seconds

from kubews.protocol.channels import Channels
from kubews.transport.connection import Connection
from kubews.transport.loop import Loop
from kubews.transport.wait import Outcome
from kubews.transport.wire import Wire

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
SUCCESS = b'{"metadata":{},"status":"Success"}'
EXIT_3 = json.dumps(
    {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": "command terminated with exit code 3",
        "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
    }
).encode()


def server_frame(
    payload: bytes, opcode: int = BINARY, *, final: bool = True, rsv: int = 0, mask: bytes = b""
) -> bytes:
    """Build one frame, also such as no server may send."""
    head = bytes((final << 7 | rsv << 4 | opcode,))
    flag = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes((flag | len(payload),))
    elif len(payload) < 1 << 16:
        head += bytes((flag | 126,)) + struct.pack("!H", len(payload))
    else:
        head += bytes((flag | 127,)) + struct.pack("!Q", len(payload))
    return head + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def data(channel: int, payload: bytes) -> bytes:
    """A message of one channel."""
    return server_frame(bytes((channel,)) + payload)


def close_frame(code: int = 1000) -> bytes:
    return server_frame(struct.pack("!H", code), CLOSE)


class Peer:
    """The server's end after the upgrade. All calls block, for ten seconds at most."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(seconds(10))
        self._buffer = b""
        #: The masks of the frames that came.
        self.masks: list[bytes] = []

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def read_frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame of the client."""
        first, second = self._exactly(2)
        assert first & 0x70 == 0, "no extension was negotiated"
        assert first & 0x80, "a client's message must not be fragmented"
        assert second & 0x80, "a client's frame must be masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        mask = self._exactly(4)
        self.masks.append(mask)
        return first & 0x0F, masked(self._exactly(size), mask)

    def read_data(self, channel: int = 0) -> bytes:
        """Return the bytes of the next message, which must be of this channel."""
        opcode, payload = self.read_frame()
        assert opcode == BINARY
        assert payload[0] == channel
        return payload[1:]

    def at_end(self) -> bool:
        """Whether the client closed the connection: nothing comes any more."""
        try:
            return not self._buffer and self.sock.recv(1) == b""
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return True

    def read_until_end(self) -> bytes:
        """Return everything that still comes."""
        gathered = bytearray(self._buffer)
        try:
            while piece := self.sock.recv(65536):
                gathered += piece
        except (ConnectionError, ssl.SSLEOFError):
            pass
        return bytes(gathered)

    def reset(self) -> None:
        reset(self.sock)

    def close(self) -> None:
        self.sock.close()

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = self.sock.recv(65536)
            if not piece:
                raise EOFError(f"{len(self._buffer)} of {size} bytes before the end")
            self._buffer += piece
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server = listener.accept()[0]
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


# Made here, and not when it is first asked for: two threads of a test would get two.
_AUTHORITY = trustme.CA()


def authority() -> trustme.CA:
    """One certificate authority for all tests: making keys takes time."""
    return _AUTHORITY


@functools.cache
def server_context(version: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def client_context(kind: type[ssl.SSLContext] = ssl.SSLContext) -> ssl.SSLContext:
    context = kind(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    context.set_alpn_protocols(["http/1.1"])
    return context


def secured(
    client: socket.socket,
    server: socket.socket,
    context: ssl.SSLContext | None = None,
    version: str = "",
) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Put TLS over both ends, as ``dial`` does on the client's."""
    result: list[ssl.SSLSocket] = []
    settings = server_context(version)

    def accept() -> None:
        # Ragged ends are ends here: this side only plays the server.
        result.append(settings.wrap_socket(server, server_side=True))

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    wrapped = (context or client_context()).wrap_socket(
        client, server_hostname="localhost", suppress_ragged_eofs=False
    )
    thread.join(seconds(10))
    return wrapped, result[0]


def tls_pair(
    context: ssl.SSLContext | None = None, version: str = ""
) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    return secured(*tcp_pair(), context, version)


def unblocked(sock: Any) -> Any:
    """Make a socket what ``dial`` returns: one that never waits."""
    sock.setblocking(False)
    return sock


PAIRS = {"unix": socket.socketpair, "tcp": tcp_pair, "tls": tls_pair}


@contextmanager
def opened(
    pair: Any = "unix",
    subprotocol: str = V5,
    *,
    wrap: Any = lambda sock: sock,
    inbound: dict[int, int] | None = None,
    ahead: bytes = b"",
    wire: Any = Wire,
    **options: Any,
) -> Iterator[tuple[Connection, Peer]]:
    """Give a connection and its peer; both are closed in the end."""
    client, server = PAIRS[pair]() if isinstance(pair, str) else pair
    if isinstance(client, socket.socket):
        client.setblocking(False)
    peer = Peer(server)
    options.setdefault("ping", None)
    connection = Connection(
        wire(wrap(client), subprotocol, ahead),
        Channels(subprotocol),
        Loop("test"),
        inbound=inbound or {1: 1, 2: 2},
        where="pod shop/web-0",
        **options,
    )
    try:
        yield connection, peer
    finally:
        connection.abort()
        connection.join(_soon())
        peer.close()


def pass_the_grace(connection: Connection) -> None:
    """Let the time pass, all at once, that a server has for what is on the way behind its last word.

    Nothing else would show what silence there is, and what a machine with too much to do.
    """
    passed: Outcome[None] = Outcome()

    def fire() -> None:
        grace = connection._grace
        assert grace is not None
        assert grace.function is not None
        grace.function()
        passed.set(None)

    connection._loop.call_soon(fire)
    passed.get(_soon())


def _soon() -> Any:
    from kubews.transport.deadline import Deadline

    return Deadline(seconds(5))
