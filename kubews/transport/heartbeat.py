"""When silence means that the peer is gone."""

from __future__ import annotations

import time

#: Seconds of silence after which a peer that owes an answer is given up
#: (client-go: 61, ``tools/remotecommand/websocket.go``).
DEAD_AFTER = 60.0

# Pings that wait for their pong; those of a server that answers none shall not pile up.
_MAX_PINGS = 64


class Heartbeat:
    """The account of pings and pongs of one connection.

    Any frame is a sign of life. Silence proves nothing while this side does not read (the pong stands
    behind what is not taken), nor while the peer may have bytes of ours unread: a process that ignores
    its stdin stops the server's only read loop, and with it the pongs, though all is well
    (apiserver ``wsstream/conn.go``). Then the kernel decides: TCP keepalive and retransmission, up to
    some 15 minutes.

    Threads: the loop's.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._number = 0
        self._sent = 0
        self._confirmed = 0
        self._sent_at_ping: dict[bytes, int] = {}

    def alive(self) -> None:
        """Note that a frame came, or that silence is this side's own doing."""
        self._last = time.monotonic()

    @property
    def owes(self) -> bool:
        """Whether bytes went out that no ping has followed: until one is answered, silence proves nothing."""
        asked = next(reversed(self._sent_at_ping.values()), self._confirmed)
        return asked != self._sent

    def silent(self, seconds: float) -> bool:
        """Tell whether nothing has come for so long, though this side has read."""
        return time.monotonic() - self._last >= seconds

    def sending(self) -> None:
        """Note that bytes for the peer's process go out."""
        self._sent += 1

    def ping(self) -> bytes:
        """Return the payload of a ping that goes out behind everything noted so far."""
        self._number += 1
        payload = self._number.to_bytes(4, "big")
        self._sent_at_ping[payload] = self._sent
        if len(self._sent_at_ping) > _MAX_PINGS:
            del self._sent_at_ping[next(iter(self._sent_at_ping))]  # a later pong tells as much
        return payload

    def pong(self, payload: bytes) -> None:
        """Note a pong: the peer has read everything that was sent before its ping."""
        # Of several pings only the last need be answered (RFC 6455, 5.5.3), so it stands for all before it.
        while payload in self._sent_at_ping:
            self._confirmed = self._sent_at_ping.pop(next(iter(self._sent_at_ping)))

    @property
    def dead(self) -> bool:
        """Whether the peer owes a sign of life for longer than ``DEAD_AFTER``."""
        return self._confirmed == self._sent and self.silent(DEAD_AFTER)
