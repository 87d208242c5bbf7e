"""One clock and one kind of arithmetic for every timeout."""

from __future__ import annotations

import threading
import time
from typing import Optional


class Deadline:
    """A point on the monotonic clock, or never.

    Args:
        timeout: seconds from now; None means never.

    Threads: immutable.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: Optional[float]) -> None:
        # More than a lock or a socket can be told to wait is never.
        self._at: Optional[float] = None
        if timeout is not None and not timeout > threading.TIMEOUT_MAX:
            self._at = time.monotonic() + timeout

    def remaining(self) -> Optional[float]:
        """Return the seconds left, 0.0 once they are used up, None if there is no limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    def expired(self) -> bool:
        """Return whether the time is up."""
        # The other way round a timeout that is not a number would never pass.
        return self._at is not None and not time.monotonic() < self._at

    def at_most(self, timeout: float) -> Deadline:
        """Return the earlier of this deadline and ``timeout`` seconds from now."""
        remaining = self.remaining()
        return Deadline(timeout if remaining is None else min(timeout, remaining))


NEVER = Deadline(None)
