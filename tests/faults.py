"""What goes wrong between two sockets: a wrapper that misbehaves, and a relay that stands in between.

``FaultySocket`` injects at the border of the system call, where a plain socket can be interrupted.
What is below TLS cannot be reached from there: an SSL object that holds decrypted bytes never asks to
be read later. ``Relay`` is for that: it cuts, delays, drops and records the bytes of a TCP connection.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from typing import Any


def reset(sock: socket.socket) -> None:
    """Close a TCP connection with a reset, as a crashed or overloaded peer does."""
    # Nothing but the plain close sends it; a TLS object has no part in it.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class FaultySocket:
    """A socket that does what it is told, and otherwise what the one inside does.

    Args:
        sock: the real one.
        read_size: bytes of one ``recv`` at most.
        write_size: bytes of one ``send`` at most.
        again: ``BlockingIOError`` this many times before each call that does something. Not over TLS.
        stall_after: bytes after which nothing more is there to read, for ever.
        reset_after: bytes after which ``recv`` meets a reset.
        end_after: bytes after which the peer is gone, without a word.
        refuse_after: bytes after which ``send`` meets a broken pipe.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        read_size: int = 1 << 20,
        write_size: int = 1 << 20,
        again: int = 0,
        stall_after: int | None = None,
        reset_after: int | None = None,
        end_after: int | None = None,
        refuse_after: int | None = None,
    ) -> None:
        self._sock = sock
        self._read_size, self._write_size, self._again = read_size, write_size, again
        self._stall_after, self._reset_after = stall_after, reset_after
        self._end_after, self._refuse_after = end_after, refuse_after
        self._to_go = {"recv": again, "send": again}
        #: Bytes that went through, and how often the methods were called.
        self.read = self.written = 0
        self.calls = {"recv": 0, "send": 0}

    def recv(self, size: int) -> bytes:
        self._before("recv")
        left = min(size, self._read_size)
        for limit in (self._stall_after, self._reset_after, self._end_after):
            if limit is not None:
                left = min(left, limit - self.read)
        if left <= 0:
            if self.read == self._stall_after:
                # The one inside may be readable, so whoever waits for it is back at once.
                time.sleep(0.005)
                raise BlockingIOError
            if self.read == self._reset_after:
                raise ConnectionResetError("reset by peer")
            return b""
        data = self._sock.recv(left)
        self.read += len(data)
        return data

    def send(self, data: Any) -> int:
        self._before("send")
        left = self._write_size
        if self._refuse_after is not None:
            left = min(left, self._refuse_after - self.written)
        if left <= 0:
            raise BrokenPipeError("broken pipe")
        sent = self._sock.send(data[:left])
        self.written += sent
        return sent

    def _before(self, name: str) -> None:
        self.calls[name] += 1
        if self._to_go[name]:
            self._to_go[name] -= 1
            raise BlockingIOError
        self._to_go[name] = self._again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Relay:
    """A man in the middle of one or more TCP connections.

    Args:
        target: address of the real server.
        piece: bytes forwarded at once in either direction, each in a segment of its own.
        pause: seconds between the pieces.
        cut_after: bytes from the server after which ``cut`` happens.
        cut: ``"reset"``, ``"fin"`` (both sides see an end without a farewell), ``"stall"`` (silence).
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        piece: int = 65536,
        pause: float = 0.0,
        cut_after: int | None = None,
        cut: str = "fin",
    ) -> None:
        self._target, self._piece, self._pause = target, piece, pause
        self._cut_after, self._cut = cut_after, cut
        #: Everything that was seen, in each direction.
        self.from_client = bytearray()
        self.from_server = bytearray()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self._stopping = socket.socketpair()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._closing.set()
        self._stopping[1].close()
        for thread in self._threads:
            thread.join(10)
        self._stopping[0].close()
        self._listener.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._stopping[0], selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._stopping[0] in ready:
                    return
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=self._relay, args=(client, server), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as selector, client, server:
            selector.register(client, selectors.EVENT_READ, (server, self.from_client))
            selector.register(server, selectors.EVENT_READ, (client, self.from_server))
            selector.register(self._stopping[0], selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.data is None:
                        return
                    try:
                        if not self._move(key.fileobj, *key.data, client, server):
                            return
                    except OSError:
                        return

    def _move(
        self,
        source: Any,
        target: socket.socket,
        record: bytearray,
        client: socket.socket,
        server: socket.socket,
    ) -> bool:
        data = source.recv(65536)
        if not data:
            # Ends are not forwarded one by one: no hop before a real server does that either.
            return False
        if source is server and self._cut_after is not None:
            data = data[: max(0, self._cut_after - len(record))]
        record += data
        for start in range(0, len(data), self._piece):
            target.sendall(data[start : start + self._piece])
            if self._pause and self._closing.wait(self._pause):
                return False
        if source is server and self._cut_after is not None and len(record) >= self._cut_after:
            if self._cut == "reset":
                reset(client)
            if self._cut == "stall":
                self._stopping[0].recv(1)
            return False
        return True
