"""A TLS socket that knows who is inside it, and tells on threads that have no business there."""

from __future__ import annotations

import functools
import ssl
import threading
from collections.abc import Callable
from typing import Any

from kubews.transport.tlssockets import TlsSocket

#: The methods of an SSLSocket that enter OpenSSL, or free what others may be inside of.
ENTRIES = (
    "do_handshake",
    "read",
    "write",
    "recv",
    "recv_into",
    "send",
    "sendall",
    "pending",
    "unwrap",
    "shutdown",
    "close",
)


class Watch:
    """What is known about one SSL object.

    Args:
        linger: what whoever comes in calls first, so that others have a chance to come in meanwhile.
    """

    def __init__(self, linger: Callable[[], object] | None = None) -> None:
        self._linger = linger
        self._lock = threading.Lock()
        self._inside: threading.Thread | None = None
        self._depth = 0
        self._owner: threading.Thread | None = None
        #: What was wrong, in words.
        self.faults: list[str] = []
        self.calls: dict[str, int] = dict.fromkeys(ENTRIES, 0)

    def hand_over(self, owner: threading.Thread) -> None:
        """From now on only this thread may come in."""
        self._owner = owner

    def enter(self, name: str) -> None:
        me = threading.current_thread()
        with self._lock:
            self.calls[name] += 1
            if self._inside not in (None, me):
                self.faults.append(f"{name} by {me.name} while {self._inside} is inside")
            if self._owner not in (None, me):
                self.faults.append(f"{name} by {me.name}, not by the owner {self._owner}")
            self._inside = me
            self._depth += 1
            alone = self._depth == 1
        if self._linger and alone:
            self._linger()

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._inside = None


def _entry(name: str) -> Callable[..., Any]:
    original = getattr(TlsSocket, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **options: Any) -> Any:
        watch = self.context.watch
        watch.enter(name)
        try:
            return original(self, *args, **options)
        finally:
            watch.leave()

    return method


WatchedSocket = type("WatchedSocket", (TlsSocket,), {name: _entry(name) for name in ENTRIES})


class WatchedContext(ssl.SSLContext):
    """A context whose sockets, one for each context, are watched."""

    sslsocket_class = WatchedSocket
    watch: Watch
