"""An end that the poll loops of other threads wait for, as a descriptor.

Threads: an ``Ending`` may be used by any thread.
"""

from __future__ import annotations

import socket
import threading
from typing import Optional

from kubews.testing.forks import no_fork, not_for_forks


class Ending:
    """Something that ends once, seen by whoever polls.

    The descriptor exists only while somebody watches: most pods nobody ever forwards a port of.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers = 0
        self._pair: Optional[tuple[socket.socket, socket.socket]] = None
        self._told = False

    def watch(self) -> int:
        """Return a descriptor that is readable from the end on; ``unwatch`` once for each call."""
        with no_fork, self._lock:
            if self._pair is None:
                ours, theirs = socket.socketpair()
                self._pair = not_for_forks(ours), not_for_forks(theirs)
                if self._told:
                    ours.send(b"\0")
            self._watchers += 1
            return self._pair[1].fileno()

    def unwatch(self) -> None:
        """Give the descriptor back; the last one closes it."""
        with self._lock:
            self._watchers -= 1
            if self._watchers or self._pair is None:
                return
            for each in self._pair:
                each.close()
            self._pair = None

    def tell(self) -> None:
        """Say that it has ended. Idempotent."""
        with self._lock:
            if self._told:
                return
            self._told = True
            if self._pair is not None:
                self._pair[0].send(b"\0")

    @property
    def told(self) -> bool:
        """Whether it has ended."""
        return self._told
