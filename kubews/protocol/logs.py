"""Logs over a WebSocket: no channels, the payload is the log.

Source: kubernetes ``streaming/pkg/httpstream/wsstream/stream.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubews.errors import LocalProtocolError
from kubews.protocol.events import Data, Event

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: The one stream that there is.
LOG = 1

OFFER = ("binary.k8s.io",)


class LogCodec:
    """The codec of one connection that brings a log; a server ignores what it is sent.

    There is no Status: the server's Close of code 1000 ends a log that is over, and also one whose
    source the server has lost (``responsewriters/writers.go: StreamObject`` drops the error).

    Args:
        subprotocol: the negotiated one.

    Threads: receiving belongs to one thread.
    """

    names: Mapping[int, str] = {LOG: "log"}
    max_data = 0

    def __init__(self, subprotocol: str) -> None:
        self.subprotocol = subprotocol

    def receive(self, payload: Buffer, *, start: bool = True) -> list[Event]:
        """Decode a message or a fragment; an empty one, as the first is, says nothing."""
        view = memoryview(payload)
        return [Data(LOG, view)] if view else []

    def receive_eof(self) -> list[Event]:
        """Tell the end of the connection, which says nothing of the log's."""
        return []

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """Refuse: nobody would read it.

        Raises:
            LocalProtocolError: always.
        """
        raise LocalProtocolError("a log takes no input")

    def end_to_send(self, stream_id: int) -> bytes:
        """Refuse, as ``data_to_send`` does.

        Raises:
            LocalProtocolError: always.
        """
        raise LocalProtocolError("a log takes no input")
