"""PodSocket: a real socket whose other end is a port of a pod."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from kubews.transport.wait import fresh

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

T = TypeVar("T")


class Ending:
    """How a forwarded connection has ended, told before the socket shows it.

    Threads: set in the loop's, read in any.
    """

    def __init__(self) -> None:
        self.error: Optional[Exception] = None

    def __call__(self, error: Optional[Exception]) -> None:
        self.error = error


class PodSocket(socket.socket):
    """A connected stream socket to a port of a pod; ``pod.connect(port)`` makes one.

    It is one end of a ``socket.socketpair()`` whose other end is carried to the pod, so whatever takes a
    socket takes it: ``ssl``, ``select``, ``asyncio``, ``http.client``. What differs from TCP:

    * The connection counts as made before the pod was asked. If nothing answers on the port, the first call
      that meets it raises ``PortRefused`` (a ``ConnectionRefusedError``); a connection that is lost raises
      ``ConnectionLost``. What was received before is read first.
    * ``getpeername()`` is the pod's name and the port; options of TCP are accepted and ignored.
    * After ``shutdown(SHUT_WR)`` the pod's bytes still come, but for how long is the server's choice:
      containerd closes both directions after one second, and until then does not tell the pod. Servers
      without the tunnel (before Kubernetes 1.31) cannot be told at all: there the pod's bytes come until
      it closes or says nothing for 5 seconds.
    * This process carries the bytes, not the kernel: when the interpreter exits, what it has not carried yet
      is lost, even behind ``close()``. Who must know that all has arrived reads the pod's answer first.
    * ``ssl`` and ``detach()`` take the descriptor only, and then an end has no reason.

    Threads: as for any socket.
    """

    _ending = Ending()
    _peer = ("", 0)

    @classmethod
    def made(cls, end: socket.socket, peer: tuple[str, int], ending: Ending) -> Self:
        """Take over one end of a pair.

        Args:
            end: the user's; it is detached.
            peer: the pod's name and the port.
            ending: tells how it has ended.
        """
        made = cls(fileno=end.detach())
        made._peer, made._ending = peer, ending
        return made

    def __repr__(self) -> str:
        state = "closed" if self.fileno() < 0 else f"fd={self.fileno()}"
        return f"<kubews.PodSocket {self._peer[0]}:{self._peer[1]} {state}>"

    def getpeername(self) -> tuple[str, int]:
        """Return the pod's name and the port."""
        super().getpeername()  # raises where any socket would
        return self._peer

    def dup(self) -> Self:
        """Return another socket for the same connection."""
        other = super().dup()
        other._peer, other._ending = self._peer, self._ending
        return other

    def setsockopt(self, *args: Any) -> None:
        """Set an option of the socket; options of TCP are ignored."""
        if args[0] != socket.IPPROTO_TCP:
            super().setsockopt(*args)

    def getsockopt(self, *args: Any) -> Any:
        """Return an option of the socket; options of TCP are 0."""
        if args[0] == socket.IPPROTO_TCP:
            return bytes(args[2]) if len(args) > 2 else 0
        return super().getsockopt(*args)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """Receive bytes, as ``socket.recv``.

        Raises:
            PortRefused: nothing answers on the port.
            ConnectionLost: the connection broke.

        Threads: blocks.
        """
        return self._told(super().recv, bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive bytes into a buffer, as ``socket.recv_into``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().recv_into, buffer, nbytes, flags)

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Send bytes, as ``socket.send``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().send, data, flags)

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """Send all bytes, as ``socket.sendall``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().sendall, data, flags)

    def sendmsg(self, *args: Any) -> int:
        """Send several buffers, as ``socket.sendmsg``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().sendmsg, *args)

    def recvfrom(self, *args: Any) -> tuple[bytes, Any]:
        """Receive bytes and an address that says nothing, as ``socket.recvfrom``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().recvfrom, *args)

    def recvmsg(self, *args: Any) -> tuple[bytes, list[Any], int, Any]:
        """Receive as ``socket.recvmsg``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().recvmsg, *args)

    def recvfrom_into(self, *args: Any) -> tuple[int, Any]:
        """Receive into a buffer, as ``socket.recvfrom_into``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().recvfrom_into, *args)

    def recvmsg_into(self, *args: Any) -> tuple[int, list[Any], int, Any]:
        """Receive into buffers, as ``socket.recvmsg_into``; see ``recv``.

        Threads: blocks.
        """
        return self._told(super().recvmsg_into, *args)

    def _told(self, call: Callable[..., T], *args: Any) -> T:
        try:
            result = call(*args)
        except ConnectionError as exc:
            if self._ending.error is not None:
                raise fresh(self._ending.error) from exc
            raise
        # An end of file, which a loss looks like; None is what sendall returns.
        got = result[0] if isinstance(result, tuple) else result
        if got is not None and not got and self._ending.error is not None:
            raise fresh(self._ending.error)
        return result
