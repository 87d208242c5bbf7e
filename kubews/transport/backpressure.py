"""When to read on though somebody is slow: bounded memory without a deadlock.

All channels share one TCP stream without windows, so a channel that nobody reads stands before every
other one, the Status included. Bounded buffers alone would hang ``for line in p.stderr`` behind a full
stdout (subprocess and paramiko document that hang).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from kubews.errors import BufferFull
from kubews.transport.pipe import DEFAULT_LIMIT, Pipe
from kubews.transport.wait import PatientThread, WaitQueue

# A reader that has taken nothing for so many seconds may be the idle worker of a pool, which never comes back.
_IDLE = 10.0


@dataclass(frozen=True)
class Limits:
    """How much a connection may hold.

    Args:
        inbound: bytes of each channel before its sender is stopped; None for no limit.
        total: bytes of all channels that may gather behind one that somebody waits for; None for
            no limit.
        outbound: bytes that are queued before writers wait.

    Threads: a value.
    """

    inbound: Optional[int] = DEFAULT_LIMIT
    total: Optional[int] = 256 << 20
    outbound: int = 1 << 20


DEFAULT_LIMITS = Limits()


class Backpressure:
    """The rule by which one connection reads or lets its peer wait.

    Args:
        pipes: by stream id.
        names: of the stream ids.
        others: the queues of those who wait for something else than a pipe.
        limits: how much to hold.
        where: what the connection is to, for messages.

    Threads: any.
    """

    def __init__(
        self,
        pipes: Mapping[int, Pipe],
        names: Mapping[int, str],
        others: list[WaitQueue],
        limits: Limits,
        where: str,
    ) -> None:
        self._pipes = pipes
        self._names = names
        self._others = others
        self._limits = limits
        self._where = where

    def may_read(self, resuming: bool) -> bool:
        """Decide: nobody is full, or somebody starves and nobody else will drain.

        If reading on would exceed the total, those who starve get ``BufferFull``, unless somebody may drain yet.

        Args:
            resuming: whether reading had stopped; then a pipe must be half empty to count as not full.
        """
        full = [pipe for pipe in self._pipes.values() if not pipe.has_room(resuming)]
        if not full:
            return True
        starving = self._starving()
        parked = {thread for queue in starving for thread in queue.starving()}
        if not parked:
            return False
        owned = [pipe for pipe in full if _at_work(pipe.owner, parked)]
        if any(pipe.idle < _IDLE or _comes_back(pipe) for pipe in owned):
            return False
        total = sum(pipe.size for pipe in self._pipes.values())
        if self._limits.total is None or total < self._limits.total:
            return True
        if owned:
            return False
        error = self._explain(full)
        for queue in starving:
            queue.wake_all(error)
        return False

    def starving(self) -> bool:
        """Return whether somebody waits for what only reading on would bring."""
        return any(queue.starving() for queue in self._starving())

    def _starving(self) -> list[WaitQueue]:
        return [pipe.readers for pipe in self._pipes.values() if pipe.starving] + self._others

    def _explain(self, full: list[Pipe]) -> BufferFull:
        names = ", ".join(
            self._names[stream_id] for stream_id, pipe in self._pipes.items() if pipe in full
        )
        return BufferFull(
            f"{self._where}: {names} holds {self._limits.total} bytes that nobody reads, and what is "
            f"waited for comes behind them. Read or close {names} and call again"
        )


def _comes_back(pipe: Pipe) -> bool:
    # Whoever takes for a file or a descriptor: that may be slow, a pager or a terminal.
    return pipe.moved or isinstance(pipe.owner, PatientThread)


def _at_work(owner: Optional[threading.Thread], parked: set[threading.Thread]) -> bool:
    # Who took from the full pipe before and is busy elsewhere will come back for more. Without this
    # clause one thread on a quiet stderr would let the backlog of a slow reader of stdout grow.
    if owner is None or owner in parked:
        return False
    # Not is_alive(): before Python 3.13 Ctrl-C inside it makes a dead thread of a living one, for everybody.
    # And some versions never forget a thread that Python has not started.
    return owner in threading.enumerate() and owner.ident in sys._current_frames()
