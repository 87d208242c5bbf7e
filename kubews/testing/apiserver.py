"""The server of LocalCluster: a TLS listener, and a thread a connection.

Threads: an ``ApiServer`` may be used by any thread.
"""

from __future__ import annotations

import collections
import itertools
import os
import select
import socket
import ssl
import threading
import time
import warnings

from kubews.testing.access import Users
from kubews.testing.connection import Connection, Request
from kubews.testing.faults import NO_FAULTS, Faults
from kubews.testing.pods import Pods
from kubews.testing.tls import Gone, Stopping, Wire

_CLOSE_JOIN = 10.0


class ApiServer:
    """Listen on a port of 127.0.0.1 that the kernel picks, and serve each connection in a thread.

    Args:
        context: the TLS context, with the client CA loaded.
        minor: the minor version of Kubernetes to be: 36 for 1.36.
        users: who may ask for what.
        pods: what is there.
        status_metadata: whether the container runtime writes ``"metadata":{}`` into its Status.

    Threads: safe.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        minor: int,
        users: Users,
        pods: Pods,
        status_metadata: bool = True,
    ) -> None:
        self.context = context
        self.minor = minor
        self.users = users
        self.pods = pods
        self.status_metadata = status_metadata
        self.faults = NO_FAULTS
        self.next_faults: collections.deque[Faults] = collections.deque()
        self._requests: collections.deque[Request] = collections.deque(maxlen=10_000)
        self._lock = threading.Lock()
        self._open: set[Wire] = set()
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count(1)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        # Closing the write end makes the read end readable for every poll of every thread.
        self.stop_fd, self._stop_write = os.pipe()
        self._stopped = False
        self._acceptor = threading.Thread(
            target=self._accept, name="kubews-testing-accept", daemon=True
        )

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Stop, end every connection, join every thread. Idempotent; blocks for a bounded time."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        os.close(self._stop_write)
        if self._acceptor.ident is not None:
            self._acceptor.join(_CLOSE_JOIN)
        self._listener.close()
        # Processes die first: a stream's thread waits for the end of its process.
        self.pods.clear()
        end = time.monotonic() + _CLOSE_JOIN
        # Not this thread: it can be one of ours, if the garbage collector chose it to close us.
        others = [each for each in self._threads if each is not threading.current_thread()]
        for thread in others:
            thread.join(max(0.0, end - time.monotonic()))
        stuck = [thread.name for thread in others if thread.is_alive()]
        if stuck:
            warnings.warn(f"threads of LocalCluster did not end: {stuck}", ResourceWarning, 2)
        else:
            os.close(self.stop_fd)

    def record(self, request: Request) -> None:
        """Remember a request for those who ask what was received."""
        with self._lock:
            self._requests.append(request)

    @property
    def requests(self) -> list[Request]:
        """The requests received, oldest first (the last ten thousand)."""
        with self._lock:
            return list(self._requests)

    @property
    def connections(self) -> int:
        """The number of open connections."""
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self.stop_fd, select.POLLIN)
        while True:
            if any(fd == self.stop_fd for fd, _ in poll.poll()):
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError:
                time.sleep(0.01)  # out of descriptors, most likely: do not spin
                continue
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        try:
            faults = self.next_faults.popleft()
        except IndexError:
            faults = self.faults
        wire = Wire(sock, self.context, self.stop_fd, faults)
        with self._lock:
            self._open.add(wire)
        thread = threading.Thread(
            target=self._run,
            args=(wire,),
            name=f"kubews-testing-conn-{next(self._numbers)}",
            daemon=True,
        )
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _run(self, wire: Wire) -> None:
        try:
            wire.handshake()
            Connection(self, wire).run()
        except (Gone, Stopping):
            pass  # how every connection ends
        finally:
            self.disconnected(wire)

    def disconnected(self, wire: Wire) -> None:
        """Close a connection and no longer count it."""
        wire.close(notify=wire.faults.close_notify)
        with self._lock:
            self._open.discard(wire)
