"""What else a connection's loop serves: descriptors that stand for channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from kubews.transport.deadline import Deadline
from kubews.transport.loop import Loop
from kubews.transport.wait import Expired, Outcome

# How often who attaches a bridge looks whether the loop has just ended.
_LOOK_AGAIN = 0.05


class Bridge(Protocol):
    """A descriptor for a channel.

    Threads: the loop's.
    """

    def start(self, loop: Loop, released: Callable[[], None]) -> None:
        """Begin to serve, once; call ``released`` when there is nothing more to serve, or was before."""

    def serve(self, events: int) -> None:
        """Move what can be moved."""

    def close(self) -> None:
        """Stop serving; again is nothing."""


class Bridges:
    """The bridges of one connection, which may outlive it.

    Args:
        loop: of the connection; it must not stop while there are any.
        where: what the connection is to, for the name of a thread.
        emptied: called when one was released.

    Threads: ``attach`` is for any; everything else is the loop's.
    """

    def __init__(self, loop: Loop, where: str, emptied: Callable[[], None]) -> None:
        self._loop = loop
        self._where = where
        self._emptied = emptied
        self._bridges: list[Bridge] = []

    def attach(self, bridge: Bridge) -> None:
        """Let the loop serve a bridge until that is over; behind the end of the loop, one of its own.

        An interrupted call can be made again.

        Threads: waits for the loop's thread to take it.
        """
        adopted: Outcome[None] = Outcome()
        self._loop.call_soon(self._adopt, bridge, adopted)
        while not adopted.done() and not self._loop.ended.done():
            try:
                adopted.get(Deadline(_LOOK_AGAIN))
            except Expired:
                pass  # the loop has just ended, or has much to do
        if not adopted.done():
            loop = Loop(f"kubews {self._where}")
            loop.call_soon(bridge.start, loop, loop.stop)

    def _adopt(self, bridge: Bridge, adopted: Outcome[None]) -> None:
        if self._loop.stopping:
            return  # it would be closed again in a moment, with what did not fit into the pipe
        self._bridges.append(bridge)
        adopted.set(None)

        def released() -> None:
            self._bridges.remove(bridge)
            self._emptied()

        bridge.start(self._loop, released)

    def serve(self) -> None:
        """Let each move what it can: there may be more to move, or more room."""
        for bridge in list(self._bridges):
            bridge.serve(0)

    def close(self) -> None:
        """Stop serving all of them."""
        for bridge in list(self._bridges):
            bridge.close()

    def __bool__(self) -> bool:
        return bool(self._bridges)
