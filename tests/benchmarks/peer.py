"""A fake API server that is faster than any client: prebuilt frames out, counted bytes in.

It runs as a program of its own, which ends with the one that started it. What it does is the command of
the exec request:

- ``download COUNT SIZE``: send messages on stdout
- ``sink BYTES``: take messages until so much payload has come
- ``swallow BYTES``: take so many bytes of anything, for a client without a WebSocket
- ``echo COUNT``: answer each keystroke with a byte on stdout
- ``true``: nothing

Then comes a Status, and the connection is closed.

A port-forward is to ``TUNNEL_PORT`` or ``PAIRS_PORT``, which chooses its protocol, and its command,
``download`` or ``sink`` as above, is the first line that the local program sends. It carries one connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional
from urllib.parse import parse_qs, urlsplit

from serverprocess import ServerProcess

HOST = "127.0.0.1"
SUBPROTOCOL = "v5.channel.k8s.io"
TUNNEL_PORT, PAIRS_PORT = 1, 2

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BLOCK = 1 << 20
_KEYSTROKE = 8  # a masked frame of a channel byte and one more


def frame(payload: bytes, opcode: int = 2) -> bytes:
    """Build a frame as a server sends it."""
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x80 | opcode, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x80 | opcode, 126, size) + payload
    return struct.pack("!BBQ", 0x80 | opcode, 127, size) + payload


@dataclass
class _Forward:
    """A protocol of port-forward.

    Args:
        subprotocol: its name.
        hello: what comes first.
        head: makes what stands before so many bytes of data.
        farewell: what comes last.
    """

    subprotocol: str
    hello: bytes
    head: Callable[[int], bytes]
    farewell: bytes


# Empty, on the lowest output channel: it only says "connected".
HELLO = frame(b"\x01")
FAREWELL = frame(b'\x03{"metadata":{},"status":"Success"}') + frame(b"\x03\xe8", 8)

# kubews numbers the streams of its first connection 1 and 3.
_FORWARDS = {
    TUNNEL_PORT: _Forward(
        "SPDY/3.1+portforward.k8s.io",
        hello=b"",
        head=lambda size: struct.pack("!II", 3, size),
        farewell=frame(struct.pack("!IIII", 3, 1 << 24, 1, 1 << 24)) + frame(b"\x03\xe8", 8),
    ),
    PAIRS_PORT: _Forward(
        "v4.channel.k8s.io",
        hello=b"".join(frame(struct.pack("<BH", channel, PAIRS_PORT)) for channel in (0, 1)),
        head=lambda size: b"\0",
        farewell=frame(b"\x03\xe8", 8),
    ),
}


class Peer(ServerProcess):
    """The server's process, seen from the one that starts it.

    Threads: any.
    """

    def __init__(self) -> None:
        super().__init__(__file__)
        facts = json.loads(self.said)
        self.port: int = facts["port"]
        self.ca_pem: str = facts["ca_pem"]

    @property
    def url(self) -> str:
        """Give the URL of the server."""
        return f"https://{HOST}:{self.port}"


def serve() -> None:
    """Say where to connect to, then serve for ever."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    listener = socket.create_server((HOST, 0))
    ca_pem = authority.cert_pem.bytes().decode()
    print(json.dumps({"port": listener.getsockname()[1], "ca_pem": ca_pem}), flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_converse, args=(sock, context), daemon=True).start()


def _converse(plain: socket.socket, context: ssl.SSLContext) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with context.wrap_socket(plain, server_side=True) as sock:
            path, query = _upgrade(sock)
            if path.endswith("/portforward"):
                _forward(sock, _FORWARDS[int(query["ports"][0])])
            else:
                name, *numbers = query["command"]
                sock.sendall(HELLO)
                _ACTIONS[name](sock, *map(int, numbers))
                sock.sendall(FAREWELL)
            while sock.recv(1 << 16):
                pass
    except OSError:
        pass  # the client may go when it has what it wants


