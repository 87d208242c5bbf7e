"""Waiting for another thread without ever leaving a lock behind.

``Condition`` and ``acquire()``/``try`` leak the lock when Ctrl-C lands between the wrong two bytecodes;
``with lock:`` on a C-level RLock does not. So a waiter looks under the lock, registers a ticket of its
own, leaves the lock, and parks on the ticket. The RLock matters: a finalizer may run, and take the same
lock, at any allocation inside the section.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any, Generic, Optional, Protocol, TypeVar

from kubews.transport import forks
from kubews.transport.deadline import Deadline

T = TypeVar("T")

_HOME = __name__.rpartition(".")[0]
_RLock = type(threading.RLock())

# The longest wait of the main thread in one go. Handlers of signals run in that thread only, and what waits there
# learns of a signal late if the kernel gave it to another thread, as it may if that one has just been unblocking
# signals (a thread that starts, a fork), or if it came between the interpreter's last look and the kernel's wait;
# and on Windows Ctrl-C does not interrupt a lock.
_SLICE = 0.5 if sys.platform == "win32" else 1.0

#: The longest wait of any other thread in one go: epoll and poll refuse 25 days.
LONGEST = 3600.0


class Expired(TimeoutError):
    """A deadline passed: and not just any TimeoutError, which a file of the user may raise too.

    Threads: a value.
    """


def fresh(exc: Exception) -> Exception:
    """Copy an exception that is raised more than once.

    A shared instance would collect the tracebacks of every caller, in every thread. One that cannot be
    copied truly, as some of other people's cannot, is shared all the same.
    """
    try:
        twin = copy.copy(exc)
    except Exception:  # a constructor that wants something else than its args
        return exc
    if twin.args != exc.args:
        return exc
    twin.__cause__ = exc.__cause__
    return twin


def no_thread(exc: BaseException) -> bool:
    """Tell whether this is how ``start`` says that there are too many threads, or that the interpreter exits."""
    return isinstance(exc, RuntimeError) and "new thread" in str(exc)


class DaemonThread(threading.Thread):
    """A daemon thread whose ``start`` lets Ctrl-C through as what it is.

    ``threading.Thread.start`` waits in a Condition for the first step of the thread, and Ctrl-C between the
    wrong two bytecodes of that becomes ``RuntimeError: release unlocked lock``.

    Threads: see ``threading.Thread``.
    """

    def __init__(self, target: Callable[..., None], name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: there are too many threads, or the interpreter exits.
        """
        try:
            super().start()
        except RuntimeError as exc:
            interrupt = exc.__context__
            if no_thread(exc) or interrupt is None:
                raise
            raise interrupt from None


class PatientThread(DaemonThread):
    """A thread that serves a file of the user, and whose waiting is nobody's need.

    It waits as the kernel's end of a pipe would: a channel that nobody reads stays before it.

    Threads: see ``threading.Thread``.
    """


class ServingThread(DaemonThread):
    """A thread that ends the waiting of others, and must not wait itself: not even in a finalizer of the user's.

    Threads: see ``threading.Thread``.
    """


def must_not_wait(deadline: Deadline) -> bool:
    """Tell whether this thread must not wait until the deadline: it is never, and others wait for this thread."""
    return deadline.remaining() is None and isinstance(threading.current_thread(), ServingThread)


def slice_of(deadline: Deadline) -> float:
    """Return for how many seconds this thread may wait in one go, then to look again.

    Threads: any.
    """
    remaining = deadline.remaining()
    longest = _SLICE if threading.current_thread() is threading.main_thread() else LONGEST
    return longest if remaining is None else min(remaining, longest)


class Ticket:
    """One parked call: a private lock that only its waker releases.

    Threads: made and parked by one thread, released by any other.
    """

    __slots__ = ("_lock", "error", "patient", "thread")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.thread = threading.current_thread()
        self.patient = isinstance(self.thread, PatientThread)
        self.error: Optional[Exception] = None

    def park(self, deadline: Deadline) -> bool:
        """Block until released or until the deadline; no lock may be held.

        Returns:
            Whether it was released. Each release lets one park return.

        Raises:
            RuntimeError: this would never end, as what was to release it waits for this very thread.

        Threads: blocks; interruptible by signals.
        """
        slice_ = min(_SLICE, slice_of(deadline))  # the check below is due once in every thread
        while True:
            if self._lock.acquire(timeout=slice_):
                return True
            slice_ = slice_of(deadline)
            if deadline.expired():
                return False
            if deadline.remaining() is None and _in_section(sys._getframe()):
                raise RuntimeError(
                    "a signal handler, or a finalizer, waits for kubews within a call of kubews, which holds "
                    "a lock: raise an exception in the handler, and wait where that is caught"
                )

    def release(self) -> None:
        """Let the parked thread go on; again is nothing.

        Threads: any.
        """
        try:
            self._lock.release()
        except RuntimeError:
            pass  # released already


def _in_section(frame: Optional[FrameType]) -> bool:
    """Tell whether one of the calls of this thread's stack is inside a section that a lock of ours guards."""
    if _owned(forks.lock):
        return True
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith(_HOME):
            for name in ("self", "owner"):
                if _owned(getattr(frame.f_locals.get(name), "_lock", None)):
                    return True
        frame = frame.f_back
    return False


