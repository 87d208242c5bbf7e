"""HTTP on one connection: requests in, answers out.

h11 parses requests and frames answers; the ready-made servers of the websockets package refuse a
request body and cannot answer an empty 403.

Threads: a ``Connection`` belongs to one thread.
"""

from __future__ import annotations

import dataclasses
import http
import select
import urllib.parse
from typing import TYPE_CHECKING, Any, Optional

import h11

from kubews.testing import access, objects, proxy, resources
from kubews.testing.access import Refused
from kubews.testing.faults import NO_FAULTS
from kubews.testing.tls import Gone, Wire

if TYPE_CHECKING:
    from kubews.testing.apiserver import ApiServer

_MAX_HEAD = 1 << 20  # of Go's net/http: DefaultMaxHeaderBytes
_MAX_BODY = 3 << 20  # of the API server: MaxRequestBodyBytes


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that the server received; credentials in its headers are replaced by a mark."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The decoded query, in order; bytes that are not UTF-8 are surrogate-escaped."""
        text = self.target.partition("?")[2]
        return urllib.parse.parse_qsl(text, keep_blank_values=True, errors="surrogateescape")

    def header(self, name: str) -> Optional[str]:
        """Return the first header of that name, or None."""
        values = access.headers_named(self.headers, name.lower())
        return values[0] if values else None


