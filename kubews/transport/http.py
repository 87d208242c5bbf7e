"""Small HTTP requests, and the answers that take the place of a WebSocket."""

from __future__ import annotations

import functools
import io
import json
import re
import selectors
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from kubews.errors import (
    ApiError,
    BadRequest,
    ConfigError,
    ConnectFailed,
    ConnectTimeout,
    Forbidden,
    NotFound,
    RemoteProtocolError,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from kubews.protocol.status import decode_document
from kubews.transport.deadline import Deadline
from kubews.transport.patience import patiently

if TYPE_CHECKING:
    import http.client

    from typing_extensions import Buffer

    from kubews.transport.tlssockets import Socket

#: What is kept of the body of a refusal, and how long it is waited for (client-go: the same 64 KiB,
#: ``transport/websocket/roundtripper.go``).
MAX_ERROR_BODY = 64 * 1024
ERROR_BODY_TIMEOUT = 2.0

_MAX_HEAD = 64 * 1024
_MAX_BODY = 64 << 20
#: What ends the head of an answer.
END_OF_HEAD = re.compile(rb"\n\r?\n")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# What would end the line and begin another header, or is not a character of HTTP at all.
_NOT_IN_VALUE = re.compile(r"[^\t\x20-\x7e\x80-\xff]")

_OURS = frozenset(
    {"authorization", "connection", "content-length", "host", "transfer-encoding", "upgrade"}
)

#: Header lines in their order; a name may come more than once.
Headers = Sequence[tuple[str, str]]


def check_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Refuse what would not be the header that it is meant to be.

    Raises:
        ConfigError: a name or a value has characters in it that no header can have; no value is shown.
        TypeError: a value is no str.
    """
    checked = tuple(headers)
    for name, value in checked:
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise ConfigError(f"{name!r} is not the name of an HTTP header")
        if not isinstance(value, str):
            raise TypeError(f"the value of {name} must be str, not {type(value).__name__}")
        if _NOT_IN_VALUE.search(value):
            raise ConfigError(
                f"the value of {name} has characters in it that no HTTP header can have"
            )
    return checked


def additional_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Check headers that a user wants to send with every request.

    Raises:
        ConfigError: it is none, or one that the configuration or the protocol makes.
    """
    for name, _ in check_headers(headers.items()):
        if name.lower() in _OURS or name.lower().startswith(("impersonate-", "sec-websocket-")):
            raise ConfigError(f"{name} is made of the configuration, and not a header to be given")
    return dict(headers)


class DeadlineSocket:
    """A socket that waits: its reads and writes share one deadline, however the bytes drip.

    It keeps what it has received, so that the answer can be read a second time by another parser, and
    what follows the answer can be handed on.

    Args:
        sock: connected and non-blocking.
        deadline: for everything together.
        limit: bytes to receive at most.

    Threads: one.
    """

    def __init__(self, sock: Socket, deadline: Deadline, limit: int) -> None:
        self._sock = sock
        self.deadline = deadline
        self._limit = limit
        self._received = bytearray()
        self._position = 0

    def recv(self, size: int) -> bytes:
        """Return at least one byte, ``b""`` at the end.

        Raises:
            TimeoutError: the deadline passed.
            RemoteProtocolError: the limit is exceeded.

        Threads: blocks.
        """
        if self._position == len(self._received):
            self._fill()
        end = min(self._position + size, len(self._received))
        data = bytes(memoryview(self._received)[self._position : end])
        self._position = end
        return data

    def sendall(self, data: Buffer) -> None:
        """Send everything.

        Threads: blocks.
        """
        left = memoryview(data)
        while left:
            send = functools.partial(self._sock.send, left)
            left = left[patiently(send, self._sock, selectors.EVENT_WRITE, self.deadline) :]

    def send(self, data: Buffer) -> int:
        """Send everything; return the number of bytes, as websocket-client wants it.

        Threads: blocks.
        """
        self.sendall(data)
        return len(memoryview(data))

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a reader, as http.client wants it."""
        return io.BufferedReader(_Reader(self))

    def rewind(self) -> None:
        """Start over with the first byte that was received."""
        self._position = 0

    def received(self) -> bytes:
        """Return everything that was received so far."""
        return bytes(self._received)

    def rest(self) -> bytes:
        """Return what was received and not yet read."""
        return bytes(self._received[self._position :])

    def gettimeout(self) -> None:
        """Return None: the deadline is kept here and not by the caller."""

    def settimeout(self, timeout: Optional[float]) -> None:
        """Ignore the caller's timeout."""

    def close(self) -> None:
        """Do nothing: the socket belongs to whoever dialled it."""

    shutdown = close

    def _fill(self) -> None:
        if len(self._received) >= self._limit:
            raise RemoteProtocolError(f"the server's answer is longer than {self._limit} bytes")
        receive = functools.partial(self._sock.recv, 65536)
        self._received += patiently(receive, self._sock, selectors.EVENT_READ, self.deadline)


class _Reader(io.RawIOBase):
    def __init__(self, sock: DeadlineSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, b: Any) -> int:
        data = self._sock.recv(len(b))
        b[: len(data)] = data
        return len(data)


@dataclass(frozen=True)
class Response:
    """An HTTP answer, read whole.

    Args:
        code: the status code.
        reason: the reason phrase.
        headers: names in lower case; of repeated ones the last.
        body: the bytes.

    Threads: a value.
    """

    code: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Decode the body.

        Raises:
            RemoteProtocolError: it is not JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as exc:
            raise RemoteProtocolError(f"the server's answer is not JSON: {exc}") from exc


def request(
    sock: Socket,
    method: str,
    target: str,
    headers: Headers,
    body: Optional[bytes],
    deadline: Deadline,
) -> Response:
    """Make one request on a connection of its own.

    Args:
        sock: connected; the caller closes it.
        method: such as ``GET``.
        target: path and query.
        headers: with ``Host``; checked by ``check_headers``.
        body: or None.
        deadline: for request and answer together.

    Raises:
        ConnectTimeout: the deadline passed.
        ConnectFailed: the connection broke before the answer was whole.
        RemoteProtocolError: the answer is longer than anything that is asked for here.

    Threads: blocks.
    """
    import http.client  # which brings a parser of mail; a WebSocket that is agreed to needs none of it

    connection = http.client.HTTPConnection("unused")
    connection.sock = wrapped = DeadlineSocket(sock, deadline, _MAX_HEAD + _MAX_BODY)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        if not END_OF_HEAD.search(wrapped.received()):  # http.client takes the end for it
            raise http.client.RemoteDisconnected("in the middle of the headers")
        return _whole(response, _body(response))
    except TimeoutError as exc:
        raise ConnectTimeout(f"no answer to {method} within the time limit") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise ConnectFailed(f"the answer to {method} broke off: {exc}") from exc


def _body(response: http.client.HTTPResponse) -> bytes:
    import http.client

    # In pieces: in one, http.client allocates whatever length the server announces.
    pieces = list(iter(lambda: response.read(65536), b""))
    if response.length:  # http.client minds this only if it reads in one piece
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def read_refusal(sock: DeadlineSocket) -> Optional[Response]:
    """Read the answer that came in place of a WebSocket, from its first byte.

    The body may have a length, be chunked, or end with the connection; what has come within
    ``ERROR_BODY_TIMEOUT`` seconds and ``MAX_ERROR_BODY`` bytes is kept, even if it is cut.

    Args:
        sock: after a failed upgrade.

    Returns:
        The answer, or None if it is not HTTP.

    Threads: blocks.
    """
    import http.client

    sock.deadline = sock.deadline.at_most(ERROR_BODY_TIMEOUT)
    sock.rewind()
    response = http.client.HTTPResponse(sock, method="GET")  # type: ignore[arg-type]
    body = bytearray()
    try:
        response.begin()
    except (OSError, http.client.HTTPException, RemoteProtocolError):
        return None
    try:
        while len(body) < MAX_ERROR_BODY:
            piece = response.read1(MAX_ERROR_BODY - len(body))
            if not piece:
                break
            body += piece
    except (OSError, http.client.HTTPException, RemoteProtocolError):
        pass  # what has come is better than nothing
    return _whole(response, bytes(body))


def _whole(response: http.client.HTTPResponse, body: bytes) -> Response:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Response(response.status, response.reason.strip(), headers, body)


_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    429: TooManyRequests,
}


def api_error(response: Response, what: str, hint: str = "") -> ApiError:
    """Turn a refusal into an exception.

    Args:
        response: with a code of an error, or of anything else that is not what was asked for.
        what: the request in words, such as ``exec in pod shop/web-0``.
        hint: said when the server gave no text.

    Returns:
        The exception for the code, with the server's own text: the message of the Status if the
        body is one, else the body.
    """
    document = decode_document(response.body)
    text = response.body.decode("utf-8", "replace").strip()
    said = text
    if document is not None:
        said = str(document.get("message") or document.get("reason") or "").strip()
    reason = str((document or {}).get("reason") or response.reason)
    kind = _BY_CODE.get(response.code) or (ServerError if response.code >= 500 else ApiError)
    return kind(
        f"{what}: {said or hint or 'the server gave no reason'} (HTTP {response.code} {response.reason})",
        code=response.code,
        reason=reason,
        status=document,
        body=text,
        retry_after=_seconds(response.headers.get("retry-after")),
    )


def _seconds(value: Optional[str]) -> Optional[float]:
    # The other form is a date, which Kubernetes does not send. No float(): it takes "inf".
    return float(value) if value is not None and re.fullmatch("[0-9]{1,9}", value) else None
