"""HTTP and WebSockets to what a pod, a service or a node serves, through the API server's proxy.

Sources: ``registry/core/{pod,service,node}``, ``apimachinery/pkg/util/proxy/upgradeaware.go``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union, cast
from urllib.parse import quote, urlencode

from kubews import refusals
from kubews.errors import ApiError, ConfigError, Forbidden
from kubews.ports import Port, parse
from kubews.protocol.requests import proxy_path
from kubews.protocol.status import decode_document
from kubews.transport import http
from kubews.transport.deadline import Deadline
from kubews.transport.exchange import Body, HttpResponse, exchange, whole
from kubews.transport.wire import WebSocket, connected

if TYPE_CHECKING:
    from kubews.client import Client
    from kubews.targets import Target
    from kubews.transport.patientsocket import PatientSocket

Params = Union[Mapping[str, Any], Iterable[tuple[str, Any]], None]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# apiserver/pkg/endpoints/request/requestinfo.go
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update"}
# The API server's own answers are small; what is longer is another's.
_STATUS = 1 << 16


class _Behind(NamedTuple):
    """What is asked through the proxy."""

    client: Client
    resource: str
    root: str
    namespace: str
    name: str

    @property
    def where(self) -> str:
        kind = self.resource.removesuffix("s")
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"

    def explain(self, exc: ApiError, method: str) -> ApiError:
        """Name the missing verb of a refusal by RBAC, which is a Status; others are those of who is behind."""
        if not isinstance(exc, Forbidden) or exc.status is None:
            return exc
        within = f" in namespace {self.namespace}" if self.namespace else ""
        verb = _VERBS.get(method.upper(), method.lower())
        return refusals.with_hint(
            exc, f"The user needs the verb {verb} on {self.resource}/proxy{within}"
        )


class Proxied:
    """A service or a node, for what it serves; ``client.service("web")`` and ``client.node("n1")`` make one.

    Args:
        client: how to reach the cluster.
        resource: ``services`` or ``nodes``.
        name: of the object.
        namespace: of the service, empty for a node.

    Threads: any.
    """

    def __init__(self, client: Client, resource: str, name: str, namespace: str = "") -> None:
        if name in ("", ".", "..") or "/" in name or ":" in name:
            raise ConfigError(f"{name!r} is not the name of one of the {resource}")
        within = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        self._behind = _Behind(client, resource, f"/api/v1{within}/{resource}", namespace, name)

    def __repr__(self) -> str:
        return f"<kubews.Proxied {self._behind.where}>"

    def request(
        self,
        method: str,
        path: str = "/",
        *,
        port: Optional[Port] = None,
        scheme: str = "",
        params: Params = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = None,
        timeout: Optional[float] = None,
    ) -> HttpResponse:
        """Make an HTTP request; see ``Pod.request``. A port is one of the service's, by number or name.

        Threads: blocks.
        """
        return _request(
            self._behind, _word(port), scheme, method, path, params, headers, body, timeout
        )

    def websocket(
        self,
        path: str = "/",
        *,
        port: Optional[Port] = None,
        scheme: str = "",
        headers: Optional[Mapping[str, str]] = None,
        subprotocols: Sequence[str] = (),
        timeout: Optional[float] = None,
    ) -> WebSocket:
        """Open a WebSocket; see ``Pod.websocket``.

        Threads: blocks.
        """
        return _websocket(self._behind, _word(port), scheme, path, headers, subprotocols, timeout)


def request(
    target: Target,
    method: str,
    path: str,
    *,
    port: Optional[Port],
    scheme: str,
    params: Params,
    headers: Optional[Mapping[str, str]],
    body: Body,
    timeout: Optional[float],
) -> HttpResponse:
    """Make an HTTP request to a pod; see ``Pod.request``.

    Threads: blocks.
    """
    behind, number = _pod(target, port, Deadline(timeout))
    return _request(behind, number, scheme, method, path, params, headers, body, timeout)


def websocket_to(
    target: Target,
    path: str,
    *,
    port: Optional[Port],
    scheme: str,
    headers: Optional[Mapping[str, str]],
    subprotocols: Sequence[str],
    timeout: Optional[float],
) -> WebSocket:
    """Open a WebSocket to a pod; see ``Pod.websocket``.

    Threads: blocks.
    """
    behind, number = _pod(target, port, Deadline(timeout))
    return _websocket(behind, number, scheme, path, headers, subprotocols, timeout)


def _pod(target: Target, port: Optional[Port], deadline: Deadline) -> tuple[_Behind, str]:
    """Choose the pod and the number of its port; without one the server chooses."""
    number = ""
    if port is None:
        name = target.resolve(deadline).pod_name
    else:
        name, given = target.resolve_port(port, deadline)
        number = str(given)
    root = f"/api/v1/namespaces/{quote(target.namespace, safe='')}/pods"
    return _Behind(target.client, "pods", root, target.namespace, name), number


def _word(port: Optional[Port]) -> str:
    return "" if port is None else str(parse(port))


def _path(behind: _Behind, port: str, scheme: str, path: str, params: Params) -> str:
    if scheme not in ("", "http", "https"):
        raise ConfigError(f"scheme must be 'http' or 'https', not {scheme!r}")
    if params is not None:
        pairs = params.items() if isinstance(params, Mapping) else params
        query = urlencode(list(pairs), doseq=True)
        path += ("&" if "?" in path else "?") + query
    try:
        return proxy_path(behind.root, behind.name, port, scheme, path)
    except ValueError as exc:
        raise ConfigError(f"no path below {behind.where}: {exc}") from None


def _request(
    behind: _Behind,
    port: str,
    scheme: str,
    method: str,
    path: str,
    params: Params,
    headers: Optional[Mapping[str, str]],
    body: Body,
    timeout: Optional[float],
) -> HttpResponse:
    if not _TOKEN.fullmatch(method):
        raise ConfigError(f"{method!r} is not a method of HTTP")
    if isinstance(body, str) or hasattr(body, "encoding"):
        raise TypeError("body must be bytes, a binary file or pieces of bytes: encode the text")
    below = _path(behind, port, scheme, path, params)
    sent = http.additional_headers(headers or {})
    what = f"{method} {path.partition('?')[0]} of {behind.where}"
    again = _Again(body)

    def ask(sock: Any, everything: http.Headers, soon: Deadline) -> HttpResponse:
        again.rewind()
        target = behind.client.config.cluster.path_prefix + below
        answer = exchange(sock, method, target, everything, body, timeout, what)
        refusal = _refusal(answer)
        if refusal is not None:
            raise http.api_error(refusal, what)
        behind.client.keep(answer)
        return answer

    try:
        return behind.client.use(ask, sent, Deadline(timeout))
    except ApiError as exc:
        raise behind.explain(exc, method) from None


class _Again:
    """A body that can be sent a second time, after a 401, if it can be wound back."""

    def __init__(self, body: Any) -> None:
        self._body = body
        self._tries = 0
        self._start: Optional[int] = None
        if hasattr(body, "seek") and body.seekable():
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


def _websocket(
    behind: _Behind,
    port: str,
    scheme: str,
    path: str,
    headers: Optional[Mapping[str, str]],
    subprotocols: Sequence[str],
    timeout: Optional[float],
) -> WebSocket:
    if "?" in path:
        raise ConfigError(
            f"{path!r} has a query, which API servers drop from the request for a WebSocket: connect to the "
            "port itself, websocket.create_connection(URL, socket=pod.connect(PORT))"
        )
    for each in subprotocols:
        if isinstance(subprotocols, str) or not _TOKEN.fullmatch(each):
            raise ConfigError(f"{subprotocols!r} are no names of subprotocols")
    below = _path(behind, port, scheme, path, None)
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
        raise behind.explain(exc, "GET") from None
