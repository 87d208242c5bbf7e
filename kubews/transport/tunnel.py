"""Forwarded connections over one WebSocket: local sockets on one side, ports of a pod on the other."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Optional

from kubews.errors import ConnectionLost, LocalProtocolError, PortRefused, StreamBroken
from kubews.protocol.events import Data, End, Pong
from kubews.protocol.forwards import Finished, ForwardEvent, Forwards
from kubews.transport import forks
from kubews.transport.link import CLOSED_HERE, NORMAL_CLOSURE, Link
from kubews.transport.loop import Loop, Timer
from kubews.transport.relay import Ended, Relay
from kubews.transport.wire import CONT, PING, Frame, Wire, frame

# Bytes on the way to the server above which local programs wait. All connections of a tunnel share it.
_OUTBOUND = 256 * 1024

# Seconds between the end of the pod's bytes and the word why, which follows at once.
_WORD = 1.0

# Seconds for the goodbye.
_GOODBYE = 1.0

# Channel pairs cannot tell the pod that a local program has sent all that it had to send. So its
# connection goes on, until the pod closes it or says nothing for so many seconds.
_SILENCE = 5.0

# Seconds until it is looked again whether the bytes of a program that has gone are on the way.
_LOOK = 0.02


class Tunnel(Link):
    """One WebSocket with its forwarded connections.

    Args:
        wire: after the upgrade; from now on the loop's.
        forwards: what the negotiated protocol makes of connections.
        loop: may serve more than this.
        where: what it is to, for messages.
        ping: seconds between pings, None for none.
        lasting: whether it waits for more when its last connection has ended; else it closes.
        done: called once, in the loop's thread, when it and all its local sockets are closed.

    Threads: ``attach`` and ``begin`` are for any; see ``Link``.
    """

    def __init__(
        self,
        wire: Wire,
        forwards: Forwards,
        loop: Loop,
        *,
        where: str,
        ping: Optional[float],
        lasting: bool,
        done: Callable[[], None],
    ) -> None:
        super().__init__(wire, loop, where=where, outbound=_OUTBOUND, ping=ping)
        self._forwards = forwards
        self._lasting = lasting
        self._done = done
        self.max_data = forwards.max_data
        self.subprotocol = forwards.subprotocol
        self._by_id: dict[int, Relay] = {}
        self._ids: dict[Relay, int] = {}
        # With those whose connection is over, but not the local program's part of it.
        self._relays: set[Relay] = set()
        # Those who wait for room, in the order in which they get it.
        self._held: dict[Relay, None] = {}
        self._clogged: set[Relay] = set()
        self._words: dict[int, Timer] = {}
        self._shutting = False
        self._told = False

    def begin(self) -> None:
        """Start, once the first connection is attached: with channel pairs it may speak at once."""
        self._begin()

    @property
    def can_open(self) -> bool:
        """Whether it takes another connection.

        Threads: the loop's.
        """
        return not (self._over or self._closing) and self._forwards.can_open

    def attach(self, sock: socket.socket, port: int, ended: Ended) -> None:
        """Forward a local socket, which is the loop's from now on.

        Args:
            sock: connected.
            port: of the pod.
            ended: see ``Relay``.

        Threads: any; does not block.
        """
        self._loop.call_soon(self.connect, sock, port, ended)
        if self._loop.ended.done() and sock.fileno() >= 0:  # nobody will call it
            forks.close(sock)
            ended(self._loss("it was closed before the connection was made", None))

    def retire(self) -> None:
        """Close when the last connection has ended, whether or not it was to last.

        Threads: the loop's.
        """
        self._lasting = False
        self._loop.call_soon(self._close_if_idle)

    def shut(self) -> None:
        """Say goodbye and end every connection, soon.

        Threads: the loop's.
        """
        self._shutting = True
        self._begin_close()
        for relay in self._relays - set(self._ids):
            self._loop.call_soon(relay.abort, self._loss(CLOSED_HERE, None))

    # -- what a relay calls

    def ready(self, relay: Relay) -> bool:
        """See ``Remote``; false, too, once the server takes nothing."""
        try:
            room = self.has_room()
        except StreamBroken:
            return False  # the end is on its way
        if not room:
            self._held[relay] = None
        return room

    def send(self, relay: Relay, data: bytes) -> None:
        """See ``Remote``."""
        try:
            self._put(frame(self._forwards.data_to_send(self._ids[relay], data)))
        except StreamBroken:
            pass  # the server takes no more of it, and the word why is on its way

    def end(self, relay: Relay) -> None:
        """See ``Remote``."""
        stream_id = self._ids[relay]
        try:
            self._put(frame(self._forwards.end_to_send(stream_id)))
        except StreamBroken:
            pass
        except LocalProtocolError:
            self._await_silence(relay, self._arrived)

    def give_up(self, relay: Relay) -> None:
        """See ``Remote``."""
        self._forget(self._ids[relay])

    def clogged(self, relay: Relay, clogged: bool) -> None:
        """See ``Remote``."""
        if clogged:
            self._clogged.add(relay)
        else:
            self._clogged.discard(relay)
            if not self._clogged:
                self._loop.call_soon(self._resume)

    def released(self, relay: Relay) -> None:
        """See ``Remote``."""
        self._relays.discard(relay)
        self._held.pop(relay, None)
        self._stop_if_done()

    # -- the loop's thread

    def connect(self, sock: socket.socket, port: int, ended: Ended) -> None:
        """Do what ``attach`` posts."""
        relay = Relay(sock, self, self._loop, ended)
        self._relays.add(relay)
        if not self.can_open:
            relay.finish(self._loss("it was closed before the connection was made", None))
            return
        stream_id = self._forwards.open(port)
        self._by_id[stream_id] = relay
        self._ids[relay] = stream_id
        self._put_pending()
        relay.pump()

    def _put(self, data: bytes) -> None:
        try:
            self._outbox.put_more(data)
        except StreamBroken:
            return  # the end is on its way
        self._post_flush()

    def _put_pending(self) -> None:
        pending = self._forwards.pending_to_send()
        if pending:
            self._put(frame(pending))

    def _may_read(self, resuming: bool) -> bool:
        return not self._clogged

    def _on_data(self, received: Frame) -> None:
        for event in self._forwards.receive(received.payload, start=received.opcode != CONT):
            self._on_event(event)
        self._put_pending()

    def _on_event(self, event: ForwardEvent) -> None:
        if isinstance(event, Pong):
            self._heartbeat.pong(event.ping_id.to_bytes(4, "big"))
        elif isinstance(event, Data):
            relay = self._by_id.get(event.stream_id)
            if relay is not None:
                relay.feed(event.payload)
        elif isinstance(event, End):
            # Its relay may have given up for what came before it in the same message.
            if event.stream_id in self._by_id and event.stream_id not in self._words:
                self._await_word(event.stream_id)
        elif isinstance(event, Finished):
            self._on_finished(event)
        else:  # GoAway: whoever is behind the server ends all of it
            self._expect_end("the server is going away")

    def _await_word(self, stream_id: int) -> None:
        def over() -> None:
            if self._paused:  # it may have come, and wait to be read
                self._await_word(stream_id)
            else:
                self._on_finished(self._forwards.conclude(stream_id))

        self._words[stream_id] = self._loop.call_later(_WORD, over)

    def _on_finished(self, event: Finished) -> None:
        relay = self._by_id.get(event.stream_id)
        if relay is None:
            return
        self._forget(event.stream_id)
        error = PortRefused(f"{self.where}: {event.error}") if event.error else None
        relay.finish(error)

    def _forget(self, stream_id: int) -> None:
        word = self._words.pop(stream_id, None)
        if word is not None:
            word.cancel()
        relay = self._by_id.pop(stream_id)
        del self._ids[relay]
        self._held.pop(relay, None)
        self._forwards.reset(stream_id)
        self._put_pending()
        # Posted, for this may be amid a frame, and whoever closes reads on.
        self._loop.call_soon(self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not (self._by_id or self._lasting):
            self._begin_close()

    def _await_silence(self, relay: Relay, arrived: int) -> None:
        def look() -> None:
            if relay not in self._ids:
                return
            spoken = arrived != self._arrived or self._paused
            # What is on the way to the pod goes first: the goodbye has a deadline.
            if self._outbox or (spoken and not relay.deserted):
                self._await_silence(relay, self._arrived)
            else:
                self._on_finished(self._forwards.conclude(self._ids[relay]))

        self._loop.call_later(_LOOK if relay.deserted else _SILENCE, look)

    def _serve(self) -> None:
        # Who finds the room used up again stands last: all get their turn.
        for relay in list(self._held):
            if not self._outbox.has_room():
                return
            self._held.pop(relay, None)
            relay.pump()

    def _ping_to_send(self) -> bytes:
        # Only the tunnel's own pings reach whoever is behind the server, and a server whose upstream has
        # gone answers WebSocket pings for ever (apiserver ``streamtunnel.go``, 1.30 to 1.36).
        payload = self._heartbeat.ping()
        if self._forwards.ping() is None:
            return frame(payload, PING)
        return frame(self._forwards.pending_to_send())

    def _on_close(self, payload: bytes) -> None:
        # The answer to this side's goodbye tells nothing, nor that of a proxy which gives up.
        if not self._closing and payload[:2] in (b"", NORMAL_CLOSURE):
            for event in self._forwards.closed():
                self._on_event(event)
        super()._on_close(payload)

    def _begin_close(self) -> None:
        if not (self._over or self._closing):
            self._loop.call_later(_GOODBYE, self._cut)
            super()._begin_close()

    def _cut(self) -> None:
        self._finish("the server did not answer the goodbye")

    def _loss(self, reason: str, cause: Optional[BaseException]) -> ConnectionLost:
        lost = ConnectionLost(
            f"{self.where}: connection lost: {reason} (subprotocol {self.subprotocol})"
        )
        lost.__cause__ = cause
        return lost

    def _settle(self, lost: Exception) -> None:
        for stream_id, relay in list(self._by_id.items()):
            self._forget(stream_id)
            # Who closes does not wait for local programs that do not read.
            if self.closed_here:
                relay.abort(lost)
            else:
                relay.finish(lost)
        if self._shutting:  # those that have ended meanwhile
            for relay in list(self._relays):
                relay.abort(lost)

    def _discard(self) -> None:
        """Nothing: what local programs have not taken yet is theirs, as with any socket."""

    def _loop_ended(self, exc: Optional[BaseException]) -> None:
        super()._loop_ended(exc)
        for relay in list(self._relays):
            relay.abort(self._loss("the loop has ended", exc))

    def _settle_fork(self, lost: Exception, ended: bool) -> None:
        """Nothing: the local sockets are closed in every fork, and their users see that."""

    def _stop_if_done(self) -> None:
        if self._over and not self._relays and not self._told:
            self._told = True
            self._loop.forget(self._loop_ended)
            self._done()
