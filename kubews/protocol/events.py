"""What a codec tells about the bytes it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union


@dataclass(frozen=True)
class Data:
    """Bytes of one stream.

    Args:
        stream_id: the channel number on exec and attach.
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


@dataclass(frozen=True)
class Status:
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


Event = Union[Data, End, Status]
