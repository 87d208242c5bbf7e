"""What every log is to its reader: lines, one after the other, until it says why there are no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, Optional, TypeVar, Union, cast

from kubews.errors import ConnectionLost, ReadTimeout
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.wait import Expired

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

#: What a line is: bytes or str.
Line = TypeVar("Line", bound=Union[bytes, str])


class Gap(NamedTuple):
    """A place where lines may be missing, because the server no longer had the last one that it had sent.

    Args:
        source: pod and container.
        after: the time of that line, as the server wrote it.
        before: the time of the line behind the gap; empty if the log ended there.

    Threads: a value.
    """

    source: str
    after: str
    before: str


class Logs(ABC, Generic[Line]):
    """The lines of a log: ``for line in log``, or ``readline`` and ``read``.

    Each line has its newline; only the last one may lack it.

    Args:
        encoding: by which lines become str; None for bytes.
        errors: what to do with bytes that are not text.

    Threads: one reads; ``close`` is for any.
    """

    def __init__(self, encoding: Optional[str], errors: Optional[str]) -> None:
        self._encoding = encoding
        self._errors = errors or "strict"
        #: Why there are no more lines, None as long as there may be: ``"complete"`` (all that there was is
        #: read), ``"ended"`` (the container has), ``"deleted"`` (the pod was), ``"limit"`` (of bytes),
        #: ``"closed"`` (on this side) or ``"lost"`` (it was cut; reading has raised ConnectionLost).
        self.reason: Optional[str] = None
        #: The container's, if it has ended and this is known.
        self.exit_code: Optional[int] = None
        #: Where lines may be missing.
        self.gaps: list[Gap] = []
        #: The errors of logs that could not be opened or are lost, with ``ignore_errors=True``.
        self.ignored: list[Exception] = []

    def readline(self, timeout: Optional[float] = None) -> Line:
        """Return the next line; nothing at the end, for which there is then a ``reason``.

        Args:
            timeout: seconds; None for ever.

        Raises:
            ReadTimeout: no line came in time; nothing was taken.
            ConnectionLost: the log was cut, and does not go on.
            ApiError: the server refused to let it go on.

        Threads: blocks; ``close`` wakes it.
        """
        try:
            return self._decoded(self._next(Deadline(timeout)))
        except Expired as exc:
            raise ReadTimeout(f"no line came from {self!r} in {timeout} s") from exc

    def read(self) -> Line:
        """Return all lines to the end as one.

        Raises:
            ConnectionLost: the log was cut, and does not go on; ``partial`` has the lines that came.
            ApiError: as for ``readline``.

        Threads: blocks; ``close`` wakes it.
        """
        lines: list[bytes] = []
        try:
            while line := self._next(NEVER):
                lines.append(line)
        except ConnectionLost as exc:
            exc.partial = self._decoded(b"".join(lines))
            raise
        return self._decoded(b"".join(lines))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Line:
        line = self._next(NEVER)
        if not line:
            raise StopIteration
        return self._decoded(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    @property
    def sources(self) -> Sequence[Logs[Line]]:
        """The logs of the single containers, each with a ``reason`` of its own; of one, itself."""
        return (self,)

    @property
    @abstractmethod
    def resumed(self) -> int:
        """How often it was cut and went on."""

    @abstractmethod
    def close(self) -> None:
        """Read no more. Who reads is woken, and finds the end.

        Threads: any; does not block; may be called again.
        """

    @abstractmethod
    def _next(self, deadline: Deadline) -> bytes:
        """Return the next line, nothing at the end."""

    def _decoded(self, line: bytes) -> Line:
        if self._encoding is None:
            return cast(Line, line)
        text = line.decode(self._encoding, self._errors)
        return cast(Line, text.replace("\r\n", "\n"))  # as subprocess: a terminal writes them
