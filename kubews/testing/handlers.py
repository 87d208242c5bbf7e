"""exec before the upgrade: the checks of a real cluster in their order, and the refusals.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Optional

from websockets.utils import accept_key

from kubews.testing import access, objects, resources
from kubews.testing.access import Headers, Refused, User
from kubews.testing.dialect import Dialect, Options, negotiate
from kubews.testing.pods import Pod
from kubews.testing.processes import Container
from kubews.testing.stream import ExecStream
from kubews.testing.tls import Gone

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request


def serve_exec(
    connection: Connection,
    request: Request,
    user: User,
    headers: Headers,
    namespace: str,
    pod_name: str,
) -> None:
    """Check an exec request in the order of a real cluster, upgrade, and carry the stream.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    server = connection.server
    verb = "create" if request.method == "POST" else "get"
    access.authorize(user, verb, "pods/exec", namespace, pod_name)
    options = Options.from_query(request.query)
    if server.minor >= 35:
        access.authorize_stream(user, pod_name, "pods/exec")
    container = _container(resources.find_pod(connection, namespace, pod_name), options, headers)
    # A request for SPDY offers nothing here, and gets the kubelet's answer as v4 does.
    dialect = _dialect(connection, headers)
    problem = _kubelet_problem(options, container)
    # From 1.30 to 1.35 the apiserver ends a v5 stream: it upgrades first and asks afterwards.
    late = dialect is not None and dialect.v5 and server.minor < 36
    if problem and not late:
        _reply_text(connection, *problem)
    if not access.is_websocket(headers):
        raise Refused(objects.bad_request(_no_spdy(server.minor)))
    if dialect is None:
        connection.reply_raw(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n")
        return
    _upgrade(connection, request, dialect)
    stream = ExecStream(connection, dialect, options)
    stream.open()
    if problem:
        stream.fail(dialect.error(f"unable to upgrade connection: {problem[1]}"))
    else:
        stream.execute(container)
    raise Gone("the stream has ended")


def _container(pod: Pod, options: Options, headers: Headers) -> Container:
    container = choose_container(pod, options.container)
    if pod.state == "unscheduled":
        raise Refused(objects.bad_request(f"pod {pod.name} does not have a host assigned"))
    if not access.is_upgrade(headers):
        raise Refused(objects.bad_request("Upgrade request required"))
    return container


def _no_spdy(minor: int) -> str:
    hint = (
        "kubectl needs a LocalCluster of 1.30 or later"
        if minor < 30
        else "kubectl asks for it when its WebSocket was refused"
    )
    return f"LocalCluster speaks WebSocket only, not SPDY; {hint}"


def _dialect(connection: Connection, headers: Headers) -> Optional[Dialect]:
    # The token is no offer, whoever has authenticated the request.
    offered = [
        name
        for name in access.offered_protocols(headers)
        if not name.startswith(access.TOKEN_PROTOCOL)
    ]
    return negotiate(offered, connection.server.minor, connection.server.status_metadata)


def choose_container(pod: Pod, name: str) -> Container:
    """Choose as ``strategy.go: validateContainer``: the annotation is the client's business.

    Raises:
        Refused: 400.
    """
    if name:
        container = pod.container(name)
        if container is None:
            raise Refused(objects.bad_request(f"container {name} is not valid for pod {pod.name}"))
        return container
    if len(pod.containers) == 1:
        return pod.containers[0]
    names = " ".join(each.name for each in pod.containers)
    message = f"a container name must be specified for pod {pod.name}, choose one of: [{names}]"
    raise Refused(objects.bad_request(message))


def _kubelet_problem(options: Options, container: Container) -> Optional[tuple[int, str]]:
    if not (options.stdin or options.stdout or options.stderr):
        return 400, "you must specify at least 1 of stdin, stdout, stderr"
    if not container.running:
        return 500, f'container not found ("{container.name}")'
    return None


def _reply_text(connection: Connection, code: int, text: str) -> None:
    """Answer as a hop that re-emits the kubelet's answer does: plain text, then the end."""
    connection.reply(code, text.encode(), "text/plain; charset=utf-8")
    connection.wire.finish()
    raise Gone("a re-emitted answer ends the connection")


def _upgrade(connection: Connection, request: Request, dialect: Dialect) -> None:
    key = request.header("sec-websocket-key") or ""
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        good = False
    if request.method != "GET":
        _reply_text(connection, 405, "bad method")
    if request.header("sec-websocket-version") != "13":
        body = b"missing or bad WebSocket Version"
        refusal = (
            b"HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 13\r\nContent-Length: %d\r\n\r\n"
        )
        connection.reply_raw(refusal % len(body) + body)
    if not good:
        _reply_text(connection, 400, "missing or bad Sec-WebSocket-Key")
    name = dialect.name if connection.faults.subprotocol is None else connection.faults.subprotocol
    # With nothing offered the real answer has the header too, empty (x/net: AcceptHandshake).
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_key(key)}\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"
    )
    connection.drip(head.encode("latin-1"))
