"""What carries a port-forward, whichever its protocol: one thread that polls its WebSocket and the pod's ports.

Threads: everything here belongs to the thread of its connection.
"""

from __future__ import annotations

import collections
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from websockets.frames import Frame, Opcode

from kubews.testing.forward import GRACE, Forward
from kubews.testing.frames import GoServerProtocol
from kubews.testing.messages import Messages
from kubews.testing.pods import Pod
from kubews.testing.tls import HANGUP, Bytes, Gone, Stopping, Wire

if TYPE_CHECKING:
    from kubews.testing.connection import Connection

_HIGH = 256 << 10  # bytes waiting for the client above which no port is read


class ForwardLoop:
    """Carry the ports of one pod over one WebSocket until it ends.

    Args:
        connection: the client's, just before the 101: what it is to be told of from then on begins here.
        pod: whose ports.

    Threads: one.
    """

    def __init__(self, connection: Connection, pod: Pod) -> None:
        self._connection = connection
        self._pod = pod
        self._runtime = connection.server.runtime
        self._wire: Wire = connection.wire
        self._wire_fd = connection.wire.fileno()  # it has none once it was dropped
        self._faults = connection.faults
        self._messages = Messages(self._wire, self._faults)
        self._protocol = GoServerProtocol()
        self._arrived: collections.deque[Frame] = collections.deque()  # and not handled
        self._forwards: set[Forward] = set()
        self._descriptors: dict[Forward, int] = {}
        self._by_descriptor: dict[int, Forward] = {}
        # To be looked after in this round, in the order in which it was asked for.
        self._touched: dict[Forward, None] = {}
        self._timed: set[Forward] = set()
        self._poll = select.poll()
        self._polled: dict[int, int] = {}
        self._room = True
        self._watched: dict[int, Callable[[], None]] = {}
        self._count = 0  # bytes that the client has sent
        # When to believe that the client has gone, unless a pod has read something until then.
        self._hung_up: Optional[float] = None
        self._gone = False

    # What a protocol adds.

    def begin(self) -> None:
        """Say what comes first."""

    def message(self, opcode: Opcode, data: Bytes) -> None:
        """Handle a data frame of the client."""
        raise NotImplementedError

    def output(self, forward: Forward, data: bytes) -> None:
        """Send what a port has said."""
        raise NotImplementedError

    def forward_ended(self, forward: Forward) -> None:
        """Tell the client the end of a connection, and why."""
        raise NotImplementedError

    def client_gone(self) -> None:
        """Do what is to be done when the client can neither be heard nor told anything."""
        raise NotImplementedError

    def closed(self, payload: Bytes) -> None:
        """Answer a Close frame."""
        self.close()

    def violated(self, code: int) -> None:
        """Answer what is no WebSocket."""
        raise NotImplementedError

    def runtime_ended(self) -> None:
        """Do what is to be done when what serves the ports has ended."""
        raise NotImplementedError

    def work(self) -> None:
        """Go on with what had to wait. Called once for each round."""

    @property
    def full(self) -> bool:
        """Whether nothing of the client is read now."""
        return False

    @property
    def finished(self) -> bool:
        """Whether all is done."""
        return self._gone and not self._forwards

    def emit(self) -> None:
        """Queue the messages that this round has made. Called once for each round."""

    def deadline(self) -> Optional[float]:
        """Return when something is to be done though nothing happens."""
        times = [self._hung_up, *(each.deadline for each in self._timed)]
        return min((each for each in times if each is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        due = [(each.deadline, each) for each in self._timed if each.deadline is not None]
        for _, forward in sorted(
            (each for each in due if each[0] <= now), key=lambda each: each[0]
        ):
            forward.expire()
        if self._hung_up is not None and now >= self._hung_up:
            self._hung_up = None
            if self.full and not self._progressed():
                self._leave()

    # The loop.

    def run(self) -> None:
        """Carry everything to the end. Blocks.

        Raises:
            Stopping: the cluster is being closed.
        """
        endings = {
            self._pod.ending: self._pod_ended,
            self._runtime: self.runtime_ended,
        }
        self._watched = {each.watch(): told for each, told in endings.items()}
        try:
            for fd in (self._connection.server.stop_fd, *self._watched):
                self._register(fd, select.POLLIN)
            self._wire.limit(self._faults.drop_after)
            self.begin()
            self._messages.inject()
            self._receive(self._connection.take_trailing())
            while not self._round():
                pass
        finally:
            for forward in self._forwards:
                forward.close()
            for each in endings:
                each.unwatch()
        if not self._gone:
            self._leave()

    def _pod_ended(self) -> None:
        """Lose what was listening. The runtime goes on: it tells of it when a port is wanted."""
        for forward in self._forwards:
            forward.lose_pod()

    def _round(self) -> bool:
        """Do what is possible now and wait for more; True if all is done."""
        self._handle()
        self._settle()
        self._flush()
        self._settle()
        if self.finished:
            return True
        self._arm()
        deadline = self.deadline()
        wait = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000 + 1
        for fd, events in self._poll.poll(wait):
            if fd == self._connection.server.stop_fd:
                raise Stopping
            if fd in self._watched:
                self._register(fd, 0)
                self._watched[fd]()
            elif not self._gone and fd == self._wire_fd:
                self._client_ready(events)
            elif (forward := self._by_descriptor.get(fd)) is not None:
                self._forward_ready(forward, events)
        self.tick(time.monotonic())
        return False

    def _register(self, fd: int, events: int) -> None:
        if self._polled.get(fd, 0) == events:
            return
        # Not with an empty mask: errors would be told all the same, round after round.
        if events:
            self._poll.register(fd, events)
            self._polled[fd] = events
        else:
            self._poll.unregister(fd)
            del self._polled[fd]

    def _arm(self) -> None:
        room = self._gone or self._wire.pending < _HIGH
        if room is not self._room:
            self._room = room
            for forward in self._forwards:
                self._watch(forward)
        if not self._gone:
            sending = select.POLLOUT if self._wire.pending else 0
            self._register(self._wire_fd, sending | self._reading_events())

    def _reading_events(self) -> int:
        if self._stopped:
            return HANGUP  # for good: at least leave when the client does
        if self.full:
            return 0 if self._hung_up else HANGUP
        flooded = self._wire.pending >= 2 * _HIGH  # by answers to pings that it does not take
        return 0 if self._arrived or flooded else select.POLLIN

    @property
    def _stopped(self) -> bool:
        limit = self._faults.stop_reading_after
        return limit is not None and self._count >= limit

    # A port.

    def add(self, port: int) -> Forward:
        """Open a connection to a port. It may have ended already."""
        forward = Forward(self._pod, port, self._touch)
        if self._gone:
            forward.abandon()
        self._forwards.add(forward)
        self._touch(forward)
        return forward

    def _touch(self, forward: Forward) -> None:
        self._touched[forward] = None

    def _watch(self, forward: Forward) -> None:
        """Poll for what a connection needs now."""
        fd, before = forward.fileno(), self._descriptors.get(forward)
        if before is not None and before != fd:
            self._forget(forward)
        if fd >= 0:
            self._descriptors[forward] = fd
            self._by_descriptor[fd] = forward
            self._register(fd, forward.events(self._room))

    def _forget(self, forward: Forward) -> None:
        fd = self._descriptors.pop(forward, None)
        if fd is not None:
            del self._by_descriptor[fd]
            self._register(fd, 0)

    def _settle(self) -> None:
        """Look after the connections to which something has happened."""
        while self._touched:
            forward = next(iter(self._touched))
            del self._touched[forward]
            if forward not in self._forwards:
                continue
            if forward.deadline is not None:
                self._timed.add(forward)
            if not forward.ended:
                self._watch(forward)
                continue
            self._forget(forward)
            forward.close()
            self._timed.discard(forward)
            self._forwards.remove(forward)
            self.forward_ended(forward)

    def _progressed(self) -> bool:
        """Tell whether a pod has read something since this was last asked."""
        each = [forward.progressed() for forward in self._forwards]  # all of them are asked
        return any(each)

    def _forward_ready(self, forward: Forward, events: int) -> None:
        data = forward.ready(events)
        if data and self._gone:
            forward.lose_output()
        elif data:
            self.output(forward, data)
        self._touch(forward)

    # The client.

    def _flush(self) -> None:
        self.emit()
        if not self._gone:
            self._wire.release()  # nothing more is to come: the client may wait for this
            try:
                self._wire.flush()
            except Gone:
                self._leave()

    def _leave(self) -> None:
        """Let the client go: it has gone, or has been told everything."""
        if not self._gone:
            self._gone = True
            self._register(self._wire_fd, 0)
            self._connection.server.disconnected(self._wire)
            self._arrived.clear()
            for forward in self._forwards:
                forward.abandon()
            self.client_gone()

    def _client_ready(self, events: int) -> None:
        if self._polled.get(self._wire_fd, 0) & select.POLLIN:
            self._receive(self._wire.receive() or b"")
        elif events & (select.POLLHUP | select.POLLERR) or (self._stopped and events & HANGUP):
            self._leave()
        elif events & HANGUP:
            # What it has sent before is still there, and may find a reader yet.
            self._hung_up = time.monotonic() + GRACE
            self._progressed()

    def _receive(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
            self._protocol.data_to_send()  # what the library would answer is not what Go answers
            self._arrived.extend(
                each for each in self._protocol.events_received() if isinstance(each, Frame)
            )

    def _handle(self) -> None:
        """Handle what has arrived, as far as somebody takes it."""
        self.work()
        while self._arrived and not (self._gone or self.full or self._stopped):
            frame = self._arrived.popleft()
            if frame.opcode is Opcode.PING:
                self._messages.pong(frame.data)
            elif frame.opcode is Opcode.CLOSE:
                self.closed(frame.data)
            elif frame.opcode is not Opcode.PONG:
                self._count += len(frame.data)
                self.message(frame.opcode, frame.data)
        if self._gone or self._arrived or self.full or self._stopped:
            return
        if self._protocol.close_sent is not None and self._protocol.close_rcvd is None:
            self.violated(self._protocol.close_sent.code)
        elif self._wire.ended:
            self._leave()

    def close(self, *codes: int) -> None:
        """End the WebSocket with Close frames of these codes, or with that of a normal end. Blocks."""
        self.emit()
        for code in codes:
            self._messages.close(code)
        if not codes:
            self._messages.close()
        try:
            self._wire.finish()
        except Gone:
            pass  # it did not wait for the answer
        self._leave()
