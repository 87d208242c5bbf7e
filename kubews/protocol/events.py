"""What a codec tells about the bytes it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, Union


# What is made for every message is a tuple, which costs least to make, and to import.
class Data(NamedTuple):
    """Bytes of one stream.

    Args:
        stream_id: the channel number on exec, attach and legacy port-forward, the stream's id on the tunnel.
        payload: a view into the received message, never empty.

    Threads: a value.
    """

    stream_id: int
    payload: memoryview


@dataclass(frozen=True)
class End:
    """The peer will send nothing more on this stream.

    Threads: a value.
    """

    stream_id: int


class Status(NamedTuple):
    """The ``metav1.Status`` with which the server ends an exec or attach.

    Args:
        success: whether the server reported ``Success``.
        exit_code: 0 on success, the command's code if the Status carries one, else None.
        message: the server's text.
        reason: the machine-readable reason, such as ``NonZeroExitCode`` or ``InternalError``.
        document: the whole decoded object, empty if it could not be decoded.

    Threads: a value.
    """

    success: bool
    exit_code: Optional[int]
    message: str
    reason: str
    document: Mapping[str, Any]


@dataclass(frozen=True)
class Opened:
    """The peer has opened a stream, or accepted one that was opened here.

    Which of the two it is the role tells: streams of the port-forward tunnel are opened by its client.
    That the server accepts one says nothing of the pod's port, which is dialled only afterwards.

    Args:
        stream_id: the stream's id.
        headers: what came with it; names in lower case. Today's servers accept without any.

    Threads: a value.
    """

    stream_id: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reset:
    """The peer has given a stream up, in both directions.

    Args:
        stream_id: the stream's id.
        code: the SPDY status, 5 (CANCEL) nearly always.

    Threads: a value.
    """

    stream_id: int
    code: int


@dataclass(frozen=True)
class Pong:
    """The peer has answered a ping, so it has read everything that was sent before it.

    Threads: a value.
    """

    ping_id: int


@dataclass(frozen=True)
class GoAway:
    """The peer takes no more streams: the session is about to end.

    Args:
        last_stream_id: the last stream of this side that it has taken up.
        code: 0 unless it has met an error.

    Threads: a value.
    """

    last_stream_id: int
    code: int


Event = Union[Data, End, Status]

#: What a session with streams that come and go tells.
SessionEvent = Union[Data, End, Opened, Reset, Pong, GoAway]
