"""HTTP and WebSockets to what a pod, a service or a node serves, through the API server's proxy.

Sources: ``registry/core/{pod,service,node}``, ``apimachinery/pkg/util/proxy/upgradeaware.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, cast
from urllib.parse import urlencode

from kubews import refusals
from kubews.errors import ApiError, ConfigError, Forbidden
from kubews.protocol.requests import proxy_path
from kubews.protocol.status import decode_document
from kubews.transport import http
from kubews.transport.deadline import Deadline
from kubews.transport.exchange import Body, HttpResponse, can_seek, exchange, not_a_body, whole
from kubews.transport.wire import WebSocket, connected

if TYPE_CHECKING:
    from kubews.served import Behind, Params
    from kubews.transport.patientsocket import PatientSocket

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
_LENGTH = re.compile("[0-9]{1,18}")
# apiserver/pkg/endpoints/request/requestinfo.go
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update"}
# The API server's own answers are small; what is longer is another's.
_STATUS = 1 << 16


def _path(behind: Behind, path: str, params: Params) -> str:
    if behind.scheme not in ("", "http", "https"):
        raise ConfigError(f"scheme must be 'http' or 'https', not {behind.scheme!r}")
    if url := _URL.match(path):
        raise ConfigError(
            f"the path of a URL is wanted, {path[url.end() :] or '/'!r}, and not all of it: "
            "port= and scheme= say the rest"
        )
    if isinstance(params, (str, bytes)):
        raise TypeError(
            "params is a mapping or pairs; a query that is a string goes behind ? in the path"
        )
    if params is not None:
        pairs = params.items() if isinstance(params, Mapping) else params
        query = urlencode(list(pairs), doseq=True)
        path += ("&" if "?" in path else "?") + query
    try:
        return proxy_path(behind.root, behind.name, behind.port, behind.scheme, path)
    except ValueError as exc:
        raise ConfigError(f"no path below {behind.where}: {exc}") from None


def request(
    behind: Behind,
    method: str,
    path: str,
    params: Params,
    headers: Optional[Mapping[str, str]],
    body: Body,
    timeout: Optional[float],
) -> HttpResponse:
    """Make an HTTP request; see ``Served.request``.

    Threads: blocks.
    """
    if not _TOKEN.fullmatch(method):
        raise ConfigError(f"{method!r} is not a method of HTTP")
    method = method.upper()  # as requests does: nobody knows others
    if not _can_be_sent(body):
        raise not_a_body(body)
    below = _path(behind, path, params)
    sent, length = _framed(headers or {})
    what = f"{method} {path.partition('?')[0]} of {behind.where}"
    again = _Again(body)

    def ask(sock: Any, everything: http.Headers, soon: Deadline) -> HttpResponse:
        again.rewind()
        target = behind.client.config.cluster.path_prefix + below
        answer = exchange(sock, method, target, everything, body, timeout, what, length)
        refusal = _refusal(answer)
        if refusal is not None:
            raise http.api_error(refusal, what)
        behind.client.keep(answer)
        return answer

    try:
        return behind.client.use(ask, sent, Deadline(timeout))
    except ApiError as exc:
        raise _explain(behind, exc, method) from None


def _can_be_sent(body: Any) -> bool:
    if isinstance(body, (str, Mapping)):
        return False  # iterables of what is no bytes
    readable = hasattr(body, "read")
    if hasattr(body, "encoding"):  # also a MultipartEncoder has one, which gives bytes
        return readable and not isinstance(body.read(0), str)
    return body is None or readable or isinstance(body, Iterable) or whole(body) is not None


def _framed(headers: Mapping[str, str]) -> tuple[dict[str, str], Optional[int]]:
    """Return the headers to send besides the framing, and the length that the user gives the body."""
    given = dict(http.check_headers(headers.items()))
    length = None
    for name in headers:
        if name.lower() == "content-length":
            value = given.pop(name)
            if not _LENGTH.fullmatch(value):
                raise ConfigError(f"{name} must be a number of bytes, not {value!r}")
            length = int(value)
    return http.additional_headers(given), length


def _explain(behind: Behind, exc: ApiError, method: str) -> ApiError:
    """Name the missing verb of a refusal by RBAC, which is a Status; others are those of who is behind."""
    if not isinstance(exc, Forbidden) or exc.status is None:
        return exc
    within = f" in namespace {behind.namespace}" if behind.namespace else ""
    verb = _VERBS.get(method, method.lower())
    return refusals.with_hint(
        exc, f"The user needs the verb {verb} on {behind.resource}/proxy{within}"
    )


class _Again:
    """A body that can be sent a second time, after a 401, if it can be wound back."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._tries = 0
        self._start: Optional[int] = None
        if can_seek(body):
            self._start = body.tell()

    def rewind(self) -> None:
        self._tries += 1
        if self._tries == 1 or self._body is None or whole(self._body) is not None:
            return
        if self._start is None:
            raise ConfigError(
                "the server wants new credentials, and the body cannot be read again: "
                "make a small request first, or give a file that can seek"
            )
        self._body.seek(self._start)


def _refusal(answer: HttpResponse) -> Optional[http.Response]:
    """Return the API server's own refusal; None if the answer is that of who is behind it."""
    if answer.status < 400 or answer.headers.get_content_type() != "application/json":
        return None
    said = answer.look(_STATUS)
    document = None if said is None else decode_document(said)
    if said is None or document is None or document.get("kind") != "Status":
        return None
    names = {name.lower(): value for name, value in answer.headers.items()}
    return http.Response(answer.status, answer.reason, names, said)


def websocket(
    behind: Behind,
    path: str,
    headers: Optional[Mapping[str, str]],
    subprotocols: Sequence[str],
    timeout: Optional[float],
) -> WebSocket:
    """Open a WebSocket; see ``Served.websocket``.

    Threads: blocks.
    """
    below = _path(behind, path, None)
    if "?" in path:
        raise ConfigError(
            f"{path!r} has a query, which API servers drop from the request for a WebSocket: connect to the "
            "port itself, websocket.create_connection(URL, socket=pod.connect(PORT))"
        )
    for each in subprotocols:
        if isinstance(subprotocols, str) or not _TOKEN.fullmatch(each):
            raise ConfigError(f"{subprotocols!r} are no names of subprotocols")
    sent = http.additional_headers(headers or {})
    what = f"WebSocket {path} of {behind.where}"

    def ask(sock: Any, everything: http.Headers, soon: Deadline) -> WebSocket:
        target = behind.client.config.cluster.path_prefix + below
        chat = connected(sock, target, everything, subprotocols, what, soon, timeout)
        behind.client.keep(cast("PatientSocket", chat.sock))
        return chat

    try:
        return behind.client.use(ask, sent, Deadline(timeout))
    except ApiError as exc:
        raise _explain(behind, exc, "GET") from None
