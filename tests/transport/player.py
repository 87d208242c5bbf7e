"""An API server that answers execs with bytes it was given, and ends as it was told: for the whole client."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from faults import reset
from peers import V5, authority, server_context
from support import seconds

from kubews import Client, Config, Pod
from kubews.config import Cluster

_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: The ways in which a connection can end. The last is for TLS only.
ENDS = ("fin", "reset", "close_notify")


def upgrade_answer(head: bytes, subprotocol: str) -> bytes:
    """The 101 to a request."""
    found = re.search(rb"Sec-WebSocket-Key: (\S+)\r\n", head)
    assert found is not None, head
    accept = base64.b64encode(hashlib.sha1(found[1] + _GUID).digest()).decode()
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    ).encode()


class Script(NamedTuple):
    """What happens on one connection.

    Args:
        act: gets the socket after the 101, in the server's thread.
        end: one of ``ENDS``, or ``"stall"``: open and silent until the client closes.
        subprotocol: to answer.
        ahead: bytes in the same segment as the 101.
    """

    act: Callable[[Any], None] = lambda sock: None
    end: str = "fin"
    subprotocol: str = V5
    ahead: bytes = b""


def sends(*pieces: bytes, pause: float = 0.0) -> Callable[[Any], None]:
    """An act that sends pieces, each in a segment (or TLS record) of its own."""

    def act(sock: Any) -> None:
        for piece in pieces:
            sock.sendall(piece)
            if pause:
                time.sleep(pause)

    return act


class Player:
    """A server in a thread that plays one script for each connection, one after the other."""

    def __init__(self, *, tls: bool = False) -> None:
        self._tls = server_context() if tls else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._scripts: queue.SimpleQueue[Script] = queue.SimpleQueue()
        self._closing = False
        #: What broke in the server's thread and was not the client's going.
        self.failures: list[BaseException] = []
        scheme = "https" if tls else "http"
        port = self._listener.getsockname()[1]
        ca = authority().cert_pem.bytes() if tls else None
        self.config = Config(Cluster(f"{scheme}://127.0.0.1:{port}", certificate_authority_data=ca))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def play(self, script: Script) -> None:
        """Use this script for the next connection."""
        self._scripts.put(script)

    def close(self) -> None:
        self._closing = True
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(seconds(20))
        assert not self._thread.is_alive()
        self._listener.close()
        assert not self.failures, self.failures

    def _run(self) -> None:
        while True:
            sock: Any = self._listener.accept()[0]
            try:
                sock.settimeout(seconds(10))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._scripts.empty() and self._closing:
                    return
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                head = _read_head(sock)
                if b"Upgrade" not in head:
                    sock.sendall(_NOT_FOUND)
                else:
                    self._play(sock, head, self._scripts.get_nowait())
            except (OSError, EOFError):
                pass  # the client had enough
            except BaseException as exc:
                self.failures.append(exc)
            finally:
                sock.close()

    def _play(self, sock: Any, head: bytes, script: Script) -> None:
        sock.sendall(upgrade_answer(head, script.subprotocol) + script.ahead)
        script.act(sock)
        if script.end == "reset":
            reset(sock)
            return
        if script.end == "close_notify":
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.unwrap()
            sock.settimeout(seconds(10))
        if script.end != "stall":
            socket.socket.shutdown(sock, socket.SHUT_WR)
        # A close with bytes unread would be a reset.
        while socket.socket.recv(sock, 65536):
            pass


def _read_head(sock: Any) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError
        head += piece
    return head


@contextmanager
def playing(*, tls: bool = False) -> Iterator[tuple[Player, Pod]]:
    """Give a player, and a pod that is reached through it."""
    player = Player(tls=tls)
    try:
        with Client(player.config) as client:
            yield player, client.pod("web-0", namespace="shop")
    finally:
        player.close()
