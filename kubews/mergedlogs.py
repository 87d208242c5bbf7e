"""Logs of several containers as one, in the order of time."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Optional

from kubews.errors import ConnectionLost
from kubews.logs import ContainerLogs
from kubews.logstream import Line, Logs
from kubews.protocol.loglines import moment_of
from kubews.transport import forks
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.link import INHERITED
from kubews.transport.wait import DaemonThread, Expired, WaitQueue, fresh, nothing, wait_for

# Bytes of one source that are held for the others, and what a line counts beside its text.
_MUCH = 1 << 20
_LINE = 200

# Seconds that a line waits for an earlier one of a container that says nothing.
_PATIENCE = 0.2

Failed = Callable[[Exception], None]


class _Source:
    """One of the logs, and its lines that were not given out yet.

    Threads: what is in it changes under the lock of its owner.
    """

    def __init__(self, log: ContainerLogs[Any], prefix: bytes) -> None:
        self.log = log
        self.prefix = prefix
        self.lines: deque[tuple[int, float, bytes]] = deque()  # moment, arrival, text
        self.size = 0
        self.done = False
        self.error: Optional[Exception] = None


class _Merge:
    """The sources with a thread each, which know nothing of who reads: he may forget them.

    Args:
        sources: the logs.
        timestamps: whether lines keep their times.
        patience: seconds that a line waits for an earlier one of a silent source.
        failed: takes the error of a source that is lost; without it the reader does.

    Threads: ``choose`` under the lock, the rest any.
    """

    def __init__(
        self,
        sources: list[_Source],
        timestamps: bool,
        patience: float,
        failed: Optional[Failed] = None,
    ) -> None:
        self.sources = sources
        self._failed = failed
        self.patience = patience
        self._lock = threading.RLock()  # guards the lines of the sources
        self.readers = WaitQueue()
        self.feeders = WaitQueue()
        self.closed = False
        self._timestamps = timestamps
        forks.tell(self)

    def start(self) -> None:
        """Begin to read."""
        for source in self.sources:
            DaemonThread(self._feed, f"kubews {source.log!r}", (source,)).start()

    def close(self) -> None:
        """End all of it, soon; a finalizer may do so."""
        with self._lock:  # or who has just found it open would sleep through the waking
            self.closed = True
        for source in self.sources:
            source.log.abandon()
        self.readers.wake_all()
        self.feeders.wake_all()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        for source in self.sources:
            if not source.done:  # its thread is the parent's, and so is what it has read
                source.lines.clear()
                source.error = ConnectionLost(f"the log of {source.log.pod.where}: {INHERITED}")
                source.done = True
        for queue in (self.readers, self.feeders):
            queue.wake_all()  # the frame below may wait, if a signal handler forks

    def choose(self) -> Optional[bytes]:
        """Return the next line, nothing at the end, None if it must be waited for.

        Raises:
            KubewsError: one of them is lost, and nothing is left to be read before that.
        """
        if self.closed:
            return b""
        ready = [each for each in self.sources if each.lines]
        if not ready:
            return self._end()
        source = min(ready, key=lambda each: each.lines[0][0])
        _, arrived, line = source.lines[0]
        silent = any(not each.lines and not each.done for each in self.sources)
        if silent and time.monotonic() < arrived + self.patience:
            return None
        source.lines.popleft()
        source.size -= _LINE + len(line)
        return line

    def _end(self) -> Optional[bytes]:
        for source in self.sources:
            if source.error is not None:
                raise fresh(source.error)
        return b"" if all(each.done for each in self.sources) else None

    def _feed(self, source: _Source) -> None:
        moment = 0
        try:
            while line := source.log._next(NEVER):
                stamp = moment_of(line)
                if stamp and not self._timestamps:
                    line = line[line.index(b" ") + 1 :]
                moment = stamp or moment  # the rest of a long line has none
                self._put(source, (moment, time.monotonic(), source.prefix + line))
        except Exception as exc:
            if self._failed is None:
                source.error = exc
            elif not self.closed:
                self._failed(exc)
        finally:
            with self._lock:  # as in close
                source.done = True
            self.readers.wake_all()

    def _put(self, source: _Source, line: tuple[int, float, bytes]) -> None:
        def room() -> Optional[bool]:
            return True if self.closed or source.size < _MUCH else None

        wait_for(self, self.feeders, room, NEVER, nothing)
        with self._lock:
            source.lines.append(line)
            source.size += _LINE + len(line[2])
        self.readers.wake_all()


class MergedLogs(Logs[Line]):
    """Lines of several logs, the oldest first.

    Of logs that are followed a line does not wait longer than 0.2 s for those of other containers.

    Args:
        sources: the logs, opened for merging, each with what stands before its lines.
        follow: whether they are followed.
        timestamps: whether lines keep their times.
        encoding: as for ``Logs``.
        errors: as for ``Logs``.
        failed: takes the error of a log that is lost, in any thread; without it who reads gets it, behind
            all that had come.

    Threads: one reads; ``close`` is for any. Each source has a thread.
    """

    def __init__(
        self,
        sources: Iterable[tuple[ContainerLogs[Any], bytes]],
        *,
        follow: bool,
        timestamps: bool,
        encoding: Optional[str],
        errors: Optional[str],
        failed: Optional[Failed] = None,
    ) -> None:
        super().__init__(encoding, errors)
        made = [_Source(*each) for each in sources]
        self._merge = _Merge(made, timestamps, _PATIENCE if follow else math.inf, failed)
        for source in made:
            source.log.gaps = self.gaps
        self._merge.start()

    def __repr__(self) -> str:
        return f"<kubews.Logs of {len(self._merge.sources)} containers>"

    def __del__(self) -> None:
        if not hasattr(self, "_merge"):
            return  # Ctrl-C came before
        self._merge.close()
        if self.reason is None:
            warnings.warn(
                f"{self!r} was forgotten; close it", ResourceWarning, source=self, stacklevel=2
            )

    @property
    def sources(self) -> Sequence[Logs[Any]]:
        """The logs of the single containers, each with a ``reason`` of its own."""
        return [each.log for each in self._merge.sources]

    @property
    def resumed(self) -> int:
        """How often one of them was cut and went on."""
        return sum(each.resumed for each in self.sources)

    def close(self) -> None:
        """Read no more. Who reads is woken, and finds the end.

        Threads: any, and does not wait for the server; may be called again.
        """
        if self.reason is None:
            self.reason = "closed"
        self._merge.close()
        for each in self.sources:
            each.close()

    def _next(self, deadline: Deadline) -> bytes:
        merge = self._merge
        while True:
            soon = deadline if math.isinf(merge.patience) else deadline.at_most(merge.patience)
            try:
                found = wait_for(merge, merge.readers, merge.choose, soon, nothing)
            except Exception:
                self.reason = self.reason or "lost"
                raise
            if found is not None:
                merge.feeders.wake_all()
                self.reason = self.reason or (None if found else self._common_reason())
                return found
            if deadline.expired():
                raise Expired

    def _common_reason(self) -> str:
        reasons = {str(each.reason) for each in self.sources}
        return reasons.pop() if len(reasons) == 1 else "ended"
