"""The log of a container, over HTTP and over a WebSocket.

Sources: kubernetes ``pkg/registry/core/pod/rest/log.go``, ``pkg/kubelet/kubelet_pods.go:
validateContainerLogStatus``, ``apiserver/pkg/endpoints/handlers/responsewriters/writers.go: StreamObject``,
``streaming/pkg/httpstream/wsstream/stream.go``.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import base64
import select
from typing import TYPE_CHECKING

import h11
from websockets.frames import Frame, Opcode

from kubews.testing import access, objects, resources, upgrade
from kubews.testing.access import Headers, Refused, User
from kubews.testing.containerlog import ContainerLog
from kubews.testing.containers import Container
from kubews.testing.frames import GoServerProtocol
from kubews.testing.handlers import choose_container
from kubews.testing.logreading import LogOptions, LogReader
from kubews.testing.messages import Messages
from kubews.testing.pods import Pod
from kubews.testing.tls import HANGUP, Gone

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request

_PROTOCOLS = ("binary.k8s.io", "base64.binary.k8s.io")
_PIECE = 2048  # the buffer of wsstream's Reader
_HIGH = 256 << 10  # bytes waiting for the client above which the log is not read


def serve_log(
    connection: Connection,
    request: Request,
    user: User,
    headers: Headers,
    namespace: str,
    pod_name: str,
) -> None:
    """Check a request for a log in the order of a real cluster, and send what it asks for.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    access.authorize(user, "get", "pods/log", namespace, pod_name)
    options = LogOptions.from_query(request.query, pod_name)
    pod = resources.find_pod(connection, namespace, pod_name)
    container = choose_container(pod, options.container)
    if pod.state == "unscheduled":
        connection.reply_empty(204)
        return
    log = _chosen(pod, container, options)

    def over() -> bool:
        # A container that was started again meanwhile has another log.
        return log.ended or log is not container.log or container.log_is_over()

    websocket = access.is_websocket(headers)
    protocol = _upgraded(connection, request, headers) if websocket else ""
    reader = LogReader(log, options, over)
    stream = _Socket(connection, protocol) if websocket else _Body(connection)
    watch = log.watch()
    try:
        stream.begin()
        while not reader.done:
            watch.reset()
            if stream.has_room:
                data = reader.read()
                stream.send(data)
                if data or reader.done:
                    continue
            stream.wait(watch.fileno())
            stream.send(b"")
        stream.end()
    finally:
        log.unwatch(watch)
        reader.close()


def _upgraded(connection: Connection, request: Request, headers: Headers) -> str:
    """Agree to a WebSocket; return its subprotocol, which need not be one."""
    offered = upgrade.offered(headers)
    known = [name for name in offered if name in _PROTOCOLS]
    if offered and not known:
        upgrade.refuse_protocols(connection)
    protocol = known[0] if known else ""
    upgrade.upgrade(connection, request, protocol)
    return protocol


def _chosen(pod: Pod, container: Container, options: LogOptions) -> ContainerLog:
    """Choose the log of the run that is meant."""
    where = f'container "{container.name}" in pod "{pod.name}"'
    if options.previous:
        if container.previous_log is None:
            raise Refused(objects.bad_request(f"previous terminated {where} not found"))
        return container.previous_log
    if pod.state == "waiting":
        raise Refused(objects.bad_request(f"{where} is waiting to start: ContainerCreating"))
    return container.log


class _Stream:
    """What carries a log: both forms of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._wire = connection.wire
        self._left = connection.faults.end_after

    @property
    def has_room(self) -> bool:
        """Whether the client takes more."""
        return self._wire.pending < _HIGH

    def begin(self) -> None:
        """Send what comes before the log."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send some of the log, as soon as the client takes it.

        Raises:
            Gone: the fault has ended it, or the client has gone.
        """
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        for start in range(0, len(data), _PIECE):
            self._send(data[start : start + _PIECE])
        self._wire.flush()
        if self._left == 0:
            self.end()
            raise Gone("ended on purpose")

    def _send(self, piece: bytes) -> None:
        raise NotImplementedError

    def wait(self, watch: int) -> None:
        """Wait until there may be something to do.

        Raises:
            Gone: the client has gone, or the cluster is being closed.
        """
        wire, stop = self._wire, self._connection.server.stop_fd
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        if self.has_room:
            poll.register(watch, select.POLLIN)
        sending = select.POLLOUT if wire.pending else 0
        poll.register(wire.fileno(), select.POLLIN | HANGUP | sending)
        ready = dict(poll.poll())
        if stop in ready:
            raise Gone("the cluster is being closed")
        if ready.get(wire.fileno(), 0) & ~select.POLLOUT:
            self._received(wire.receive() or b"")
            if wire.ended:
                raise Gone("the client has gone")

    def _received(self, data: bytes) -> None:
        """Take what the client has sent, which means nothing."""

    def end(self) -> None:
        """Send what comes behind the log."""
        raise NotImplementedError


class _Body(_Stream):
    """The body of an HTTP answer, in chunks."""

    def begin(self) -> None:
        headers = [("Cache-Control", "no-cache, private"), ("Content-Type", "text/plain")]
        headers.append(("Transfer-Encoding", "chunked"))
        self._connection.send(h11.Response(status_code=200, headers=headers, reason="OK"))

    def _send(self, piece: bytes) -> None:
        self._connection.send(h11.Data(data=piece))

    def end(self) -> None:
        self._connection.send(h11.EndOfMessage())


class _Socket(_Stream):
    """Messages of a WebSocket: no channels, an empty one first, a Close at the end."""

    def __init__(self, connection: Connection, protocol: str) -> None:
        super().__init__(connection)
        self._text = protocol.startswith("base64.")
        self._messages = Messages(self._wire, connection.faults)
        self._protocol = GoServerProtocol()

    def begin(self) -> None:
        self._wire.limit(self._connection.faults.drop_after)
        self._send(b"")
        self._messages.inject()
        self._received(self._connection.take_trailing())

    def _send(self, piece: bytes) -> None:
        if self._text:
            self._messages.send(base64.b64encode(piece), Opcode.TEXT)
        else:
            self._messages.send(piece)

    def _received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._protocol.data_to_send()  # not sent: the answers are ours
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode is Opcode.PING:
                self._messages.pong(event.data)
            elif event.opcode is Opcode.CLOSE:
                self.end()

    def end(self) -> None:
        self._messages.close()
        self._wire.finish()
        raise Gone("the stream has ended")
