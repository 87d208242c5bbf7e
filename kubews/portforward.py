"""Ports of a pod: as a socket, and as a local listener."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from kubews import ports
from kubews.errors import ConfigError
from kubews.forwarder import Forwarder, ForwardEvent
from kubews.listeners import listen
from kubews.podsocket import Ending, PodSocket
from kubews.ports import Port
from kubews.targets import Target
from kubews.transport import forks
from kubews.transport.deadline import Deadline
from kubews.transport.loop import Loop
from kubews.tunnels import Way, open_way

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


def connect(target: Target, port: Port, timeout: Optional[float]) -> PodSocket:
    """Connect to a port of a pod; see ``Pod.connect``.

    Threads: blocks.
    """
    way = open_way(target, port, Deadline(timeout))
    ending = Ending()
    loop: Optional[Loop] = None
    ends: list[socket.socket] = []
    try:
        with forks.lock:
            ends += socket.socketpair()
            own = forks.own(lambda: ends[1])
        made = PodSocket.made(ends[0], (way.pod, way.port), ending)
        ends[0] = made
        made.settimeout(timeout)
        loop = Loop(f"kubews {way.where}", start=False)
        loop.start()
        tunnel = way.tunnel(loop, lasting=False, done=loop.stop)
        tunnel.attach(own, way.port, ending)
        tunnel.begin()
        target.client.keep(tunnel)
    except BaseException:  # Ctrl-C too
        if loop is not None:
            loop.stop()
            loop.join(1.0)
        for end in ends:  # only now: the loop may have waited for one of them
            forks.close(end)
        way.wire.close()
        raise
    return made


class PortForward:
    """Local ports that lead to ports of a pod; ``pod.forward(...)`` makes one.

    It listens when it is made, and until ``close``, or the end of its ``with`` block. Each local connection
    is for itself: if the pod refuses it, it is reset, its error is kept in ``errors``, and the others go
    on. When the pod is gone, the next connection looks for another one of the same name or of the same
    Deployment, Service and so on.

    Args:
        target: the pod, or what stands for several.
        remote: the port in the pod (of the Service, if that is the target), or several.
        local_port: where to listen: one for each of ``remote``; 0 lets the kernel pick.
        address: IP addresses of this machine, or ``localhost``.
        multiplex: whether local connections share a tunnel.
        on_event: called with each ``ForwardEvent`` in the thread that serves all; must not block.
        timeout: seconds until the pod must be reached.

    Threads: any.
    """

    def __init__(
        self,
        target: Target,
        remote: Union[Port, Sequence[Port]],
        local_port: Union[int, Sequence[int]] = 0,
        address: Union[str, Sequence[str]] = "127.0.0.1",
        *,
        multiplex: bool = False,
        on_event: Optional[Callable[[ForwardEvent], None]] = None,
        timeout: Optional[float] = None,
    ) -> None:
        self._forwarder: Optional[Forwarder] = None
        self._target = target
        wanted = _pairs(remote, local_port)
        addresses = [address] if isinstance(address, str) else list(address)
        listeners: dict[Port, list[socket.socket]] = {}
        ways: dict[Port, Way] = {}
        try:
            for each, number in wanted.items():
                listeners[each] = listen(addresses, number)
            # Opened once before it is needed: a wrong name or a missing right is told now.
            for each in wanted:
                ways[each] = open_way(target, each, Deadline(timeout))
                if not multiplex or not ways[each].forwards.lasting:
                    ways.pop(each).wire.close()
            #: The local port of each remote one.
            self.ports: dict[Port, int] = {
                each: socks[0].getsockname()[1] for each, socks in listeners.items()
            }
            #: The local addresses.
            self.addresses = tuple(sock.getsockname()[0] for sock in next(iter(listeners.values())))
            self._forwarder = Forwarder(target, listeners, shared=multiplex, on_event=on_event)
            target.client.keep(self._forwarder)
            self._forwarder.start(ways)
        except BaseException:  # Ctrl-C too
            if self._forwarder is not None:
                self._forwarder.begin_close()
            for socks in listeners.values():
                for sock in socks:
                    forks.close(sock)
            for way in ways.values():
                way.wire.close()
            self._forwarder = None
            raise

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<kubews.PortForward {self.url} -> {self._target.where}{state}>"

    @property
    def local_port(self) -> int:
        """The local port, of the first if there are several."""
        return next(iter(self.ports.values()))

    @property
    def address(self) -> str:
        """The local address, the first if there are several."""
        return str(self.addresses[0])

    @property
    def url(self) -> str:
        """``http://`` with the first address and port: where an HTTP server in the pod is now."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.local_port}"

    @property
    def errors(self) -> list[Exception]:
        """What has become of connections that failed, the last of them last; a hundred are kept."""
        return list(self._forwarder.errors) if self._forwarder is not None else []

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._forwarder is None or self._forwarder.closed

    def close(self) -> None:
        """Stop listening and end every connection; again is nothing.

        Threads: blocks for a moment, up to two seconds if the server does not answer.
        """
        if self._forwarder is not None:
            self._forwarder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self) -> None:
        forwarder = getattr(self, "_forwarder", None)
        if forwarder is None or forwarder.closed:
            return
        forwarder.begin_close()  # first: a warning may be an exception
        warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)


def _pairs(remote: Any, local_port: Any) -> Mapping[Port, int]:
    """Return the local port for each remote one."""
    remotes: list[Any] = list(remote) if _are_several(remote) else [remote]
    several = _are_several(local_port)
    locals_: list[Any] = list(local_port) if several else [local_port] * len(remotes)
    for number in locals_:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"local_port must be a number or several, not {local_port!r}")
    if not remotes:
        raise ConfigError("no port to forward was given")
    if len(locals_) != len(remotes) or (not several and local_port and len(remotes) > 1):
        raise ConfigError(
            f"{len(remotes)} ports need as many in local_port=, or 0 for one that the kernel picks"
        )
    wanted = {ports.parse(each): number for each, number in zip(remotes, locals_, strict=True)}
    if len(wanted) != len(remotes):
        raise ConfigError(
            "a port stands twice in the list: one local port takes any number of connections"
        )
    return wanted


def _are_several(given: Any) -> bool:
    # Text and bytes can be gone through, too, but are not several ports.
    return isinstance(given, Iterable) and not isinstance(given, (str, bytes))
