"""A few threads for what must block, each alive only while there is something to do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from kubews.transport.wait import DaemonThread


class Workers:
    """Run jobs in daemon threads, so many at a time.

    Args:
        limit: threads at most.
        name: of the threads.

    Threads: any.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._lock = threading.RLock()
        self._limit = limit
        self._name = name
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job soon; it must not raise.

        Raises:
            RuntimeError: there are too many threads in this process, or the interpreter exits.

        Threads: does not block.
        """
        with self._lock:
            # Invariant: while there is a job, somebody runs who will take it. So nobody may count on a
            # thread before it has started.
            self._jobs.append(job)
            if self._running == self._limit:
                return
            self._running += 1
            try:
                DaemonThread(self._work, self._name).start()
            except RuntimeError:
                self._running -= 1
                if self._running:
                    return
                self._jobs.pop()
                raise

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running -= 1
                    return
                job = self._jobs.popleft()
            job()
