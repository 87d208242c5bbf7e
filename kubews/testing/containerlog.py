"""The log of a container as a container runtime writes it, with rotation as a kubelet makes it.

A record is ``2016-10-06T00:17:09.669794202Z stdout F the text``; one with ``P`` in place of ``F`` goes on
in the next: of a line longer than 16 KiB, and of one that never got its newline (containerd
``internal/cri/io/logger.go: redirectLogs``).

Threads: a ``ContainerLog`` may be used by any thread.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import socket
import threading
import time
from pathlib import Path
from typing import Optional

from kubews.testing.forks import no_fork, not_for_forks

#: Bytes of a line in one record (containerd: ``max_container_log_line_size``).
LONGEST = 16 << 10

# Files that stay of one log (kubelet: ``containerLogMaxFiles``), the one that is written included.
_FILES = 5

STREAMS = ("stdout", "stderr")


def stamp(nanoseconds: int) -> bytes:
    """Return a moment as it stands in a log, always of the same width: as bytes they compare as times do."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(tzinfo=None)
    return b"%s.%09dZ" % (moment.isoformat().encode(), rest)


class LogWatch:
    """A descriptor that is readable when there may be more in a log.

    Threads: ``tell`` is for any, the rest for one.
    """

    def __init__(self) -> None:
        with no_fork:
            self._ours, self._theirs = map(not_for_forks, socket.socketpair())
        for each in (self._ours, self._theirs):
            each.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._ours.fileno()

    def tell(self) -> None:
        """Make it readable."""
        with contextlib.suppress(OSError):  # told already, or closed
            self._theirs.send(b"\0")

    def reset(self) -> None:
        """Make it unreadable, before a look at the log."""
        with contextlib.suppress(BlockingIOError):
            self._ours.recv(4096)

    def close(self) -> None:
        """Free the descriptors."""
        self._ours.close()
        self._theirs.close()


class ContainerLog:
    """What one run of a container has written: the files, and those who watch them.

    Args:
        path: of the file that is written; those that were rotated away lie beside it.

    Threads: safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._file: Optional[io.FileIO] = None
        self._held = dict.fromkeys(STREAMS, b"")  # what has no newline yet
        self._watches: set[LogWatch] = set()
        #: How often it was rotated.
        self.rotations = 0
        #: Whether nothing more will be written.
        self.ended = False

    def begin(self) -> None:
        """Make the file, which is there from a container's start on, whatever it says."""
        with self._lock:
            self._append([])

    def write(self, stream: str, data: bytes) -> None:
        """Write what a container has written to ``stdout`` or ``stderr``; whole lines appear at once."""
        with self._lock:
            *lines, rest = (self._held[stream] + data).split(b"\n")
            head = b"%s %s " % (stamp(time.time_ns()), stream.encode())
            records = []
            for line in lines:
                *parts, last = _pieces(line)
                records += [b"%sP %s\n" % (head, part) for part in parts]
                records.append(b"%sF %s\n" % (head, last))
            *parts, self._held[stream] = _pieces(rest)
            records += [b"%sP %s\n" % (head, part) for part in parts]
            self._append(records)

    def end(self) -> None:
        """Write what is left, and take no more. Idempotent."""
        with self._lock:
            if self.ended:
                return
            now = stamp(time.time_ns())
            held = self._held.items()
            self._append(
                [b"%s %s P %s\n" % (now, key.encode(), text) for key, text in held if text]
            )
            self.ended = True
            if self._file is not None:
                self._file.close()
            self._tell()

    def rotate(self) -> None:
        """Begin a new file; the oldest of those beside it go when there are too many."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None
            self.rotations += 1
            if self.path.exists():
                self.path.rename(self.path.with_name(f"{self.path.name}.{self.rotations:06d}"))
            for old in sorted(self.path.parent.glob(f"{self.path.name}.*"))[: 1 - _FILES]:
                old.unlink()
            self._tell()

    def open(self) -> tuple[io.BufferedReader, int]:
        """Open the file that is written now; return it, and how often there was a rotation before it."""
        with self._lock:
            path = str(self.path)
            if not self.ended:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch()
            elif not self.path.exists():  # its pod was deleted, or it has never said anything
                path = os.devnull
            return open(path, "rb"), self.rotations

    def watch(self) -> LogWatch:
        """Return what tells of more; give it back with ``unwatch``."""
        watch = LogWatch()
        with self._lock:
            self._watches.add(watch)
        return watch

    def unwatch(self, watch: LogWatch) -> None:
        """Tell no more."""
        with self._lock:
            self._watches.discard(watch)
        watch.close()

    def _append(self, records: list[bytes]) -> None:
        if self.ended:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with no_fork:
                self._file = not_for_forks(io.FileIO(str(self.path), "a"))
        if records:
            self._file.write(b"".join(records))
            self._tell()

    def _tell(self) -> None:
        for watch in self._watches:
            watch.tell()


def _pieces(line: bytes) -> list[bytes]:
    """Cut a line as the runtime does; there is always a last piece, which may be empty."""
    starts = range(0, max(1, len(line)), LONGEST)
    return [line[start : start + LONGEST] for start in starts]
