"""Port-forward of the legacy protocols: a pair of channels for each port of the request.

Source: ``cri-streaming/pkg/streaming/portforward/websocket.go``. The WebSocket is x/net's: a frame is a
message, continuations too, and one loop reads for all ports, so one that is not read stops all.

Threads: everything here belongs to the thread of its connection.
"""

from __future__ import annotations

import base64
import binascii
import collections
import struct
from typing import TYPE_CHECKING

from websockets.frames import Opcode

from kubews.protocol.forwarding import SUBPROTOCOLS, data_channel, error_channel
from kubews.testing.forward import Forward
from kubews.testing.forwardloop import ForwardLoop
from kubews.testing.pods import Pod
from kubews.testing.tls import Bytes

if TYPE_CHECKING:
    from kubews.testing.connection import Connection


class ChannelPairs(ForwardLoop):
    """Carry one connection to each of the ports, and end when all of them have ended.

    Args:
        connection: the client's, just before the 101.
        pod: whose ports.
        ports: in the order of the request.
        protocol: the name of the negotiated subprotocol, empty for none.

    Threads: one.
    """

    def __init__(self, connection: Connection, pod: Pod, ports: list[int], protocol: str) -> None:
        super().__init__(connection, pod)
        self._ports = ports
        self._text = SUBPROTOCOLS[protocol]
        self._index: dict[Forward, int] = {}
        self._by_channel: dict[int, Forward] = {}
        self._waiting: collections.deque[tuple[int, Bytes]] = collections.deque()

    def begin(self) -> None:
        """Send the port on every channel, and only then dial."""
        for index, port in enumerate(self._ports):
            header = struct.pack("<H", port)
            self._send(data_channel(index), header)
            self._send(error_channel(index), header)
        for index, port in enumerate(self._ports):
            forward = self.add(port)
            self._index[forward] = index
            self._by_channel[data_channel(index)] = forward

    def _send(self, channel: int, payload: Bytes) -> None:
        if self._text:
            # A character: from channel 80 on it takes two bytes.
            data: Bytes = chr(ord("0") + channel).encode() + base64.b64encode(payload)
            self._messages.send(data, Opcode.TEXT)
        else:
            # A byte: with more than 128 ports the numbers begin again.
            self._messages.send(b"".join((bytes((channel & 0xFF,)), payload)))

    def message(self, opcode: Opcode, data: Bytes) -> None:
        """Take a frame for a channel, whatever its type."""
        if not data:
            return
        channel, payload = data[0], memoryview(data)[1:]
        if self._text:
            try:
                channel, payload = channel - ord("0"), memoryview(base64.b64decode(payload))
            except binascii.Error:
                return
        self._waiting.append((channel, payload))
        self.work()

    def work(self) -> None:
        """Hand on what has come for a port that could not take it at once."""
        while self._waiting:
            channel, payload = self._waiting[0]
            forward = self._by_channel.get(channel)
            if forward is not None and payload:
                if not forward.takes:
                    return
                forward.give(payload)
            self._waiting.popleft()

    @property
    def full(self) -> bool:
        """Whether the loop that reads for all ports waits for one of them."""
        return bool(self._waiting)

    def output(self, forward: Forward, data: bytes) -> None:
        """Send what a port has said."""
        size = self._faults.frame_size or len(data)
        for start in range(0, len(data), size):
            self._send(data_channel(self._index[forward]), data[start : start + size])

    def forward_ended(self, forward: Forward) -> None:
        """Tell the error, if there is one. The end of a port is not told, only that of the last."""
        index = self._index.pop(forward)
        self._by_channel.pop(data_channel(index), None)
        if self._gone:
            return
        if forward.failure is not None:
            self._send(error_channel(index), forward.failure.encode())
        if not self._index:
            self.close()

    def violated(self, code: int) -> None:
        """Answer with a Close frame that says what is wrong, and with that of a normal end."""
        self.close(*([code] if code != 1000 else []), 1000)

    def client_gone(self) -> None:
        """End the input of every port."""
        self._waiting.clear()
        for forward in self._forwards:
            forward.end_input()

    def runtime_ended(self) -> None:
        """End as a hop does whose other end was closed: without a Close frame."""
        self._leave()
