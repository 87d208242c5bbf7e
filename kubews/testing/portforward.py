"""Port-forward before the upgrade: the checks of a real cluster in their order, and the refusals.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from kubews.protocol.forwarding import SUBPROTOCOLS
from kubews.protocol.spdy import SUBPROTOCOL as TUNNEL
from kubews.testing import access, objects, resources, upgrade
from kubews.testing.access import Headers, Refused, User
from kubews.testing.channelpairs import ChannelPairs
from kubews.testing.forwardloop import ForwardLoop
from kubews.testing.pods import Pod
from kubews.testing.ports import decode_ports, ports_problem
from kubews.testing.tls import Gone
from kubews.testing.tunnel import Tunnel

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request

_TUNNEL_SINCE = 31  # of 1.30 it is an alpha feature, which is off
_PREFIX, _SUFFIX = "SPDY/3.1+", ".k8s.io"
_RESOURCE = "pods/portforward"


def serve_portforward(
    connection: Connection,
    request: Request,
    user: User,
    headers: Headers,
    namespace: str,
    pod_name: str,
) -> None:
    """Check a request in the order of a real cluster, upgrade, and carry the ports.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    server = connection.server
    verb = "create" if request.method == "POST" else "get"
    access.authorize(user, verb, _RESOURCE, namespace, pod_name)
    ports = decode_ports([value for key, value in request.query if key == "ports"])
    if server.minor >= 35:
        access.authorize_stream(user, pod_name, _RESOURCE)
    pod = resources.find_pod(connection, namespace, pod_name)
    if pod.state == "unscheduled":
        raise Refused(objects.bad_request(f"pod {pod.name} does not have a host assigned"))
    upgrade.check_asked(headers)
    tunnels = _tunnels(headers) if server.minor >= _TUNNEL_SINCE else []
    loop: ForwardLoop
    if tunnels:
        _check_sandbox(connection, pod)
        _check_tunnels(connection, tunnels)
        loop = Tunnel(connection, pod)
        upgrade.upgrade(connection, request, TUNNEL, gorilla=True)
    else:
        protocol = _legacy(connection, headers, ports, pod)
        if protocol is None:
            return
        loop = ChannelPairs(connection, pod, ports, protocol)
        upgrade.upgrade(connection, request, protocol)
    loop.run()
    raise Gone("the port-forward has ended")


def _tunnels(headers: Headers) -> list[str]:
    """Return what is offered as a tunnel (``wsstream: IsWebSocketRequestWithTunnelingProtocol``)."""
    return [
        name.removeprefix(_PREFIX)
        for name in upgrade.offered(headers)
        if access.is_websocket(headers) and name.startswith(_PREFIX) and name.endswith(_SUFFIX)
    ]


def _check_sandbox(connection: Connection, pod: Pod) -> None:
    # One that still waits for its containers has its network already.
    if pod.phase in ("Succeeded", "Failed"):
        upgrade.reply_text(connection, 500, f'pod not found ("{pod.name}_{pod.namespace}")')


def _check_tunnels(connection: Connection, offered: list[str]) -> None:
    """Refuse tunnels of another kind as the runtime does (``httpstream.go: Handshake``)."""
    known = TUNNEL.removeprefix(_PREFIX)
    if known not in offered:
        names = " ".join(offered)
        text = f"client supports [{names}], server accepts [{known}]"
        upgrade.reply_text(
            connection,
            403,
            f"unable to upgrade: unable to negotiate protocol: {text}",
            ("X-Accepted-Stream-Protocol-Versions", known),
            newline=True,
        )


def _legacy(connection: Connection, headers: Headers, ports: list[int], pod: Pod) -> Optional[str]:
    """Make the kubelet's checks and the runtime's, and choose the protocol; None if it is refused."""
    problem = ports_problem(ports) if access.is_websocket(headers) else ""
    if problem:
        upgrade.reply_text(connection, 400, problem)
    _check_sandbox(connection, pod)
    upgrade.check_websocket(headers, connection.server.minor, websocket_since=_TUNNEL_SINCE)
    offered = upgrade.offered(headers)
    protocol = next((name for name in offered if name in SUBPROTOCOLS), None)
    if protocol is None and offered:
        upgrade.refuse_protocols(connection)
        return None
    return protocol or ""
