"""A SPDY/3.1 session, as far as port-forward's tunnel uses it: streams over one connection, both roles.

A client and a server in one thread, each handing the other what it has to send::

    client, server = Session(), Session(server=True)
    stream = client.open({"port": "80"})
    server.receive(client.pending_to_send())             # [Opened(1, {"port": "80"})]
    server.reply(stream)
    client.receive(server.pending_to_send())             # [Opened(1, {})]
    server.receive(client.data_to_send(stream, b"hi"))   # [Data(1, b"hi")]
    server.receive(client.end_to_send(stream))           # [End(1)]

What is not here because Kubernetes' end has none of it (moby/spdystream ``connection.go``): windows,
priorities, settings, streams opened by the server, headers in mid-stream. A peer that sends some of that is
borne with. Without windows one stream that nobody reads stops all others sooner or later: whoever uses a
session takes every stream's data or resets the stream.

Sources: SPDY/3.1 draft; kubernetes ``streaming/pkg/httpstream/spdy/connection.go``;
``client-go/tools/portforward/portforward.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubews.errors import LocalProtocolError, RemoteProtocolError, StreamBroken
from kubews.protocol import spdy_frames as frames
from kubews.protocol.events import Data, End, GoAway, Opened, Pong, Reset, SessionEvent
from kubews.protocol.spdy_headers import Decoder, Encoder

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: The tunnel's name. Compare it in lower case: websocket-client returns it so.
SUBPROTOCOL = "SPDY/3.1+portforward.k8s.io"

#: Bytes of one data frame: what runtimes copy at a time.
MAX_DATA = 32 * 1024

#: Status codes of RST_STREAM.
PROTOCOL_ERROR = 1
REFUSED_STREAM = 3
CANCEL = 5

#: Status codes of GOAWAY.
OK = 0
GOAWAY_PROTOCOL_ERROR = 1

# What a peer can make this side say before it is sent: its pings and its bad streams are answered.
_MAX_ANSWERS = 1024

_NO_HEADERS: Mapping[str, str] = {}


class _Names(dict[int, str]):
    def __missing__(self, stream_id: int) -> str:
        return f"stream {stream_id}"


class Session:
    """One end of a connection; a codec (``codec.Codec``) whose streams come and go.

    ``pending_to_send`` gives what ``open``, ``reply``, ``reset``, ``ping``, ``goaway`` and the answers to
    the peer have left to send. Header blocks are compressed one after the other, so all of it must go out
    in the order in which it comes out. Data and ends are made apart, by ``data_to_send`` and
    ``end_to_send``, and may go out any time after the frame that opened their stream: that has to be
    queued before another thread is told the stream's id.

    Args:
        server: whether it is the end that accepts streams; else it is the one that opens them.

    Threads: ``data_to_send`` and ``end_to_send`` may be called from any, for one stream from one at a time;
    everything else belongs to the thread that receives. There are no locks.
    """

    subprotocol = SUBPROTOCOL
    names: Mapping[int, str] = _Names()
    max_data = MAX_DATA

    def __init__(self, *, server: bool = False) -> None:
        self._server = server
        self._framer = frames.Framer()
        self._decoder = Decoder()
        self._encoder = Encoder()
        self._pending: list[bytes] = []
        self._answers = 0
        #: Of the streams opened so far, by whichever end it is that opens them.
        self._last_id = 0
        self._last_ping = 0 if server else -1
        self._pings: set[int] = set()
        self._going = False
        # The open halves, and the streams that have no SYN_REPLY yet. What another thread does to them is
        # one discard from _sending, so no order of events can leave a half behind.
        self._sending: set[int] = set()
        self._receiving: set[int] = set()
        self._unanswered: set[int] = set()

    # -- receiving

    def receive(self, payload: Buffer, *, start: bool = True) -> list[SessionEvent]:
        """Decode what has come: any number of bytes, cut anywhere.

        Args:
            payload: of one WebSocket frame; its limits mean nothing (kubernetes
                ``apiserver/pkg/util/proxy/streamtunnel.go``).
            start: without a meaning, too.

        Returns:
            The events in order. Data that comes in part is told in part.

        Raises:
            RemoteProtocolError: this is not SPDY/3.1. Nothing that follows can be understood, so the
                connection is to be cut; what came before in the same payload is lost with it.

        Threads: the receiving one. There may be something to send afterwards.
        """
        events: list[SessionEvent] = []
        for frame in self._framer.receive(payload):
            if isinstance(frame, frames.DataPiece):
                self._on_data(frame, events)
            elif isinstance(frame, frames.SynStream):
                self._on_syn_stream(frame, events)
            elif isinstance(frame, frames.SynReply):
                self._on_syn_reply(frame, events)
            elif isinstance(frame, frames.Headers):
                self._decoder.decode(frame.block)
                self._on_fin(frame.stream_id, frame.fin, events)
            elif isinstance(frame, frames.RstStream):
                self._on_reset(frame, events)
            elif isinstance(frame, frames.Ping):
                self._on_ping(frame, events)
            else:
                self._going = True
                events.append(GoAway(frame.last_stream_id, frame.code))
        return events

    def receive_eof(self) -> list[SessionEvent]:
        """Tell that the connection has ended, in whatever way.

        Returns:
            Nothing: a stream that had not ended is lost with the connection.
        """
        return []

    def _on_data(self, piece: frames.DataPiece, events: list[SessionEvent]) -> None:
        # The server goes on for a while with a stream that was given up here.
        if piece.stream_id in self._receiving:
            if piece.payload:
                events.append(Data(piece.stream_id, piece.payload))
            self._on_fin(piece.stream_id, piece.fin, events)

    def _on_fin(self, stream_id: int, fin: bool, events: list[SessionEvent]) -> None:
        if fin and stream_id in self._receiving:
            self._receiving.discard(stream_id)
            events.append(End(stream_id))

    def _on_syn_stream(self, frame: frames.SynStream, events: list[SessionEvent]) -> None:
        headers = self._decoder.decode(frame.block)
        stream_id = frame.stream_id
        if not self._server:
            self._answer(frames.rst_stream(stream_id, REFUSED_STREAM))
        elif self._going:
            return
        # As Kubernetes' end has it: ids grow by two at least, odd or not.
        elif self._last_id and stream_id < self._last_id + 2:
            self._answer(frames.rst_stream(stream_id, PROTOCOL_ERROR))
        else:
            self._last_id = stream_id
            self._receiving.add(stream_id)
            self._unanswered.add(stream_id)
            events.append(Opened(stream_id, headers))
            self._on_fin(stream_id, frame.fin, events)

    def _on_syn_reply(self, frame: frames.SynReply, events: list[SessionEvent]) -> None:
        headers = self._decoder.decode(frame.block)
        if not self._server and frame.stream_id in self._unanswered:
            self._unanswered.discard(frame.stream_id)
            events.append(Opened(frame.stream_id, headers))
            self._on_fin(frame.stream_id, frame.fin, events)

    def _on_reset(self, frame: frames.RstStream, events: list[SessionEvent]) -> None:
        if self._forget(frame.stream_id):
            events.append(Reset(frame.stream_id, frame.code))

    def _on_ping(self, frame: frames.Ping, events: list[SessionEvent]) -> None:
        # The client's pings are odd, the server's even.
        if frame.ping_id % 2 == self._server:
            self._answer(frames.ping(frame.ping_id))
        elif frame.ping_id in self._pings:
            self._pings.discard(frame.ping_id)
            events.append(Pong(frame.ping_id))

    def _answer(self, frame: bytes) -> None:
        self._answers += 1
        if self._answers > _MAX_ANSWERS:
            raise RemoteProtocolError(f"the peer wants more than {_MAX_ANSWERS} answers at once")
        self._pending.append(frame)

    def _forget(self, stream_id: int) -> bool:
        known = (
            stream_id in self._receiving
            or stream_id in self._sending
            or stream_id in self._unanswered
        )
        self._receiving.discard(stream_id)
        self._sending.discard(stream_id)
        self._unanswered.discard(stream_id)
        return known

    # -- sending, in the receiving thread

    def pending_to_send(self) -> bytes:
        """Take what is to be sent: whole frames, for one message; empty if there are none.

        Threads: the receiving one.
        """
        pending = b"".join(self._pending)
        self._pending.clear()
        self._answers = 0
        return pending

    @property
    def can_open(self) -> bool:
        """Whether ``open`` would work: this is the client, nobody is going away, and ids are left."""
        return not (self._server or self._going or self._next_id > frames.MAX_STREAM_ID)

    @property
    def _next_id(self) -> int:
        return self._last_id + 2 if self._last_id else 1

    def open(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        """Open a stream; data may follow before it is accepted.

        Args:
            headers: names in lower case.
            fin: whether this side will send nothing on it.

        Returns:
            The stream's id. ``Opened`` tells that the peer has accepted it, ``Reset`` that it has not.

        Raises:
            LocalProtocolError: ``can_open`` is false, or the headers are too large.

        Threads: the receiving one. Queue ``pending_to_send`` before another thread may send on it.
        """
        if not self.can_open:
            raise LocalProtocolError(
                "streams are opened by the client"
                if self._server
                else "this connection takes no more streams; another is needed"
            )
        block = self._encoder.encode(headers)
        stream_id = self._last_id = self._next_id
        self._unanswered.add(stream_id)
        self._receiving.add(stream_id)
        if not fin:
            self._sending.add(stream_id)
        self._pending.append(frames.syn_stream(stream_id, block, fin))
        return stream_id

    def reply(self, stream_id: int, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        """Accept a stream that the peer has opened; before that nothing can be sent on it.

        Raises:
            LocalProtocolError: it does not wait for that, or the headers are too large.

        Threads: the receiving one.
        """
        if not self._server or stream_id not in self._unanswered:
            raise LocalProtocolError(f"stream {stream_id} does not wait to be accepted")
        self._pending.append(frames.syn_reply(stream_id, self._encoder.encode(headers)))
        self._unanswered.discard(stream_id)
        self._sending.add(stream_id)

    def reset(self, stream_id: int, code: int = CANCEL) -> None:
        """Give a stream up in both directions, or refuse it; nothing of it is told any more.

        There may be data of it on the way out: the peer ignores that. A stream that has ended both ways
        is let be.

        Threads: the receiving one.
        """
        if self._forget(stream_id):
            self._pending.append(frames.rst_stream(stream_id, code))

    def ping(self) -> int:
        """Ask the peer for a sign of life; ``Pong`` tells its answer.

        Only this reaches whoever is behind the server: WebSocket pings end there.

        Returns:
            The ping's id.

        Threads: the receiving one.
        """
        self._last_ping += 2
        if self._last_ping > frames.MAX_STREAM_ID:
            self._last_ping = 2 if self._server else 1
        self._pings.add(self._last_ping)
        self._pending.append(frames.ping(self._last_ping))
        return self._last_ping

    def goaway(self, code: int = OK) -> None:
        """Say that no more streams are wanted; those that are open go on.

        Threads: the receiving one.
        """
        self._going = True
        self._pending.append(frames.goaway(self._last_id if self._server else 0, code))

    # -- sending, in any thread

    def data_to_send(self, stream_id: int, data: Buffer, *, fin: bool = False) -> bytes:
        """Encode bytes of one stream as one frame.

        Args:
            stream_id: the stream.
            data: at most ``MAX_DATA`` bytes; more would keep other streams waiting.
            fin: whether they are the last.

        Raises:
            LocalProtocolError: too many bytes for one frame, or the stream was never opened.
            StreamBroken: this half of the stream has ended, or the stream was reset, which to another
                thread may happen at any time.

        Threads: any.
        """
        view = memoryview(data)
        if view.nbytes > MAX_DATA:
            raise LocalProtocolError(f"{view.nbytes} bytes in one frame; {MAX_DATA} is the limit")
        self._check_sending(stream_id)
        frame = frames.data(stream_id, view, fin)
        if fin:
            self._sending.discard(stream_id)
        return frame

    def end_to_send(self, stream_id: int) -> bytes:
        """Encode the end of this half of a stream; the other half goes on.

        Raises:
            LocalProtocolError: the stream was never opened.
            StreamBroken: it has ended already, or was reset.

        Threads: any.
        """
        return self.data_to_send(stream_id, b"", fin=True)

    def _check_sending(self, stream_id: int) -> None:
        if stream_id in self._sending:
            return
        if not 0 < stream_id <= self._last_id:
            raise LocalProtocolError(f"there is no stream {stream_id}")
        if self._server and stream_id in self._unanswered:
            raise LocalProtocolError(f"stream {stream_id} has not been accepted yet")
        raise StreamBroken(f"stream {stream_id} takes no more data: it has ended or was reset")
