"""WebSocket frames as the servers of a real cluster, which are made with x/net, handle them.

Threads: a ``GoServerProtocol`` belongs to one thread.
"""

from __future__ import annotations

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

_MAX_FRAME = 32 << 20  # x/net websocket: DefaultMaxPayloadBytes


class GoServerProtocol(ServerProtocol):
    """The Sans-IO protocol of the websockets package, with the closing habits of x/net."""

    def __init__(self) -> None:
        super().__init__(state=State.OPEN, max_size=_MAX_FRAME)

    def fail(self, code: int, reason: str = "") -> None:
        """Fail without a reason, and with 1000 for a frame that is too big."""
        super().fail(1000 if code == 1009 else code, "")


def close_frame(code: int) -> bytes:
    """Return a Close frame with this code; 0 stands for an empty one."""
    payload = Close(code, "").serialize() if code else b""
    return Frame(Opcode.CLOSE, payload).serialize(mask=False)
