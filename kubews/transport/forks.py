"""What a fork must not share with its parent: connections, locks that other threads hold, descriptors.

A forked child has the memory of its parent and only one of its threads. A lock that another thread held
is held for ever there; a connection has no thread that serves it; and each descriptor is a second hand on
the parent's socket, which keeps it open after the parent has closed it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from kubews.transport.deadline import Deadline

#: A leaf lock that no fork finds in other hands: it is taken around every fork. For what is so short
#: that the whole process may share it.
lock = threading.RLock()

# Who holds a gate is done in microseconds. Whatever stops him for longer must not stop a fork for ever.
_PATIENCE = 1.0  # seconds for everything that a fork waits for


class Descriptor(Protocol):
    """A socket or an unbuffered file.

    Threads: see the implementation.
    """

    def close(self) -> None:
        """Close the descriptor, and say nothing to whoever is at the other end."""


class Forkable(Protocol):
    """Something with locks, or with a thread.

    Threads: see the implementation.
    """

    def _after_fork(self) -> None:
        """Become usable, or dead with a clear error, in the only thread of a child."""


D = TypeVar("D", bound=Descriptor)

# Guarded by lock.
_descriptors: weakref.WeakSet[Any] = weakref.WeakSet()
_known: weakref.WeakSet[Any] = weakref.WeakSet()
_gates: weakref.WeakSet[Any] = weakref.WeakSet()
# The kernel's numbers of the threads that have been inside OpenSSL, and how many of them are worth a look.
_visitors: set[int] = set()
_MANY = 100
_many = _MANY

# Between two looks at a thread that is on its way out.
_GLANCE = 0.0001

# Not empty once a child has closed what is its parent's; who was not told yet that it is in one; and who has failed.
_begun: list[bool] = []
_untold: list[Any] = []
_failed: list[Any] = []

# The gates that the fork under way has closed; used by the forking thread only, which holds lock.
_closed: list[Any] = []


def gate() -> AbstractContextManager[object]:
    """Make a lock to be held inside calls of libraries that a fork must not catch inside.

    OpenSSL has locks of its own, which nobody renews in a child: a fork while another thread is in there
    leaves one that is held for ever. Every fork waits until nobody holds a gate.

    Threads: any; nothing that waits may be done inside.
    """
    made = threading.RLock()
    with lock:
        _gates.add(made)
    return made


def visit() -> None:
    """Say that this thread will be inside OpenSSL, which cleans up when a thread has ended.

    That happens behind the last Python code of the thread and under the same locks: no fork begins
    while such a thread is on its way out.

    Threads: any.
    """
    global _many
    with lock:
        _visitors.add(threading.get_native_id())
        if len(_visitors) > _many:  # without a fork nobody else forgets those that are gone
            _visitors.difference_update([each for each in _visitors if not _is_there(each)])
            _many = 2 * len(_visitors) + _MANY


def own(make: Callable[[], D]) -> D:
    """Make a socket or an unbuffered file that every fork closes at once.

    Args:
        make: must not block. A fork waits for it, so that none has a descriptor that is not known yet.

    Threads: any.
    """
    with lock:
        made = make()
        _descriptors.add(made)
        return made


def close(made: Descriptor) -> None:
    """Close what a fork closes, or should not see half closed.

    Python marks a socket as closed first and closes its descriptor then, while other threads run: a fork in
    between finds nothing to close, and keeps the connection open.

    Args:
        made: whose closing does not wait for anything.

    Threads: any.
    """
    with lock:
        made.close()


def tell(thing: Forkable) -> None:
    """Call ``_after_fork`` of this object, as long as it lives, in every forked child.

    Threads: any.
    """
    with lock:
        _known.add(thing)


def _before() -> None:
    deadline = Deadline(_PATIENCE)
    for each in list(_gates):
        _closed.append(each)
        each.acquire(timeout=deadline.remaining())
    here = {thread.native_id for thread in threading.enumerate()}
    for gone in _visitors - here:
        while _is_there(gone) and not deadline.expired():
            time.sleep(_GLANCE)
        _visitors.discard(gone)


def _is_there(thread: int) -> bool:
    return os.path.exists(f"/proc/self/task/{thread}")


def _open_gates() -> None:
    while _closed:
        try:
            _closed[-1].release()
        except RuntimeError:
            pass  # it could not be closed in time, or is open already
        _closed.pop()


def _after_in_child() -> None:
    again = bool(_begun)
    if again:
        # Who has failed is told once more: it may have been a signal handler that has raised.
        _untold[:0] = _failed
    else:
        for descriptor in list(_descriptors):
            # Never shutdown, and no farewell in TLS: both would reach the parent's connection.
            with contextlib.suppress(OSError):
                descriptor.close()
        _descriptors.clear()
        _visitors.clear()
        _untold[:] = _known
        _begun.append(True)
    _failed.clear()
    reason = None
    while _untold:
        try:
            _untold[-1]._after_fork()
        except Exception as exc:  # the others are told all the same
            _failed.append(_untold[-1])
            reason = exc
        _untold.pop()
    if again:
        _failed.clear()
    if reason is not None:
        raise reason  # Python prints it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_open_gates, after_in_child=_after_in_child)
    # A signal that comes during a fork is handled when the first of these functions is entered, and what the
    # handler raises ends that function and is gone. So what comes first is there twice; and the lock and the
    # list have functions that are not Python's. What is registered last is called first before a fork, and
    # last after it.
    os.register_at_fork(after_in_child=_after_in_child)
    os.register_at_fork(after_in_parent=_open_gates, after_in_child=_open_gates)
    os.register_at_fork(before=_begun.clear)
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
