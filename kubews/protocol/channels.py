"""exec and attach: one channel byte before each message.

Sources: kubernetes ``apimachinery/pkg/util/remotecommand/constants.go`` (numbers),
``cri-streaming/pkg/streaming/remotecommand/websocket.go`` and ``apiserver/pkg/util/proxy/websocket.go``
(which side knows which subprotocol).
"""

from __future__ import annotations

import base64
import binascii
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Optional

from kubews.errors import LocalProtocolError, RemoteProtocolError
from kubews.protocol import status
from kubews.protocol.events import Data, End, Event

if TYPE_CHECKING:
    from typing_extensions import Buffer

STDIN = 0
STDOUT = 1
STDERR = 2
ERROR = 3
RESIZE = 4
CLOSE = 255

NAMES = {STDIN: "stdin", STDOUT: "stdout", STDERR: "stderr", ERROR: "error", RESIZE: "resize"}

#: Offered together: a server that knows v5 answers v5 in any order, an older one answers v4.
OFFER = ("v5.channel.k8s.io", "v4.channel.k8s.io")

#: Data bytes of one message to the server: x/net/websocket takes at most 32 MiB. Twice the 32 KiB that runtimes copy
#: at a time costs a sender a sixth less; more than that gains nothing.
MAX_DATA = 64 * 1024

# What Ctrl-D sends. A terminal takes the first for the end of a line that was begun, and the one after it
# for the end of the input; where no line was begun the second is read by nobody.
_END_OF_TERMINAL_INPUT = b"\x04\x04"

_MAX_SIZE = 65535

# A Status holds a runtime's message; this is far above any of them and bounds what a peer can make us keep.
_MAX_STATUS = 1 << 20
# Each piece that might be the last is parsed with all before it. Beyond so many bytes of that only the end
# of the connection completes the Status: a peer that sends "{},{},..." would keep the loop busy for hours.
_MAX_PARSED = 16 * _MAX_STATUS


class Capabilities(NamedTuple):
    """What a subprotocol can do.

    Args:
        half_close: whether ``255,n`` ends a stream.
        status_document: whether the error channel carries a Status (else bare text, nothing on success).
        text: whether messages are text and their payload base64.

    Threads: a value.
    """

    half_close: bool = False
    status_document: bool = True
    text: bool = False


CAPABILITIES = {
    "": Capabilities(status_document=False),
    "channel.k8s.io": Capabilities(status_document=False),
    "base64.channel.k8s.io": Capabilities(status_document=False, text=True),
    "v4.channel.k8s.io": Capabilities(),
    "v4.base64.channel.k8s.io": Capabilities(text=True),
    "v5.channel.k8s.io": Capabilities(half_close=True),
}


def window_size(rows: int, cols: int, *, redraw: bool = False) -> bytes:
    """Encode the size of a terminal, as the payload of a message on ``RESIZE``.

    Anything else than two numbers of 16 bits would end the server's decoder, and the message after that
    its read loop (``cri-streaming/pkg/streaming/remotecommand/resize.go``). containerd drops a zero.

    Args:
        rows: lines; what is out of range becomes 1 or 65535.
        cols: columns, likewise.
        redraw: put another size in front, as ``kubectl attach`` does: a program that has drawn its
            screen already draws it again only when the size changes.
    """
    # Both in one message: a size that was sent alone might be replaced before it is on its way.
    sizes = [(rows + 1, cols + 1), (rows, cols)] if redraw else [(rows, cols)]
    return b"".join(
        b'{"Width":%d,"Height":%d}\n' % (_in_range(width), _in_range(height))
        for height, width in sizes
    )


def _in_range(number: int) -> int:
    return min(max(operator.index(number), 1), _MAX_SIZE)


