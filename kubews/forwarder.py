"""What serves a port-forward: listeners, local sockets and WebSockets on one loop, and dials beside it."""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from kubews.errors import (
    ConnectFailed,
    ConnectionLost,
    NotFound,
    NotReady,
    ServerError,
    TooManyRequests,
)
from kubews.ports import Port
from kubews.targets import Target
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.loop import Loop
from kubews.transport.relay import READ, Relay
from kubews.transport.tunnel import Tunnel
from kubews.transport.workers import Workers
from kubews.tunnels import Way, open_way

_log = logging.getLogger("kubews")

# Local connections that are accepted before somebody else gets a turn.
_TURN = 32

# WebSockets that are opened at the same time.
_DIALS = 16

# Seconds to wait between the tries of one dial: a pod that is being replaced is back within a few.
_PAUSES = (0.1, 0.2, 0.4)

# Seconds for which nothing is accepted when this process has no descriptors left.
_BREATH = 0.2

_MAX_ERRORS = 100

# What another try, which chooses a pod anew, may mend.
_PASSING = (ConnectFailed, NotFound, NotReady, ServerError, TooManyRequests)


@dataclass(frozen=True)
class ForwardEvent:
    """Something that has happened to one local connection.

    Args:
        kind: ``"connected"``, ``"ended"`` or ``"failed"``.
        remote: the port of the target, as the user has named it.
        peer: the address of the local program.
        pod: the pod that serves the connection, empty before one was reached.
        error: why it failed.

    Threads: a value.
    """

    kind: str
    remote: Port
    peer: Any
    pod: str = ""
    error: Optional[Exception] = None


@dataclass
class _Arrival:
    """A local connection that has been accepted."""

    sock: socket.socket
    event: ForwardEvent


