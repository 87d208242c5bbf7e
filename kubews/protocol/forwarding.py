"""Port-forward: what both of its protocols share, and the legacy one, channel pairs.

On the tunnel (``spdy``) a forwarded connection is two streams, told apart by their headers. On the legacy
protocol it is two channels, numbered by the order of ``ports=``: data on 2i, the server's error text on
2i+1. There the server connects to each port at once and once; the end of one port is not told in either
direction, so a connection with several ports cannot say which of them still lives.

Sources: kubernetes ``cri-streaming/pkg/streaming/portforward/websocket.go`` (channels, headers),
``httpstream.go`` and ``constants.go`` (streams and their headers).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Optional

from kubews.errors import LocalProtocolError, RemoteProtocolError
from kubews.protocol.events import Data, Event
from kubews.protocol.spdy import SUBPROTOCOL as TUNNEL

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Offered together: a server that knows the tunnel chooses it in any order, an older one the other.
OFFER = (TUNNEL, "v4.channel.k8s.io")

#: The legacy subprotocols, each with whether its messages are text and their payload base64.
SUBPROTOCOLS = {
    "": False,
    "v4.channel.k8s.io": False,
    "v4.base64.channel.k8s.io": True,
}

#: Data bytes of one message, as for exec.
MAX_DATA = 32 * 1024

# A channel's number is one byte: with more ports the server begins again at 0.
MAX_PORTS = 128
# In text it is the character U+0030 + number, and beyond U+007F the server cannot read its own UTF-8.
MAX_PORTS_TEXT = 40

# The first message on every channel: the port, before anything is dialled.
_HEADER = struct.Struct("<H")

#: Names of the tunnel's headers, and the values of the first.
STREAM_TYPE = "streamtype"
PORT = "port"
REQUEST_ID = "requestid"
ERROR = "error"
DATA = "data"


def stream_headers(kind: str, port: int, request_id: str) -> dict[str, str]:
    """Return the headers of one of the two streams of a forwarded connection on the tunnel.

    Args:
        kind: ``ERROR`` or ``DATA``. The server starts when it has seen both.
        port: of the pod.
        request_id: the same for both, and another for each forwarded connection of a tunnel.

    Raises:
        LocalProtocolError: no such port.
    """
    _check_port(port)
    return {STREAM_TYPE: kind, PORT: str(port), REQUEST_ID: request_id}


def data_channel(index: int) -> int:
    """Return the channel of the data of a port, by its index in ``ports``."""
    return 2 * index


def error_channel(index: int) -> int:
    """Return the channel of the error text of a port, by its index in ``ports``."""
    return 2 * index + 1


class Forwarding:
    """The codec of one legacy connection, at the client's end.

    What comes on an error channel is told as data: the text for which one port has failed. It may come
    at any time, the others go on, and nothing else is told of a port's end. If there is one port, the end of
    the connection is its end.

    Args:
        subprotocol: the negotiated name, ``""`` if none was.
        ports: as they stand in the request.

    Raises:
        LocalProtocolError: the name is not one of ``SUBPROTOCOLS``, or these ports cannot be asked for.

    Threads: receiving belongs to one thread; sending keeps no state and may be called from any.
    """

    max_data = MAX_DATA

    def __init__(self, subprotocol: str, ports: Sequence[int]) -> None:
        if subprotocol not in SUBPROTOCOLS:
            raise LocalProtocolError(f"no legacy port-forward protocol is named {subprotocol!r}")
        self.subprotocol = subprotocol
        self._text = SUBPROTOCOLS[subprotocol]
        limit = MAX_PORTS_TEXT if self._text else MAX_PORTS
        if not 0 < len(ports) <= limit:
            raise LocalProtocolError(f"{len(ports)} ports on one connection; 1 to {limit} can be")
        for port in ports:
            _check_port(port)
        self._ports = tuple(ports)
        self.names: Mapping[int, str] = {
            channel: f"{kind} of port {port}"
            for index, port in enumerate(ports)
            for channel, kind in ((data_channel(index), DATA), (error_channel(index), ERROR))
        }
        # The channels whose header is still to come.
        self._awaited = set(self.names)
        self._channel: Optional[int] = None
        # Of the message that is being received, if it is a header.
        self._header: Optional[bytearray] = None

    def receive(self, payload: Buffer, *, start: bool = True) -> list[Event]:
        """Decode one message, or one fragment of it.

        Args:
            payload: the payload of one WebSocket frame.
            start: whether a message starts here; only its first fragment carries the channel.

        Returns:
            The data in it, none for a header or an empty message.

        Raises:
            RemoteProtocolError: the message cannot be decoded, or is not for the ports that were asked for.
        """
        view = memoryview(payload)
        if start:
            self._check_header_complete()
            self._channel = self._header = None
        if not view:
            return []
        if self._channel is None:
            # Not always the first fragment: that one may be empty.
            self._channel, view = self._open(view)
        elif self._text:
            raise RemoteProtocolError("a base64 message came in fragments")
        if self._header is not None:
            self._receive_header(self._channel, view)
            return []
        return [Data(self._channel, view)] if view else []

    def receive_eof(self) -> list[Event]:
        """Tell that the connection has ended, in whatever way.

        Returns:
            Nothing: whether that is the end of the data or a loss, only its way of ending can tell.
        """
        return []

    def _open(self, view: memoryview) -> tuple[int, memoryview]:
        if self._text:
            channel = view[0] - ord("0")
            try:
                view = memoryview(base64.b64decode(view[1:], validate=True))
            except binascii.Error as exc:
                raise RemoteProtocolError(f"a message is not base64: {exc}") from exc
        else:
            channel, view = view[0], view[1:]
        if channel not in self.names:
            raise RemoteProtocolError(f"a message on channel {channel}, which belongs to no port")
        if channel in self._awaited:
            self._header = bytearray()
        return channel, view

    def _receive_header(self, channel: int, view: memoryview) -> None:
        assert self._header is not None
        if len(self._header) + len(view) > _HEADER.size:
            raise RemoteProtocolError(
                f"the first message on channel {channel} is not the number of its port"
            )
        self._header += view
        if view and len(self._header) == _HEADER.size:
            self._awaited.discard(channel)
            (port,) = _HEADER.unpack(self._header)
            if port != self._ports[channel // 2]:
                raise RemoteProtocolError(
                    f"channel {channel} is for port {port}, not for {self._ports[channel // 2]}"
                )

    def _check_header_complete(self) -> None:
        if self._header is not None and len(self._header) == 1:
            raise RemoteProtocolError(f"half a port number on channel {self._channel}")

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """Encode bytes for one port as the payload of one message.

        Args:
            stream_id: the port's data channel. The server drops what comes for a port that has ended.
            data: at most ``MAX_DATA`` bytes. A message must never be fragmented: x/net/websocket
                takes the first byte of a continuation frame for a channel.

        Raises:
            LocalProtocolError: too many bytes for one message, or not a data channel.
        """
        view = memoryview(data)
        if view.nbytes > MAX_DATA:
            raise LocalProtocolError(f"{view.nbytes} bytes in one message; {MAX_DATA} is the limit")
        if stream_id not in self.names or stream_id % 2:
            raise LocalProtocolError(f"channel {stream_id} is none for data of a port")
        if self._text:
            return bytes((ord("0") + stream_id,)) + base64.b64encode(view)
        return b"".join((bytes((stream_id,)), view))

    def end_to_send(self, stream_id: int) -> bytes:
        """Say that there is no such message: the pod's input ends with the connection.

        Raises:
            LocalProtocolError: always.
        """
        raise LocalProtocolError(
            f"{self.names.get(stream_id, stream_id)} cannot be ended on its own: this connection "
            "speaks the legacy port-forward protocol (the tunnel, from Kubernetes 1.31 on, can)"
        )


def _check_port(port: int) -> None:
    if not 0 < port <= 0xFFFF:
        raise LocalProtocolError(f"port {port} is not one of 1 to 65535")
