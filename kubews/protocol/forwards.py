"""Forwarded connections over one WebSocket, in the same words for the tunnel and for channel pairs.

The tunnel carries any number of them at the same time, each as a stream for data and one for the server's
error text. Channel pairs (``forwarding.Forwarding``) carry one here: its server dials at once and once.

Sources: client-go ``tools/portforward/portforward.go: handleConnection``; kubernetes
``cri-streaming/pkg/streaming/portforward/{httpstream,websocket}.go``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Optional, Protocol, Union

from kubews.errors import LocalProtocolError, RemoteProtocolError
from kubews.protocol.events import Data, End, GoAway, Pong, Reset
from kubews.protocol.forwarding import (
    DATA,
    ERROR,
    Forwarding,
    data_channel,
    error_channel,
    stream_headers,
)
from kubews.protocol.spdy import SUBPROTOCOL as TUNNEL
from kubews.protocol.spdy import Session

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Bytes of an error text that are kept; the server's have a few hundred.
_MAX_TEXT = 16 * 1024


@dataclass(frozen=True)
class Finished:
    """A forwarded connection is over in both directions.

    Args:
        stream_id: its id.
        error: the server's text if it failed, for example because the port is closed.

    Threads: a value.
    """

    stream_id: int
    error: Optional[str]


ForwardEvent = Union[Data, End, Finished, Pong, GoAway]


class Forwards(Protocol):
    """The client's end of one WebSocket.

    Threads: ``data_to_send`` may be called from any; everything else belongs to the one that receives.
    """

    subprotocol: str
    max_data: int

    #: Whether one WebSocket carries connection after connection.
    lasting: bool

    @property
    def can_open(self) -> bool:
        """Whether ``open`` would work."""

    def open(self, port: int) -> int:
        """Forward a connection; return its id. Whether the port is open is told only afterwards."""

    def receive(self, payload: Buffer, *, start: bool) -> list[ForwardEvent]:
        """Decode one WebSocket frame."""

    def conclude(self, stream_id: int) -> Finished:
        """Tell how an open connection has ended as far as is known, for the rest does not come."""

    def closed(self) -> list[ForwardEvent]:
        """Tell what it means that the server has closed the WebSocket in order."""

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """Encode bytes as the payload of one message."""

    def end_to_send(self, stream_id: int) -> bytes:
        """Encode the end of the bytes for the pod."""

    def reset(self, stream_id: int) -> None:
        """Give a connection up; nothing of it is told any more."""

    def ping(self) -> Optional[int]:
        """Ask whoever is behind the server for a ``Pong``; return its number: 1, 2, 3 and so on."""

    def pending_to_send(self) -> bytes:
        """Take what the other methods left to send: the payload of one message, or nothing."""


def forwards(subprotocol: str, port: int) -> Forwards:
    """Make the client's end for a negotiated subprotocol, in whatever case it is written.

    Args:
        subprotocol: what the server chose.
        port: the one that the request named.

    Raises:
        LocalProtocolError: it is none for port-forward.
    """
    if subprotocol.lower() == TUNNEL.lower():
        return TunnelForwards()
    return PairForwards(subprotocol, port)


@dataclass
class _Pair:
    """The two streams of a connection."""

    data: int
    error: int
    open: set[int] = field(default_factory=set)
    text: bytearray = field(default_factory=bytearray)
    reset: bool = False

    def finished(self) -> Finished:
        text = self.text.decode("utf-8", "replace")
        return Finished(self.data, text or ("the server reset it" if self.reset else None))


class TunnelForwards:
    """Any number of connections over a SPDY session.

    Threads: see ``Forwards``.
    """

    subprotocol = TUNNEL
    max_data = Session.max_data
    lasting = True

    def __init__(self) -> None:
        self._session = Session()
        # By both ids of each pair.
        self._pairs: dict[int, _Pair] = {}
        self._requests = 0

    @property
    def can_open(self) -> bool:
        """See ``Forwards``."""
        return self._session.can_open

    def open(self, port: int) -> int:
        """See ``Forwards``."""
        # Both at once, since neither has to be accepted first, and the first ended from the start: this side
        # has nothing to say there.
        request = str(self._requests)
        self._requests += 1
        error = self._session.open(stream_headers(ERROR, port, request), fin=True)
        data = self._session.open(stream_headers(DATA, port, request))
        self._pairs[error] = self._pairs[data] = _Pair(data, error, {data, error})
        return data

    def receive(self, payload: Buffer, *, start: bool) -> list[ForwardEvent]:
        """See ``Forwards``."""
        events: list[ForwardEvent] = []
        for event in self._session.receive(payload):
            if isinstance(event, Pong):
                events.append(Pong(event.ping_id // 2 + 1))
            elif isinstance(event, GoAway):
                events.append(event)
            else:
                pair = self._pairs.get(event.stream_id)
                if pair is None:
                    continue  # given up on this side
                if isinstance(event, Data) and event.stream_id == pair.data:
                    events.append(event)
                elif isinstance(event, Data):
                    pair.text += event.payload[: _MAX_TEXT - len(pair.text)]
                elif isinstance(event, End):
                    self._on_end(pair, event.stream_id, events)
                elif isinstance(event, Reset):
                    pair.reset = True
                    self._on_end(pair, event.stream_id, events)
        return events

    def _on_end(self, pair: _Pair, stream_id: int, events: list[ForwardEvent]) -> None:
        pair.open.discard(stream_id)
        if not pair.open:
            self._forget(pair)
            events.append(pair.finished())
        elif stream_id == pair.data or pair.reset or pair.text:
            events.append(End(pair.data))  # why, the error stream may still tell

    def _forget(self, pair: _Pair) -> None:
        for stream_id in (pair.data, pair.error):
            del self._pairs[stream_id]
            # Of an ended stream nothing is left to reset; the half of the data that is ours may be open.
            self._session.reset(stream_id)

    def conclude(self, stream_id: int) -> Finished:
        """See ``Forwards``."""
        return self._pairs[stream_id].finished()

    def closed(self) -> list[ForwardEvent]:
        """Tell nothing: what is open is lost."""
        return []

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """See ``Forwards``."""
        return self._session.data_to_send(stream_id, data)

    def end_to_send(self, stream_id: int) -> bytes:
        """See ``Forwards``."""
        return self._session.end_to_send(stream_id)

    def reset(self, stream_id: int) -> None:
        """See ``Forwards``."""
        if stream_id in self._pairs:
            self._forget(self._pairs[stream_id])

    def ping(self) -> Optional[int]:
        """See ``Forwards``."""
        return self._session.ping() // 2 + 1

    def pending_to_send(self) -> bytes:
        """See ``Forwards``."""
        return self._session.pending_to_send()


class PairForwards:
    """One connection over the legacy protocol, made by the request itself.

    Args:
        subprotocol: which of the legacy ones.
        port: the one that the request named.

    Raises:
        LocalProtocolError: it is none of them.

    Threads: see ``Forwards``.
    """

    lasting = False

    def __init__(self, subprotocol: str, port: int) -> None:
        self._codec = Forwarding(subprotocol, [port])
        self._port = port
        self.subprotocol = self._codec.subprotocol
        self.max_data = self._codec.max_data
        self._opened = False
        self._text = bytearray()

    @property
    def can_open(self) -> bool:
        """See ``Forwards``."""
        return not self._opened

    def open(self, port: int) -> int:
        """See ``Forwards``."""
        if self._opened or port != self._port:
            raise LocalProtocolError(
                f"this connection is for port {self._port}, once; another needs a WebSocket of its own"
            )
        self._opened = True
        return data_channel(0)

    def receive(self, payload: Buffer, *, start: bool) -> list[ForwardEvent]:
        """See ``Forwards``."""
        events: list[ForwardEvent] = []
        for event in self._codec.receive(payload, start=start):
            assert isinstance(event, Data), "the codec tells nothing else"
            if event.stream_id == error_channel(0):
                self._text += event.payload[: _MAX_TEXT - len(self._text)]
            elif not self._opened:
                raise RemoteProtocolError("data came before the connection was asked for")
            else:
                events.append(event)
        return events

    def conclude(self, stream_id: int) -> Finished:
        """See ``Forwards``."""
        return Finished(stream_id, self._text.decode("utf-8", "replace") or None)

    def closed(self) -> list[ForwardEvent]:
        """The end of the WebSocket is the end of its only connection."""
        return [self.conclude(data_channel(0))]

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """See ``Forwards``."""
        return self._codec.data_to_send(stream_id, data)

    def end_to_send(self, stream_id: int) -> bytes:
        """See ``Forwards``."""
        return self._codec.end_to_send(stream_id)

    def reset(self, stream_id: int) -> None:
        """Do nothing: only closing the WebSocket would tell."""

    def ping(self) -> Optional[int]:
        """See ``Forwards``."""
        return None

    def pending_to_send(self) -> bytes:
        """See ``Forwards``."""
        return b""
