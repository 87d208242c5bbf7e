"""Which lines of a log were given out already, when the server begins again.

A server is asked for what is not older than a second: finer it does not look (kubernetes
``pkg/registry/core/pod/strategy.go: LogLocation`` formats ``sinceTime`` without a fraction). So it sends
some lines again, in the order of its file, from the first one that is not older (kubernetes
``cri-client/pkg/logs/logs.go``). Only the file that is written now is read: what was rotated away is not
there any more.
"""

from __future__ import annotations

import datetime
import re
from array import array
from typing import Optional

# RFC 3339, of the node's zone.
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ")
_SECOND = slice(0, 19)

# Whole seconds that are remembered beside the last one: a runtime reads stdout and stderr in two threads,
# each with its own look at the clock, so a line may be a little older than the one before it.
_KEPT = 2


class Given:
    """The lines that were given out, as far as a server may send them again.

    Of each of the last seconds a hash a line is kept: 8 bytes.

    Threads: one.
    """

    def __init__(self) -> None:
        self._seconds: list[tuple[int, array[int]]] = []
        self._second = b""  # of the last line
        self._hashes: array[int] = array("q")
        self._forgotten = 0  # the latest second of which lines were forgotten
        self._first = 0  # the moment of the first line
        self._last_line = b""
        #: Whether anything was given out.
        self.begun = False

    def take(self, line: bytes) -> bytes:
        """Note a line, and return it without its stamp."""
        self.begun = True
        if line[_SECOND] != self._second and not self._begin(line):
            return line  # the rest of a line that begins before what was asked for
        self._hashes.append(hash(line))
        self._last_line = line
        return line[line.index(b" ") + 1 :]

    @property
    def since(self) -> str:
        """From when on the server is to begin again; empty if nothing was given out."""
        begin = self._begin_again()
        if not begin:
            return ""
        moment = datetime.datetime.fromtimestamp(begin, datetime.timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def stamp(self) -> str:
        """The stamp of the last line, empty if there is none."""
        return self._last_line.partition(b" ")[0].decode()

    def repeated(self) -> Repeated:
        """Return what recognises these lines when the server sends them from ``since`` on."""
        begin = self._begin_again()
        expected: array[int] = array("q")
        for second, hashes in self._seconds:
            if second >= begin:
                expected += hashes
        return Repeated(expected, self._first, moment_of(self._last_line))

    def _begin_again(self) -> int:
        if not self._seconds:
            return 0
        return max(min(second for second, _ in self._seconds), self._forgotten + 1)

    def _begin(self, line: bytes) -> bool:
        """Begin another second; return whether the line has a stamp at all."""
        moment = seconds_of(line)
        if moment is None:
            return False
        if self._seconds and moment < self._seconds[-1][0] - _KEPT:
            # The node's clock was set back. What is behind that may be sent again, too, and is then not known
            # any more: a gap will be told.
            self._seconds, self._forgotten = [], 0
        if not self._seconds:
            self._first = moment_of(line)
        hashes: array[int] = array("q")
        self._seconds.append((moment, hashes))
        # Last, so that after Ctrl-C the next line does all of this again.
        self._hashes, self._second = hashes, line[_SECOND]
        while self._seconds[0][0] < moment - _KEPT:
            self._forgotten = max(self._forgotten, self._seconds.pop(0)[0])
        return True


class Repeated:
    """Recognise the lines that a server sends again.

    Before them it sends those of the same second that were not asked for, if the log was asked for from
    the middle of it on (``tailLines``, ``sinceSeconds``).

    Args:
        expected: the hashes of the lines that it will send, if it still has all of them.
        first: the moment of the first line that was ever given out.
        last: that of the last one.

    Threads: one.
    """

    def __init__(self, expected: array[int], first: int, last: int) -> None:
        self._expected = expected
        self._first = first
        self._last = last
        self._next: Optional[int] = None
        #: Whether nothing more will be repeated.
        self.done = not expected
        #: Whether the server did not have the last line any more: then others may be missing, too.
        self.gap = False

    def has(self, line: bytes) -> bool:
        """Tell whether a line is none to be given out; ask for each in order, until ``done``."""
        if self._next is None and not _STAMP.match(line):
            return True  # the rest of one that began before, and has been given out whole
        wanted = hash(line)
        if self._next is None and wanted in self._expected:
            # Not the first of them if what lies before it was rotated away meanwhile.
            self._next = self._expected.index(wanted)
        if self._next is not None and self._expected[self._next] == wanted:
            self._next += 1
            self.done = self._next == len(self._expected)
            return True
        # One from before the first, which may be equal to it.
        if moment_of(line) <= (self._last if self._next is None else self._first):
            return True
        self.done = self.gap = True
        return False

    @property
    def position(self) -> int:
        """How many of the lines have been passed."""
        return self._next or 0

    def end(self) -> None:
        """Say that the log is over: what has not been repeated by now was not there."""
        self.gap = self.gap or not self.done
        self.done = True


def moment_of(line: bytes) -> int:
    """Return when a line was written, in nanoseconds since 1970; 0 if it does not say so."""
    found, seconds = _STAMP.match(line), seconds_of(line)
    if found is None or seconds is None:
        return 0
    fraction = (found[2] or b"")[1:].ljust(9, b"0")[:9]
    return seconds * 1_000_000_000 + int(fraction)


def seconds_of(line: bytes) -> Optional[int]:
    """Return the second of a line's stamp, since 1970; None if it has none."""
    found = _STAMP.match(line)
    if found is None:
        return None
    zone = found[3].replace(b"Z", b"+00:00")
    try:
        moment = datetime.datetime.fromisoformat((found[1] + zone).decode())
    except ValueError:
        return None
    return int(moment.timestamp())
