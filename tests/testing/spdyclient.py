"""A client of tunnels for tests of LocalCluster: frames as they are wanted, right or wrong."""

from __future__ import annotations

import re
import struct
import time
import urllib.parse
from typing import Any, Optional

from rawclient import SCALE, RawClient
from websockets.frames import Opcode

from kubews.protocol import spdy_frames as frames
from kubews.protocol.spdy_headers import Decoder, Encoder

TUNNEL = "SPDY/3.1+portforward.k8s.io"
LEGACY, LEGACY64 = "v4.channel.k8s.io", "v4.base64.channel.k8s.io"
FIN, OPENED = "fin", "opened"


def target(*ports: Any, pod: str = "box", ns: str = "default") -> str:
    query = urllib.parse.urlencode([("ports", port) for port in ports])
    return f"/api/v1/namespaces/{ns}/pods/{pod}/portforward?{query}"


class SpdyClient(RawClient):
    """One tunnel. ``seen`` has what the server has said, data of a stream joined::

    [("opened", 1), ("opened", 3), (3, b"hello"), ("fin", 3), ("reset", 5, 5), ("ping", 1), ...]
    """

    def __init__(self, cluster: Any, *, pod: str = "box", **options: Any) -> None:
        super().__init__(cluster, **options)
        self.encoder, self._decoder = Encoder(), Decoder()
        self._framer = frames.Framer()
        self._decoded = 0
        self._next = 1
        self._requests = 0
        self.seen: list[tuple[Any, ...]] = []
        answer = self.upgrade(target(pod=pod), [TUNNEL])
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, TUNNEL)

    def __enter__(self) -> SpdyClient:
        return self

    # Out.

    def syn(self, kind: Optional[str], port: Any, request: Any, *, fin: bool = False) -> int:
        """Open a stream; a header that is None is not sent."""
        values = {"streamtype": kind, "port": port, "requestid": request}
        headers = {key: str(value) for key, value in values.items() if value is not None}
        stream, self._next = self._next, self._next + 2
        self.send(frames.syn_stream(stream, self.encoder.encode(headers), fin))
        return stream

    def connect(self, port: int) -> tuple[int, int]:
        """Open the two streams of a connection; return error and data."""
        self._requests += 1
        error = self.syn("error", port, self._requests, fin=True)
        return error, self.syn("data", port, self._requests)

    def write(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        self.send(frames.data(stream, data, fin))

    def reset(self, stream: int) -> None:
        self.send(frames.rst_stream(stream, 5))

    def ping(self, number: int) -> None:
        self.send(frames.ping(number))

    # In.

    def _feed(self, data: bytes) -> None:
        super()._feed(data)
        for frame in self.frames[self._decoded :]:
            if frame.opcode in (Opcode.BINARY, Opcode.CONT):
                for each in self._framer.receive(frame.data):
                    self._note(each)
        self._decoded = len(self.frames)

    def _note(self, frame: frames.Frame) -> None:
        if isinstance(frame, frames.DataPiece):
            stream, payload = frame.stream_id, bytes(frame.payload)
            if payload and self.seen and self.seen[-1][0] == stream:
                self.seen[-1] = (stream, self.seen[-1][1] + payload)
            elif payload:
                self.seen.append((stream, payload))
            if frame.fin:
                self.seen.append((FIN, stream))
        elif isinstance(frame, frames.SynReply):
            assert self._decoder.decode(frame.block) == {}
            self.seen.append((OPENED, frame.stream_id))
        elif isinstance(frame, frames.RstStream):
            self.seen.append(("reset", frame.stream_id, frame.code))
        elif isinstance(frame, frames.Ping):
            self.seen.append(("ping", frame.ping_id))
        else:
            assert isinstance(frame, frames.GoAwayFrame)
            self.seen.append(("goaway", frame.last_stream_id, frame.code))

    def told(self, stream: int) -> bytes:
        """Return the data of a stream so far."""
        return b"".join(each[1] for each in self.seen if each[0] == stream)

    def text(self, stream: int) -> str:
        """Return the text of an error stream, ids masked."""
        text = re.sub("[0-9a-f]{64}", "SANDBOX", self.told(stream).decode())
        return re.sub("cni-[0-9a-f-]{36}", "cni-ID", text)

    def see(self, *wanted: tuple[Any, ...]) -> None:
        """Read until all of these were said."""
        end = time.monotonic() + self.timeout
        while not all(each in self.seen for each in wanted):  # a set would hash all data each time
            assert time.monotonic() < end, self.seen
            assert self.pump(), (self.ended, self.seen)

    def see_bytes(self, stream: int, wanted: bytes) -> None:
        """Read until a stream has said this."""
        end = time.monotonic() + self.timeout
        while wanted not in self.told(stream):
            assert time.monotonic() < end, self.seen
            assert self.pump(), (self.ended, self.seen)

    def quiet(self, seconds: float = 0.2) -> None:
        """Read for a while, and see that nothing more is said."""
        before, end = list(self.seen), time.monotonic() + seconds * SCALE
        while self.ended is None and time.monotonic() < end:
            self.pump(0.05)
        assert self.seen == before
        assert self.ended is None


def still_held(client: SpdyClient) -> None:
    """See that the WebSocket answers pings, and ends with the next data that comes."""
    client.send(b"alive", Opcode.PING)
    while not any(frame.opcode is Opcode.PONG for frame in client.frames):
        assert client.pump()
    client.send(b"")  # is none
    client.quiet()
    client.ping(1)
    client.run_out()
    assert client.close_codes() == [struct.pack(">H", 1000)]
    assert ("ping", 1) not in client.seen
