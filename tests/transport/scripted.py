"""A server that plays a script over one end of a connection, whatever protocol that makes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from peers import tcp_pair
from support import seconds

Script = Callable[[Any], None]


@contextmanager
def played(script: Script, pair: Any = tcp_pair) -> Iterator[socket.socket]:
    """Give a client's end whose other end plays the script in a thread; an error in it comes out."""
    client, server = pair()
    client.setblocking(False)
    server.settimeout(seconds(10))
    failure: list[BaseException] = []

    def run() -> None:
        try:
            script(server)
        except (BrokenPipeError, ConnectionError, ssl.SSLError, TimeoutError):
            pass  # the client had enough
        except BaseException as exc:
            failure.append(exc)
        finally:
            server.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield client
    finally:
        client.close()
        thread.join(seconds(10))
        assert not thread.is_alive()
        if failure:
            raise failure[0]


def read_head(sock: Any) -> bytes:
    """Read a request up to the end of its head."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("no whole request came")
        head += piece
    return head


def answer(*pieces: bytes, pause: float = 0.0, hold: bool = False) -> Script:
    """A script that reads a request and sends these pieces.

    Args:
        pieces: each in a segment of its own.
        pause: seconds after each piece.
        hold: keep the connection open until the client closes it.
    """

    def script(sock: Any) -> None:
        read_head(sock)
        stop = threading.Event()
        for piece in pieces:
            sock.sendall(piece)
            if pause:
                stop.wait(pause)
        if hold:
            sock.recv(1)

    return script


def dripping(text: bytes, pause: float) -> Script:
    """A script that reads a request and sends one byte at a time."""
    return answer(*(text[i : i + 1] for i in range(len(text))), pause=pause)