def _forward(sock: ssl.SSLSocket, forward: _Forward) -> None:
    sock.sendall(forward.hello)
    head = len(forward.head(0))
    # On the tunnel the streams are opened first, by control frames.
    while (message := _message(sock))[0] & 0x80:
        pass
    line, _, data = message[head:].partition(b"\n")
    name, *numbers = line.split()
    if name == b"download":
        count, size = map(int, numbers)
        _send_many(sock, frame(forward.head(size) + b"x" * size), count)
    else:
        _sink(sock, int(numbers[0]) - len(data), head)
        sock.sendall(frame(forward.head(1) + b"k"))
    sock.sendall(forward.farewell)


def _message(sock: ssl.SSLSocket) -> bytes:
    """Receive one message of less than 64 KiB."""
    _, size = _exactly(sock, 2)
    size &= 0x7F
    if size == 126:
        size = int.from_bytes(_exactly(sock, 2), "big")
    mask = (_exactly(sock, 4) * (size // 4 + 1))[:size]
    data = _exactly(sock, size)
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def _exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the client hung up")
        data += piece
    return data


def _upgrade(sock: ssl.SSLSocket) -> tuple[str, dict[str, list[str]]]:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the client hung up")
        request += data
    first, *rest = request.decode("latin-1").split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in rest}
    key = headers["sec-websocket-key"].encode()
    url = urlsplit(first.split()[1])
    query = parse_qs(url.query)
    chosen = _FORWARDS[int(query["ports"][0])].subprotocol if "ports" in query else SUBPROTOCOL
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    sock.sendall(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n".encode()
    )
    return url.path, query


def _download(sock: ssl.SSLSocket, count: int, size: int) -> None:
    _send_many(sock, frame(b"\x01" + b"x" * size), count)


def _send_many(sock: ssl.SSLSocket, one: bytes, count: int) -> None:
    per_block = max(1, _BLOCK // len(one))
    block = one * per_block
    for _ in range(count // per_block):
        sock.sendall(block)
    sock.sendall(one * (count % per_block))


def _sink(sock: ssl.SSLSocket, wanted: int, head: int = 1) -> None:
    """Read headers and skip payloads, whatever their size."""
    buffer = bytearray(_BLOCK)
    view = memoryview(buffer)
    held = skip = 0  # bytes of a header that is not complete; bytes of a payload still to come
    while wanted > 0:
        end = held + _receive(sock, view[held:])
        position = min(skip, end)
        skip -= position
        while (header := _header(buffer, position, end)) is not None:
            length, payload = header
            position += length + payload
            wanted -= payload - head  # by default the channel byte
            if position > end:
                skip, position = position - end, end
        held = end - position
        buffer[:held] = buffer[position:end]


def _header(buffer: bytearray, start: int, end: int) -> Optional[tuple[int, int]]:
    """Return the sizes of header and payload of the masked frame at ``start``."""
    if end - start < 2:
        return None
    code = buffer[start + 1] & 0x7F
    size = {126: 2, 127: 8}.get(code, 0)
    if end - start < 2 + size + 4:
        return None
    payload = int.from_bytes(buffer[start + 2 : start + 2 + size], "big") if size else code
    return 2 + size + 4, payload


def _swallow(sock: ssl.SSLSocket, wanted: int) -> None:
    buffer = memoryview(bytearray(_BLOCK))
    while wanted > 0:
        wanted -= _receive(sock, buffer)


def _echo(sock: ssl.SSLSocket, count: int) -> None:
    buffer = memoryview(bytearray(_KEYSTROKE))
    answer = frame(b"\x01k")
    for _ in range(count):
        held = 0
        while held < _KEYSTROKE:
            held += _receive(sock, buffer[held:])
        sock.sendall(answer)


def _receive(sock: ssl.SSLSocket, buffer: memoryview) -> int:
    count = sock.recv_into(buffer)
    if not count:
        raise ConnectionError("the client hung up")
    return count


def _nothing(sock: ssl.SSLSocket) -> None:
    pass


_ACTIONS = {
    "download": _download,
    "sink": _sink,
    "swallow": _swallow,
    "echo": _echo,
    "true": _nothing,
}


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve()