class Channels:
    """The codec of one exec or attach connection.

    Args:
        subprotocol: the negotiated name, ``""`` if none was.
        tty: whether the process has a terminal: there the end of stdin is a key.

    Raises:
        LocalProtocolError: the name is not one of ``CAPABILITIES``.

    Threads: receiving belongs to one thread; sending keeps no state and may be called from any.
    """

    names: Mapping[int, str] = NAMES
    max_data = MAX_DATA

    def __init__(self, subprotocol: str, tty: bool = False) -> None:
        if subprotocol not in CAPABILITIES:
            raise LocalProtocolError(f"no channel protocol is named {subprotocol!r}")
        self.subprotocol = subprotocol
        self.can = CAPABILITIES[subprotocol]
        self._tty = tty
        self._channel: Optional[int] = None
        self._status = bytearray()
        self._parsed = 0
        self._status_seen = False

    # -- receiving

    def receive(self, payload: Buffer, *, start: bool = True) -> list[Event]:
        """Decode one message, or one fragment of it.

        Args:
            payload: the payload of one WebSocket frame.
            start: whether a message starts here; only its first fragment carries the channel.

        Returns:
            The events in order; none for an empty payload, which only says "connected"
            (``apiserver/pkg/util/proxy/websocket.go``) and is neither an end nor a Status.

        Raises:
            RemoteProtocolError: the message cannot be decoded.
        """
        view = memoryview(payload)
        if start:
            self._channel = None
        if not view:
            return []
        if self._channel is None:
            # Not always the first fragment: that one may be empty.
            self._channel, view = self._open(view)
        elif self.can.text:
            raise RemoteProtocolError("a base64 message came in fragments")
        if self._channel == ERROR:
            return self._receive_status(view)
        if self._channel == CLOSE and self.can.half_close:
            return self._receive_end(view)
        return [Data(self._channel, view)] if view else []

    def receive_eof(self) -> list[Event]:
        """Tell that the connection has ended, in whatever way.

        Returns:
            The Status that an unversioned protocol or a damaged document leaves behind, if any.
        """
        raw = bytes(self._status).strip()
        if self._status_seen or not raw:
            return []
        document = status.decode_document(raw) if self.can.status_document else None
        if document is not None:
            return [self._finish_status(status.from_document(document))]
        return [self._finish_status(status.from_text(raw))]

    def _open(self, view: memoryview) -> tuple[int, memoryview]:
        if not self.can.text:
            return view[0], view[1:]
        try:
            return view[0] - ord("0"), memoryview(base64.b64decode(view[1:], validate=True))
        except binascii.Error as exc:
            raise RemoteProtocolError(f"a message is not base64: {exc}") from exc

    def _receive_end(self, view: memoryview) -> list[Event]:
        if len(view) != 1 or view[0] > RESIZE:
            raise RemoteProtocolError(f"a malformed end of stream: {bytes(view[:8])!r}")
        return [End(view[0])]

    def _receive_status(self, view: memoryview) -> list[Event]:
        if self._status_seen:
            return []
        if len(self._status) + len(view) > _MAX_STATUS:
            raise RemoteProtocolError(f"the Status is larger than {_MAX_STATUS} bytes")
        self._status += view
        # It may come in pieces: only a closing brace can complete it, and only a parser can tell.
        if not self.can.status_document or not bytes(view).rstrip().endswith(b"}"):
            return []
        if self._parsed > _MAX_PARSED:
            return []
        self._parsed += len(self._status)
        document = status.decode_document(bytes(self._status))
        if document is None:
            return []
        return [self._finish_status(status.from_document(document))]

    def _finish_status(self, event: Event) -> Event:
        self._status_seen = True
        self._status.clear()
        return event

    # -- sending

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """Encode bytes of one stream as the payload of one message.

        Args:
            stream_id: the channel.
            data: at most ``MAX_DATA`` bytes. A message must never be fragmented: x/net/websocket
                takes the first byte of a continuation frame for a channel.

        Raises:
            LocalProtocolError: too many bytes for one message.
        """
        view = memoryview(data)
        if view.nbytes > MAX_DATA:
            raise LocalProtocolError(f"{view.nbytes} bytes in one message; {MAX_DATA} is the limit")
        if self.can.text:
            return bytes((ord("0") + stream_id,)) + base64.b64encode(view)
        return b"".join((bytes((stream_id,)), view))

    @property
    def can_end_stdin(self) -> bool:
        """Whether the process can be told that its input has ended."""
        return self.can.half_close or self._tty

    def end_to_send(self, stream_id: int) -> bytes:
        """Encode the end of one stream.

        Args:
            stream_id: the channel to end.

        Raises:
            LocalProtocolError: the subprotocol has no such message; older servers ignore it silently.
        """
        if self._tty and stream_id == STDIN:
            return self.data_to_send(STDIN, _END_OF_TERMINAL_INPUT)
        if not self.can.half_close:
            raise LocalProtocolError(f"{self.subprotocol or 'no subprotocol'} cannot end a stream")
        return bytes((CLOSE, stream_id))
