"""One command at a time: several test processes may want the same cluster at once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ClusterError, say
from .layout import cache

# Longer than the slowest build.
_TIMEOUT = 3000.0


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of this machine's clusters; wait for another process that does.

    Raises:
        ClusterError: it is held for too long.

    Threads: blocks.
    """
    cache().mkdir(parents=True, exist_ok=True)
    # On the directory itself, so that no lock file is left anywhere. The kernel frees it.
    descriptor = os.open(cache(), os.O_RDONLY | os.O_DIRECTORY)
    try:
        _wait(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int) -> None:
    end = time.monotonic() + _TIMEOUT
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise ClusterError(
                    f"another process has the lock on {cache()} for too long"
                ) from None
        if not told:
            say("waiting for another process that starts or stops a cluster")
            told = True
        time.sleep(0.2)
