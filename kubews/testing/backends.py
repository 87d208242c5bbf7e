"""Who is behind the proxy subresource: which pod, which port, and a connection to what listens there.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple, Optional

from kubews.testing import objects
from kubews.testing.access import Refused
from kubews.testing.pods import Pod
from kubews.testing.selectors import selected
from kubews.testing.tls import HANGUP, Gone, Stopping

if TYPE_CHECKING:
    from kubews.testing.connection import Connection

_CHUNK = 1 << 16
NODE = "localhost"


class Address(NamedTuple):
    """Where a request goes.

    Args:
        port: of the pod, as it is said.
        where: the port of this machine; None if nobody can be reached.
        tls: whether it speaks TLS.
    """

    port: int
    where: Optional[int]
    tls: bool


def find(connection: Connection, kind: str, namespace: str, said: str) -> Address:
    """Find what ``[scheme:]name[:port]`` means (``registry/core/{pod,service,node}``).

    Raises:
        Refused: nothing.
    """
    scheme, name, port = _split(said)
    if kind == "services":
        pod, number = _of_service(connection, namespace, said, name, port)
        return _in(pod, number, scheme)
    if kind == "nodes":
        if name != NODE:
            raise Refused(objects.not_found("nodes", name))
        number = _number(port or "10250")
        return Address(number, number, scheme == "https")
    found = connection.server.pods.get(namespace, name)
    if found is None:
        raise Refused(objects.not_found("pods", name))
    declared = next(iter(found.ports.values()), 443 if scheme == "https" else 80)
    return _in(found, _number(port) if port else declared, scheme)


def _split(said: str) -> tuple[str, str, str]:
    parts = said.split(":")
    if len(parts) == 1:
        return "", said, ""
    scheme, name, port = parts if len(parts) == 3 else ("", *parts[:2])
    if len(parts) > 3 or not name or scheme not in ("", "http", "https"):
        raise Refused(objects.bad_request(f'invalid pod request "{said}"'))
    return scheme, name, port


def _number(port: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise Refused(objects.bad_request(f"invalid port {port}"))
    return int(port)


def _in(pod: Pod, port: int, scheme: str) -> Address:
    where = pod.listens.get(port, port) if pod.state == "running" else None
    return Address(port, where, scheme == "https")


def _of_service(
    connection: Connection, namespace: str, said: str, name: str, port: str
) -> tuple[Pod, int]:
    """Choose one of the pods of a service, and the port there."""
    service = connection.server.owners.get("services", namespace, name)
    if service is None:
        raise Refused(objects.not_found("services", name))
    known = service["spec"].get("ports", [])
    found = [each for each in known if port in (each.get("name", ""), str(each["port"]))]
    if not found and port.isdigit():
        raise _unavailable(f'no service port {port} found for service "{name}"')
    wanted = ",".join(
        f"{key}={value}" for key, value in service["spec"].get("selector", {}).items()
    )
    for pod in connection.server.pods.all() if found else []:
        if pod.namespace == namespace and pod.phase == "Running" and selected(wanted, pod.labels):
            target = found[0]["targetPort"]
            number = target if isinstance(target, int) else pod.ports.get(target)
            if number is not None:
                return pod, number
    raise _unavailable(f'no endpoints available for service "{said}"')


def _unavailable(message: str) -> Refused:
    return Refused(objects.status(503, "ServiceUnavailable", message))


class Backend:
    """A connection to what listens in a pod, which never waits by itself.

    Args:
        connection: of the client, who may leave meanwhile.
        address: where to.

    Raises:
        OSError: nobody is there.

    Threads: one.
    """

    def __init__(self, connection: Connection, address: Address) -> None:
        self._stop_fd = connection.server.stop_fd
        self._client = connection.wire
        if address.where is None:
            raise ConnectionRefusedError
        self._unsent = bytearray()
        self._deaf = False
        #: Whether what listens has said its last word.
        self.ended = False
        sock = socket.create_connection(("127.0.0.1", address.where), timeout=10)
        if address.tls:  # as the transport of the API server's proxy, which verifies nothing
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        sock.setblocking(False)
        self._sock = sock

    def receive(self) -> bytes:
        """Return what is there, ``b""`` if nothing is, or nothing more comes."""
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b""
        except OSError:
            data = b""
        self.ended = not data
        return data

    def send(self, data: bytes) -> None:
        """Send what can be sent, and keep the rest for ``flush``."""
        self._unsent += data
        self.flush()

    def flush(self) -> None:
        """Send what can be sent now."""
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self._unsent:
                try:
                    del self._unsent[: self._sock.send(memoryview(self._unsent)[:_CHUNK].tobytes())]
                except (BrokenPipeError, ConnectionError, ssl.SSLError) as exc:
                    if isinstance(exc, (ssl.SSLWantReadError, ssl.SSLWantWriteError)):
                        raise
                    self._unsent.clear()  # it has enough; what it has said is still to be read
                    self._deaf = True

    @property
    def full(self) -> bool:
        """Whether it takes nothing more, for the moment or for good."""
        return self._deaf or len(self._unsent) > _CHUNK

    def wait(self, client: int) -> None:
        """Wait for the backend, and for the client if something is wanted of it.

        Args:
            client: ``select.POLLIN`` for what it sends, ``HANGUP`` for its end, or 0.

        Raises:
            Gone: the client has gone; a reverse proxy in Go gives the request up then.
            Stopping: the cluster is being closed.
        """
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return
        poll = select.poll()
        poll.register(self._stop_fd, select.POLLIN)
        poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        if client:
            poll.register(self._client.fileno(), client)
        ready = dict(poll.poll())
        if self._stop_fd in ready:
            raise Stopping
        if client == HANGUP and self._client.fileno() in ready:
            raise Gone("the client has gone")

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()


def refusal(exc: OSError, port: int) -> str:
    """Return what Go says of a connection that cannot be made."""
    reason = os.strerror(exc.errno).lower() if exc.errno else "connection refused"
    return f"dial tcp 127.0.0.1:{port}: connect: {reason}"