class Forwarder:
    """Forward what arrives at listeners, until it is closed.

    Args:
        target: where to.
        listeners: for each port of the target, the sockets that listen for it.
        shared: whether connections share a tunnel where the server knows it; else each has a WebSocket.
        on_event: called in the loop's thread for each event; must not block.

    Threads: ``start``, ``begin_close`` and ``close`` are for any; everything else is the loop's.
    """

    def __init__(
        self,
        target: Target,
        listeners: Mapping[Port, list[socket.socket]],
        *,
        shared: bool,
        on_event: Optional[Callable[[ForwardEvent], None]],
    ) -> None:
        self._target = target
        self._listeners = dict(listeners)
        self._shared = shared
        self._on_event = on_event
        self.errors: deque[Exception] = deque(maxlen=_MAX_ERRORS)
        self._tunnels: set[Tunnel] = set()
        # By port of the target: the tunnel that takes the next connection, who waits for one, and whether
        # one is on its way.
        self._current: dict[Port, tuple[Tunnel, Way]] = {}
        self._waiting: dict[Port, list[_Arrival]] = {remote: [] for remote in listeners}
        self._dials = 0
        self._closing = False
        where = f"port-forward to {target.where}"
        self._workers = Workers(_DIALS, f"kubews dial for {where}")
        self._loop = Loop(f"kubews {where}", start=False)

    def start(self, ways: Mapping[Port, Way]) -> None:
        """Accept connections.

        Args:
            ways: for some ports, a way for the first connections, made before.

        Threads: any.
        """
        self._loop.start()
        self._loop.call_soon(self._start, ways)

    def begin_close(self) -> None:
        """Stop listening, and end every connection, soon.

        Threads: any, finalizers too; does not block.
        """
        self._loop.call_soon(self._begin_close)

    def close(self, timeout: float = 2.0) -> None:
        """Stop listening, end every connection, and wait until that is done.

        Threads: blocks up to ``timeout`` seconds; may be called again.
        """
        self.begin_close()
        self._loop.join(timeout)

    @property
    def closed(self) -> bool:
        """Whether nothing is served any more."""
        return self._closing or self._loop.ended.done()

    # -- arrivals

    def _start(self, ways: Mapping[Port, Way]) -> None:
        self._loop.on_end(self._loop_ended)
        for remote, way in ways.items():
            self._take(remote, way)
        self._listen()

    def _listen(self) -> None:
        if self._closing:
            return
        for remote, listeners in self._listeners.items():
            for listener in listeners:
                self._loop.register(listener, READ, self._acceptor(remote, listener))

    def _stop_listening(self) -> None:
        for listeners in self._listeners.values():
            for listener in listeners:
                self._loop.register(listener, 0, _nothing)

    def _acceptor(self, remote: Port, listener: socket.socket) -> Callable[[int], None]:
        def accept(events: int) -> None:
            for _ in range(_TURN):
                try:
                    sock = forks.own(lambda: listener.accept()[0])
                except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                    return
                except OSError as exc:  # no descriptors: they may be back in a moment
                    self._fail(ForwardEvent("failed", remote, None), exc)
                    self._pause()
                    return
                self._on_arrival(_Arrival(sock, ForwardEvent("connected", remote, _peer(sock))))

        return accept

    def _pause(self) -> None:
        self._stop_listening()
        self._loop.call_later(_BREATH, self._listen)

    def _on_arrival(self, arrival: _Arrival) -> None:
        remote = arrival.event.remote
        if remote in self._current:
            tunnel, way = self._current[remote]
            if tunnel.can_open:
                self._connect(tunnel, way, arrival)
                return
            del self._current[remote]
        waiting = self._waiting[remote]
        waiting.append(arrival)
        if not self._shared or len(waiting) == 1:
            self._dial(remote)

    # -- dials

    def _dial(self, remote: Port) -> None:
        self._dials += 1
        try:
            self._workers.submit(lambda: self._work(remote))
        except RuntimeError as exc:
            self._dialled(remote, None, exc)

    def _work(self, remote: Port) -> None:
        way: Optional[Way] = None
        error: Optional[Exception] = None
        for pause in (*_PAUSES, None):
            if self._closing:
                break
            try:
                way, error = open_way(self._target, remote, Deadline(None)), None
                break
            except Exception as exc:  # a bug, too: it is the connection's, and the thread goes on
                error = exc
                if pause is None or not isinstance(exc, _PASSING):
                    break
                time.sleep(pause)
        self._loop.call_soon(self._dialled, remote, way, error)

    def _dialled(self, remote: Port, way: Optional[Way], error: Optional[Exception]) -> None:
        self._dials -= 1
        if way is not None and not self._closing:
            self._take(remote, way)
        elif way is not None:
            way.wire.close()
        elif error is not None:
            waiting = self._waiting[remote]
            # Who shares a tunnel shares what became of it.
            failed = waiting[:] if self._shared else waiting[:1]
            del waiting[: len(failed)]
            for arrival in failed:
                Relay.reset(arrival.sock)
                self._fail(arrival.event, error)
        self._stop_if_done()

    def _take(self, remote: Port, way: Way) -> None:
        waiting = self._waiting[remote]

        def done() -> None:
            self._tunnels.discard(tunnel)
            self._stop_if_done()

        pairs = self._shared and not way.forwards.lasting
        if pairs:  # each carries one connection, so those who wait for this one need one each
            self._shared = False
        if not waiting and not self._shared:  # dialled for one that another way has taken
            way.wire.close()
            return
        tunnel = way.tunnel(self._loop, lasting=self._shared, done=done)
        self._tunnels.add(tunnel)
        if self._shared and tunnel.can_open:
            self._current[remote] = tunnel, way
        while waiting and tunnel.can_open:
            self._connect(tunnel, way, waiting.pop(0))
            if not self._shared:
                break
        tunnel.begin()
        if pairs:
            for each, arrivals in self._waiting.items():
                for _ in arrivals:
                    self._dial(each)

    def _connect(self, tunnel: Tunnel, way: Way, arrival: _Arrival) -> None:
        event = replace(arrival.event, pod=way.pod)

        def ended(error: Optional[Exception]) -> None:
            if error is None:
                self._tell(replace(event, kind="ended"))
            elif not (self._closing and isinstance(error, ConnectionLost)):
                # The pod may be gone, and its tunnel be none the wiser: the next one chooses again.
                if self._current.get(event.remote, (None,))[0] is tunnel:
                    del self._current[event.remote]
                    tunnel.retire()
                self._fail(event, error)

        tunnel.connect(arrival.sock, way.port, ended)
        self._tell(event)

    # -- what happens

    def _fail(self, event: ForwardEvent, error: Exception) -> None:
        self.errors.append(error)
        _log.debug("port-forward to %s: %s", self._target.where, error)
        self._tell(replace(event, kind="failed", error=error))

    def _tell(self, event: ForwardEvent) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except BaseException:  # nor may a sys.exit() there end every connection
            _log.exception("on_event of a port-forward to %s has failed", self._target.where)

    # -- the end

    def _begin_close(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._stop_listening()
        for listeners in self._listeners.values():
            for listener in listeners:
                forks.close(listener)
        for waiting in self._waiting.values():
            for arrival in waiting:
                Relay.reset(arrival.sock)
            waiting.clear()
        for tunnel in list(self._tunnels):
            tunnel.shut()
        self._stop_if_done()

    def _stop_if_done(self) -> None:
        if self._closing and not self._tunnels and not self._dials:
            self._loop.stop()

    def _loop_ended(self, exc: Optional[BaseException]) -> None:
        self._begin_close()
        if exc is not None:
            _log.error("port-forward to %s has failed", self._target.where, exc_info=exc)


def _nothing(events: int) -> None:
    """Never called: what is watched for no events is not ready."""


def _peer(sock: socket.socket) -> Any:
    try:
        return sock.getpeername()
    except OSError:
        return None  # it has gone again
