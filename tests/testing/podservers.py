"""Servers that stand for what listens in a pod: one function a connection, a thread each."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from rawclient import SCALE

Handler = Callable[[socket.socket], None]


class PodServer:
    """Serve each connection by a function; its end closes the connection.

    ``accepted`` counts the connections; ``port`` is where to listen, by default the kernel's choice.
    """

    def __init__(
        self, handler: Handler, family: socket.AddressFamily = socket.AF_INET, port: int = 0
    ) -> None:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._handler = handler
        self._listener = socket.create_server((host, port), family=family, backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> PodServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._closed = True
            for each in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._open.add(sock)
                if self._closed:
                    sock.close()
                    return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._handler(sock)
        with self._lock:
            self._open.discard(sock)
            sock.close()


def echo(sock: socket.socket) -> None:
    """Send back what comes."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def greet(sock: socket.socket) -> None:
    """Say hello and leave."""
    sock.sendall(b"hello\n")


def count(sock: socket.socket) -> None:
    """Read to the end, and say how much there was."""
    total = 0
    while data := sock.recv(1 << 16):
        total += len(data)
    sock.sendall(b"%d\n" % total)


def flood(sock: socket.socket) -> None:
    """Send for ever."""
    while True:
        sock.sendall(bytes(1 << 16))


def reset(sock: socket.socket) -> None:
    """Reset the connection as soon as something has come."""
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def slam(sock: socket.socket) -> None:
    """Reset the connection at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def redis(sock: socket.socket) -> None:
    """Answer PING, and leave after QUIT."""
    with sock.makefile("rb") as lines:
        for line in lines:
            sock.sendall(b"+PONG\r\n" if line == b"PING\r\n" else b"+OK\r\n")
            if line == b"QUIT\r\n":
                return


def http(answer: bytes) -> Handler:
    """Return a function that answers a request, whatever it asks for, and leaves."""

    def serve(sock: socket.socket) -> None:
        with sock.makefile("rb") as lines:
            while lines.readline().strip():
                pass
        sock.sendall(answer)

    return serve


class Deaf:
    """Read nothing until ``listen`` is called, then everything, at its ``pause``; ``total`` counts it."""

    def __init__(self) -> None:
        self.total = 0
        self.pause = 0.0
        self.ended = threading.Event()
        self._told = threading.Event()

    def listen(self) -> None:
        """Begin to read."""
        self._told.set()

    def wait_for(self, total: int) -> None:
        """Wait until so much was read."""
        end = time.monotonic() + 20 * SCALE
        while self.total < total:
            assert time.monotonic() < end, (self.total, total)
            time.sleep(0.01)

    def __call__(self, sock: socket.socket) -> None:
        self._told.wait(60)
        while data := sock.recv(1 << 16):
            self.total += len(data)
            time.sleep(self.pause)
        self.ended.set()
