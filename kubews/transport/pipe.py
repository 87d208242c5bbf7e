"""One direction of one channel: a bounded, thread-safe run of bytes with an end."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Optional, Union

from kubews.transport.deadline import Deadline
from kubews.transport.wait import Expired, WaitQueue, fresh, nothing, wait_for

#: Bytes that a channel holds before its sender is stopped.
DEFAULT_LIMIT = 4 << 20

# Chunks below _SMALL are merged into a tail of at most _TAIL bytes: one-byte frames would otherwise
# cost some 350 bytes of memory each.
_SMALL = 2048
_TAIL = 16384

# As many chunks are taken at once: the lock is held meanwhile.
_MOST = 64

# A reader of lines peeks for each of them, and a frame of a v4 server has no largest size.
_PEEK = 65536


class Moved(Exception):
    """The bytes of a pipe come out of a descriptor now: what its readers get instead of them.

    Threads: a value.
    """


_Chunk = Union[memoryview, bytearray]
#: What ``Pipe.take`` has taken, in pieces.
Taken = list[_Chunk]


class Pipe:
    """Bytes from the loop to whoever reads.

    Args:
        limit: bytes at which the loop stops reading; None for no limit.
        changed: called without the lock when a reader parks or has taken something.

    Threads: ``feed``, ``wake`` and ``finish`` belong to the loop and never block; everything else is
    for any thread. Concurrent readers divide the bytes between them.
    """

    def __init__(
        self, *, limit: Optional[int] = DEFAULT_LIMIT, changed: Callable[[], None] = nothing
    ) -> None:
        self._lock = threading.RLock()
        self._chunks: deque[_Chunk] = deque()
        # Every byte ever put in and taken out: the loop looks at the size for each batch, and there may be
        # 100 000 chunks to count.
        self._fed = 0
        self._taken = 0
        self._changed = changed
        self._ended = False
        self._exc: Optional[Exception] = None
        self._discard = False
        self._lost: Optional[Exception] = None
        self._closed = False
        self.limit = limit
        self.readers = WaitQueue()
        # Not kept alive: it may own what owns this.
        self._owner: Callable[[], Optional[threading.Thread]] = lambda: None
        self._when = 0.0
        #: Whether a descriptor stands for it, of which others may have copies. Then readers get ``Moved``.
        self.moved = False
        #: Whether bytes came after the reader had closed.
        self.unwanted = False

    # -- the loop's side

    def feed(self, chunk: memoryview) -> None:
        """Append bytes; an empty chunk is nothing, not an end. Readers sleep until ``wake``."""
        with self._lock:
            if not chunk:
                return
            if self._discard:
                self.unwanted = self._closed
                self._rob()
                return
            self._fed += len(chunk)
            tail = self._chunks[-1] if self._chunks else None
            if len(chunk) >= _SMALL:
                self._chunks.append(chunk)
            elif not (isinstance(tail, bytearray) and len(tail) < _TAIL and _appended(tail, chunk)):
                self._chunks.append(bytearray(chunk))

    def wake(self) -> None:
        """Wake the readers: once for a batch of frames, since each wake-up costs as much as a frame."""
        self.readers.wake_all()

    def finish(self, exc: Optional[Exception] = None) -> None:
        """End the bytes.

        Args:
            exc: raised to readers once the buffered bytes are read; None for a clean end.
        """
        with self._lock:
            # Invariant: the first end counts.
            if not self._ended:
                self._exc = exc
                self._ended = True
        self.readers.wake_all()

    @property
    def size(self) -> int:
        """The number of buffered bytes."""
        with self._lock:
            return self._fed - self._taken

    def has_room(self, resuming: bool) -> bool:
        """Return whether the sender may go on.

        Args:
            resuming: whether it was stopped; then half of the limit must be free, or it would be
                woken for every read.
        """
        limit = self.limit  # once: ``unlimit`` may come from another thread at any moment
        if limit is None:
            return True
        return self.size <= limit // 2 if resuming else self.size < limit

    @property
    def starving(self) -> bool:
        """Whether somebody is parked on an empty pipe who is not patient."""
        return not self._chunks and not self._ended and bool(self.readers.starving())

    # -- the reader's side

    @property
    def ended(self) -> bool:
        """Whether nothing more will come; bytes may still be buffered."""
        return self._ended

    @property
    def owner(self) -> Optional[threading.Thread]:
        """The thread that last took something."""
        return self._owner()

    @property
    def idle(self) -> float:
        """For how many seconds the owner has taken nothing."""
        return time.monotonic() - self._when

    @property
    def error(self) -> Optional[Exception]:
        """The exception that ended the bytes, if one did."""
        return self._exc

    def take(self, size: int, deadline: Deadline, taken: Optional[Taken] = None) -> bytes:
        """Take at least one byte, at most ``size``; ``b""`` only at the end (or for size 0).

        Args:
            size: bytes.
            deadline: when to give up.
            taken: an empty list, which then holds the pieces of what is returned. Up to Python 3.10 signals
                are handled also behind a call: whom Ctrl-C stops there finds in it what has to be put back.

        Raises:
            Expired: nothing came in time; nothing was taken.
            ConnectionLost: the bytes ended so; every further call raises it again.

        Threads: blocks.
        """
        if size <= 0:
            return b""
        taken = [] if taken is None else taken
        try:
            self._wait_take(size, deadline, taken)
            return b"".join(taken)
        except BaseException:  # Ctrl-C on the way out
            self.put_back(taken)
            raise

    def readinto(self, b: memoryview, deadline: Deadline, taken: Optional[Taken] = None) -> int:
        """Take at least one byte, at most ``len(b)``.

        Args:
            b: writable, of bytes.
            deadline: when to give up.
            taken: as for ``take``.

        Returns:
            The number of bytes, 0 only at the end (or if ``b`` is empty).

        Raises:
            Expired: nothing came in time; nothing was taken.
            ConnectionLost: the bytes ended so; every further call raises it again.

        Threads: blocks.
        """
        if not b:
            return 0
        taken = [] if taken is None else taken
        try:
            self._wait_take(len(b), deadline, taken)
            end = 0
            for piece in taken:
                start, end = end, end + len(piece)
                b[start:end] = piece
        except BaseException:  # Ctrl-C on the way out
            self.put_back(taken)
            raise
        return end

    def peek(self, deadline: Deadline) -> bytes:
        """Return buffered bytes without taking them; wait while there are none.

        Returns:
            At least one byte, or ``b""`` at the end; not always all of them.

        Raises:
            Expired: nothing came in time.

        Threads: blocks.
        """
        found = wait_for(self, self.readers, self._peek, deadline, self._changed)
        if found is None:
            raise Expired
        return found

    def wait_data(self, deadline: Deadline) -> bool:
        """Wait until there are bytes, or none will come; return whether so.

        Raises:
            ConnectionLost: the bytes ended so.

        Threads: blocks.
        """
        return wait_for(self, self.readers, self._has_data, deadline, self._changed) is not None

    def at_end(self) -> bool:
        """Return whether all was taken and nothing more will come.

        Raises:
            ConnectionLost: the bytes ended so.
        """
        with self._lock:
            return not self._chunks and self._end() is not None

    def wait_end(self, deadline: Deadline) -> bool:
        """Wait until nothing more will come; return whether that is so.

        Threads: blocks.
        """
        ended = wait_for(self, self.readers, lambda: self._ended or None, deadline, self._changed)
        return ended is not None

    def unlimit(self) -> None:
        """Let everything come: somebody collects it."""
        self.limit = None
        self._changed()

    def buffered(self) -> bytes:
        """Return a copy of all buffered bytes without taking them."""
        with self._lock:
            return b"".join(self._chunks)

    def take_all(self, taken: Optional[list[bytes]] = None) -> bytes:
        """Take all buffered bytes.

        Args:
            taken: a list to which they are appended: whom Ctrl-C stops finds in it what has to be put back.

        Raises:
            Moved: they come out of a descriptor now.
        """
        taken = [] if taken is None else taken
        count = len(taken)
        with self._lock:
            self._check_here()
            while len(taken) == count:
                before = self._taken
                data, after = [b"".join(self._chunks)], self._fed
                chunks: deque[_Chunk] = deque()
                # Invariant: no call from here on, as in _commit.
                if self._taken == before:
                    self._chunks = chunks
                    self._taken = after
                    taken += data
        self._changed()
        return taken[-1]

    def put_back(self, pieces: Union[list[bytes], Taken]) -> None:
        """Undo a take: put bytes in front of what is buffered. Nothing is copied.

        Args:
            pieces: what was taken; empty once it is back, so that whom Ctrl-C stops may call again with it.
        """
        views = [memoryview(piece) for piece in pieces if piece]
        size = sum(map(len, views))
        while pieces:
            with self._lock:
                if self._discard:
                    break
                before = self._taken
                chunks: deque[_Chunk] = deque((*views, *self._chunks))
                after = before - size
                # Invariant: no call from here on, as in _commit.
                if self._taken == before:
                    self._chunks = chunks
                    self._taken = after
                    del pieces[:]
        self.readers.wake_all()

    def discard(self, lost: Optional[Exception] = None) -> None:
        """Drop what is buffered and whatever comes: the reader is gone.

        Args:
            lost: for one who may not be: how the bytes end if any are dropped, however they ended before.
        """
        with self._lock:
            if not self._discard:
                self._lost = lost
            if self._chunks:
                self._rob()
            self._discard = True
            chunks: deque[_Chunk] = deque()
            # Invariant: no call between the two, as in _commit.
            self._chunks = chunks
            self._taken = self._fed
        self._changed()

    def _rob(self) -> None:
        # A reader in the middle must not take what is left for all there was.
        if self._lost is not None and not self._closed:
            self._ended, self._exc = True, self._lost

    def close(self) -> None:
        """Discard, and turn away those who read: ValueError, as for any closed file."""
        self._closed = True
        self.discard()
        self.readers.wake_all()

    def _after_fork(self, lost: Optional[Exception]) -> None:
        self._lock = threading.RLock()
        if lost is not None:
            # What is buffered is the parent's to read.
            self._chunks = deque()
            self._taken = self._fed
            self._ended, self._exc = True, lost
        self.readers.wake_all()  # the frame below may wait, if a signal handler forks

    def _wait_take(self, size: int, deadline: Deadline, taken: Taken) -> None:
        """Wait for bytes and take them. They are copied by the caller, without the lock."""
        found = wait_for(
            self, self.readers, lambda: self._take_here(size, taken), deadline, self._changed
        )
        if found is None:
            raise Expired
        self._changed()

    def take_for_descriptor(self, size: int) -> bytes:
        """Take what is there, at most ``size`` bytes; ``b""`` if there is nothing.

        Raises:
            ConnectionLost: the bytes ended so.

        Threads: the loop's, which counts as a reader that is at work: the user may be slow.
        """
        taken: Taken = []
        with self._lock:
            self._take(size, taken)
        self._changed()
        return b"".join(taken)

    def move(self) -> None:
        """Send readers to the descriptor that stands for this from now on; bytes are not lost.

        Threads: the loop's.
        """
        self.moved = True
        self.readers.wake_all()

    def _take_here(self, size: int, taken: Taken) -> Optional[int]:
        self._check_here()
        return self._take(size, taken)

    def _take(self, size: int, taken: Taken) -> Optional[int]:
        count, end = 0, None
        while count < size and len(taken) < _MOST:
            before, head = self._taken, self._chunks[0] if self._chunks else None
            if head is None or end not in (None, before):
                break  # a signal handler has taken what comes next
            piece = head[: size - count]
            if self._commit(head, piece, taken):
                count, end = count + len(piece), before + len(piece)
        return count or self._end()

    def _commit(self, head: _Chunk, piece: _Chunk, taken: Taken) -> bool:
        """Take a piece off the head and note it in ``taken``, unless it is not the head any more.

        Then all is done or nothing: no call stands between the statements, and a signal handler, which may
        raise or take from this very pipe, runs only at a call and, up to Python 3.10, at a jump. So Ctrl-C
        finds in ``taken`` what was taken.
        """
        owner, now = weakref.ref(threading.current_thread()), time.monotonic()
        count, value = len(piece), [piece]
        rest = memoryview(head)[count:]
        if rest:
            if self._chunks and self._chunks[0] is head:
                self._chunks[0] = rest
                self._taken += count
                self._owner = owner
                self._when = now
                taken += value
                return True
        elif self._chunks and self._chunks[0] is head:
            del self._chunks[0]
            self._taken += count
            self._owner = owner
            self._when = now
            taken += value
            return True
        return False

    def _has_data(self) -> Optional[bool]:
        self._check_here()
        return True if self._chunks or self._end() is not None else None

    def _peek(self) -> Optional[bytes]:
        self._check_here()
        if self._chunks:
            return bytes(self._chunks[0][:_PEEK])
        return None if self._end() is None else b""

    def _check_here(self) -> None:
        if self.moved and not self._closed:
            raise Moved

    def _end(self) -> Optional[int]:
        if self._closed:
            raise ValueError("I/O operation on closed stream")
        if not self._ended:
            return None
        if self._exc is not None:
            raise fresh(self._exc)
        return 0


def _appended(tail: bytearray, chunk: memoryview) -> bool:
    """Append to a tail, unless a view of it is alive: in the traceback of a reader that Ctrl-C has stopped."""
    try:
        tail += chunk
    except BufferError:
        return False
    return True
