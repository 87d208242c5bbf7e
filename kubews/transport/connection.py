"""One WebSocket with its channels: a Wire, a codec and Pipes, driven by a Loop.

The loop's thread is the only one that touches the socket. Callers queue whole frames and take bytes out
of pipes; what they change they tell the loop about, and only if it waits for it.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Mapping
from typing import Any, Optional

from kubews.errors import (
    ConnectionLost,
    HalfCloseUnsupported,
    KubewsError,
    LocalProtocolError,
    RemoteProtocolError,
)
from kubews.protocol.codec import Codec
from kubews.protocol.events import Data, Event, Status
from kubews.transport import forks, live
from kubews.transport.backpressure import DEFAULT_LIMITS, Backpressure, Limits
from kubews.transport.bridges import Bridges
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.heartbeat import DEAD_AFTER, Heartbeat
from kubews.transport.loop import Loop, Timer
from kubews.transport.outbox import Outbox, Unsent
from kubews.transport.pipe import Pipe
from kubews.transport.wait import Outcome
from kubews.transport.wire import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    Frame,
    Wire,
    WouldBlock,
    frame,
)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

# Frames handled before readers are woken and posts are looked at. Waking for each frame costs twice the
# time of a bare loop; too large a batch lets a pipe overshoot its limit.
_BATCH = 32

# After the Status all output is delivered or on the way; this is how long "on the way" may take.
_GRACE = 2.0

# A thread that ends tells nobody, so who waits for it to read looks again after so many seconds.
_LOOK_AGAIN = 0.5

_CLOSED_HERE = "the connection was closed on this side"
_INHERITED = "this process is a fork, and the connection is its parent's"

_NORMAL_CLOSURE = (1000).to_bytes(2, "big")


class Connection:
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
        self._wire = wire
        self._codec = codec
        self._loop = loop
        self.where = where
        self.subprotocol = codec.subprotocol
        # All pipes exist before the first byte is read, or early output would be lost.
        self.pipes = {
            stream_id: Pipe(limit=limits.inbound, changed=self._changed)
            for stream_id in inbound.values()
        }
        self._inbound = {source: self.pipes[target] for source, target in inbound.items()}
        self._received = dict.fromkeys(inbound, 0)
        self.status: Outcome[Status] = Outcome(self._changed)
        self.closed: Outcome[None] = Outcome()

        #: Whether it is the parent's, and this process a fork: then everything here is dead.
        self.inherited = False
        self._outcomes: list[Outcome[None]] = [self.closed]
        self._on_closed: list[Callable[[], None]] = []
        self.bridges = Bridges(loop, where, self._stop_if_done)
        self._heartbeat = Heartbeat()
        self._outbox = Outbox(limits.outbound, self._changed, self._heartbeat.sending)
        self._waiting = [self.status.waiters, self._outbox.writers]
        self._backpressure = Backpressure(self.pipes, codec.names, self._waiting, limits, where)

        # The loop's own, except that others look at _paused and _flush_posted.
        self._paused = False
        self._flush_posted = False
        self._read_posted = False
        self._interest = 0
        self._read_needs = READ
        self._closing = False
        self._hang_up = False
        #: Whether this side has ended it, by ``close``, ``abort`` or for output that nobody wants.
        self.closed_here = False
        self._over = False
        self._grace: Optional[Timer] = None
        self._ping_interval = ping
        self._pinger: Optional[Timer] = None
        self._looker: Optional[Timer] = None
        live.add(self)
        forks.tell(self)
        loop.call_soon(self._start)

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

    def close(self, timeout: Optional[float] = 1.0) -> None:
        """Send what is queued, say goodbye, and close; cut the connection if that takes too long.

        Closing does not end the remote process. Everybody who waits on this connection is woken.

        Args:
            timeout: seconds for the goodbye.

        Threads: blocks up to ``timeout``; may be called from several, and again.
        """
        if self._loop.is_current():
            raise RuntimeError("the loop's thread cannot wait for itself")
        self._loop.call_soon(self._begin_close)
        try:
            self.closed.get(Deadline(timeout))
        except TimeoutError:
            self.abort()
        self._loop.join(1.0)

    def outcome(self) -> Outcome[None]:
        """Make an outcome for which this connection reads on, as for the Status, while somebody waits.

        Threads: any; before the wait.
        """
        outcome: Outcome[None] = Outcome(self._changed)
        self._waiting.append(outcome.waiters)
        self._outcomes.append(outcome)
        return outcome

    def has_room(self) -> bool:
        """Return whether a ``send`` would not wait.

        Raises:
            StreamBroken: the process or the connection has ended.

        Threads: the loop's.
        """
        self._outbox.check()
        return self._outbox.has_room()

    def hang_up_when_unwanted(self) -> None:
        """From now on, close as soon as output comes that its reader has closed the door to.

        Threads: any; does not block.
        """
        self._loop.call_soon(self._watch_unwanted)

    def on_closed(self, function: Callable[[], None]) -> None:
        """Call a function that does not block once the connection is closed, at once if it is.

        Threads: any; the function runs in the loop's thread or in this one.
        """
        self._on_closed.append(function)
        if self.closed.done():
            self._tell_closed()

    def abort(self, reason: str = _CLOSED_HERE) -> None:
        """Cut the connection now; everybody who waits is woken.

        Threads: any, finalizers too; does not block.
        """
        self._loop.call_soon(self._finish, reason)

    # -- telling the loop

    def _queue(self, put: Callable[..., None], *args: Any) -> None:
        # Ctrl-C may come between the two, or when the second is entered: a frame that is queued must not
        # be left lying. A post too many does nothing.
        try:
            put(*args)
        finally:
            try:
                self._post_flush()
            except BaseException:
                self._post_flush()
                raise

    def _post_flush(self) -> None:
        # The loop clears the flag before it looks at the queue: one of the two sees the other.
        if not self._flush_posted:
            self._flush_posted = True
            try:
                self._loop.call_soon(self._flush_post)
            except BaseException:  # Ctrl-C: better two posts than none
                self._flush_posted = False
                raise

    def _changed(self) -> None:
        """A pipe was drained, or somebody parks: the loop may have a reason to read again."""
        if not self._paused:
            return
        if self._backpressure.may_read(resuming=True):
            self._loop.call_soon(self._resume)
        elif self._backpressure.starving():
            self._loop.call_soon(self._look_again)

    def join(self, deadline: Deadline) -> None:
        """Wait for the loop's thread.

        Threads: blocks.
        """
        self._loop.join(deadline.remaining())

    # -- the loop's thread

    def _start(self) -> None:
        self._loop.on_end(self._loop_ended)
        if self._over:
            return
        self._arm_ping()
        self._advance(READ)

    def _loop_ended(self, exc: Optional[BaseException]) -> None:
        self._finish("the loop's thread failed" if exc else "the loop was stopped", exc)
        self.bridges.close()

    def _stop_if_done(self) -> None:
        if self._over and not self.bridges:
            self._loop.stop()

    def _on_ready(self, events: int) -> None:
        self._advance(events)

    def _resume(self) -> None:
        if self._paused and not self._over:
            self._advance(READ)

    def _flush_post(self) -> None:
        self._flush_posted = False
        if not self._over:
            self._advance(0)

    def _advance(self, events: int) -> None:
        """Do all that can be done without waiting; then tell the selector what to wait for."""
        resuming = self._paused
        may_read = self._backpressure.may_read(resuming)
        more = not may_read
        try:
            # What a pause left behind is read ahead or inside TLS, where no selector sees it.
            if may_read and (resuming or events & self._read_needs):
                more = self._read()
            blocked = self._flush() if not self._over else 0
        except (EOFError, OSError, KubewsError) as exc:
            self._finish(str(exc) or type(exc).__name__, exc)
            return
        if self._over:
            return
        self.bridges.serve()
        # Published before the last look; a consumer changes its pipe before it looks at the flag.
        self._paused = True
        if self._backpressure.may_read(resuming and not may_read):
            self._paused = False
            self._watch(self._read_needs | blocked)
            if more and not self._read_posted:
                self._read_posted = True
                self._loop.call_soon(self._read_on)
        else:
            self._watch(blocked)
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

    def _read_on(self) -> None:
        self._read_posted = False
        if not self._over:
            self._advance(self._read_needs)

    def _watch(self, interest: int) -> None:
        if interest != self._interest:
            self._loop.register(self._wire, interest, self._on_ready)
            self._interest = interest

    # reading

    def _read(self) -> bool:
        """Handle one batch of frames; return whether there may be more without waiting."""
        touched: set[Pipe] = set()
        self._read_needs = READ
        try:
            for _ in range(_BATCH):
                self._on_frame(self._wire.receive(), touched)
                if self._over:
                    return False
            return True
        except WouldBlock as exc:
            self._read_needs = exc.events
            return False
        finally:
            # Also where nothing came: a batch is tried when the socket is readable, or when this side
            # resumes, and then the silence was its own.
            self._heartbeat.alive()
            for pipe in touched:
                pipe.wake()

    def _on_frame(self, received: Frame, touched: set[Pipe]) -> None:
        if received.opcode in (BINARY, TEXT, CONT):
            start = received.opcode != CONT
            for event in self._codec.receive(received.payload, start=start):
                self._on_event(event, touched)
        elif received.opcode == PING:
            self._outbox.put_control(frame(received.payload, PONG))
        elif received.opcode == PONG:
            self._heartbeat.pong(received.payload)
        else:  # CLOSE: the wire lets no other through
            self._on_close(received.payload)

    def _on_event(self, event: Event, touched: set[Pipe]) -> None:
        if isinstance(event, Status):
            self._on_status(event)
            return
        pipe = self._inbound.get(event.stream_id)
        if pipe is None:
            return  # for a channel that was not asked for
        if isinstance(event, Data):
            self._received[event.stream_id] += len(event.payload)
            pipe.feed(event.payload)
            touched.add(pipe)
            if self._hang_up and pipe.unwanted:
                self._watch_unwanted()
        else:
            pipe.finish()

    def _on_status(self, status: Status) -> None:
        self._outbox.break_off(f"{self.where}: the process has ended")
        # Readers of what came before the Status first: who waits for it finds all of it.
        self.status.set(status)
        self._expect_end("the server did not close the connection after the Status")

    def _expect_end(self, reason: str) -> None:
        """Give the server some time to end the connection, then end it here."""

        received = sum(self._received.values())

        def over() -> None:
            # What still comes is on the way, and what is not taken here may be: only silence is an end.
            if self._paused or received != sum(self._received.values()):
                self._expect_end(reason)
            else:
                self._finish(reason)

        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._loop.call_later(_GRACE, over)

    def _on_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
        if not self._closing:
            self._outbox.put_control(frame(payload[:2], CLOSE))
            self._flush()  # the server does not wait for it, so neither does this side
        reason = f"the server closed the WebSocket (code {code or 'none'}) before any Status"
        self._finish(_CLOSED_HERE if self._closing else reason)

    # writing

    def _flush(self) -> int:
        """Send what is queued; return the events to wait for, 0 if all is sent."""
        try:
            # Writers who are as fast as the peer shall not keep the loop for themselves.
            return WRITE if self._outbox.flush(self._wire.send) else 0
        except WouldBlock as exc:
            return exc.events
        except OSError as exc:
            # A server closes with our bytes unread when the process has ended, and what it sent before,
            # the Status above all, may still be waiting here. So only writing ends; reading will tell.
            self._outbox.break_off(f"{self.where}: {exc}")
            self._outbox.drop()
            self._expect_end(f"the server takes no more: {exc}")
            return 0

    # liveness

    def _arm_ping(self) -> None:
        if self._ping_interval is not None:
            self._pinger = self._loop.call_later(self._ping_interval, self._ping)

    def _ping(self) -> None:
        if self._paused or self._outbox:
            self._heartbeat.alive()
        elif self._heartbeat.dead:
            self._finish(f"no sign of life from the server for {DEAD_AFTER:.0f} s")
            return
        self._outbox.put_control(frame(self._heartbeat.ping(), PING))
        self._arm_ping()
        self._advance(0)

    # the end

    def _watch_unwanted(self) -> None:
        self._hang_up = True
        if any(pipe.unwanted for pipe in self.pipes.values()):
            self._begin_close()

    def _begin_close(self) -> None:
        if self._over or self._closing:
            return
        self._closing = True
        self._outbox.break_off(f"{self.where}: {_CLOSED_HERE}", frame(_NORMAL_CLOSURE, CLOSE))
        for pipe in self.pipes.values():
            pipe.discard()
        self._advance(READ)

    def _finish(self, reason: str, cause: Optional[BaseException] = None) -> None:
        """End everything, once: the only way to the closed state."""
        if self._over:
            return
        self._over = True
        self.closed_here = self._closing or reason == _CLOSED_HERE
        for timer in (self._pinger, self._grace, self._looker):
            if timer is not None:
                timer.cancel()
        self._watch(0)
        self._wire.close()
        # What is gathered of a Status is one, unless it is itself what broke the rules.
        if not isinstance(cause, RemoteProtocolError):
            for event in self._codec.receive_eof():
                if isinstance(event, Status):
                    self.status.set(event)
        lost = self._loss(reason, cause)
        self._outbox.break_off(str(lost))
        self._outbox.drop()
        self.status.set_exception(lost)
        clean = self.succeeded()
        for pipe in self.pipes.values():
            pipe.finish(None if clean else lost)
        live.remove(self)
        self.closed.set(None)
        self._tell_closed()
        if self.closed_here:
            self.bridges.close()
        self.bridges.serve()  # what is left, also behind the end
        self._stop_if_done()

    def _tell_closed(self) -> None:
        # By the loop and by who comes late: each function goes to one of them.
        while self._on_closed:
            try:
                function = self._on_closed.pop()
            except IndexError:
                return
            function()

    def lost_by_fork(self) -> ConnectionLost:
        """Make the exception for those who use the parent's connection."""
        return self._loss(_INHERITED, None)

    def _after_fork(self) -> None:
        self.status._after_fork()
        for outcome in self._outcomes:
            outcome._after_fork()
        self._outbox._after_fork()
        lost = self.lost_by_fork()
        # One that had ended is memory only, and as good here as there; but not what threads do with it.
        ended = self.closed.done()
        self.closed.set(None)
        for outcome in self._outcomes:
            outcome.set_exception(lost)
        for pipe in self.pipes.values():
            pipe._after_fork(None if ended else lost)
        if ended:
            return
        self.inherited = self._over = True
        self._paused = False
        self._on_closed.clear()  # what they would tell has gone with its thread
        self._wire.close()
        live.remove(self)
        self._outbox.break_off(str(lost))
        self._outbox.drop()
        self.status.set_exception(lost)

    def succeeded(self) -> bool:
        """Return whether a Status came; however the connection ended then, the streams end cleanly."""
        try:
            self.status.get(NEVER if self.status.done() else Deadline(0))
        except (KubewsError, TimeoutError):
            return False
        return True

    def _loss(self, reason: str, cause: Optional[BaseException]) -> ConnectionLost:
        received = {self._codec.names[id_]: count for id_, count in self._received.items()}
        counts = ", ".join(f"{count} bytes of {name}" for name, count in received.items())
        lost = ConnectionLost(
            f"{self.where}: connection lost: {reason}; how the process ended is unknown "
            f"(subprotocol {self.subprotocol}, received {counts or 'nothing'})",
            received=received,
        )
        lost.__cause__ = cause
        return lost
