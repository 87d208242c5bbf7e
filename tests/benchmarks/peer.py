"""A fake API server that is faster than any client: prebuilt frames out, counted bytes in.

It runs as a program of its own, which ends with the one that started it. What it does is the command of
the exec request:

- ``download COUNT SIZE``: send messages on stdout
- ``sink BYTES``: take messages until so much payload has come
- ``swallow BYTES``: take so many bytes of anything, for a client without a WebSocket
- ``echo COUNT``: answer each keystroke with a byte on stdout
- ``true``: nothing

Then comes a Status, and the connection is closed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import Optional
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
SUBPROTOCOL = "v5.channel.k8s.io"

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


# Empty, on the lowest output channel: it only says "connected".
HELLO = frame(b"\x01")
FAREWELL = frame(b'\x03{"metadata":{},"status":"Success"}') + frame(b"\x03\xe8", 8)


class Peer:
    """The server's process, seen from the one that starts it.

    Threads: any.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        facts = json.loads(self._process.stdout.readline())
        self.port: int = facts["port"]
        self.ca_pem: str = facts["ca_pem"]

    @property
    def url(self) -> str:
        """Give the URL of the server."""
        return f"https://{HOST}:{self.port}"

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._process.communicate()  # the end of its input is the end of it


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
            name, *numbers = _upgrade(sock)
            sock.sendall(HELLO)
            _ACTIONS[name](sock, *map(int, numbers))
            sock.sendall(FAREWELL)
            while sock.recv(1 << 16):
                pass
    except OSError:
        pass  # the client may go when it has what it wants


def _upgrade(sock: ssl.SSLSocket) -> list[str]:
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        data = sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the client hung up")
        request += data
    first, *rest = request.decode("latin-1").split("\r\n")
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in rest}
    key = headers["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    sock.sendall(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
    )
    return parse_qs(urlsplit(first.split()[1]).query)["command"]


def _download(sock: ssl.SSLSocket, count: int, size: int) -> None:
    one = frame(b"\x01" + b"x" * size)
    per_block = max(1, _BLOCK // len(one))
    block = one * per_block
    for _ in range(count // per_block):
        sock.sendall(block)
    sock.sendall(one * (count % per_block))


def _sink(sock: ssl.SSLSocket, wanted: int) -> None:
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
            wanted -= payload - 1  # the channel byte
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
