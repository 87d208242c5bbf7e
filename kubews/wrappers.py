"""What subprocess would put around a raw stream: buffers and text, for connections that can be lost.

An exception from below makes the wrappers of ``io`` drop what they have gathered. So to the wrapper a
lost connection is the end of the file, and the method that was called raises ConnectionLost where it
would otherwise return nothing.
"""

from __future__ import annotations

import codecs
import io
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, AnyStr, Optional, Union, cast

from kubews.errors import ConnectionLost
from kubews.streams import Stream
from kubews.transport.wait import fresh

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes that a buffered stream reads at a time.
BUFFER_SIZE = 65536


class _Below:
    """What a wrapper of ``io`` reads.

    Args:
        stream: the raw one.
        file: it, or its buffer, to which all goes that is not said here.
    """

    # Wrappers ask for each line: a method in Python would be a fifth of its cost.
    closed: Any = property(operator.attrgetter("_stream.closed"))

    def __init__(self, stream: Stream, file: Union[ReadStream, Stream]) -> None:
        self._stream = stream
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _BelowBuffer(_Below):
    """A raw stream for which a lost connection is the end."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, stream)
        # No methods of this class: Ctrl-C behind the call in one would lose what was read.
        self.readinto = stream.fill
        self.readall = stream.read_out


class _BelowText(_Below):
    """A stream of bytes for which a lost connection is the end, and which keeps a character that it has cut.

    Args:
        stream: the raw one.
        file: it, or its buffer.
        encoding: of the text.
    """

    def __init__(self, stream: Stream, file: Union[ReadStream, Stream], encoding: str) -> None:
        super().__init__(stream, file)
        self._read = getattr(file, "read1", file.read)
        self._half = b""  # the first bytes of a character whose others have not come
        self._state = 0  # of the decoder, before what was given out last
        self.use(encoding)
        #: How the bytes ended, if a lost connection ended them.
        self.lost: Optional[ConnectionLost] = None

    def use(self, encoding: str) -> None:
        """Take it for the encoding, before anything is read."""
        self._new_decoder = codecs.getincrementaldecoder(encoding)
        # Only to know where characters end.
        self._decoder = self._new_decoder("ignore")

    def take_half(self, errors: str) -> str:
        """Return what there is of a character that was cut, once."""
        half, state = self._rest(), self._decoder.getstate()[1]
        if not half:
            return ""
        try:
            return self._decode(half, errors, state)
        except Exception:
            # The handler is strict, or for writing only, or the user's. What counts is the loss.
            return self._decode(half, "replace", state)

    def replaced(self, data: bytes) -> str:
        """Return the text of what was given out last, with all that is none replaced."""
        return self._decode(data, "replace", self._state)

    def _decode(self, data: bytes, errors: str, state: int) -> str:
        decoder = self._new_decoder(errors)
        decoder.setstate((b"", state))
        return decoder.decode(data, True)

    def read1(self, size: int = -1) -> Any:
        """Read what is there, in whole characters; nothing at the end."""
        self._state = self._decoder.getstate()[1]
        while True:
            try:
                data = self._read(size)
            except ConnectionLost as exc:
                self.lost = cast(ConnectionLost, fresh(exc))
                return b""
            if not data:  # None if it is a descriptor that the user has made non-blocking
                return self._rest() or data
            whole = self._whole(data)
            if whole:
                return whole

    def read(self) -> Any:
        """Read to the end."""
        self._state = self._decoder.getstate()[1]
        data = self._file.read_out()
        self.lost = _loss(self._stream)
        if self.lost is not None:
            return self._whole(data)
        return data if data is None else self._rest() + data

    def _whole(self, data: bytes) -> bytes:
        try:
            self._decoder.decode(data)
        except UnicodeError:
            return data  # idna ignores nothing, and has no half characters
        data = self._half + data if self._half else data
        self._half = self._decoder.getstate()[0]
        return data[: len(data) - len(self._half)] if self._half else data

    def _rest(self) -> bytes:
        """Give out half a character: what is wrong is the text."""
        rest, self._half = self._half, b""
        self._decoder.setstate((b"", self._decoder.getstate()[1]))
        return rest


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
        super().__init__(cast(io.RawIOBase, _BelowBuffer(stream)), size)

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
        if (loss := _loss(self._stream)) is not None:
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
        self._below = _BelowText(stream, self._bytes, encoding)
        super().__init__(cast(io.BufferedReader, self._below), encoding=encoding, errors=errors)
        #: Whether some of it may have been read, so that it is in a buffer or decoded and not yet given out.
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


def _loss(stream: Stream) -> Optional[ConnectionLost]:
    # A descriptor that the user has made non-blocking, and that has nothing now, has not ended.
    return None if stream.bridged and not stream.drained else stream.loss


def universal(text: str) -> str:
    """Translate the ends of lines, as text streams do.

    Threads: any.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_fork(stream: Stream) -> None:
    # A thread that exists only in the parent may hold the lock of the io object, for ever.
    if stream.inherited:
        stream._check_open()
