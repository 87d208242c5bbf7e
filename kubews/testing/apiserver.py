"""The server of LocalCluster: a TLS listener, and a thread a connection.

Threads: an ``ApiServer`` may be used by any thread.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import select
import socket
import ssl
import threading
import time
import warnings
from typing import Optional

from kubews.testing.access import Users
from kubews.testing.connection import Connection, Request
from kubews.testing.ending import Ending
from kubews.testing.faults import NO_FAULTS, Faults
from kubews.testing.forks import no_fork, not_for_forks
from kubews.testing.owners import Owners
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
        self.owners = Owners()
        self.status_metadata = status_metadata
        self.faults = NO_FAULTS
        self.runtime = Ending()  # of what the container runtime carries now
        self._next_faults: collections.deque[Faults] = collections.deque()
        self._requests: collections.deque[Request] = collections.deque(maxlen=10_000)
        self._lock = threading.Lock()
        self._open: set[Wire] = set()
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count(1)
        with no_fork:
            self._listener = not_for_forks(socket.create_server(("127.0.0.1", 0), backlog=1024))
            self._stopping, self._stop = map(not_for_forks, socket.socketpair())
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        # A byte that nobody reads makes it readable for every poll of every thread. The end of the
        # stream would, too, but only once no fork has a copy of the other end.
        self.stop_fd = self._stopping.fileno()
        self._acceptor = threading.Thread(
            target=self._accept, name="kubews-testing-accept", daemon=True
        )

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Stop, end every connection, join every thread. Once; blocks for a bounded time."""
        self._stop.send(b"\0")
        # Not this thread: it can be one of ours, if the garbage collector chose it to close us.
        if self._acceptor.is_alive() and self._acceptor is not threading.current_thread():
            self._acceptor.join(_CLOSE_JOIN)
        with contextlib.suppress(OSError):  # not everywhere can a listener be shut down
            self._listener.shutdown(socket.SHUT_RDWR)  # also what a fork has inherited
        self._listener.close()
        # Processes die first: a stream's thread waits for the end of its process.
        self.pods.close()
        end = time.monotonic() + _CLOSE_JOIN
        others = [each for each in self._threads if each is not threading.current_thread()]
        for thread in others:
            thread.join(max(0.0, end - time.monotonic()))
        stuck = [thread.name for thread in others if thread.is_alive()]
        if stuck:
            warnings.warn(f"threads of LocalCluster did not end: {stuck}", ResourceWarning, 2)
        else:
            self._stopping.close()
            self._stop.close()

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
                with no_fork:
                    sock = not_for_forks(self._listener.accept()[0])
            except BlockingIOError:
                continue
            except OSError:
                time.sleep(0.01)  # out of descriptors, most likely: do not spin
                continue
            self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        own = self.take_faults()
        wire = Wire(sock, self.context, self.stop_fd, own or self.faults)
        with self._lock:
            self._open.add(wire)
        thread = threading.Thread(
            target=self._run,
            args=(wire, own is None),
            name=f"kubews-testing-conn-{next(self._numbers)}",
            daemon=True,
        )
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()

    def take_faults(self, target: str = "") -> Optional[Faults]:
        """Take the next faults that are meant for a request, or for any connection; None if none are.

        Args:
            target: that of the request; empty for a connection that was just accepted.
        """
        with self._lock:
            for faults in self._next_faults:
                if faults.match in target if faults.match else not target:
                    self._next_faults.remove(faults)  # the first that is equal, which is this one
                    return faults
        return None

    def queue_faults(self, *faults: Faults) -> None:
        """Add to the faults that are meant for one connection each."""
        with self._lock:
            self._next_faults.extend(faults)

    def break_forwards(self) -> None:
        """End what the container runtime carries; it is there again at once."""
        with self._lock:
            ended, self.runtime = self.runtime, Ending()
        ended.tell()

    def _run(self, wire: Wire, faults_may_come: bool) -> None:
        try:
            wire.handshake()
            Connection(self, wire, faults_may_come).run()
        except (Gone, Stopping):
            pass  # how every connection ends
        finally:
            self.disconnected(wire)

    def disconnected(self, wire: Wire) -> None:
        """Close a connection and no longer count it."""
        wire.close(notify=wire.faults.close_notify)
        with self._lock:
            self._open.discard(wire)
