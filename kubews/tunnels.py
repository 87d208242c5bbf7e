"""One upgrade for a port of a pod: which pod, which port, which protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubews.client import PING_INTERVAL
from kubews.errors import ApiError
from kubews.ports import Port
from kubews.protocol.forwarding import OFFER
from kubews.protocol.forwards import Forwards, forwards
from kubews.protocol.requests import portforward_path
from kubews.targets import Target
from kubews.transport.deadline import Deadline
from kubews.transport.loop import Loop
from kubews.transport.tunnel import Tunnel
from kubews.transport.wire import Wire, prepare


@dataclass
class Way:
    """An upgraded connection that no loop serves yet.

    Args:
        wire: the WebSocket.
        forwards: what its protocol makes of connections.
        namespace: of the pod.
        pod: the pod that was chosen.
        port: its port.

    Threads: one at a time.
    """

    wire: Wire
    forwards: Forwards
    namespace: str
    pod: str
    port: int

    @property
    def where(self) -> str:
        """The other end in words."""
        return f"port {self.port} of pod {self.namespace}/{self.pod}"

    def tunnel(self, loop: Loop, *, lasting: bool, done: Callable[[], None]) -> Tunnel:
        """Hand the connection to a loop.

        Args:
            loop: which serves it from now on.
            lasting: see ``Tunnel``, as for ``done``.
        """
        return Tunnel(
            self.wire,
            self.forwards,
            loop,
            where=self.where,
            ping=PING_INTERVAL,
            lasting=lasting,
            done=done,
        )


def open_way(target: Target, port: Port, deadline: Deadline) -> Way:
    """Choose a pod and its port, and upgrade.

    Args:
        target: a pod, or what stands for several.
        port: as the user has named it.
        deadline: for everything; the client's ``connect_timeout`` holds for each request, too.

    Raises:
        ApiError: the server refused.
        ConfigError: there is no such port.
        ConnectFailed: the server could not be reached.
        NotReady: no pod of the target runs.

    Threads: blocks.
    """
    prepare()  # the frames are made in the loop's thread
    pod, number = target.resolve_port(port, deadline)
    path = portforward_path(target.namespace, pod, [number])
    what = f"port-forward to port {number} of pod {target.namespace}/{pod}"
    try:
        wire = target.client.upgrade(path, OFFER, what, deadline)
    except ApiError as exc:
        # It has everything that the first one had.
        raise target.explain(exc, deadline, resource="pods/portforward") from None
    try:
        return Way(wire, forwards(wire.subprotocol, number), target.namespace, pod, number)
    except BaseException:
        wire.close()
        raise
