"""Waiting for descriptors, and for a socket that never waits itself."""

from __future__ import annotations

import selectors
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from kubews.transport.wait import slice_of

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    from kubews.transport.deadline import Deadline
    from kubews.transport.tlssockets import Socket

T = TypeVar("T")

#: Needs no descriptor of its own, and is as fast as epoll for a handful of sockets.
Selector: Callable[[], selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.DefaultSelector
)


def select(
    selector: selectors.BaseSelector, deadline: Deadline
) -> list[tuple[selectors.SelectorKey, int]]:
    """Wait until one of the selector's files is ready or the deadline has passed; then there is none.

    Threads: blocks; interruptible by signals, also by those that the kernel gives to another thread.
    """
    while True:
        found = selector.select(slice_of(deadline))
        if found or deadline.expired():
            return found


def ready(file: FileDescriptorLike, events: int, deadline: Deadline) -> bool:
    """Wait until one file is ready; return whether it is, or the deadline has passed.

    Args:
        file: with a descriptor, or the descriptor.
        events: of ``selectors``.
        deadline: when to give up.

    Threads: as for ``select``.
    """
    with Selector() as selector:
        selector.register(file, events)
        return bool(select(selector, deadline))


def patiently(call: Callable[[], T], sock: Socket, events: int, deadline: Deadline) -> T:
    """Repeat a call of a non-blocking socket until it can be done.

    Args:
        call: such as ``sock.do_handshake``.
        sock: whose call it is.
        events: what to wait for where there is no TLS, which says so itself.
        deadline: for the call as a whole, however often it wakes.

    Raises:
        TimeoutError: the deadline passed.

    Threads: blocks.
    """
    while not deadline.expired():
        try:
            return call()
        except ssl.SSLWantReadError:
            wanted = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            wanted = selectors.EVENT_WRITE
        except BlockingIOError:
            wanted = events
        ready(sock, wanted, deadline)
    raise TimeoutError("the time limit has passed")
