"""One TLS connection of the server, driven by exactly one thread.

TLS runs in memory (``ssl.MemoryBIO``), so the socket is a plain one: it can be polled together with
a process's pipes, no SSL object is ever used by two threads, no decrypted byte hides behind
``poll``, and a fault can place record borders and drops where it likes.

Threads: a Wire belongs to the thread that made it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from typing import Any, Optional, Union

from kubews.testing.faults import NO_FAULTS, Faults
from kubews.testing.outqueue import unacknowledged

_CHUNK = 1 << 18
_RECORD = 1 << 14  # the most that a TLS record holds
#: The event of a client that has gone, seen without reading what it has sent; as far as a system tells.
HANGUP: int = getattr(select, "POLLRDHUP", select.POLLHUP)
_READ_END = select.POLLIN | HANGUP

Bytes = Union[bytes, bytearray, memoryview]


class Gone(Exception):
    """The client has gone, or the connection was dropped on purpose."""


class Stopping(Exception):
    """The cluster is being closed."""


class Wire:
    """Encrypt, decrypt, and misbehave on demand; never blocks except where it says so.

    Args:
        sock: an accepted TCP socket; the Wire owns it from now on.
        context: the server's TLS context.
        stop_fd: a descriptor that becomes readable when the cluster is being closed.
        faults: what to do wrong.

    Threads: all methods in one thread.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, stop_fd: int, faults: Faults = NO_FAULTS
    ) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._stop_fd = stop_fd
        self.faults = faults
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = memoryview(b"")  # ciphertext that the kernel has not taken yet
        self._joined = bytearray()  # plain text held back by the fault `join`
        self._budget: Optional[int] = None  # plain text left before the fault `drop`
        self._broken: Optional[ssl.SSLError] = None  # why nothing can be encrypted any more
        self.ended = False  # the client will send no more
        self.closed = False

    def fileno(self) -> int:
        """Return the socket's descriptor, for ``poll``."""
        return self._sock.fileno()

    def peer_certificate(self) -> Optional[dict[str, Any]]:
        """Return the client's verified certificate, or None.

        Raises:
            Gone: the client hung up when the handshake was all but done.
        """
        try:
            return self._tls.getpeercert() or None
        except ValueError as exc:
            raise Gone(str(exc)) from exc

    def handshake(self) -> None:
        """Perform the TLS handshake. Blocks.

        Raises:
            Gone: the client hung up or does not speak TLS.
            Stopping: the cluster is being closed.
        """
        self.sleep(self.faults.accept_delay)
        delay = self.faults.handshake_delay
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_all()
                self._fill()
                self.sleep(delay)
                delay = 0.0
            except ssl.SSLError as exc:
                self._flush_quietly()  # the alert that tells the client what is wrong
                raise Gone(str(exc)) from exc
            else:
                self._flush_all()
                return

    def _fill(self) -> None:
        self.wait(select.POLLIN)
        data = self._recv()
        if not data:
            raise Gone("the client hung up in the TLS handshake")
        self._incoming.write(data)

    def _recv(self) -> Optional[bytes]:
        try:
            return self._sock.recv(_CHUNK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def receive(self) -> Optional[bytes]:
        """Return what has arrived, ``b""`` at the end of the stream, None if nothing is there."""
        if not self.ended:
            data = self._recv()
            if data:
                self._incoming.write(data)
            elif data is not None:
                self._incoming.write_eof()
        plain = self._decrypt()
        if plain:
            return plain
        return b"" if self.ended else None

    def _decrypt(self) -> bytes:
        pieces = []
        try:
            while True:
                piece = self._tls.read(_CHUNK)
                if not piece:
                    self.ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            # close_notify, an end without one, or garbage: no more data either way.
            self.ended = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def pending(self) -> int:
        """Bytes queued that the kernel has not taken, save those held back by ``join``."""
        return len(self._unsent) + self._outgoing.pending

    def limit(self, count: Optional[int]) -> None:
        """Drop the connection once ``count`` more bytes of plain text were sent (None: never)."""
        self._budget = count

    def queue(self, data: Bytes) -> None:
        """Encrypt ``data`` into the outgoing buffer; ``flush`` sends it, or tells that it cannot."""
        if self._budget is not None:
            data = data[: self._budget]
            self._budget -= len(data)
        if self.faults.join:
            self._joined += data
        else:
            self._encrypt(data)

    def _encrypt(self, data: Bytes) -> None:
        size = self.faults.record_size or max(1, len(data))
        try:
            for start in range(0, len(data), size):
                self._tls.write(data[start : start + size])
        except ssl.SSLError as exc:  # OpenSSL writes nothing after the client's end without notice
            self._broken = exc

    def flush(self) -> bool:
        """Send what the kernel takes; return True when nothing is left.

        Raises:
            Gone: the client has gone, or the drop that was asked for has happened.
        """
        if len(self._joined) >= _RECORD or self._budget == 0:
            self.release()
        if self._broken is not None:
            raise Gone(str(self._broken)) from self._broken
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError as exc:
                self._unsent = memoryview(b"")
                raise Gone(str(exc)) from exc
            self._unsent = self._unsent[sent:]
        if self._budget == 0:
            self._drop()
        return True

    def release(self) -> None:
        """Let go of what the fault ``join`` holds back."""
        joined, self._joined = self._joined, bytearray()
        self._encrypt(joined)

    def finish(self) -> None:
        """Send everything, also what is held back. Blocks.

        Raises:
            Gone, Stopping: as ``wait`` and ``flush``.
        """
        self.release()
        self._flush_all()

    def send_all(self, data: Bytes) -> None:
        """Send ``data`` completely. Blocks.

        Raises:
            Gone, Stopping: as ``wait`` and ``flush``.
        """
        self.queue(data)
        self._flush_all()

    def _flush_all(self) -> None:
        while not self.flush():
            self.wait(select.POLLOUT)

    def _flush_quietly(self) -> None:
        try:
            self.flush()
        except Gone:
            pass  # nobody is left to be told

    def wait(self, events: int, timeout: Optional[float] = None) -> bool:
        """Wait until the socket is ready; return False after ``timeout`` seconds. Blocks.

        Raises:
            Stopping: the cluster is being closed.
        """
        poll = select.poll()
        poll.register(self._stop_fd, select.POLLIN)
        if events:
            poll.register(self._sock, events)
        ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        if any(fd == self._stop_fd for fd, _ in ready):
            raise Stopping
        return bool(ready)

    def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` unless the client hangs up or the cluster is closed. Blocks."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            # An hour at most: poll takes an int of milliseconds, and FOREVER is infinite. Data that
            # the client has sent meanwhile must not be waited for, only its end.
            hangup = getattr(select, "POLLRDHUP", select.POLLHUP)
            if self.wait(hangup, min(left, 3600.0)):
                raise Gone("the client hung up while it was kept waiting")

    def _drop(self) -> None:
        how, self._budget = self.faults.drop, None
        if how == "reset":
            self._drain_kernel()
            # l_onoff=1, l_linger=0: close() sends a RST instead of a FIN.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            if how == "close_notify":
                self._notify()
            self._linger()
        self.close(notify=False)
        raise Gone("dropped on purpose")

    def _linger(self) -> None:
        """Send the FIN and give the client a second to end too: close() with data unread sends a RST."""
        end = time.monotonic() + 1.0
        with contextlib.suppress(OSError, Stopping):  # reset by the client, or nobody's any more
            self._sock.shutdown(socket.SHUT_WR)
            while self.wait(select.POLLIN, end - time.monotonic()):
                if not self._sock.recv(_CHUNK):
                    return

    def _drain_kernel(self) -> None:
        """Give the peer's kernel up to a second to take what was sent: a RST discards the rest."""
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            if unacknowledged(self._sock) == 0:
                return
            time.sleep(0.001)

    def close(self, *, notify: bool = True) -> None:
        """Close TCP at once, after a close_notify if asked for. Idempotent, never blocks."""
        if self.closed:
            return
        self.closed = True
        self._budget = None
        if notify:
            self._notify()
        self._sock.close()

    def _notify(self) -> None:
        # It wants the client's close_notify too; as Go's tls.Conn.Close we do not wait.
        with contextlib.suppress(ssl.SSLError, OSError):
            self._tls.unwrap()
        self._flush_quietly()
