"""Sockets with TLS that never wait, and TLS inside the TLS of an https proxy."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Union

from kubews.transport import forks

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Plain text that is encrypted before the kernel is asked to take it: a few records.
_CHUNK = 1 << 16


class TlsSocket(ssl.SSLSocket):
    """An ``SSLSocket`` that no fork catches inside OpenSSL. It never waits, or forks would wait for it.

    Threads: one.
    """

    #: See ``forks.gate``.
    gate: AbstractContextManager[object]

    def __new__(cls, *args: Any, **options: Any) -> TlsSocket:
        # ``SSLContext.wrap_socket`` makes one without calling its constructor.
        made = super().__new__(cls, *args, **options)
        made.gate = forks.gate()
        return made

    def getpeername(self) -> Any:
        """Return the peer's address; once the peer has gone, close."""
        try:
            return super().getpeername()
        except OSError as exc:
            # ``wrap_socket`` asks when it has taken the descriptor over, and would lose it.
            forks.close(self)
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from exc

    def do_handshake(self, block: bool = False) -> None:
        """Go on with the handshake."""
        with self.gate:
            super().do_handshake()

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Return what has arrived."""
        with self.gate:
            return super().recv(buflen, flags)

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send what the kernel takes; return the number of bytes."""
        with self.gate:
            return super().send(data, flags)


class NestedTls:
    """TLS over a ``TlsSocket``, with the methods of one that are used here.

    ``ssl`` itself puts TLS over plain sockets only. It never waits: what it cannot do now it refuses with
    ``SSLWantReadError`` or ``SSLWantWriteError``, as an ``SSLSocket`` does.

    Args:
        outer: connected, its handshake done; used by nobody else from now on.
        context: of the TLS inside.
        server_hostname: the name to send and to verify inside.

    Threads: one.
    """

    def __init__(self, outer: TlsSocket, context: ssl.SSLContext, server_hostname: str) -> None:
        self._outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with outer.gate:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_hostname=server_hostname
            )
        # What the outer TLS was given: it wants the same bytes again.
        self._unsent = memoryview(b"")
        self._encrypted = 0  # bytes of plain text that are in _unsent, and not yet reported as sent

    def fileno(self) -> int:
        """Return the socket's descriptor, -1 once it is closed."""
        return self._outer.fileno()

    def close(self) -> None:
        """Close the socket, without a farewell in either TLS."""
        self._outer.close()

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        while True:
            try:
                with self._outer.gate:
                    self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._push()
                self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._push()  # the alert that tells the server what is wrong
                raise
            else:
                self._push()
                return

    def recv(self, size: int) -> bytes:
        """Return at least one byte; ``b""`` when the server has said goodbye.

        Raises:
            ssl.SSLEOFError: the connection ended without that.
        """
        while True:
            try:
                with self._outer.gate:
                    return self._tls.read(size)
            except ssl.SSLWantReadError:
                # TLS may have an answer of its own to send. What does not get out now goes with the
                # next send: to wait for it here would hold up the server that waits for its reader.
                with contextlib.suppress(OSError):
                    self._push()
                self._fill()

    def send(self, data: Buffer) -> int:
        """Send what the kernel takes; return the number of bytes.

        After ``SSLWantWriteError`` the next call must start with the same bytes.
        """
        plain = memoryview(data)
        # Bytes count as sent only when all that was made of them has gone: whoever believes that
        # nothing is left does not come again.
        if not self._encrypted:
            self._push()
            while self._encrypted < min(len(plain), _CHUNK):
                with self._outer.gate:
                    self._encrypted += self._tls.write(plain[self._encrypted : _CHUNK])
        self._push()
        sent, self._encrypted = self._encrypted, 0
        return sent

    def _push(self) -> None:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            sent = self._outer.send(self._unsent)
            self._unsent = self._unsent[sent:]

    def _fill(self) -> None:
        data = self._outer.recv(_CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


Socket = Union[socket.socket, NestedTls]


def gate_of(sock: Socket) -> AbstractContextManager[object]:
    """Return what is to be held by whoever is inside a call of the socket; see ``forks.gate``."""
    outer = sock._outer if isinstance(sock, NestedTls) else sock
    return outer.gate if isinstance(outer, TlsSocket) else forks.gate()


def hang_up(sock: Socket) -> None:
    """End both directions of the connection below, without a word in TLS; again is nothing.

    Threads: any; who is inside another call sees an end.
    """
    outer = sock._outer if isinstance(sock, NestedTls) else sock
    # ``SSLSocket.shutdown`` takes TLS off: what another thread reads then would be no plain text.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(outer, socket.SHUT_RDWR)
