"""One WebSocket on a loop: frames in and out, pings, the goodbye. What the frames mean is for who inherits."""

from __future__ import annotations

import functools
import selectors
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Optional

from kubews.errors import KubewsError
from kubews.transport import forks, live
from kubews.transport.deadline import Deadline
from kubews.transport.heartbeat import DEAD_AFTER, Heartbeat
from kubews.transport.loop import Loop, Timer
from kubews.transport.outbox import Outbox
from kubews.transport.wait import Expired, Outcome, nothing
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

# After the last word all that was sent is delivered or on the way; how long "on the way" may take.
_GRACE = 2.0

CLOSED_HERE = "the connection was closed on this side"
#: Why nothing works in a fork.
INHERITED = "this process is a fork, and the connection is its parent's"

NORMAL_CLOSURE = (1000).to_bytes(2, "big")


class Link(ABC):
    """A live WebSocket, driven by a loop whose thread is the only one that touches the socket.

    Others queue whole frames, and tell the loop only if it waits for it.

    Args:
        wire: after the upgrade; from now on the loop's.
        loop: may serve more than this.
        where: what it is to, for messages (``pod shop/web-0``).
        outbound: bytes that are queued before writers wait.
        ping: seconds between pings, None for none.
        parking: called before a writer parks.

    Threads: any. ``close`` blocks, ``abort`` does not.
    """

    def __init__(
        self,
        wire: Wire,
        loop: Loop,
        *,
        where: str,
        outbound: int,
        ping: Optional[float],
        parking: Callable[[], None] = nothing,
    ) -> None:
        self._wire = wire
        self._loop = loop
        self.where = where
        self.closed: Outcome[None] = Outcome()
        #: Whether it is the parent's, and this process a fork: then everything here is dead.
        self.inherited = False
        #: Whether this side has ended it, by ``close``, ``abort`` or for output that nobody wants.
        self.closed_here = False
        #: The code of the Close with which the peer has ended it, None without one.
        self.close_code: Optional[int] = None
        self._on_closed: list[Callable[[], None]] = []
        self._heartbeat = Heartbeat()
        self._outbox = Outbox(outbound, parking, self._heartbeat.sending)

        # The loop's own, except that others look at _paused and _flush_posted.
        self._paused = False
        self._flush_posted = False
        self._read_posted = False
        self._interest = 0
        self._read_needs = READ
        self._closing = False
        self._over = False
        self._arrived = 0
        self._grace: Optional[Timer] = None
        self._ping_interval = ping
        self._pinger: Optional[Timer] = None

    def _begin(self) -> None:
        """Start, as the last step of the constructor."""
        live.add(self)
        forks.tell(self)
        self._loop.call_soon(self._start)

    # -- what it means, for who inherits; in the loop's thread

    @abstractmethod
    def _may_read(self, resuming: bool) -> bool:
        """Decide whether to take more from the peer."""

    @abstractmethod
    def _on_data(self, received: Frame) -> None:
        """Take a frame of data."""

    def _after_batch(self) -> None:
        """Wake those for whom frames have come."""

    def _ping_to_send(self) -> bytes:
        """Make the frame that asks for a sign of life."""
        return frame(self._heartbeat.ping(), PING)

    def _serve(self) -> None:
        """Move on what else there is, now that there may be more to move, or more room."""

    def _held_up(self) -> None:
        """Note that nothing is read for now."""

    def _discard(self) -> None:
        """Forget what nobody will read, since this side closes."""

    @abstractmethod
    def _loss(self, reason: str, cause: Optional[BaseException]) -> Exception:
        """Make the exception for those who still wait when the connection has ended."""

    @abstractmethod
    def _settle(self, lost: Exception) -> None:
        """Tell them, once the socket is closed."""

    @abstractmethod
    def _settle_fork(self, lost: Exception, ended: bool) -> None:
        """Tell those who use it in a fork, where no loop runs; ``ended`` if it had ended before."""

    def _has_more_to_serve(self) -> bool:
        """Return whether the loop goes on behind the end."""
        return False

    @abstractmethod
    def _stop_if_done(self) -> None:
        """Stop the loop, if it has nothing else to serve."""

    # -- for any thread

    def has_room(self) -> bool:
        """Return whether a frame would be queued without a wait.

        Raises:
            StreamBroken: nothing can be sent any more.

        Threads: the loop's.
        """
        self._outbox.check()
        return self._outbox.has_room()

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
        except Expired:
            self.abort()
        if not self._has_more_to_serve():
            self._loop.join(1.0)

    def on_closed(self, function: Callable[[], None]) -> None:
        """Call a function that does not block once the connection is closed, at once if it is.

        Threads: any; the function runs in the loop's thread or in this one.
        """
        self._on_closed.append(function)
        if self.closed.done():
            self._tell_closed()

    def abort(self, reason: str = CLOSED_HERE) -> None:
        """Cut the connection now; everybody who waits is woken.

        Threads: any, finalizers too; does not block.
        """
        self._loop.call_soon(self._finish, reason)

    def join(self, deadline: Deadline) -> None:
        """Wait for the loop's thread.

        Threads: blocks.
        """
        self._loop.join(deadline.remaining())

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

    # -- the loop's thread

    def _start(self) -> None:
        self._loop.on_end(self._loop_ended)
        if self._over:
            return
        self._arm_ping()
        self._advance(READ)

    def _loop_ended(self, exc: Optional[BaseException]) -> None:
        self._finish("the loop's thread failed" if exc else "the loop was stopped", exc)

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
        may_read = self._may_read(resuming)
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
        self._serve()
        # Published before the last look; a consumer changes its pipe before it looks at the flag.
        self._paused = True
        if self._may_read(resuming and not may_read):
            self._paused = False
            self._watch(self._read_needs | blocked)
            if more and not self._read_posted:
                self._read_posted = True
                self._loop.call_soon(self._read_on)
        else:
            self._watch(blocked)
            self._held_up()

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
        self._read_needs = READ
        try:
            for _ in range(_BATCH):
                self._on_frame(self._wire.receive())
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
            self._after_batch()

    def _on_frame(self, received: Frame) -> None:
        if received.opcode in (BINARY, TEXT, CONT):
            self._arrived += 1
            self._on_data(received)
        elif received.opcode == PING:
            self._outbox.put_control(frame(received.payload, PONG))
        elif received.opcode == PONG:
            self._heartbeat.pong(received.payload)
        else:  # CLOSE: the wire lets no other through
            self._on_close(received.payload)

    def _on_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
        self.close_code = code
        if not self._closing:
            self._outbox.put_control(frame(payload[:2], CLOSE))
            self._flush()  # the server does not wait for it, so neither does this side
        reason = f"the server closed the WebSocket (code {code or 'none'})"
        self._finish(CLOSED_HERE if self._closing else reason)

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
            due = time.monotonic() + 2 * self._ping_interval
            ping = functools.partial(self._ping, self._ping_interval, due)
            self._pinger = self._loop.call_later(self._ping_interval, ping)

    def _ping(self, interval: float, due: float) -> None:
        # So late only if this process was stopped (Ctrl-Z): then the peer has not even been asked.
        if self._paused or self._outbox or time.monotonic() > due:
            self._heartbeat.alive()
        elif self._heartbeat.dead:
            self._finish(f"no sign of life from the server for {DEAD_AFTER:.0f} s")
            return
        # Only into silence. A server has closed its side when the process has ended, and whatever reaches
        # it then is answered with a reset, or makes a proxy give up: what is still on its way here, or
        # waits to be taken, would be lost (apimachinery ``upgradeaware.go: tryUpgrade``, x/net ``Conn.Close``).
        # Behind input a moment of silence will do, between two screens of ``top``.
        if self._heartbeat.silent(interval / (50 if self._heartbeat.owes else 2)):
            self._outbox.put_control(self._ping_to_send())
        self._arm_ping()
        self._advance(0)

    # the end

    def _expect_end(self, reason: str) -> None:
        """Give the server some time to end the connection, then end it here."""
        arrived = self._arrived

        def over() -> None:
            # What still comes is on the way, and what is not taken here may be: only silence is an end.
            if self._paused or arrived != self._arrived:
                self._expect_end(reason)
            else:
                self._finish(reason)

        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._loop.call_later(_GRACE, over)

    def _begin_close(self) -> None:
        if self._over or self._closing:
            return
        self._closing = True
        self._outbox.break_off(f"{self.where}: {CLOSED_HERE}", frame(NORMAL_CLOSURE, CLOSE))
        self._discard()
        self._advance(READ)

    def _finish(self, reason: str, cause: Optional[BaseException] = None) -> None:
        """End everything, once: the only way to the closed state."""
        if self._over:
            return
        self._over = True
        self.closed_here = self._closing or reason == CLOSED_HERE
        for timer in (self._pinger, self._grace):
            if timer is not None:
                timer.cancel()
        self._watch(0)
        self._wire.close()
        lost = self._loss(reason, cause)
        self._outbox.break_off(str(lost))
        self._outbox.drop()
        self._settle(lost)
        live.remove(self)
        self.closed.set(None)
        self._tell_closed()
        self._after_end()
        self._stop_if_done()

    def _after_end(self) -> None:
        """Move on what is left, once everybody knows of the end."""

    def _tell_closed(self) -> None:
        # By the loop and by who comes late: each function goes to one of them.
        while self._on_closed:
            try:
                function = self._on_closed.pop()
            except IndexError:
                return
            function()

    def lost_by_fork(self) -> Exception:
        """Make the exception for those who use the parent's connection."""
        return self._loss(INHERITED, None)

    def _after_fork(self) -> None:
        self.closed._after_fork()
        self._outbox._after_fork()
        lost = self.lost_by_fork()
        # One that had ended is memory only, and as good here as there; but not what threads do with it.
        ended = self.closed.done()
        self._settle_fork(lost, ended)
        if ended:
            return
        self.inherited = self._over = True
        self._paused = False
        self._on_closed.clear()  # what they would tell has gone with its thread
        self._wire.close()
        live.remove(self)
        self._outbox.break_off(str(lost))
        self._outbox.drop()
        self.closed.set(None)  # last: what Ctrl-C has stopped is done again, as a whole