def _owned(lock: Any) -> bool:
    return isinstance(lock, _RLock) and lock._is_owned()  # type: ignore[attr-defined]


class WaitQueue:
    """The tickets of those who wait for one predicate.

    Threads: any; each operation on the dict is atomic.
    """

    __slots__ = ("tickets",)

    def __init__(self) -> None:
        self.tickets: dict[Ticket, None] = {}

    def add(self, ticket: Ticket) -> None:
        """Register a ticket. The lock that guards the predicate must be held."""
        self.tickets[ticket] = None

    def wake_all(self, error: Optional[Exception] = None) -> None:
        """Release every ticket: one abandoned by Ctrl-C must not swallow the only wake-up.

        Args:
            error: raised out of the parked calls, those of patient threads apart.
        """
        # A copy: who is woken may be back before the others are, and would be woken for ever.
        for ticket in list(self.tickets):
            if error is not None:
                if ticket.patient:
                    continue
                ticket.error = error
            # Released first: a waker that Ctrl-C stops here has lost nothing, the next one does it again.
            ticket.release()
            self.tickets.pop(ticket, None)

    def starving(self) -> list[threading.Thread]:
        """Return the threads that are parked here, without those that are patient."""
        return [ticket.thread for ticket in list(self.tickets) if not ticket.patient]

    def __bool__(self) -> bool:
        return bool(self.tickets)


class Guarded(Protocol):
    """What a lock guards. A fork renews the lock, also below who waits.

    Threads: see the implementation.
    """

    @property
    def _lock(self) -> AbstractContextManager[object]:
        """The lock of now."""


def wait_for(
    owner: Guarded,
    queue: WaitQueue,
    look: Callable[[], Optional[T]],
    deadline: Deadline,
    parking: Callable[[], None],
) -> Optional[T]:
    """Wait until ``look`` finds something.

    Args:
        owner: whose lock guards what ``look`` looks at; not held by the caller.
        queue: whoever changes the predicate wakes it.
        look: called with the lock held; returns None to wait, or raises.
        deadline: when to give up; one last look is taken then.
        parking: called before each park, without the lock.

    Returns:
        What ``look`` returned, or None if the deadline passed.

    Raises:
        RuntimeError: the wait might never end, as it holds up who is to end it.

    Threads: blocks; interruptible by signals, and then neither lock nor ticket is left behind.
    """
    with owner._lock:
        found = look()
    if found is not None:
        return found
    if must_not_wait(deadline):
        raise RuntimeError(
            "a finalizer, or a callback, in a thread of kubews waits for kubews, which may wait for that thread: "
            "let a thread of your own do it"
        )
    expired = False
    while True:
        # A new one each time: several wakers may hold the old one still.
        ticket = Ticket()
        try:
            with owner._lock:
                # Invariant: registered before the look, under the same lock, so whoever changes the predicate
                # after it finds the ticket: also a signal handler, which runs in this very thread.
                queue.add(ticket)
                found = look()
                if found is not None or expired:
                    return found
            parking()
            expired = not ticket.park(deadline)
        finally:
            # No method of ours: Ctrl-C can stop that one before its first step.
            queue.tickets.pop(ticket, None)
        if ticket.error is not None:
            raise fresh(ticket.error)


def nothing() -> None:
    """Do nothing: the default of every callback."""


class Outcome(Generic[T]):
    """A value that is set once, by whoever is first.

    Args:
        parking: called before a waiter parks.

    Threads: any; ``get`` blocks.
    """

    def __init__(self, parking: Callable[[], None] = nothing) -> None:
        self._lock = threading.RLock()
        self._parking = parking
        self._result: Optional[tuple[Optional[T], Optional[Exception]]] = None
        self.waiters = WaitQueue()

    def set(self, value: T) -> bool:
        """Set the value; return whether this call was the first to set anything."""
        return self._set((value, None))

    def set_exception(self, exc: Exception) -> bool:
        """Set an exception that ``get`` raises; return whether this call was the first."""
        return self._set((None, exc))

    def done(self) -> bool:
        """Return whether something is set."""
        return self._result is not None

    def get(self, deadline: Deadline) -> T:
        """Wait for the value.

        Raises:
            Expired: the deadline passed.
            Exception: the one that was set.
            RuntimeError: as for ``wait_for``.

        Threads: blocks.
        """
        result = wait_for(self, self.waiters, self._look, deadline, self._parking)
        if result is None:
            raise Expired
        value, exc = result
        if exc is not None:
            raise fresh(exc)
        return value  # type: ignore[return-value]

    def _look(self) -> Optional[tuple[Optional[T], Optional[Exception]]]:
        return self._result

    def _after_fork(self) -> None:
        # Called by its owner, in the only thread that there is.
        self._lock = threading.RLock()
        self.waiters.wake_all()  # the frame below may wait, if a signal handler forks

    def _set(self, result: tuple[Optional[T], Optional[Exception]]) -> bool:
        with self._lock:
            # Invariant: _result goes from None to a tuple once.
            first = self._result is None
            if first:
                self._result = result
        self.waiters.wake_all()  # the later ones too: Ctrl-C may have stopped the first here
        return first
