"""One connection to a port of a pod, carried as containerd carries it.

containerd (``pkg/cri/server/sandbox_portforward_linux.go``) dials IPv4, then IPv6, and copies both ways.
When one direction has ended it gives the other a second and then closes the connection: the pod's server
never sees a half-close, and the client learns of the end up to a second late.

Threads: a ``Forward`` belongs to the thread of its connection.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Optional

from kubews.testing.forks import no_fork, not_for_forks
from kubews.testing.outqueue import unacknowledged
from kubews.testing.pods import Pod
from kubews.testing.tls import Bytes

GRACE = 1.0
_READ = 32 << 10  # io.Copy's buffer
_NOT_YET = (errno.EINPROGRESS, errno.EAGAIN)
# What is said of ::1 is that of a node whose /etc/hosts has no localhost there, as that of our recordings:
# the name is looked up on the node, not in the pod.
_NO_IPV6 = "dial tcp6: address localhost: no suitable address found"


def sandbox_id(pod: Pod) -> str:
    """Return the id that the container runtime has for a pod."""
    return hashlib.sha256(pod.uid.encode()).hexdigest()


class Forward:
    """A connection that is dialled, copies both ways, and ends.

    ``ended``: nothing more comes of it, and it waits to be closed. ``failure`` is then the text for the
    error stream, or None.

    Args:
        pod: whose port.
        port: its number, which ``pod.listens`` may send elsewhere.
        changed: called with it when it has ended, or ``events`` or ``deadline`` may be others.

    Threads: one.
    """

    def __init__(self, pod: Pod, port: int, changed: Callable[[Forward], None]) -> None:
        self._pod = pod
        self.port = port
        self._changed = changed
        self.ended = False
        self._error = ""
        #: Whether containerd has seen to it that the data stream ends before the error is told.
        self.dialled = not pod.ending.told
        self.deadline: Optional[float] = None
        self._input: collections.deque[Bytes] = collections.deque()
        self._input_ends = False
        self._input_done = False
        self._output_done = False
        self._connecting = True
        self._abandoned = False
        self._sent = 0
        self._read_by_pod = 0
        self._sock: Optional[socket.socket] = None
        self._dialled_to = ("", 0)
        self._addresses = collections.deque(self._where())
        self._refusal = f"dial tcp4 127.0.0.1:{port}: connect: connection refused"
        if self.dialled:
            self._dial()
        else:
            self._error = f'network namespace for sandbox "{sandbox_id(pod)}" is closed'
            self._end()

    def _where(self) -> list[tuple[socket.AddressFamily, str, int]]:
        where = self._pod.listens.get(self.port, self.port)
        if where is None or self._pod.state != "running":
            return []
        return [(socket.AF_INET, "127.0.0.1", where), (socket.AF_INET6, "::1", where)]

    @property
    def failure(self) -> Optional[str]:
        """The text that the kubelet writes to the error stream; None after a normal end."""
        if not self._error:
            return None
        sandbox, error = sandbox_id(self._pod), self._error
        if self.dialled:
            where = f"/var/run/netns/cni-{self._pod.uid}"
            error = f'failed to execute portforward in network namespace "{where}": {error}'
        return f"error forwarding port {self.port} to pod {sandbox}, uid : {error}"

    # Dialling.

    def _dial(self) -> None:
        while self._addresses:
            family, host, port = self._addresses.popleft()
            try:
                with no_fork:
                    sock = not_for_forks(socket.socket(family, socket.SOCK_STREAM))
            except OSError as exc:
                self._refused(family, "socket", exc.errno or 0)
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex((host, port))
            if not code or code in _NOT_YET:
                self._sock, self._dialled_to = sock, (host, port)
                return
            sock.close()
            self._refused(family, "connect", code)
        self._error = (
            f'failed to connect to localhost:{self.port} inside namespace "{sandbox_id(self._pod)}", '
            f"IPv4: {self._refusal} IPv6 {_NO_IPV6} "
        )
        self._end()

    def _refused(self, family: int, call: str, code: int) -> None:
        if family == socket.AF_INET:
            reason = os.strerror(code).lower()
            self._refusal = f"dial tcp4 127.0.0.1:{self.port}: {call}: {reason}"

    def _connected(self, sock: socket.socket) -> None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # To a port that nobody listens on a connection can come from that very port: to itself.
        # Not by asking for the peer's name: it has none if it has reset the connection already.
        if not code and sock.getsockname()[:2] == self._dialled_to:
            code = errno.ECONNREFUSED
        if code:
            self._refused(sock.family, "connect", code)
            self._dial()
            sock.close()  # only now: the next one must not have its number
            return
        self._connecting = False
        self._write()

    # Copying.

    @property
    def takes(self) -> bool:
        """Whether more input would be taken now: io.Copy holds one piece, and writes it first."""
        return self._input_done or not (self._connecting or self._input or self._input_ends)

    def give(self, data: Bytes) -> None:
        """Hand over input, when it ``takes`` some."""
        if not self._input_done:
            self._input.append(data)
            self._write()

    def end_input(self) -> None:
        """Say that no more input comes."""
        self._input_ends = True
        if not self._connecting:
            self._write()

    def _write(self) -> None:
        sock = self._sock
        while self._input and sock is not None and not self._connecting:
            try:
                sent = sock.send(self._input[0])
            except BlockingIOError:
                self._changed(self)
                return
            except OSError as exc:
                self._finish_input(self._describe("write", exc))
                return
            self._sent += sent
            if sent < len(self._input[0]):
                self._input[0] = memoryview(self._input[0])[sent:]
            else:
                self._input.popleft()
        if self._input_ends and not self._input and not self._connecting:
            self._finish_input("")

    def _finish_input(self, error: str) -> None:
        if not self._input_done:
            self._input_done = True
            self._input.clear()
            self._finished(error)

    def _read(self, sock: socket.socket) -> bytes:
        try:
            data = sock.recv(_READ)
        except BlockingIOError:
            return b""
        except OSError as exc:
            self._finish_output(self._describe("read", exc))
            return b""
        if not data:
            self._finish_output("")
        return data

    def _finish_output(self, error: str) -> None:
        if not self._output_done:
            self._output_done = True
            self._finished(error)

    def _finished(self, error: str) -> None:
        """Note that one direction has ended; the first error of the two is the one that is told."""
        self._error = self._error or error
        self.deadline = time.monotonic() + GRACE
        self._changed(self)
        if self._input_done and self._output_done:
            self._end()

    def _describe(self, call: str, exc: OSError) -> str:
        """Return what Go's net package says of an error."""
        assert self._sock is not None
        ends = f"tcp4 127.0.0.1:{self._sock.getsockname()[1]}->127.0.0.1:{self.port}"
        text = f"{call} {ends}: {call}: {os.strerror(exc.errno or 0).lower()}"
        # TCPConn.ReadFrom, which io.Copy prefers, wraps it in one of its own.
        return text if call == "read" else f"readfrom {ends}: {text}"

    # The poll loop.

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return -1 if self._sock is None else self._sock.fileno()

    def events(self, room: bool) -> int:
        """Return what to poll for, given whether there is room for output; 0 for nothing."""
        if self._connecting:
            return select.POLLOUT
        reading = select.POLLIN if room and not self._output_done else 0
        return reading | (select.POLLOUT if self._input else 0)

    def ready(self, events: int) -> bytes:
        """Do what poll has found possible; return output. The descriptor may be another then."""
        sock = self._sock
        if sock is None or self.ended:
            return b""
        if self._connecting:
            self._connected(sock)
            return b""
        if events & (select.POLLOUT | select.POLLERR):
            self._write()
        if self.ended or self._output_done:
            return b""
        return self._read(sock) if events & (select.POLLIN | select.POLLHUP) else b""

    def expire(self) -> None:
        """End it: its second is over, unless it is one that is granted again."""
        if self._abandoned and not (self._input_done or self._output_done) and self.progressed():
            self.deadline = time.monotonic() + GRACE
        else:
            self._end()

    def progressed(self) -> bool:
        """Tell whether the pod has read something since this was last asked.

        Poll is no help: it tells of room once a third of the buffer is free, which may be megabytes.
        """
        unread = 0
        if self._sock is not None:
            with contextlib.suppress(OSError):  # not everywhere does a socket know
                unread = unacknowledged(self._sock)
        before, self._read_by_pod = self._read_by_pod, self._sent - unread
        return self._read_by_pod > before

    def lose_pod(self) -> None:
        """Say that the pod's processes are dead: its end of the connection is closed."""
        self._finish_output("")

    def abandon(self) -> None:
        """Say that the client has gone: from now on a second in which the pod reads nothing is the end.

        On a real cluster it would wait for ever, and keep the connection open.
        """
        self._abandoned = True
        self.progressed()
        if self.deadline is None:
            self.deadline = time.monotonic() + GRACE
            self._changed(self)

    def lose_output(self) -> None:
        """Say that nobody takes the output any more: the copy that has some to write ends."""
        self._finish_output("")

    def _end(self) -> None:
        self.ended = True
        self.deadline = None
        self._changed(self)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._input.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
