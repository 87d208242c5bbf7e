"""The WebSocket upgrade: what is offered, what is refused, and the head of the 101.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import base64
import http
from typing import TYPE_CHECKING

from websockets.utils import accept_key

from kubews.testing import access, objects
from kubews.testing.access import Headers, Refused
from kubews.testing.tls import Gone

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request


def offered(headers: Headers) -> list[str]:
    """Return the subprotocols offered. The token is none, whoever has authenticated the request."""
    return [
        name
        for name in access.offered_protocols(headers)
        if not name.startswith(access.TOKEN_PROTOCOL)
    ]


def check_asked(headers: Headers) -> None:
    """Refuse a request for no upgrade at all (``upgradeaware.go: ServeHTTP``).

    Raises:
        Refused: 400.
    """
    if not access.is_upgrade(headers):
        raise Refused(objects.bad_request("Upgrade request required"))


def check_websocket(headers: Headers, minor: int, websocket_since: int) -> None:
    """Refuse a request for SPDY.

    Args:
        headers: of the request.
        minor: of the version of Kubernetes.
        websocket_since: the minor version from which on kubectl is content with a WebSocket.

    Raises:
        Refused: 400.
    """
    if access.is_websocket(headers):
        return
    hint = (
        f"kubectl needs a LocalCluster of 1.{websocket_since} or later"
        if minor < websocket_since
        else "kubectl asks for it when its WebSocket was refused"
    )
    message = f"LocalCluster speaks WebSocket only, not SPDY; {hint}"
    raise Refused(objects.bad_request(message))


def reply_text(
    connection: Connection, code: int, text: str, *extra: tuple[str, str], newline: bool = False
) -> None:
    """Answer as a hop that re-emits the kubelet's answer does: plain text, then the end.

    Args:
        connection: whose.
        code: the status.
        text: the body.
        extra: more headers.
        newline: whether it was written by Go's ``http.Error``, which ends the text and says nosniff.

    Raises:
        Gone: always.
    """
    headers = [*extra, *([("X-Content-Type-Options", "nosniff")] if newline else [])]
    body = text + "\n" * newline
    connection.reply(code, body.encode(), "text/plain; charset=utf-8", headers)
    connection.wire.finish()
    raise Gone("a re-emitted answer ends the connection")


def refuse_protocols(connection: Connection) -> None:
    """Answer that none of the offered subprotocols is known, as x/net does: an empty 403.

    Raises:
        Gone: always.
    """
    connection.reply_raw(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")


def upgrade(
    connection: Connection, request: Request, protocol: str, *, gorilla: bool = False
) -> None:
    """Check the handshake and answer 101 with a subprotocol.

    Args:
        connection: the client's.
        request: what it has asked.
        protocol: the subprotocol to answer, empty for none.
        gorilla: whether the WebSocket is gorilla's, not x/net's: it refuses in other words.

    Raises:
        Gone: the handshake was refused, and the connection is used up.
    """
    key = request.header("sec-websocket-key") or ""
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        good = False
    version = request.header("sec-websocket-version") == "13"
    if gorilla and not (good and version and request.method == "GET"):
        code = 400 if request.method == "GET" else 405
        extra = ("Sec-WebSocket-Version", "13")
        reply_text(connection, code, http.HTTPStatus(code).phrase, extra, newline=True)
    if request.method != "GET":
        reply_text(connection, 405, "bad method")
    if not version:
        body = b"missing or bad WebSocket Version"
        refusal = (
            b"HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 13\r\nContent-Length: %d\r\n\r\n"
        )
        connection.reply_raw(refusal % len(body) + body)
    if not good:
        reply_text(connection, 400, "missing or bad Sec-WebSocket-Key")
    _switch(connection, key, protocol)


def _switch(connection: Connection, key: str, protocol: str) -> None:
    name = protocol if connection.faults.subprotocol is None else connection.faults.subprotocol
    # With nothing offered the real answer has the header too, empty (x/net: AcceptHandshake).
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"
    )
    connection.drip(head.encode("latin-1"))
