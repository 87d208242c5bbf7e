"""Reading the log of a container as a kubelet does, with its options and their checks.

Sources: kubernetes ``cri-client/pkg/logs/logs.go: ReadLogs`` and ``tail.go``,
``pkg/apis/core/validation/validation.go: ValidatePodLogOptions``. Only the file that is written now is
read; what was rotated away is not.

Threads: everything here belongs to the thread of one connection.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import time
from collections.abc import Callable
from typing import Optional

from kubews.testing import objects
from kubews.testing.access import Refused
from kubews.testing.containerlog import ContainerLog, stamp
from kubews.testing.dialect import is_true

# What is handed on at a time.
_MUCH = 64 << 10


@dataclasses.dataclass(frozen=True)
class LogOptions:
    """What a request for a log asks for."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: Optional[int] = None
    limit: Optional[int] = None
    since: bytes = b""

    @classmethod
    def from_query(cls, query: list[tuple[str, str]], pod: str) -> LogOptions:
        """Decode and check a query.

        Raises:
            Refused: 400 for what cannot be decoded, 422 for what cannot be.
        """
        first: dict[str, str] = {}
        for key, value in query:
            first.setdefault(key, value)
        tail, limit, seconds = (
            _number(first.get(name)) for name in ("tailLines", "limitBytes", "sinceSeconds")
        )
        moment = _moment(first.get("sinceTime"))
        _check(pod, first, tail, limit, seconds)
        if seconds is not None:
            moment = max(0, time.time_ns() - seconds * 1_000_000_000)
        return cls(
            container=first.get("container", ""),
            follow=is_true(first.get("follow")),
            previous=is_true(first.get("previous")),
            timestamps=is_true(first.get("timestamps")),
            tail=tail,
            limit=limit,
            since=b"" if moment is None else stamp(moment),
        )


def _number(text: Optional[str]) -> Optional[int]:
    if text is None:
        return None
    wrong = "invalid syntax"
    with contextlib.suppress(ValueError):
        number = int(text)
        if -(1 << 63) <= number < 1 << 63:
            return number
        wrong = "value out of range"
    raise Refused(objects.bad_request(f'strconv.ParseInt: parsing "{text}": {wrong}'))


def _moment(text: Optional[str]) -> Optional[int]:
    """Return the nanoseconds of whole seconds: the API server passes no fraction on (``strategy.go``)."""
    if not text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")[:19] + _zone(text))
    except ValueError:
        layout = "2006-01-02T15:04:05Z07:00"
        message = f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"'
        raise Refused(objects.bad_request(message)) from None
    return int(moment.timestamp()) * 1_000_000_000


def _zone(text: str) -> str:
    return "+00:00" if text.endswith("Z") else text[-6:]


def _check(
    pod: str,
    given: dict[str, str],
    tail: Optional[int],
    limit: Optional[int],
    seconds: Optional[int],
) -> None:
    causes = []

    def invalid(field: str, value: int, detail: str) -> None:
        message = f"Invalid value: {value}: {detail}"
        causes.append({"reason": "FieldValueInvalid", "message": message, "field": field})

    def forbidden(field: str, detail: str) -> None:
        message = f"Forbidden: {detail}"
        causes.append({"reason": "FieldValueForbidden", "message": message, "field": field})

    if tail is not None and tail < 0:
        invalid("tailLines", tail, "must be greater than or equal to 0")
    if limit is not None and limit < 1:
        invalid("limitBytes", limit, "must be greater than 0")
    if seconds is not None and given.get("sinceTime"):
        forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified")
    elif seconds is not None and seconds < 1:
        invalid("sinceSeconds", seconds, "must be greater than 0")
    if "stream" in given:
        forbidden("stream", "may not be specified")
    if causes:
        raise Refused(objects.invalid("PodLogOptions", pod, causes))


class LogReader:
    """Read a log from where the options say, record by record.

    Args:
        log: what to read.
        options: how.
        is_over: tells whether nothing more will be written.
    """

    def __init__(self, log: ContainerLog, options: LogOptions, is_over: Callable[[], bool]) -> None:
        self._log = log
        self._options = options
        self._is_over = is_over
        self._file, self._rotations = log.open()
        self._file.seek(_start(self._file, options.tail))
        self._left = options.limit
        # Records, not lines: each piece of a long line is one. Who follows gets what comes, too.
        self._records = None if options.follow else options.tail
        self._line_begins = True
        self.done = self._records == 0

    def read(self) -> bytes:
        """Return what is there, in reasonable pieces; nothing if there is nothing now, or ``done``."""
        pieces: list[bytes] = []
        size = 0
        while not self.done and size < _MUCH:
            # Asked before the look: what was over then is read whole.
            rotations, over = self._log.rotations, self._is_over()
            record = self._file.readline()
            if not record.endswith(b"\n"):
                self._file.seek(-len(record), io.SEEK_CUR)
                if not self._goes_on(rotations, over):
                    break
                continue
            piece = self._shown(record)
            pieces.append(piece)
            size += len(piece)
            self._count(len(piece))
        return b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _goes_on(self, rotations: int, over: bool) -> bool:
        """At the end of the file, tell whether there is more to read at once."""
        if self._options.follow and rotations != self._rotations:
            self._file.close()
            self._file, self._rotations = self._log.open()
            return True
        self.done = over or not self._options.follow
        return False

    def _shown(self, record: bytes) -> bytes:
        moment, _, tag, text = record.split(b" ", 3)
        if tag == b"P":
            text = text[:-1]
        begins, self._line_begins = self._line_begins, text.endswith(b"\n") or not text
        if moment < self._options.since:
            return b""
        shown = b"%s %s" % (moment, text) if self._options.timestamps and begins else text
        return shown if self._left is None else shown[: self._left]

    def _count(self, size: int) -> None:
        if self._left is not None:
            self._left -= size
            self.done = self._left <= 0
        if self._records is not None:
            self._records -= 1
            self.done = self.done or self._records <= 0


def _start(file: io.BufferedReader, tail: Optional[int]) -> int:
    """Return where the last records begin (``tail.go: findTailLineStartIndex``)."""
    if tail is None:
        return 0
    position = file.seek(0, io.SEEK_END)
    found, block = -1, 1 << 16  # the newline of the last record ends it, and begins none
    while position > 0:
        size = min(block, position)
        position -= size
        file.seek(position)
        data = file.read(size)
        at = len(data)
        while (at := data.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == tail:
                return position + at + 1
    return 0
