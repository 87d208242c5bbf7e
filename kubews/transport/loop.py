"""One daemon thread that waits for sockets, timers and posts."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.patience import Selector
from kubews.transport.wait import LONGEST, Expired, Outcome, ServingThread, no_thread

Callback = Callable[[int], None]


class Timer:
    """A call that will happen once.

    Threads: loop thread only.
    """

    __slots__ = ("at", "function")

    def __init__(self, at: float, function: Callable[[], None]) -> None:
        self.at = at
        self.function: Optional[Callable[[], None]] = function

    def cancel(self) -> None:
        """Make sure that it does not happen."""
        self.function = None


class Waker:
    """A descriptor that becomes readable from any thread, signal handler or finalizer.

    The lock keeps a late ``wake`` from writing to a number that was closed and has been given to
    somebody else's file; the write inside it cannot block.

    Threads: ``wake`` and ``close`` from any, ``drain`` from the one that waits.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open = True
        self._sockets: tuple[socket.socket, ...] = ()
        self._fds: list[int] = []
        # Ctrl-C may end the making of whatever was to own and to close this.
        self._close_fds = weakref.finalize(self, _close_all, self._fds)
        self._close_fds.atexit = False
        try:
            if hasattr(os, "eventfd"):
                # In one step of the interpreter: Ctrl-C comes between two, most of all behind a system call.
                self._fds.extend(map(os.eventfd, (0,), (os.EFD_NONBLOCK | os.EFD_CLOEXEC,)))
                self.fileno = self._fds[0]
            else:
                self._sockets = socket.socketpair()
                for end in self._sockets:
                    end.setblocking(False)
                self.fileno = self._sockets[0].fileno()
            forks.tell(self)
        except BaseException:
            self.close()
            raise

    def wake(self) -> None:
        """Make the descriptor readable; nothing once it is closed."""
        with self._lock:
            # Invariant: while _open, the descriptors are ours.
            if not self._open:
                return
            try:
                if self._sockets:
                    self._sockets[1].send(b"\0")
                else:
                    os.eventfd_write(self.fileno, 1)
            except BlockingIOError:
                pass  # it is readable already

    def drain(self) -> None:
        """Make it unreadable again."""
        try:
            if self._sockets:
                self._sockets[0].recv(4096)
            else:
                os.eventfd_read(self.fileno)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close the descriptor; again is nothing."""
        # One lock after the other: under each a finalizer may run that takes the other.
        with self._lock:
            self._open = False
        with forks.lock:  # as in forks.close
            with contextlib.suppress(OSError):  # somebody closed the number
                self._close_fds()
            for end in self._sockets:
                with contextlib.suppress(OSError):
                    end.close()

    def _after_fork(self) -> None:
        # Whatever went through this descriptor would reach the parent's thread.
        self._lock = threading.RLock()
        self.close()


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Loop:
    """Run callbacks in one daemon thread until stopped.

    Callbacks must not block. An exception out of one ends the loop, and is told to whom ``on_end`` named.

    Args:
        name: of the thread.
        start: whether to start it at once. Who starts it later has the loop in a variable by then, where
            Ctrl-C cannot lose it.

    Threads: ``call_soon``, ``stop``, ``is_current`` and ``ended`` are for any thread, signal handler
    or finalizer; everything else belongs to the loop's thread.
    """

    def __init__(self, name: str, *, start: bool = True) -> None:
        self._selector = Selector()
        self._posts: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = itertools.count()
        self._stopping = False
        self._sleeping = False
        self._waker = Waker()
        self._selector.register(self._waker.fileno, selectors.EVENT_READ)
        self.ended: Outcome[None] = Outcome()
        self._on_end: list[Callable[[Optional[BaseException]], None]] = []
        self._thread = ServingThread(_run, name, (self,))
        self._joining = threading.RLock()
        self._inherited = False
        forks.tell(self)
        if start:
            self.start()

    def start(self) -> None:
        """Start the thread, if ``start=False`` has not let the constructor do so.

        Raises:
            RuntimeError: there are too many threads, or the interpreter exits.
        """
        try:
            self._thread.start()
        except BaseException as exc:
            if no_thread(exc):
                self._selector.close()
                self._waker.close()
            else:  # of a signal handler, while the thread comes up: it will clean up behind itself
                self.stop()
            raise

    def call_soon(self, function: Callable[..., None], *args: Any) -> None:
        """Run a function in the loop's thread; after the loop has ended, never."""
        self._posts.append((function, args))
        if self._sleeping:
            self._waker.wake()
        elif self.ended.done():
            self._posts.clear()  # nobody else will

    def call_later(self, delay: float, function: Callable[[], None]) -> Timer:
        """Run a function in ``delay`` seconds."""
        assert self.is_current()
        timer = Timer(time.monotonic() + delay, function)
        heapq.heappush(self._timers, (timer.at, next(self._sequence), timer))
        return timer

    def on_end(self, function: Callable[[Optional[BaseException]], None]) -> None:
        """Run a function in the loop's thread when it ends, with the exception that ended it."""
        assert self.is_current()
        self._on_end.append(function)

    def forget(self, function: Callable[[Optional[BaseException]], None]) -> None:
        """Run a function of ``on_end`` no more; one that was not given is nothing."""
        assert self.is_current()
        with contextlib.suppress(ValueError):
            self._on_end.remove(function)

    def register(self, fileobj: Any, events: int, callback: Callback) -> None:
        """Call back with the ready events; 0 events means not to watch for now."""
        assert self.is_current()
        watched = fileobj in self._selector.get_map()
        if watched and events:
            self._selector.modify(fileobj, events, callback)
        elif watched:
            self._selector.unregister(fileobj)
        elif events:
            self._selector.register(fileobj, events, callback)

    def stop(self) -> None:
        """End the loop once the current callbacks have run."""
        self._stopping = True
        self._waker.wake()

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called: what is begun now will not be carried on."""
        return self._stopping

    def is_current(self) -> bool:
        """Return whether the caller runs in the loop's thread."""
        return threading.current_thread() is self._thread

    def join(self, timeout: Optional[float]) -> None:
        """Wait for the thread; from within it, or if it was never started, return at once.

        Threads: blocks.
        """
        if self._thread.ident is None or self.is_current() or self._inherited:
            return
        # Not in Thread.join() itself: before Python 3.13 that takes a thread for dead ever after if Ctrl-C
        # comes there (cpython#90882), and then nobody waits for it at the interpreter's exit.
        deadline = Deadline(timeout)
        try:
            self.ended.get(deadline)
        except Expired:
            return
        with self._joining:  # two at once may fail an assertion there (cpython#116372)
            self._thread.join(deadline.remaining())

    def _after_fork(self) -> None:
        self._inherited = True
        self._sleeping = False
        self.ended._after_fork()
        self.ended.set(None)
        self._posts.clear()

    # -- the loop's thread

    def _run_once(self) -> None:
        for _ in range(len(self._posts)):
            function, args = self._posts.popleft()
            function(*args)
        # Published before the last look: a post that this look misses sees the flag and wakes.
        self._sleeping = True
        timeout = 0.0 if self._posts or self._stopping else self._until_timer()
        ready = self._selector.select(timeout)
        self._sleeping = False
        for key, events in ready:
            if key.data is None:
                self._waker.drain()
                continue
            # An earlier callback of this round may have taken it out, and have closed it, and the number
            # may be another's by now.
            now = self._selector.get_map().get(key.fd)
            if now is not None and now.fileobj is key.fileobj:
                now.data(events)
        self._run_timers()

    def _until_timer(self) -> Optional[float]:
        while self._timers and self._timers[0][2].function is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - time.monotonic()), LONGEST)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            function = heapq.heappop(self._timers)[2].function
            if function is not None:
                function()

    def _end(self, exc: Optional[BaseException]) -> None:
        try:
            while self._on_end:
                self._on_end.pop(0)(exc)
        finally:
            forks.close(self._selector)
            self._waker.close()
            self.ended.set(None)
            # What is still posted would keep its owners alive.
            self._posts.clear()
            self._timers.clear()


def _run(loop: Loop) -> None:
    failure: Optional[BaseException] = None
    try:
        forks.visit()
        while not loop._stopping:
            loop._run_once()
    except BaseException as exc:  # a bug, or an exception set from outside: tell those who wait
        failure = exc
    loop._end(failure)
