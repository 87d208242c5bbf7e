"""The server's end of a SPDY connection as moby/spdystream is one, its stalls included.

Frames are handled by five workers, those of a stream always by the same one; a ping goes to each worker in
turn. A worker waits until somebody takes the data it has in hand. So a stream that nobody reads stops the
streams of its worker, one ping in five, and, when fifty frames wait behind it, the connection: also the
reset that would help comes too late. (``connection.go: Serve, handleDataFrame``.)

Not built on ``protocol.spdy.Session``, whose server has none of these habits.

Threads: everything here belongs to the thread of its connection.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
from typing import Optional

from kubews.errors import RemoteProtocolError
from kubews.protocol import spdy_frames as frames
from kubews.protocol.spdy import CANCEL, MAX_DATA, OK, PROTOCOL_ERROR
from kubews.protocol.spdy_headers import Decoder, Encoder
from kubews.testing.forward import Forward
from kubews.testing.tls import Bytes

_WORKERS = 5
_QUEUE = 50


class Stream:
    """A stream that the client has opened.

    Threads: one.
    """

    def __init__(self, stream_id: int, headers: Mapping[str, str], *, closed: bool) -> None:
        self.stream_id = stream_id
        self.headers = headers
        self.closed = closed  # the client sends no more, or has reset it
        self.finished = False  # we send no more
        self.reader: Optional[Forward] = None

    def header(self, name: str) -> str:
        """Return the first value of a header, or nothing."""
        return self.headers.get(name, "").partition("\0")[0]


class SpdyStream:
    """The server's end of a connection.

    Args:
        wanted: tells whether a new stream is accepted.
        opened: called with each one that has been.
        pong: whether to answer pings.

    ``ended``: it reads no more, for the client has said goodbye or broken the protocol.

    Threads: one.
    """

    def __init__(
        self,
        wanted: Callable[[Stream], bool],
        opened: Callable[[Stream], None],
        *,
        pong: bool = True,
    ) -> None:
        self._wanted = wanted
        self._opened = opened
        self._pong = pong
        self._framer = frames.Framer()
        self._decoder = Decoder()
        self._encoder = Encoder()
        self._queues: list[collections.deque[frames.Frame]] = [
            collections.deque() for _ in range(_WORKERS)
        ]
        self._turn = 0
        self._next_id = 1
        self._streams: dict[int, Stream] = {}
        self._new: dict[int, Stream] = {}
        self._outgoing: list[bytes] = []
        self.ended = False

    # In.

    def receive(self, payload: Bytes) -> None:
        """Take bytes of the client, cut anywhere, and work."""
        if self.ended:
            return
        try:
            for frame in self._framer.receive(payload):
                if isinstance(frame, frames.GoAwayFrame):
                    self.ended = True
                    break
                self._queue(frame)
        except RemoteProtocolError:
            self.ended = True
        self.work()

    def _queue(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.Ping):
            worker, self._turn = self._turn, (self._turn + 1) % _WORKERS
        else:
            assert not isinstance(frame, frames.GoAwayFrame)
            worker = frame.stream_id % _WORKERS
        if isinstance(frame, frames.SynStream):
            # Of each block the next one needs to know, whatever becomes of its stream.
            headers = self._decoder.decode(frame.block)
            if frame.stream_id < self._next_id:
                self._outgoing.append(frames.rst_stream(frame.stream_id, PROTOCOL_ERROR))
                return
            self._next_id = frame.stream_id + 2
            self._new[frame.stream_id] = Stream(frame.stream_id, headers, closed=frame.fin)
        elif isinstance(frame, (frames.SynReply, frames.Headers)):
            self._decoder.decode(frame.block)
        elif isinstance(frame, frames.DataPiece):
            # What it is cut out of may be much larger, and wait as long as this.
            frame = frame._replace(payload=memoryview(bytes(frame.payload)))
        self._queues[worker].append(frame)

    @property
    def full(self) -> bool:
        """Whether a worker has so much before it that nothing more is read."""
        return any(len(queue) > _QUEUE for queue in self._queues)

    def work(self) -> None:
        """Let each worker handle frames until it has to wait."""
        for queue in self._queues:
            while queue and self._handle(queue[0]):
                queue.popleft()

    def _handle(self, frame: frames.Frame) -> bool:
        """Handle a frame; False if it has to wait."""
        if isinstance(frame, frames.Ping):
            if frame.ping_id % 2 and self._pong:
                self._outgoing.append(frames.ping(frame.ping_id))
            return True
        assert not isinstance(frame, frames.GoAwayFrame)
        if isinstance(frame, frames.SynStream):
            self._open(frame.stream_id)
            return True
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            return True
        if isinstance(frame, frames.DataPiece):
            return self._data(stream, frame)
        if isinstance(frame, frames.RstStream):
            del self._streams[stream.stream_id]
            stream.finished = True
            self._close(stream)
        # Of more headers than those of the opening nobody takes any.
        return not isinstance(frame, frames.Headers) or stream.closed

    def _open(self, stream_id: int) -> None:
        stream = self._new.pop(stream_id)
        if not self._wanted(stream):
            self._outgoing.append(frames.rst_stream(stream_id, CANCEL))
            return
        self._streams[stream_id] = stream
        self._outgoing.append(frames.syn_reply(stream_id, self._encoder.encode({})))
        self._opened(stream)

    def _data(self, stream: Stream, piece: frames.DataPiece) -> bool:
        if piece.payload and not stream.closed:
            if stream.reader is None or not stream.reader.takes:
                return False
            stream.reader.give(piece.payload)
        if piece.fin:
            self._close(stream)
            if stream.finished:
                self._streams.pop(stream.stream_id, None)
        return True

    def _close(self, stream: Stream) -> None:
        stream.closed = True
        if stream.reader is not None:
            stream.reader.end_input()

    # Out.

    def send(self, stream: Stream, data: Bytes) -> None:
        """Write to a stream. Also to one that the client has reset: only the end is not told then."""
        if self.ended:
            return
        for start in range(0, len(data), MAX_DATA):
            self._outgoing.append(frames.data(stream.stream_id, data[start : start + MAX_DATA]))

    def finish(self, stream: Stream) -> None:
        """End our half of a stream."""
        if stream.closed:
            self._streams.pop(stream.stream_id, None)
        if stream.finished or self.ended:
            return
        stream.finished = True
        self._outgoing.append(frames.data(stream.stream_id, b"", True))

    def reset(self, stream: Stream) -> None:
        """End both halves of a stream."""
        self._streams.pop(stream.stream_id, None)
        stream.closed = True
        if not (stream.finished or self.ended):
            stream.finished = True
            self._outgoing.append(frames.rst_stream(stream.stream_id, CANCEL))

    def read_by(self, stream: Stream, reader: Optional[Forward]) -> None:
        """Say who reads a stream from now on."""
        stream.reader = reader
        if reader is not None and stream.closed:
            reader.end_input()

    def say_goodbye(self) -> None:
        """Tell the client that the session has ended, if it has left no stream open.

        ``httpstream/spdy/connection.go: Close`` writes a reset for each stream, and then a GOAWAY; but by
        the time of the first, a session that has stopped reading takes no more frames, nearly always.
        """
        if all(stream.finished for stream in self._streams.values()):
            last = self._next_id - 2 if self._next_id > 2 else 0
            self._outgoing.append(frames.goaway(last, OK))

    def end(self) -> None:
        """End all streams."""
        self.ended = True
        for stream in self._streams.values():
            self._close(stream)
        self._streams.clear()
        for queue in self._queues:
            queue.clear()

    def take_outgoing(self) -> bytes:
        """Take what is to be sent."""
        outgoing = b"".join(self._outgoing)
        self._outgoing.clear()
        return outgoing
