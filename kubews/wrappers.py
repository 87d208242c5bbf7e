"""What subprocess would put around a raw stream: buffers and text, for connections that can be lost.

The wrappers of ``io`` are told nothing of a loss (see ``below``): the method that was called raises
ConnectionLost where it would otherwise return nothing.
"""

from __future__ import annotations

import io
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, AnyStr, Optional, cast

from kubews.below import BelowBuffer, BelowText, loss_of
from kubews.errors import ConnectionLost
from kubews.streams import Stream
from kubews.transport.wait import fresh

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes that a buffered stream reads at a time.
BUFFER_SIZE = 65536


class ReadStream(io.BufferedReader):
    """A buffered stream to read, as ``subprocess`` gives for ``bufsize=-1``.

    Once the connection is lost, what came before is read first; then reading raises ConnectionLost.
    ``read()`` to the end raises at once, with everything in ``partial``.
    ``io.TextIOWrapper`` around it would drop an unfinished line then: ``text=True`` does not.

    Args:
        stream: the raw one.
        size: of the buffer, in bytes.

    Threads: any, one at a time. Ctrl-C may lose the bytes of a call that gathers, as for every file.
    """

    def __init__(self, stream: Stream, size: int = BUFFER_SIZE) -> None:
        self._stream = stream
        super().__init__(cast(io.RawIOBase, BelowBuffer(stream)), size)

    @property
    def raw(self) -> Stream:  # type: ignore[override]
        """The raw stream; what is in the buffer is not in it."""
        return self._stream

    @property
    def bridged(self) -> bool:
        """See ``Stream.bridged``."""
        return self._stream.bridged

    def read(self, size: Optional[int] = -1, /) -> bytes:
        """Read ``size`` bytes, or to the end; fewer only at the end.

        Threads: blocks.
        """
        _check_fork(self._stream)
        data = super().read(size)
        to_end = size is None or size < 0
        if to_end or (size and not data):
            self._raise_loss(data)
        return data

    def read_out(self) -> bytes:
        """As ``read``, but a lost connection is the end.

        Threads: blocks.
        """
        _check_fork(self._stream)
        return super().read()

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, at most ``size`` bytes.

        Threads: blocks while there is nothing.
        """
        _check_fork(self._stream)
        data = super().read1(size)
        if size and not data:
            self._raise_loss(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer; return the number of bytes.

        Threads: blocks.
        """
        _check_fork(self._stream)
        count = super().readinto(buffer)
        if not count and memoryview(buffer).nbytes:
            self._raise_loss(b"")
        return count

    def readinto1(self, buffer: WriteableBuffer, /) -> int:
        """Read what is there into a buffer; return the number of bytes.

        Threads: blocks while there is nothing.
        """
        _check_fork(self._stream)
        count = super().readinto1(buffer)
        if not count and memoryview(buffer).nbytes:
            self._raise_loss(b"")
        return count

    def readline(self, size: Optional[int] = -1, /) -> bytes:
        """Read a line; the last one may lack its newline.

        Threads: blocks.
        """
        _check_fork(self._stream)
        data = super().readline(-1 if size is None else size)
        if size != 0 and not data:
            self._raise_loss(data)
        return data

    def peek(self, size: int = 0, /) -> bytes:
        """Return buffered bytes without taking them, ``b""`` at the end.

        Threads: blocks while there are none.
        """
        data = self.held(size)
        if not data:
            self._raise_loss(b"")
        return data

    def held(self, size: int = 0) -> bytes:
        """As ``peek``, but a lost connection is the end.

        Threads: blocks while there are no bytes.
        """
        _check_fork(self._stream)
        return super().peek(size)

    def readlines(self, hint: Optional[int] = -1, /) -> list[bytes]:
        """Read lines to the end, or until they have ``hint`` bytes.

        Threads: blocks.
        """
        return _lines(self, hint, b"")

    def detach(self) -> io.RawIOBase:
        """Take the raw stream out of the buffer, which is useless then; what it holds is lost.

        Threads: one.
        """
        super().detach()
        return self._stream

    def _raise_loss(self, gathered: bytes) -> None:
        if (loss := loss_of(self._stream)) is not None:
            loss.partial = gathered
            raise loss

    def close(self) -> None:
        """Close the stream.

        Threads: waits for who reads.
        """
        if self._stream.inherited:
            self._stream.close()
        else:
            super().close()


