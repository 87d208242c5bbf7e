"""The proxy subresource: HTTP and WebSockets to what pods, services and nodes serve.

Sources: ``apimachinery/pkg/util/proxy/upgradeaware.go`` and ``transport.go``.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import contextlib
import http
import re
import select
from typing import TYPE_CHECKING, Any, Optional

import h11

from kubews.testing import access, objects
from kubews.testing.access import Headers, Refused, User
from kubews.testing.backends import Address, Backend, find, refusal
from kubews.testing.tls import HANGUP, Gone

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request

#: The path of such a request: what it is to, and what is asked of that.
PATH = re.compile(
    r"/api/v1(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>pods|services|nodes)/(?P<said>[^/]+)/proxy"
    r"(?P<path>/.*)?"
)

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "HEAD": "get"}
# The credentials are the cluster's, and the framing is that of one connection.
_NOT_PASSED = re.compile(
    "authorization|impersonate-.*|x-remote-.*|connection|keep-alive|te|trailer|transfer-encoding|upgrade"
)
_CORS = re.compile("access-control-.*")


def serve_proxy(
    connection: Connection,
    request: Request,
    user: User,
    headers: Headers,
    where: dict[str, str],
) -> None:
    """Carry a request to what it is for, and the answer back.

    Args:
        where: the parts of its path, decoded but for what is asked of the backend: see ``PATH``.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    kind, namespace, said = where["kind"], where["namespace"], where["said"]
    name = said.split(":")[min(1, said.count(":") // 2)]
    verb = _VERBS.get(request.method, request.method.lower())
    access.authorize(user, verb, f"{kind}/proxy", namespace, name)
    address = find(connection, kind, namespace, said)
    if not where["path"] and request.method in ("GET", "HEAD"):
        connection.reply(301, b"", "text/html", [("Location", f"{request.path}/")])
        return
    target = where["path"] or "/"
    if access.is_upgrade(headers):
        _upgrade(connection, request, headers, address, target)  # without its query
        return
    query = request.target.partition("?")[2]
    passed = _Exchange(connection, request, headers, address)
    passed.run(f"{target}?{query}" if query else target, request.path[: -len(target)])


def _passed(connection: Connection, headers: Headers, keep: str = "") -> list[tuple[str, str]]:
    kept = [
        (name, value)
        for name, value in headers
        if name.lower() in keep.split() or not _NOT_PASSED.fullmatch(name.lower())
    ]
    return [*kept, ("X-Forwarded-For", "127.0.0.1")]


class _Exchange:
    """A request and its answer, both on the way at once."""

    def __init__(
        self, connection: Connection, request: Request, headers: Headers, address: Address
    ) -> None:
        self._connection = connection
        self._method = request.method
        self._headers = headers
        self._forwarded = [
            ("X-Forwarded-Uri", request.path),
            ("X-Forwarded-Host", request.header("host") or ""),
            ("X-Forwarded-Proto", "https"),
        ]
        try:
            self._backend = Backend(connection, address)
        except OSError as exc:
            message = f"error trying to reach service: {refusal(exc, address.port)}"
            connection.drain()
            raise Refused(objects.status(503, "ServiceUnavailable", message)) from None
        self._http = h11.Connection(h11.CLIENT)
        self._answered = False

    def run(self, target: str, prefix: str) -> None:
        """Carry both, and end the client's connection unless all of the request was read."""
        with contextlib.closing(self._backend):
            head = _passed(self._connection, self._headers) + self._forwarded
            chunked = any(name.lower() == "transfer-encoding" for name, _ in self._headers)
            head += [("Transfer-Encoding", "chunked")] if chunked else []
            self._say(h11.Request(method=self._method, target=target, headers=_raw(head)))
            while not self._hear(prefix):
                self._backend.flush()
                wanted = self._pass_body()
                if wanted:
                    self._backend.wait(select.POLLIN)
                elif self._connection.request_ended:
                    self._backend.wait(HANGUP)
                elif self._backend.full:
                    self._backend.wait(0)
        if not self._connection.request_ended:
            self._connection.wire.finish()
            raise Gone("the backend has answered before the request was read")

    def _say(self, event: Any) -> None:
        with contextlib.suppress(h11.LocalProtocolError):  # it has hung up: only its answer counts
            self._backend.send(self._http.send(event) or b"")

    def _pass_body(self) -> bool:
        """Carry what the client has sent of the body; return whether more is wanted of it."""
        while not (self._connection.request_ended or self._backend.full):
            event = self._connection.more_of_body()
            if event is None:
                return True
            self._say(event)
        return False

    def _hear(self, prefix: str) -> bool:
        """Carry what the backend has said; return whether that was all."""
        data = self._backend.receive()
        if data or self._backend.ended:
            self._http.receive_data(data)
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                if self._answered:
                    raise Gone("the answer of the backend broke off") from None
                raise Refused(
                    objects.status(503, "ServiceUnavailable", "error trying to reach service: EOF")
                ) from None
            if isinstance(event, h11.Response):
                self._answered = True
                self._connection.send(self._rewritten(event, prefix))
            elif isinstance(event, (h11.Data, h11.EndOfMessage)):
                self._connection.send(event)
                if isinstance(event, h11.EndOfMessage):
                    return True
            elif not isinstance(event, h11.InformationalResponse):
                return False

    def _rewritten(self, answer: h11.Response, prefix: str) -> h11.Response:
        """Lead redirects to the proxy, and leave out what is for browsers of other sites."""
        headers = []
        for raw_name, raw_value in answer.headers.raw_items():
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            if _CORS.fullmatch(name.lower()) or name.lower() in ("connection", "keep-alive"):
                continue
            if name.lower() == "location" and value.startswith("/"):
                value = prefix + value
            headers.append((name, value))
        return h11.Response(
            status_code=answer.status_code,
            headers=_raw(headers),
            reason=_phrase(answer.status_code),
        )


def _raw(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return headers as they came: h11 takes only ASCII for text."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _phrase(code: int) -> str:
    """Return Go's words for a code: those of the backend are not passed on."""
    try:
        return http.HTTPStatus(code).phrase
    except ValueError:
        return f"status code {code}"


def _upgrade(
    connection: Connection, request: Request, headers: Headers, address: Address, target: str
) -> None:
    """Carry an upgrade: the backend's answer, and then every byte as it is.

    Raises:
        Refused: the answer is a Status.
        Gone: at the end.
    """
    try:
        backend = Backend(connection, address)
    except OSError as exc:
        raise _error(f"error dialing backend: {refusal(exc, address.port)}") from None
    with contextlib.closing(backend):
        lines = _passed(connection, headers, "connection upgrade")
        head = "".join(f"{name}: {value}\r\n" for name, value in lines)
        backend.send(f"{request.method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer and not backend.ended:
            backend.wait(HANGUP)
            answer += backend.receive()
        status = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
        if status is None or b"\r\n\r\n" not in answer:
            raise _error("error reading backend response: EOF")
        code = int(status[1])
        if code != 101 and code < 400:
            raise _error(f"invalid upgrade response: status code {code}")
        connection.drip(answer)
        if code == 101:
            backend.send(connection.take_trailing())
        _pass(connection, backend, both=code == 101)
    connection.wire.finish()
    raise Gone("one side of an upgraded connection has ended")


def _pass(connection: Connection, backend: Backend, *, both: bool) -> None:
    """Carry bytes until one side ends; of a refusal only what is said of it."""
    while not backend.ended:
        data: Optional[bytes] = None
        if both and not backend.full:
            data = connection.wire.receive()
            if data == b"":
                return
            backend.send(data or b"")
        backend.flush()
        said = backend.receive()
        if said:
            connection.wire.send_all(said)
        elif not data and not backend.ended:
            backend.wait(HANGUP if not both else 0 if backend.full else select.POLLIN)


def _error(message: str) -> Refused:
    body = objects.status(500, "", message)
    del body["reason"]
    return Refused(body)
