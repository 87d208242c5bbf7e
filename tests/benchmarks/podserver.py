"""What listens in the pod: bytes out, bytes in, echoes. It is the floor, too, for whoever connects directly.

It runs as a program of its own, which ends with the one that started it. The first line that a connection
gets is what it does before it closes. (It closes first, for containerd takes a second to tell it of an end.)

- ``source BYTES``: send so many bytes
- ``sink BYTES``: take so many, then send one
- ``echo BYTES``: send back so many
- ``greet``: send one byte
- ``hold``: send one byte, and wait for one
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import threading

from serverprocess import ServerProcess

HOST = "127.0.0.1"

_BLOCK = 1 << 20
_LINE = 64
_BACKLOG = 1024


class PodServer(ServerProcess):
    """The server's process, seen from the one that starts it.

    Threads: any.
    """

    def __init__(self) -> None:
        super().__init__(__file__)
        self.port = int(self.said)


def serve() -> None:
    """Say where to connect to, then serve for ever."""
    listener = socket.create_server((HOST, 0), backlog=_BACKLOG)
    print(listener.getsockname()[1], flush=True)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                os._exit(0)  # whoever has started it is gone
            if key.fileobj is listener:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(sock, selectors.EVENT_READ)
            else:
                assert isinstance(key.fileobj, socket.socket)
                _begin(key.fileobj, selector)


def _begin(sock: socket.socket, selector: selectors.BaseSelector) -> None:
    """Read the first line; what sends a byte needs no thread."""
    try:
        line = sock.recv(_LINE, socket.MSG_PEEK)
        end = line.find(b"\n") + 1
        words = sock.recv(end or len(line)).split()
        if words in ([b"greet"], [b"hold"]):
            sock.sendall(b"k")
    except OSError:
        words = []
    if words == [b"hold"]:
        return
    selector.unregister(sock)
    if len(words) == 2:
        args = sock, words[0], int(words[1])
        threading.Thread(target=_converse, args=args, daemon=True).start()
    else:
        sock.close()


def _converse(sock: socket.socket, name: bytes, left: int) -> None:
    buffer = memoryview(bytearray(_BLOCK))
    try:
        with sock:
            while left > 0:
                if name == b"source":
                    left -= sock.send(buffer[:left])
                    continue
                count = sock.recv_into(buffer)
                if not count:
                    break
                if name == b"echo":
                    sock.sendall(buffer[:count])
                left -= count
            if name == b"sink":
                sock.sendall(b"k")
    except OSError:
        pass  # the client may go when it has what it wants


if __name__ == "__main__":
    serve()
