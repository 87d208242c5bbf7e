"""A line that a wrapper writes before the command, taken out of what the command writes.

The wrapper of ``command.command(mark=...)`` writes the mark, a blank, and the line that the kernel has
about it in ``/proc/PID/stat``. The mark is random, so nothing else that is written can be taken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from kubews.protocol.channels import STDERR, STDOUT, Channels
from kubews.protocol.events import Data, Event

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ReportingChannels(Channels):
    """``Channels`` of a command whose wrapper reports itself, on stderr or on the terminal.

    What comes before the report, such as a shell's complaint about the locale, goes its way at once.

    Args:
        subprotocol: as for ``Channels``.
        tty: likewise.
        mark: with which the report begins.
        reported: called once: with the rest of the line, or with None when none will come.

    Threads: as ``Channels``; ``reported`` is called where receiving is done.
    """

    def __init__(
        self,
        subprotocol: str,
        tty: bool = False,
        *,
        mark: str,
        reported: Callable[[Optional[str]], object],
    ) -> None:
        super().__init__(subprotocol, tty)
        self._watched = STDOUT if tty else STDERR
        self._mark = mark.encode() + b" "
        self._held: Optional[bytearray] = bytearray()  # of what may be the report
        self._reported = reported

    def receive(self, payload: Buffer, *, start: bool = True) -> list[Event]:
        """Decode one message, or one fragment of it, without the report; see ``Channels``.

        Raises:
            RemoteProtocolError: the message cannot be decoded.
        """
        events = super().receive(payload, start=start)
        if self._held is None:
            return events
        return [each for event in events for each in self._sifted(event)]

    def receive_eof(self) -> list[Event]:
        """Tell that the connection has ended; see ``Channels``."""
        return [*self._given_up(), *super().receive_eof()]

    def _sifted(self, event: Event) -> list[Event]:
        if not isinstance(event, Data):  # an end, or the Status
            return [*self._given_up(), event]
        if self._held is None or event.stream_id != self._watched:
            return [event]
        self._held += event.payload
        begin = self._held.find(self._mark)
        if begin < 0:
            return self._passed(len(self._held) - self._overlap(self._held))
        end = self._held.find(b"\n", begin)
        if end < 0:
            return self._passed(begin)
        line = self._held[begin + len(self._mark) : end]
        del self._held[begin : end + 1]
        found = self._passed(len(self._held))
        self._held = None
        self._reported(line.decode("ascii", "replace").strip())
        return found

    def _overlap(self, held: bytearray) -> int:
        """Return how many bytes at the end may be the beginning of the mark."""
        most = min(len(self._mark) - 1, len(held))
        return next(size for size in range(most, -1, -1) if held.endswith(self._mark[:size]))

    def _passed(self, size: int) -> list[Event]:
        if not size or self._held is None:
            return []
        passed = memoryview(bytes(self._held[:size]))
        del self._held[:size]
        return [Data(self._watched, passed)]

    def _given_up(self) -> list[Event]:
        if self._held is None:
            return []
        rest = self._passed(len(self._held))
        self._held = None
        self._reported(None)
        return rest
