"""All live connections: cut at the interpreter's exit."""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING

from kubews.transport import forks
from kubews.transport.deadline import Deadline

if TYPE_CHECKING:
    from kubews.transport.link import Link

# Seconds that all of them together may delay the exit.
_EXIT_TIMEOUT = 0.5

# Guarded by forks.lock.
_connections: weakref.WeakSet[Link] = weakref.WeakSet()


def add(connection: Link) -> None:
    """Remember a connection until it ends.

    Threads: any.
    """
    with forks.lock:
        _connections.add(connection)


def remove(connection: Link) -> None:
    """Forget a connection.

    Threads: any.
    """
    with forks.lock:
        _connections.discard(connection)


@atexit.register
def cut_all() -> None:
    """Cut every connection, so that no thread is inside TLS while the interpreter is taken down.

    Threads: blocks up to half a second in all.
    """
    with forks.lock:
        connections = list(_connections)
    for connection in connections:
        connection.abort("the interpreter exits")
    deadline = Deadline(_EXIT_TIMEOUT)
    for connection in connections:
        connection.join(deadline)
