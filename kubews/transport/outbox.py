"""Frames on their way out: queued whole by any thread, sent by the loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from kubews.errors import StreamBroken
from kubews.transport.deadline import Deadline
from kubews.transport.wait import Expired, WaitQueue, must_not_wait, nothing, wait_for

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Small frames are joined up to this size for one call into the kernel.
_JOIN = 64 * 1024

# So few frames need no counting, and so many are too many whatever their size: counting stays short.
_FEW = 16
_MANY = 512

_MAX_CONTROL = 16

# Calls into the kernel in one turn of the loop.
_TURN = 32


class Unsent:
    """Bytes to send and how many of them are queued.

    ``offset`` moves in the same step that queues a frame, so a call that was interrupted can be made
    again and neither loses nor repeats a byte.

    Args:
        data: must not change until it is sent.

    Threads: one writer at a time.
    """

    __slots__ = ("offset", "view")

    def __init__(self, data: Buffer) -> None:
        self.view = memoryview(data).cast("B")
        self.offset = 0

    @property
    def done(self) -> bool:
        """Whether everything is queued."""
        return self.offset >= len(self.view)


class Outbox:
    """The frames that wait for the socket, and whether more may come.

    Args:
        limit: bytes above which writers wait.
        parking: called before a writer parks.
        sending: called by the loop when it turns to frames that are no control frames.

    Threads: ``put_control``, ``flush`` and ``take`` belong to the loop; everything else is for any thread.
    """

    def __init__(
        self,
        limit: int,
        parking: Callable[[], None],
        sending: Callable[[], None] = nothing,
    ) -> None:
        self._lock = threading.RLock()
        self._frames: deque[bytes] = deque()
        self._limit = limit
        self._parking = parking
        self._sending = sending
        #: Control frames: they pass the queue, though not what was begun.
        self.control: deque[bytes] = deque()
        self._latest = b""
        self._dropped = False
        self._broken: Optional[str] = None
        # The streams behind whose end nothing may come.
        self._ended: dict[int, bool] = {}
        #: What the loop is sending. Set by it, under the lock where it comes from the queue.
        self.head: Optional[memoryview] = None
        self.writers = WaitQueue()

    def put(
        self, stream_id: int, frame: bytes, deadline: Deadline, source: Unsent, offset: int
    ) -> None:
        """Queue a frame of a stream and move the offset of its source; wait while there is no room.

        The loop's own thread does not wait for what only it can make: a writer that the collector finalizes there
        goes over the limit.

        Raises:
            Expired: the deadline passed; nothing was queued.
            StreamBroken: nothing can be sent any more, or nothing of this stream.

        Threads: blocks.
        """

        def look() -> Optional[bool]:
            self.check()
            if stream_id in self._ended:
                raise StreamBroken("the stream was ended on this side")
            if not (self.has_room() or must_not_wait(deadline)):
                return None
            # Invariant: both or neither. No call stands between the two statements, and a signal
            # handler runs only at a call.
            self._frames += (frame,)
            source.offset = offset
            return True

        if wait_for(self, self.writers, look, deadline, self._parking) is None:
            raise Expired

    def put_last(self, stream_id: int, frame: bytes) -> None:
        """Queue the frame that ends a stream, once; whoever waits to queue more of it gives up.

        Raises:
            StreamBroken: nothing can be sent any more.
        """
        with self._lock:
            self.check()
            # Invariant: both or neither, as in ``put``.
            if stream_id not in self._ended:
                self._frames += (frame,)
                self._ended[stream_id] = True
        self.writers.wake_all()

    def put_more(self, frame: bytes) -> None:
        """Queue a frame whether there is room or not.

        Raises:
            StreamBroken: nothing can be sent any more.
        """
        with self._lock:
            self.check()
            self._frames.append(frame)

    def put_latest(self, frame: bytes) -> None:
        """Queue a frame of which only the newest counts, in the place of the one before if that still waits.

        Raises:
            StreamBroken: nothing can be sent any more.
        """
        with self._lock:
            self.check()
            # Invariant: of those that were put so, one waits at most. The queue is short, see ``has_room``.
            if self._latest in self._frames:
                self._frames[self._frames.index(self._latest)] = frame
            else:
                self._frames.append(frame)
            self._latest = frame

    def put_control(self, frame: bytes) -> None:
        """Queue a control frame: a few, for neither a flood of pings nor our own shall pile up."""
        if len(self.control) < _MAX_CONTROL and not self._dropped:
            self.control.append(frame)

    def break_off(self, reason: str, farewell: Optional[bytes] = None) -> None:
        """Refuse further frames; the first reason counts.

        Args:
            reason: the message of ``StreamBroken``.
            farewell: a frame to go out behind what is queued.
        """
        with self._lock:
            if self._broken is None:
                self._broken = reason
            if farewell is not None and not self._dropped:
                self._frames.append(farewell)
        self.writers.wake_all()

    def drop(self) -> None:
        """Forget what is queued: the connection is gone."""
        with self._lock:
            self._dropped = True
            self._frames.clear()
            self.control.clear()
            self.head = None
        self.writers.wake_all()

    def flush(self, send: Callable[[memoryview], int]) -> bool:
        """Send what there is, but not for ever.

        Args:
            send: returns how many bytes it took; what it raises leaves the frames as they were, so that
                the next try begins with the same bytes.

        Returns:
            Whether something is left though ``send`` would take more.
        """
        for _ in range(_TURN):
            if self.head is None and not self._next():
                return False
            assert self.head is not None
            sent = send(self.head)
            self.head = self.head[sent:] if sent < len(self.head) else None
            if self.head is None:
                self.writers.wake_all()
        return True

    def _next(self) -> bool:
        if self.control:
            self.head = memoryview(self.control.popleft())
            return True
        if self.take():
            self._sending()
            return True
        return False

    def take(self) -> bool:
        """Make the next frames the head; return whether there are any."""
        with self._lock:
            if not self._frames:
                return False
            taken = [self._frames.popleft()]
            size = len(taken[0])
            while self._frames and size + len(self._frames[0]) <= _JOIN:
                size += len(self._frames[0])
                taken.append(self._frames.popleft())
            # Invariant: a frame is in the queue or in the head, never in neither.
            self.head = memoryview(taken[0] if len(taken) == 1 else b"".join(taken))
            return True

    def __bool__(self) -> bool:
        return bool(self._frames) or self.head is not None

    def check(self) -> None:
        """Raise StreamBroken if nothing can be sent any more."""
        if self._broken is not None:
            raise StreamBroken(self._broken)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self.writers.wake_all()

    def has_room(self) -> bool:
        """Return whether a frame would be taken."""
        with self._lock:
            count = len(self._frames)
            return count < _FEW or (count < _MANY and sum(map(len, self._frames)) < self._limit)