class TextReadStream(io.TextIOWrapper):
    """A stream to read as text; see ``ReadStream`` for lost connections.

    Args:
        stream: the raw one.
        size: of the buffer, in bytes; 0 for none.
        encoding: a name, default UTF-8: the remote locale is not ours.
        errors: what to do with bytes that are not text.

    Threads: one.
    """

    def __init__(
        self, stream: Stream, size: int, encoding: Optional[str], errors: Optional[str]
    ) -> None:
        encoding = encoding or "utf-8"
        self._stream = stream
        self._bytes: Any = ReadStream(stream, size) if size else stream
        self._below = BelowText(stream, self._bytes, encoding)
        super().__init__(cast(io.BufferedReader, self._below), encoding=encoding, errors=errors)
        #: Whether only its own ``read`` knows the rest: some of it may be in a buffer, or be decoded already,
        #: or other ends of lines were asked for.
        self.touched = False

    @property
    def bridged(self) -> bool:
        """See ``Stream.bridged``."""
        return self._stream.bridged

    @property
    def buffer(self) -> Any:
        """The stream of bytes below; what was read as text is not in it."""
        self.touched = True
        return self._bytes

    def reconfigure(self, **changes: Any) -> None:
        """Change the encoding, before anything is read, or the way to treat errors or the ends of lines.

        Threads: one.
        """
        super().reconfigure(**changes)
        self.touched = self.touched or changes.get("newline") is not None
        if changes.get("encoding") is not None:
            self._below.use(self.encoding)

    def detach(self) -> Any:
        """Take the stream of bytes out of the text, which is useless then.

        Threads: one.
        """
        super().detach()
        return self._bytes

    def read(self, size: Optional[int] = -1, /) -> str:
        """Read ``size`` characters, or to the end; fewer only at the end.

        Threads: blocks.
        """
        _check_fork(self._stream)
        self.touched = True
        to_end = size is None or size < 0
        try:
            text = super().read(size)
        except UnicodeDecodeError as exc:
            if not to_end or self._below.lost is None:
                raise
            text = self.salvaged(exc)
        if to_end or (size and not text):
            self._raise_loss(text)
        return text

    def salvaged(self, exc: UnicodeDecodeError) -> str:
        """Return what a read to the end has met, its mistake replaced.

        Threads: one.
        """
        # The bytes are in the exception; what had been decoded before them is still in the wrapper.
        text = universal(self._below.replaced(exc.object))
        return self._decoded() + text

    def _decoded(self) -> str:
        characters = []
        try:
            while character := super().read(1):
                characters.append(character)
        except UnicodeDecodeError:
            pass  # the bytes that the caller has
        return "".join(characters)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Read a line; the last one may lack its newline.

        Threads: blocks.
        """
        _check_fork(self._stream)
        self.touched = True
        text = super().readline(size)
        if size != 0 and not text:
            self._raise_loss(text)
        return text

    def readlines(self, hint: Optional[int] = -1, /) -> list[str]:  # type: ignore[override]
        """Read lines to the end, or until they have ``hint`` characters.

        Threads: blocks.
        """
        return _lines(self, hint, "")

    def _raise_loss(self, gathered: str) -> None:
        lost = self._below.lost
        if lost is None:
            return
        lost = cast(ConnectionLost, fresh(lost))
        lost.partial = gathered + self._below.take_half(self.errors or "strict")
        raise lost

    def close(self) -> None:
        """Close the stream.

        Threads: one.
        """
        if self._stream.inherited:
            self._stream.close()
        else:
            super().close()


class TextWriteStream(io.TextIOWrapper):
    """A stream to write as text; every write goes out at once.

    Args:
        stream: the raw one. A buffer in between would be flushed, or lost, by a finalizer.
        encoding: a name, default UTF-8.
        errors: what to do with characters that cannot be encoded.
        line_buffering: accepted as for subprocess; every write is flushed anyway.

    Threads: one.
    """

    def __init__(
        self,
        stream: Stream,
        encoding: Optional[str],
        errors: Optional[str],
        line_buffering: bool,
    ) -> None:
        self._stream = stream
        super().__init__(
            stream,  # type: ignore[arg-type]
            encoding=encoding or "utf-8",
            errors=errors,
            newline="\n",  # the pod's, whatever this system's is
            line_buffering=line_buffering,
            write_through=True,
        )

    @property
    def bridged(self) -> bool:
        """See ``Stream.bridged``."""
        return self._stream.bridged


def _lines(stream: Iterable[AnyStr], hint: Optional[int], nothing: AnyStr) -> list[AnyStr]:
    lines: list[AnyStr] = []
    count, most = 0, -1 if hint is None else operator.index(hint)
    try:
        for line in stream:
            lines.append(line)
            count += len(line)
            if 0 < most < count:
                break
    except ConnectionLost as exc:
        lines.append(exc.partial or nothing)
        exc.partial = nothing.join(lines)
        raise
    return lines


def universal(text: str) -> str:
    """Translate the ends of lines, as text streams do.

    Threads: any.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_fork(stream: Stream) -> None:
    # A thread that exists only in the parent may hold the lock of the io object, for ever.
    if stream.inherited:
        stream._check_open()
