"""What the wrappers of ``io`` read of a stream.

An exception from below makes them drop what they have gathered, and half a character is an error of the
text. So a lost connection is the end of the file for them, and characters come whole.
"""

from __future__ import annotations

import codecs
import operator
from typing import Any, Optional, cast

from kubews.errors import ConnectionLost
from kubews.streams import Stream
from kubews.transport.wait import fresh


class Below:
    """What a wrapper of ``io`` reads.

    Args:
        stream: the raw one.
        file: it, or its buffer, to which all goes that is not said here.

    Threads: one, the wrapper's.
    """

    # Wrappers ask for each line: a method in Python would be a fifth of its cost.
    closed: Any = property(operator.attrgetter("_stream.closed"))

    def __init__(self, stream: Stream, file: Any) -> None:
        self._stream = stream
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class BelowBuffer(Below):
    """A raw stream for which a lost connection is the end.

    Threads: one, the wrapper's.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, stream)
        # No methods of this class: Ctrl-C behind the call in one would lose what was read.
        self.readinto = stream.fill
        self.readall = stream.read_out


class BelowText(Below):
    """A stream of bytes for which a lost connection is the end, and which keeps a character that it has cut.

    Args:
        stream: the raw one.
        file: it, or its buffer.
        encoding: of the text.

    Threads: one, the wrapper's.
    """

    def __init__(self, stream: Stream, file: Any, encoding: str) -> None:
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
        self.lost = loss_of(self._stream)
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


def loss_of(stream: Stream) -> Optional[ConnectionLost]:
    """Return the ConnectionLost that stands behind the last byte, once that byte is read.

    Threads: any.
    """
    # A descriptor that the user has made non-blocking, and that has nothing now, has not ended.
    return None if stream.bridged and not stream.drained else stream.loss
