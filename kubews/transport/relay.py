"""A local socket that stands for a port of a pod: bytes both ways, without a thread and without waiting."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Optional, Protocol

from kubews.transport import forks
from kubews.transport.loop import Loop, Timer

if sys.platform == "linux":  # pragma: no branch
    import fcntl
    import termios

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

# Bytes for a local program that does not take them, above which the pod has to wait; and below which not.
_HIGH = 256 * 1024
_LOW = 64 * 1024

# Pieces that are read before somebody else gets a turn.
_TURN = 8

# Seconds for which what the local program still sends is read and dropped once the pod has closed: closing
# at once would take from it what it has not read yet.
_LINGER = 2.0

# Seconds until it is looked again whether the local program has taken what a reset would drop.
_LOOK = 0.05

_RESET = struct.pack("ii", 1, 0)

Ended = Callable[[Optional[Exception]], None]


class Remote(Protocol):
    """The other side of a relay: one forwarded connection.

    Threads: the loop's.
    """

    max_data: int

    def ready(self, relay: Relay) -> bool:
        """Return whether to read more from the local program; if not, ``pump`` is called later."""

    def send(self, relay: Relay, data: bytes) -> None:
        """Send bytes to the pod."""

    def end(self, relay: Relay) -> None:
        """Tell the pod that no more bytes come."""

    def give_up(self, relay: Relay) -> None:
        """Note that the local program is gone, and nothing that the pod says has a reader."""

    def clogged(self, relay: Relay, clogged: bool) -> None:
        """Note that the local program is slower than the pod, or no longer so."""

    def released(self, relay: Relay) -> None:
        """Note that the local socket is closed: this is the last call."""


class Relay:
    """One local socket.

    Args:
        sock: from now on the loop's, which closes it.
        remote: what is at the other side.
        loop: serves both.
        ended: called once when the connection is over, before the local program can see that: with an
            exception if it was not the pod that closed in order.

    Threads: the loop's.
    """

    def __init__(self, sock: socket.socket, remote: Remote, loop: Loop, ended: Ended) -> None:
        self._sock = sock
        self._remote = remote
        self._loop = loop
        self._ended = ended
        self._unsent: deque[memoryview] = deque()
        self._size = 0
        self._clogged = False
        #: Whether the local program may still send.
        self._reading = True
        self._finished = False
        self._told = False
        self._error: Optional[Exception] = None
        self._closed = False
        self._interest = 0
        self._linger: Optional[Timer] = None
        self._look: Optional[Timer] = None
        sock.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor of the local socket."""
        return self._sock.fileno()

    @property
    def deserted(self) -> bool:
        """Whether the local program has closed the socket, and not only its sending half.

        Only a pair tells; a peer over TCP looks the same until it is sent something.
        """
        if not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self._sock, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    # -- from the pod

    def feed(self, data: memoryview) -> None:
        """Take bytes for the local program."""
        if self._closed or self._finished:
            return
        if not self._unsent:
            data = data[self._send(data) :]
        if data and not self._closed:
            self._unsent.append(data)
            self._size += len(data)
            if self._size > _HIGH and not self._clogged:
                self._clogged = True
                self._remote.clogged(self, True)
            self._watch()

    def finish(self, error: Optional[Exception] = None) -> None:
        """Note that the pod's side is over; the local program is told behind what came before.

        Args:
            error: what the local program meets instead of an end.
        """
        if self._closed or self._finished:
            return
        self._finished = True
        self._error = error
        if not self._unsent:
            self._end_local()

    # -- the local program's side

    def pump(self) -> None:
        """Read what the local program has sent, as far as the way to the pod has room."""
        if self._closed:
            return
        for _ in range(_TURN):
            if not self._reading or not (self._finished or self._remote.ready(self)):
                break
            try:
                data = self._sock.recv(self._remote.max_data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._give_up()
                return
            if self._finished:  # what comes has nowhere to go
                if not data:
                    self._reading = False
                    if not self._unsent:
                        self.close()
                        return
            elif data:
                self._remote.send(self, data)
            else:
                self._reading = False
                self._remote.end(self)
        self._watch()

    def close(self) -> None:
        """Close the local socket now."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._linger, self._look):
            if timer is not None:
                timer.cancel()
        self._loop.register(self, 0, self._on_ready)
        forks.close(self._sock)
        self._unsent.clear()
        self._unclog()
        self._remote.released(self)

    def abort(self, error: Exception) -> None:
        """End both sides now, and drop what the local program has not taken."""
        if self._closed:
            return
        self._unsent.clear()
        self._finished = True
        self._error = self._error or error
        if self._linger is None:
            self._show_end()
        else:
            self.close()

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._drain()
        if events & READ and not self._closed:
            self.pump()

    def _drain(self) -> None:
        while self._unsent and not self._closed:
            piece = self._unsent[0]
            sent = self._send(piece)
            self._size -= sent
            if sent < len(piece):
                if not self._closed:
                    self._unsent[0] = piece[sent:]
                break
            self._unsent.popleft()
        if self._closed:
            return
        if self._size < _LOW:
            self._unclog()
        if self._finished and not self._unsent:
            self._end_local()
        else:
            self._watch()

    def _send(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._give_up()
            return 0

    def _unclog(self) -> None:
        if self._clogged:
            self._clogged = False
            self._remote.clogged(self, False)

    def _give_up(self) -> None:
        # Whoever was there has closed or reset it: there is nobody to tell but ``ended``.
        if not self._finished:
            self._remote.give_up(self)
        self._tell()
        self.close()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._ended(self._error)

    @property
    def _local(self) -> bool:
        return self._sock.family == getattr(socket, "AF_UNIX", None)

    def _end_local(self) -> None:
        """Let the local program see the end, as soon as that takes nothing from it."""
        # A reset takes from a connection over TCP what has not arrived at the other end.
        if self._error is None or self._local or self.deserted or not self._under_way():
            self._show_end()
            return
        self._look = self._loop.call_later(_LOOK, self._end_local)
        self._watch()

    def _under_way(self) -> bool:
        """Whether the kernel has bytes that the local program's end has no room for; only Linux tells."""
        if sys.platform != "linux":
            return False
        count = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return any(count)

    def _show_end(self) -> None:
        self._tell()
        local = self._local
        try:
            if local:
                # The other end of a pair reads to the end, and its writes break, as those of a pipe.
                self._sock.shutdown(socket.SHUT_RDWR)
                while self._sock.recv(65536):
                    pass  # unread bytes would make its end of file a reset
            elif self._error is not None:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was faster
        if local or self._error is not None or not self._reading:
            self.close()
            return
        self._linger = self._loop.call_later(_LINGER, self.close)
        self.pump()

    @staticmethod
    def reset(sock: socket.socket) -> None:
        """Close a socket so that whoever is at the other end sees a reset, not an end.

        Threads: any.
        """
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        forks.close(sock)

    def _watch(self) -> None:
        if self._closed:
            return
        interest = WRITE if self._unsent else 0
        if self._reading and (self._finished or self._remote.ready(self)):
            interest |= READ
        if interest != self._interest:
            self._interest = interest
            self._loop.register(self, interest, self._on_ready)
