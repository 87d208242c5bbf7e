"""What a connection wants of a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from kubews.protocol.events import Event

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Codec(Protocol):
    """A protocol over WebSocket messages; ``channels.Channels`` is one.

    Threads: receiving in the loop's thread, sending in any.
    """

    subprotocol: str

    @property
    def names(self) -> Mapping[int, str]:
        """The names of the streams, for messages."""

    @property
    def max_data(self) -> int:
        """Bytes of one message at most."""

    def receive(self, payload: Buffer, *, start: bool = True) -> list[Event]:
        """Decode a message or a fragment."""

    def receive_eof(self) -> list[Event]:
        """Tell the end of the connection."""

    def data_to_send(self, stream_id: int, data: Buffer) -> bytes:
        """Encode data."""

    def end_to_send(self, stream_id: int) -> bytes:
        """Encode an end."""