class Connection:
    """Read requests from one TLS connection and answer them.

    Args:
        server: whose connection it is.
        wire: what carries it.
        faults_may_come: whether a request can bring faults that wait for one; a connection that has
            got its own when it was accepted takes no others.

    Threads: one.
    """

    def __init__(self, server: ApiServer, wire: Wire, faults_may_come: bool) -> None:
        self.server = server
        self.wire = wire
        self._own_faults = wire.faults
        self._faults_may_come = faults_may_come
        self.faults = NO_FAULTS
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        self._head: Optional[h11.Request] = None
        self.body = b""  # of the request that is being answered

    def run(self) -> None:
        """Serve until one side ends the connection. Blocks."""
        while True:
            try:
                head = self._next_request()
                if head is None:
                    return
                self._answer(head)
                if self._http.our_state is h11.MUST_CLOSE or self._http.our_state is h11.ERROR:
                    return
                self.wire.finish()
                self._http.start_next_cycle()
            except h11.RemoteProtocolError as exc:
                self._garbage(exc)
                return
            except h11.LocalProtocolError:
                return  # the answer was replaced by a fault, or the client did not end its request

    def _garbage(self, exc: h11.RemoteProtocolError) -> None:
        body = f"{exc.error_status_hint} {http_reason(exc.error_status_hint)}"
        head = f"HTTP/1.1 {body}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close"
        self.wire.send_all(f"{head}\r\n\r\n{body}".encode())
        self.wire.finish()

    def _next_request(self) -> Optional[h11.Request]:
        """Return the next request once its body was read, or None at the end."""
        head = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._receive()
            elif isinstance(event, h11.Request):
                head = event
                # h11 lets these pass, net/http does not.
                if b" " in head.target:
                    raise h11.RemoteProtocolError("a blank in the target")
                if not head.http_version.startswith(b"1."):
                    raise h11.RemoteProtocolError("not HTTP/1", error_status_hint=505)
                if self._http.they_are_waiting_for_100_continue:
                    self.send(h11.InformationalResponse(status_code=100, headers=[]))
                if proxy.PATH.fullmatch(_path(head)):
                    return head  # who gets the body reads it as it comes
            elif isinstance(event, h11.ConnectionClosed):
                return None
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _MAX_BODY:
                    raise h11.RemoteProtocolError("a large body", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
                self.body = bytes(body)
                return head

    @property
    def request_ended(self) -> bool:
        """Whether all of the request's body has been read."""
        return self._http.their_state is not h11.SEND_BODY

    def more_of_body(self) -> Optional[Any]:
        """Return the next event of a body that was left to be read, None if nothing is there.

        Raises:
            Gone: the client has hung up.
        """
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = self.wire.receive()
            if data is None:
                return None
            if not data:
                raise Gone("the client hung up in the middle of its request")
            self._http.receive_data(data)
        return event

    def drain(self) -> None:
        """Read what is left of the body."""
        while not self.request_ended:
            if self.more_of_body() is None:
                self.wire.wait(select.POLLIN)

    def _receive(self) -> None:
        while (data := self.wire.receive()) is None:
            self.wire.wait(select.POLLIN)
        self._http.receive_data(data)

    def send(self, event: Any) -> None:
        """Send a part of an answer. Blocks."""
        data = self._http.send(event)
        if data:
            self.wire.send_all(data)

    def _answer(self, head: h11.Request) -> None:
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in head.headers]
        target = head.target.decode("latin-1")
        method = head.method.decode("latin-1")
        request = Request(method, target, access.redact(headers))
        self.server.record(request)
        if self._faults_may_come and (own := self.server.take_faults(target)):
            self._own_faults, self._faults_may_come = own, False
        self.faults = self.wire.faults = self._own_faults.for_target(target)
        self.wire.limit(self.faults.drop_head_after)
        self.wire.sleep(self.faults.response_delay)
        if self.faults.response is not None:
            self.reply_raw(self.faults.response)
        try:
            certificate = self.wire.peer_certificate()
            user = self.server.users.authenticate(headers, certificate, self.server.minor)
            resources.route(self, request, user, headers)
        except Refused as exc:
            self.refuse(exc)

    def drip(self, data: bytes) -> None:
        """Send raw bytes, one at a time if the faults want it so. Blocks."""
        if not self.faults.drip:
            self.wire.send_all(data)
            return
        for index in range(len(data)):
            self.wire.send_all(data[index : index + 1])
            self.wire.sleep(self.faults.drip)

    def reply_json(self, code: int, body: objects.Json) -> None:
        """Answer with an object."""
        self.reply(code, objects.dumps(body) + b"\n")

    def refuse(self, refused: Refused) -> None:
        """Answer with a Status."""
        extra = [("X-Content-Type-Options", "nosniff")] if refused.nosniff else []
        self.reply(refused.body["code"], objects.dumps(refused.body) + b"\n", extra=extra)

    def reply(
        self,
        code: int,
        body: bytes,
        content_type: str = "application/json",
        extra: Optional[list[tuple[str, str]]] = None,
    ) -> None:
        """Answer with a complete body, delimited as the faults say. Blocks."""
        headers = [("Content-Type", content_type), *(extra or [])]
        if content_type == "application/json":
            headers.insert(0, ("Cache-Control", "no-cache, private"))
        delimiter = self.faults.body
        if delimiter == "length":
            headers.append(("Content-Length", str(len(body))))
        elif delimiter == "close":
            headers.append(("Connection", "close"))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
        reason = http_reason(code)
        if delimiter == "close":
            # h11 would chunk it: HTTP/1.1 without a length means "until the end", and is legal.
            lines = "".join(f"{key}: {value}\r\n" for key, value in headers)
            self.drip(f"HTTP/1.1 {code} {reason}\r\n{lines}\r\n".encode("latin-1"))
            self.wire.send_all(body)
            self.wire.finish()
            raise Gone("the body ends with the connection")
        event = h11.Response(status_code=code, headers=headers, reason=reason)
        self.drip(self._http.send(event) or b"")
        half = len(body) // 2  # two chunks, where it is chunked
        for piece in (body[:half], body[half:]):
            self.send(h11.Data(data=piece))
        self.send(h11.EndOfMessage())

    def reply_empty(self, code: int) -> None:
        """Answer with a code that has no body."""
        headers = [("Cache-Control", "no-cache, private")]
        self.send(h11.Response(status_code=code, headers=headers, reason=http_reason(code)))
        self.send(h11.EndOfMessage())

    def reply_raw(self, data: bytes) -> None:
        """Answer with bytes that h11 would not send, and end the connection.

        Raises:
            Gone: always.
        """
        self.drip(data)
        self.wire.finish()
        raise Gone("the answer ends with the connection")

    def take_trailing(self) -> bytes:
        """Return what the client has sent after its upgrade request."""
        return self._http.trailing_data[0]


def _path(head: h11.Request) -> str:
    return head.target.decode("latin-1").partition("?")[0]


def http_reason(code: int) -> str:
    """Return the reason phrase of a status code."""
    return http.HTTPStatus(code).phrase
