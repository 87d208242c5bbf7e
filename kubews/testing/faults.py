"""Faults: what a LocalCluster should do wrong, as one value.

A fault is data, not code: tests say what goes wrong, and few places ask for it. The TLS wire
(``tls.py``: delays, records, drops), the HTTP answer (``connection.py``: canned and dripping answers,
body framing), the messages (``messages.py``: fragments, pings, closing), the exec stream
(``stream.py``: frames, Status), logs (``logs.py``: their end) and port-forwards (``forwardloop.py``: what is read).

Threads: a Faults value is immutable; share it freely.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, Optional, get_args

FOREVER = math.inf
"""A delay that ends only when the client hangs up or the cluster is closed."""


_Body = Literal["length", "chunked", "close"]
_Drop = Literal["reset", "fin", "close_notify"]
_BODIES, _DROPS = get_args(_Body), get_args(_Drop)


@dataclasses.dataclass(frozen=True)
class Faults:
    """Describe what goes wrong on a connection. The default is: nothing.

    Args:
        match: the faults apply only to requests whose target (path and query) contains this text,
            and to what is left of the connection then. In ``next_faults`` they wait for the first
            connection with such a request. ``accept_delay`` and ``handshake_delay``, which come
            before any request, cannot have one.
        accept_delay: seconds between accepting TCP and reading anything (``FOREVER``: silent).
        handshake_delay: seconds between the client's first TLS bytes and the answer to them.
        response_delay: seconds between a complete request and the first byte of the answer.
        response: raw bytes that replace the HTTP answer; the connection is closed after them.
        drip: seconds between the single bytes of a response head.
        body: how the body of a refusal is delimited.
        drop_after: drop TCP after this many bytes of the WebSocket stream (after the 101's head).
        drop_after_stdin: drop TCP once this many bytes of an exec's stdin have come.
        end_after: end a log properly after this many bytes of it: what a server does, too, that has lost
            the kubelet.
        drop_head_after: drop TCP after this many bytes of the HTTP answer.
        drop: how to drop: a reset, a FIN without close_notify, or close_notify and FIN.
        record_size: at most this many bytes of plain text in a TLS record.
        join: hold back what is to be sent until a TLS record is full or nothing more is to come, so
            that the head of the 101, frames, Status and Close share a record.
        frame_size: gather this many bytes of output (or all there is) before sending a frame. In a
            port-forward, where each end may wait for the other's answer, nothing is held back: no
            message has more data than this.
        fragment: split each message into fragments of this many bytes.
        ping: payload of a ping sent after each message or, with ``fragment``, each fragment.
        inject: raw bytes sent on the WebSocket stream right after the ready marker, or after the
            channels' headers of a legacy port-forward; a tunnel begins with them.
        subprotocol: the subprotocol to answer, whatever was offered and whatever is spoken.
        status: the text sent on the status channel in place of the real one.
        status_pieces: send the status in messages of this many bytes.
        no_status: send no status.
        early_status: send a status before the output. What comes of the command is not known then:
            it says Success, whatever the exit code will be. A command that cannot start has no
            output, and gets its own status.
        close_frame: send a Close frame at the end.
        close_code: the code of that frame; 0 sends it empty.
        close_notify: end TLS properly before closing TCP.
        stop_reading_after: read no more from the client after this many bytes of stdin, or of the
            messages of a port-forward.
        pong: answer pings, those within a tunnel too.

    Raises:
        TypeError: ``match`` is no str.
        ValueError: a word that ``body`` or ``drop`` does not know, or a delay that no request can
            bring.

    Threads: immutable.
    """

    match: str = ""
    accept_delay: float = 0.0
    handshake_delay: float = 0.0
    response_delay: float = 0.0
    response: Optional[bytes] = None
    drip: float = 0.0
    body: _Body = "length"
    drop_after: Optional[int] = None
    drop_after_stdin: Optional[int] = None
    end_after: Optional[int] = None
    drop_head_after: Optional[int] = None
    drop: _Drop = "reset"
    record_size: Optional[int] = None
    join: bool = False
    frame_size: Optional[int] = None
    fragment: Optional[int] = None
    ping: Optional[bytes] = None
    inject: bytes = b""
    subprotocol: Optional[str] = None
    status: Optional[bytes] = None
    status_pieces: Optional[int] = None
    no_status: bool = False
    early_status: bool = False
    close_frame: bool = True
    close_code: int = 1000
    close_notify: bool = True
    stop_reading_after: Optional[int] = None
    pong: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.match, str):
            raise TypeError(f'match must be a str, such as "/exec", not {self.match!r}')
        for name, known in (("body", _BODIES), ("drop", _DROPS)):
            if getattr(self, name) not in known:
                words = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {words}, not {getattr(self, name)!r}")
        if self.match and (self.accept_delay or self.handshake_delay):
            raise ValueError("accept_delay and handshake_delay come before any request: no match")

    def for_target(self, target: str) -> Faults:
        """Return the faults that apply to a request for ``target``."""
        return self if self.match in target else NO_FAULTS


NO_FAULTS = Faults()
