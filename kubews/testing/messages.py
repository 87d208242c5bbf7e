"""WebSocket messages on their way to the client, with the faults that concern them.

Threads: a ``Messages`` belongs to one thread.
"""

from __future__ import annotations

from typing import Optional

from websockets.frames import Frame, Opcode

from kubews.testing.faults import Faults
from kubews.testing.frames import close_frame
from kubews.testing.tls import Bytes, Wire


class Messages:
    """Queue messages and control frames on a wire.

    Args:
        wire: what carries them; its owner flushes it.
        faults: what to do wrong.

    Threads: one.
    """

    def __init__(self, wire: Wire, faults: Faults) -> None:
        self._wire = wire
        self._faults = faults

    def send(self, message: Bytes, opcode: Opcode = Opcode.BINARY) -> None:
        """Queue a message, in fragments and with pings if the faults want them."""
        size = self._faults.fragment or len(message) or 1
        pieces = [message[start : start + size] for start in range(0, len(message), size)]
        for index, piece in enumerate(pieces or [message]):
            last = index >= len(pieces) - 1
            frame = Frame(opcode if index == 0 else Opcode.CONT, piece, fin=last)
            self._wire.queue(frame.serialize(mask=False))
            if self._faults.ping is not None:
                ping = Frame(Opcode.PING, self._faults.ping)
                self._wire.queue(ping.serialize(mask=False))

    def pong(self, data: Bytes) -> None:
        """Queue the answer to a ping, unless the faults want none."""
        if self._faults.pong:
            self._wire.queue(Frame(Opcode.PONG, data).serialize(mask=False))

    def inject(self) -> None:
        """Queue what the faults want in the stream where it does not belong."""
        if self._faults.inject:
            self._wire.queue(self._faults.inject)

    def close(self, code: Optional[int] = None) -> None:
        """Queue a Close frame: with this code, or that of a normal end, which the faults may change."""
        if self._faults.close_frame:
            self._wire.queue(close_frame(self._faults.close_code if code is None else code))
