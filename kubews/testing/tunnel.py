"""Port-forward through a tunnel: SPDY in the binary messages of a WebSocket.

What ends the WebSocket is made with gorilla/websocket (``apiserver/pkg/util/proxy/streamtunnel.go``); what is
behind it is the container runtime's server (``cri-streaming/pkg/streaming/portforward/httpstream.go``).

Threads: everything here belongs to the thread of its connection.
"""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Optional

from websockets.frames import Opcode

from kubews.protocol.forwarding import DATA, ERROR, PORT, REQUEST_ID, STREAM_TYPE
from kubews.testing.forward import Forward
from kubews.testing.forwardloop import ForwardLoop
from kubews.testing.pods import Pod
from kubews.testing.ports import parse_port
from kubews.testing.spdystream import SpdyStream, Stream
from kubews.testing.tls import Bytes

if TYPE_CHECKING:
    from kubews.testing.connection import Connection

PAIR_SECONDS = 30.0
_KINDS = (ERROR, DATA)
_COPY = 32 << 10  # io.Copy's buffer, which what goes to the client comes through
_PIECE = 64 << 10  # what the session gets at once: more than a frame that is no larger than usual
# What the hop takes of the client when the session behind it reads nothing. Here it is less than what the
# kernel's buffers between two real ones hold.
_UNDERWAY = 1 << 20


class _Pair:
    """The two streams of one forwarded connection, of which one may be missing."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.streams: dict[str, Stream] = {}
        self.deadline = time.monotonic() + PAIR_SECONDS


class Tunnel(ForwardLoop):
    """Carry any number of connections to any ports of one pod.

    Threads: one.
    """

    def __init__(self, connection: Connection, pod: Pod) -> None:
        super().__init__(connection, pod)
        self._spdy = SpdyStream(self._wanted, self._opened, pong=connection.faults.pong)
        self._pairs: dict[str, _Pair] = {}
        # What the libraries of 1.36 have added to the error's text.
        self._resets = not connection.server.status_metadata
        self._carried: dict[Forward, _Pair] = {}
        self._upstream = True  # the container runtime is there
        self._underway: collections.deque[memoryview] = collections.deque()
        self._underway_size = 0

    # The client.

    def message(self, opcode: Opcode, data: Bytes) -> None:
        """Pass bytes on, however they are cut."""
        if not self._upstream and data:
            # Only now the hop that ends the WebSocket gets to closing it: until then its reading holds
            # the lock that the closing needs (streamtunnel.go: tunnelingWebsocketUpgraderConn).
            self.close()
        elif opcode is Opcode.TEXT:
            self.close()
        elif self._upstream:
            view = memoryview(data)
            pieces = [view[start : start + _PIECE] for start in range(0, len(view), _PIECE)]
            self._underway.extend(pieces)
            self._underway_size += len(view)
            self.work()

    def closed(self, payload: Bytes) -> None:
        """Answer a Close frame with its own code, as gorilla does."""
        code = int.from_bytes(payload[:2], "big")
        self.close(*([] if code == 1000 else [code]))

    def violated(self, code: int) -> None:
        """Say what is wrong, once."""
        self.close(code)

    def work(self) -> None:
        """Let the session's workers go on with what had no reader, and read."""
        self._spdy.work()
        while self._underway and not self._spdy.full:
            piece = self._underway.popleft()
            self._underway_size -= len(piece)
            self._spdy.receive(piece)
        if self._spdy.ended and self._upstream:
            self._spdy.say_goodbye()
            self.runtime_ended()
        elif self._gone and not self._underway:
            # What the session has still in its queues is lost.
            self.runtime_ended()

    @property
    def full(self) -> bool:
        """Whether the hop cannot get rid of what it has read, so that it reads nothing: no ping either."""
        return self._underway_size > _UNDERWAY

    def emit(self) -> None:
        """Send the session's bytes, cut as the copy through the hops happens to cut them."""
        data = memoryview(self._spdy.take_outgoing())
        if self._gone:
            return
        size = min(self._faults.frame_size or _COPY, _COPY)
        for start in range(0, len(data), size):
            self._messages.send(data[start : start + size])

    def client_gone(self) -> None:
        """Close the connection to the runtime, which sees the end behind what is underway."""
        self.work()

    def runtime_ended(self) -> None:
        """End the session; of that the client learns little, for the hop cannot close the WebSocket."""
        if self._upstream:
            self._upstream = False
            self._pairs.clear()
            self._underway.clear()
            self._underway_size = 0
            self._spdy.end()

    # Streams.

    def _wanted(self, stream: Stream) -> bool:
        return parse_port(stream.header(PORT)) is not None and stream.header(STREAM_TYPE) in _KINDS

    def _opened(self, stream: Stream) -> None:
        kind = stream.header(STREAM_TYPE)
        request_id = stream.header(REQUEST_ID)
        if not request_id:  # of an old client
            request_id = str(stream.stream_id - 2 * (kind == DATA))
        pair = self._pairs.setdefault(request_id, _Pair(request_id))
        if kind in pair.streams:
            what = f"{kind} stream already assigned"
            self._say(pair, f"error processing stream for request {request_id}: {what}")
            return
        pair.streams[kind] = stream
        if len(pair.streams) == len(_KINDS):
            del self._pairs[request_id]
            self._start(pair)

    def _say(self, pair: _Pair, text: str) -> None:
        if ERROR in pair.streams:
            self._spdy.send(pair.streams[ERROR], text.encode())

    def _start(self, pair: _Pair) -> None:
        stream = pair.streams[DATA]
        port = parse_port(stream.header(PORT))
        assert port is not None
        forward = self.add(port)
        self._carried[forward] = pair
        self._spdy.read_by(stream, forward)

    def output(self, forward: Forward, data: bytes) -> None:
        """Send what a port has said, unless nobody is there to take it."""
        if self._upstream:
            self._spdy.send(self._carried[forward].streams[DATA], data)
        else:
            forward.lose_output()

    def forward_ended(self, forward: Forward) -> None:
        """End both streams: after a dial the data's first, for that end is containerd's own."""
        pair = self._carried.pop(forward)
        data = pair.streams[DATA]
        self._spdy.read_by(data, None)
        if forward.dialled:
            self._spdy.finish(data)
        if forward.failure is not None:
            self._say(pair, forward.failure)
            if self._resets:
                self._spdy.reset(data)
                self._spdy.reset(pair.streams[ERROR])
        self._spdy.finish(pair.streams[ERROR])
        self._spdy.finish(data)

    def deadline(self) -> Optional[float]:
        """Return when something is to be done though nothing happens."""
        times = [super().deadline(), *(pair.deadline for pair in self._pairs.values())]
        return min((each for each in times if each is not None), default=None)

    def tick(self, now: float) -> None:
        """Give up on streams that have found no partner; they stay as they are."""
        super().tick(now)
        for pair in [each for each in self._pairs.values() if each.deadline <= now]:
            del self._pairs[pair.request_id]
            where = f"conn=0xc{id(self) & 0xFFFFFFFFF:09x}, request={pair.request_id}"
            self._say(pair, f"({where}) timed out waiting for streams")
