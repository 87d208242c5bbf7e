"""One WebSocket with its channels: a Wire, a codec and Pipes, driven by a Loop.

The loop's thread is the only one that touches the socket. Callers queue whole frames and take bytes out
of pipes; what they change they tell the loop about, and only if it waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from kubews.errors import (
    ConnectionLost,
    HalfCloseUnsupported,
    KubewsError,
    LocalProtocolError,
    RemoteProtocolError,
)
from kubews.protocol.codec import Codec
from kubews.protocol.events import Data, Event, Status
from kubews.transport.backpressure import DEFAULT_LIMITS, Backpressure, Limits
from kubews.transport.bridges import Bridges
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.link import CLOSED_HERE, Link
from kubews.transport.loop import Loop, Timer
from kubews.transport.outbox import Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Outcome
from kubews.transport.wire import CONT, Frame, Wire, frame

# A thread that ends tells nobody, so who waits for it to read looks again after so many seconds.
_LOOK_AGAIN = 0.5


class Connection(Link):
    """A live WebSocket and its channels.

    Args:
        wire: after the upgrade; from now on the loop's.
        codec: for the negotiated subprotocol.
        loop: its own; it ends with the connection.
        inbound: the ids of the streams to receive, each with the id under which it is read; two
            that share one are merged in the order in which they arrive.
        where: what the connection is to, for messages (``pod shop/web-0``).
        limits: how much to hold.
        ping: seconds between pings, None for none.

    Threads: any. ``send``, ``end`` and ``close`` block, ``abort`` does not; pipes and outcomes have
    rules of their own.
    """

    def __init__(
        self,
        wire: Wire,
        codec: Codec,
        loop: Loop,
        *,
        inbound: Mapping[int, int],
        where: str,
        limits: Limits = DEFAULT_LIMITS,
        ping: Optional[float] = 10.0,
    ) -> None:
        super().__init__(
            wire,
            loop,
            where=where,
            outbound=limits.outbound,
            ping=ping,
            parking=self._changed,
        )
        self._codec = codec
        self.subprotocol = codec.subprotocol
        # All pipes exist before the first byte is read, or early output would be lost.
        self.pipes = {
            stream_id: Pipe(limit=limits.inbound, changed=self._changed)
            for stream_id in inbound.values()
        }
        self._inbound = {source: self.pipes[target] for source, target in inbound.items()}
        self._received = dict.fromkeys(inbound, 0)
        # Those of the batch that is being handled to which something came.
        self._touched: set[Pipe] = set()
        self.status: Outcome[Status] = Outcome(self._changed)
        self._outcomes: list[Outcome[None]] = []
        self.bridges = Bridges(loop, where, self._stop_if_done)
        self._waiting = [self.status.waiters, self._outbox.writers]
        self._backpressure = Backpressure(self.pipes, codec.names, self._waiting, limits, where)
        self._hang_up = False
        self._looker: Optional[Timer] = None
        self._begin()

    # -- for any thread

    def name(self, stream_id: int) -> str:
        """Return the name of a stream."""
        return self._codec.names[stream_id]

    def send(self, stream_id: int, source: Unsent, deadline: Deadline) -> None:
        """Queue the next frame of ``source``; wait while the queue is full.

        Args:
            stream_id: where to.
            source: its offset moves by at least one byte, at most by a frame's worth.
            deadline: when to give up.

        Raises:
            Expired: the queue stayed full; nothing was queued.
            StreamBroken: the process or the connection has ended.

        Threads: blocks.
        """
        offset = source.offset
        chunk = source.view[offset : offset + self._codec.max_data]
        data = frame(self._codec.data_to_send(stream_id, chunk))
        self._queue(self._outbox.put, stream_id, data, deadline, source, offset + len(chunk))

    def end(self, stream_id: int) -> None:
        """End a stream to the peer, behind everything that is queued for it; again is nothing.

        Raises:
            HalfCloseUnsupported: the subprotocol cannot; nothing was sent.
            StreamBroken: the process or the connection has ended.

        Threads: does not block.
        """
        self._outbox.check()
        self._queue(self._outbox.put_last, stream_id, self.end_frame(stream_id))

    def press(self, stream_id: int, key: bytes) -> None:
        """Send a key of a terminal, which has no end behind which keys do nothing.

        Raises:
            StreamBroken: the process or the connection has ended.

        Threads: does not block.
        """
        self._queue(self._outbox.put_more, frame(self._codec.data_to_send(stream_id, key)))

    def send_latest(self, stream_id: int, data: bytes) -> None:
        """Send what replaces what was sent so before, if that still waits to go out.

        Raises:
            StreamBroken: the process or the connection has ended.

        Threads: does not block; a signal handler may call it.
        """
        self._queue(self._outbox.put_latest, frame(self._codec.data_to_send(stream_id, data)))

    def end_frame(self, stream_id: int) -> bytes:
        """Make the frame that ends a stream.

        Raises:
            HalfCloseUnsupported: the subprotocol has none.
        """
        try:
            return frame(self._codec.end_to_send(stream_id))
        except LocalProtocolError as exc:
            raise HalfCloseUnsupported(
                f"{self.where}: {self._codec.names[stream_id]} cannot be closed on its own, because the "
                f"server speaks {self.subprotocol} (Kubernetes before 1.30). Ways round: a command "
                "that knows how much to read (head -c N), or tty=True"
            ) from exc

    def outcome(self) -> Outcome[None]:
        """Make an outcome for which this connection reads on, as for the Status, while somebody waits.

        Threads: any; before the wait.
        """
        outcome: Outcome[None] = Outcome(self._changed)
        self._waiting.append(outcome.waiters)
        self._outcomes.append(outcome)
        return outcome

    def hang_up_when_unwanted(self) -> None:
        """From now on, close as soon as output comes that its reader has closed the door to.

        Threads: any; does not block.
        """
        self._loop.call_soon(self._watch_unwanted)

    def _changed(self) -> None:
        """A pipe was drained, or somebody parks: the loop may have a reason to read again."""
        if not self._paused:
            return
        if self._backpressure.may_read(resuming=True):
            self._loop.call_soon(self._resume)
        elif self._backpressure.starving():
            self._loop.call_soon(self._look_again)

    # -- the loop's thread

    def _loop_ended(self, exc: Optional[BaseException]) -> None:
        super()._loop_ended(exc)
        self.bridges.close()

    def _has_more_to_serve(self) -> bool:
        return bool(self.bridges)

    def _stop_if_done(self) -> None:
        if self._over and not self.bridges:
            self._loop.stop()

    def _may_read(self, resuming: bool) -> bool:
        return self._backpressure.may_read(resuming)

    def _serve(self) -> None:
        self.bridges.serve()

    def _held_up(self) -> None:
        self._look_again()

    def _look_again(self) -> None:
        """While somebody waits behind a full pipe, see whether its reader is still at work."""
        if (
            self._paused
            and not self._over
            and self._looker is None
            and self._backpressure.starving()
        ):
            self._looker = self._loop.call_later(_LOOK_AGAIN, self._look)

    def _look(self) -> None:
        self._looker = None
        self._resume()

    def _after_batch(self) -> None:
        for pipe in self._touched:
            pipe.wake()
        self._touched.clear()

    def _on_data(self, received: Frame) -> None:
        for event in self._codec.receive(received.payload, start=received.opcode != CONT):
            self._on_event(event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Status):
            self._on_status(event)
            return
        pipe = self._inbound.get(event.stream_id)
        if pipe is None:
            return  # for a channel that was not asked for
        if isinstance(event, Data):
            self._received[event.stream_id] += len(event.payload)
            pipe.feed(event.payload)
            self._touched.add(pipe)
            if self._hang_up and pipe.unwanted:
                self._watch_unwanted()
        else:
            del self._inbound[event.stream_id]
            if pipe not in self._inbound.values():  # merged, it ends with the last of its channels
                pipe.finish()

    def _on_status(self, status: Status) -> None:
        self._outbox.break_off(f"{self.where}: the process has ended")
        # Readers of what came before the Status first: who waits for it finds all of it.
        self.status.set(status)
        self._expect_end("the server did not close the connection after the Status")

    def _watch_unwanted(self) -> None:
        self._hang_up = True
        if any(pipe.unwanted for pipe in self.pipes.values()):
            self._begin_close()

    def _discard(self) -> None:
        # Also behind a Status: it is no end of what is dropped here.
        lost = ConnectionLost(
            f"{self.where}: connection lost: {CLOSED_HERE}, and not all of the output was read",
            received=self._counts(),
        )
        kept = self.succeeded()
        for pipe in self.pipes.values():
            # A child that reads from a descriptor gets all that a process left behind, as from any pipe.
            if not (kept and pipe.moved):
                pipe.discard(lost)
                pipe.wake()

    def _settle(self, lost: Exception) -> None:
        if self._looker is not None:
            self._looker.cancel()
        # What is gathered of a Status is one, unless it is itself what broke the rules.
        if not isinstance(lost.__cause__, RemoteProtocolError):
            for event in self._codec.receive_eof():
                if isinstance(event, Status):
                    self.status.set(event)
        self.status.set_exception(lost)
        clean = self.succeeded()
        for pipe in self.pipes.values():
            pipe.finish(None if clean else lost)

    def _after_end(self) -> None:
        if self.closed_here and not self.succeeded():
            self.bridges.close()
        self.bridges.serve()  # what is left, also behind the end

    def _settle_fork(self, lost: Exception, ended: bool) -> None:
        self.status._after_fork()
        for outcome in self._outcomes:
            outcome._after_fork()
            outcome.set_exception(lost)
        for pipe in self.pipes.values():
            pipe._after_fork(None if ended else lost)
        if not ended:
            self.status.set_exception(lost)

    def succeeded(self) -> bool:
        """Return whether a Status came; however the connection ended then, the streams end cleanly."""
        try:
            self.status.get(NEVER if self.status.done() else Deadline(0))
        except (KubewsError, TimeoutError):
            return False
        return True

    def _counts(self) -> dict[str, int]:
        return {self._codec.names[id_]: count for id_, count in self._received.items()}

    def _loss(self, reason: str, cause: Optional[BaseException]) -> ConnectionLost:
        received = self._counts()
        counts = ", ".join(f"{count} bytes of {name}" for name, count in received.items())
        lost = ConnectionLost(
            f"{self.where}: connection lost: {reason}; how the process ended is unknown "
            f"(subprotocol {self.subprotocol}, received {counts or 'nothing'})",
            received=received,
        )
        lost.__cause__ = cause
        return lost
