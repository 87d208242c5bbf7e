"""A socket that waits, for libraries that expect theirs to do so."""

from __future__ import annotations

import errno
import selectors
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional, TypeVar

from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.patience import patiently
from kubews.transport.tlssockets import Socket, gate_of, hang_up

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")


class PatientSocket:
    """A socket that waits, as libraries expect theirs to do, over one that never does.

    Args:
        sock: connected and non-blocking; closed together with this.
        timeout: seconds for each call, None for ever.
        ahead: bytes that were received already.

    Threads: one may read while another writes; ``close`` and ``shutdown`` are for any.
    """

    def __init__(self, sock: Socket, timeout: Optional[float], ahead: bytes = b"") -> None:
        self._sock = sock
        self._timeout = timeout
        self._ahead = ahead
        # TLS inside TLS is for one thread at a time, and who closes must not find another inside.
        self._gate = gate_of(sock)
        self._closed = False  # websocket-client asks for it by this name

    def recv(self, size: int, until: Optional[Deadline] = None) -> bytes:
        """Return at least one byte, ``b""`` at the end.

        Args:
            size: bytes at most.
            until: in place of the seconds for each call.

        Raises:
            TimeoutError: none came in time.

        Threads: blocks.
        """
        if self._ahead and not self._closed:
            data, self._ahead = self._ahead[:size], self._ahead[size:]
            return data
        return self._wait(lambda: self._sock.recv(size), selectors.EVENT_READ, until)

    def send(self, data: Buffer) -> int:
        """Send some bytes; return how many.

        Raises:
            TimeoutError: nobody took one in time.

        Threads: blocks.
        """
        return self._wait(lambda: self._sock.send(data), selectors.EVENT_WRITE)

    def sendall(self, data: Buffer) -> None:
        """Send everything; the time limit is that of each wait.

        Threads: blocks.
        """
        left = memoryview(data).cast("B")
        while left:
            left = left[self.send(left) :]

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._sock.fileno()

    def gettimeout(self) -> Optional[float]:
        """Return the seconds for each call, None for ever."""
        return self._timeout

    def settimeout(self, timeout: Optional[float]) -> None:
        """Set the seconds for each call, None for ever."""
        self._timeout = timeout

    def shutdown(self, how: int) -> None:
        """End both directions at once, whoever waits for one of them.

        Threads: any.
        """
        hang_up(self._sock)

    def close(self) -> None:
        """Close the socket; whoever waits for it leaves; again is nothing.

        Threads: any.
        """
        hang_up(self._sock)
        with (
            self._gate
        ):  # whoever is inside leaves, and nobody enters: not even a collector waits for both
            self._closed = True
        forks.close(self._sock)

    def _wait(self, call: Callable[[], T], events: int, until: Optional[Deadline] = None) -> T:
        def once() -> T:
            with self._gate:
                if self._closed:
                    raise OSError(errno.EBADF, "the socket is closed")
                return call()

        try:
            return patiently(once, self._sock, events, until or Deadline(self._timeout))
        except ValueError as exc:  # what a selector says of a socket that was closed a moment ago
            raise OSError(errno.EBADF, "the socket is closed") from exc
