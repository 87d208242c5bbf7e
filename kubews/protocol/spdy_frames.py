"""SPDY/3.1 frames: bytes to frames, however the bytes are cut, and frames to bytes.

All integers are big-endian. A data frame is ``0 | stream (31 bits) | flags (8) | length (24)`` and its
payload; a control frame is ``1 | version (15) | type (16) | flags (8) | length (24)`` and its body.

Sources: SPDY/3.1 draft, "Framing Layer"; moby/spdystream ``spdy/read.go`` (what its reader refuses).

Threads: values and functions may be used by any thread, a ``Framer`` by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Union

from kubews.errors import RemoteProtocolError

if TYPE_CHECKING:
    from typing_extensions import Buffer

SYN_STREAM = 1
SYN_REPLY = 2
RST_STREAM = 3
SETTINGS = 4
PING = 6
GOAWAY = 7
HEADERS = 8
WINDOW_UPDATE = 9

#: The only flag with a meaning here: the sender's half of the stream ends with this frame.
FIN = 0x01

MAX_STREAM_ID = 0x7FFFFFFF

#: Bytes in the body of a control frame. Kubernetes sends at most 70; a data frame is passed on in pieces
#: as it comes and needs no limit.
MAX_CONTROL = 64 * 1024

_VERSION = 3
_CONTROL = 0x80000000
_NAMES = {
    SYN_STREAM: "SYN_STREAM",
    SYN_REPLY: "SYN_REPLY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PING: "PING",
    GOAWAY: "GOAWAY",
    HEADERS: "HEADERS",
    WINDOW_UPDATE: "WINDOW_UPDATE",
}
# Least and greatest length of a body.
_LENGTHS = {
    SYN_STREAM: (10, MAX_CONTROL),
    SYN_REPLY: (4, MAX_CONTROL),
    RST_STREAM: (8, 8),
    SETTINGS: (0, MAX_CONTROL),
    PING: (4, 4),
    GOAWAY: (8, 8),
    HEADERS: (4, MAX_CONTROL),
    WINDOW_UPDATE: (0, MAX_CONTROL),
}

_ONE = struct.Struct(">I")
_TWO = struct.Struct(">II")


class DataPiece(NamedTuple):
    """Some bytes of a data frame: as many as have come."""

    stream_id: int
    payload: memoryview
    #: Whether the peer's half of the stream ends behind them.
    fin: bool


class SynStream(NamedTuple):
    """The peer opens a stream."""

    stream_id: int
    block: bytes
    fin: bool


class SynReply(NamedTuple):
    """The peer accepts a stream."""

    stream_id: int
    block: bytes
    fin: bool


class Headers(NamedTuple):
    """More headers of a stream."""

    stream_id: int
    block: bytes
    fin: bool


class RstStream(NamedTuple):
    """The peer ends both halves of a stream."""

    stream_id: int
    code: int


class Ping(NamedTuple):
    """A ping or the answer to one; whose it is its parity tells."""

    ping_id: int


class GoAwayFrame(NamedTuple):
    """The peer takes no more streams."""

    last_stream_id: int
    code: int


Frame = Union[DataPiece, SynStream, SynReply, Headers, RstStream, Ping, GoAwayFrame]


class Framer:
    """The bytes of one direction on their way to frames.

    It holds what has come of a head or of a control frame, never a payload.
    """

    def __init__(self) -> None:
        self._head = bytearray()
        self._body = bytearray()
        self._left = 0
        # Of the frame whose head is complete: the control type, or 0 and the stream.
        self._kind = 0
        self._stream_id = 0
        self._flags = 0

    def receive(self, payload: Buffer) -> Iterator[Frame]:
        """Yield the frames that further bytes complete, and the pieces of data in them.

        Args:
            payload: any number of bytes, cut anywhere.

        Raises:
            RemoteProtocolError: this is no SPDY/3.1, or more of it than is reasonable.
        """
        view = memoryview(payload).cast("B")
        while view:
            view = self._take_head(view)
            if len(self._head) < _TWO.size:
                return
            piece, view = view[: self._left], view[self._left :]
            self._left -= len(piece)
            complete = not self._left
            if complete:
                self._head.clear()
            if not self._kind:
                if piece or complete:
                    yield DataPiece(self._stream_id, piece, complete and bool(self._flags & FIN))
                continue
            self._body += piece
            if complete:
                body, self._body = bytes(self._body), bytearray()
                yield from _control(self._kind, bool(self._flags & FIN), body)

    def _take_head(self, view: memoryview) -> memoryview:
        missing = _TWO.size - len(self._head)
        if missing:
            self._head += view[:missing]
            if len(view) >= missing:
                self._begin()
        return view[missing:]

    def _begin(self) -> None:
        first, second = _TWO.unpack(self._head)
        self._flags, self._left = second >> 24, second & 0xFFFFFF
        if not first & _CONTROL:
            self._kind, self._stream_id = 0, _stream(first)
            return
        version, self._kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise RemoteProtocolError(f"a frame of SPDY version {version}; {_VERSION} was expected")
        if self._kind not in _LENGTHS:
            raise RemoteProtocolError(f"a SPDY control frame of unknown type {self._kind}")
        least, greatest = _LENGTHS[self._kind]
        if not least <= self._left <= greatest:
            raise RemoteProtocolError(f"a {_NAMES[self._kind]} frame of {self._left} bytes")


def _stream(number: int) -> int:
    stream_id = number & MAX_STREAM_ID
    if not stream_id:
        raise RemoteProtocolError("a frame for stream 0, which cannot exist")
    return stream_id


def _control(kind: int, fin: bool, body: bytes) -> Iterator[Frame]:
    if kind in (SETTINGS, WINDOW_UPDATE):
        return  # no windows here: moby/spdystream has none, and sends neither
    first = _ONE.unpack_from(body)[0]
    if kind == SYN_STREAM:
        # Associated stream, priority and slot, six bytes, say nothing that is needed.
        yield SynStream(_stream(first), body[10:], fin)
    elif kind == SYN_REPLY:
        yield SynReply(_stream(first), body[4:], fin)
    elif kind == HEADERS:
        yield Headers(_stream(first), body[4:], fin)
    elif kind == PING:
        if not first:
            raise RemoteProtocolError("a PING frame with id 0")
        yield Ping(first)
    else:
        code = _ONE.unpack_from(body, 4)[0]
        if kind == GOAWAY:
            yield GoAwayFrame(first & MAX_STREAM_ID, code)
            return
        if not code:
            raise RemoteProtocolError("a RST_STREAM frame with status 0")
        yield RstStream(_stream(first), code)


def data(stream_id: int, payload: Buffer, fin: bool = False) -> bytes:
    """Make a data frame."""
    view = memoryview(payload).cast("B")
    return b"".join((_TWO.pack(stream_id, fin << 24 | len(view)), view))


def syn_stream(stream_id: int, block: bytes, fin: bool = False) -> bytes:
    """Make a SYN_STREAM frame of priority 0: Kubernetes' end handles frames by priority, so all have one."""
    return _frame(SYN_STREAM, _ONE.pack(stream_id) + bytes(6) + block, fin)


def syn_reply(stream_id: int, block: bytes) -> bytes:
    """Make a SYN_REPLY frame."""
    return _frame(SYN_REPLY, _ONE.pack(stream_id) + block)


def rst_stream(stream_id: int, code: int) -> bytes:
    """Make a RST_STREAM frame."""
    return _frame(RST_STREAM, _TWO.pack(stream_id, code))


def ping(ping_id: int) -> bytes:
    """Make a PING frame."""
    return _frame(PING, _ONE.pack(ping_id))


def goaway(last_stream_id: int, code: int) -> bytes:
    """Make a GOAWAY frame."""
    return _frame(GOAWAY, _TWO.pack(last_stream_id, code))


def _frame(kind: int, body: bytes, fin: bool = False) -> bytes:
    return _TWO.pack(_CONTROL | _VERSION << 16 | kind, fin << 24 | len(body)) + body
