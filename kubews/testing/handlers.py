"""exec and attach before the upgrade: the checks of a real cluster in their order, and the refusals.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Optional

from kubews.testing import access, objects, resources, upgrade
from kubews.testing.access import Headers, Refused, User
from kubews.testing.attachments import Attachments
from kubews.testing.containers import Container
from kubews.testing.dialect import Dialect, Options, negotiate
from kubews.testing.pods import Pod
from kubews.testing.stream import ExecStream
from kubews.testing.tls import Gone

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request


MISMATCH_SECONDS = 30.0  # after which a runtime gives up to wait for the streams of a terminal


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
    asked = Asked(connection, request, user, headers, namespace, pod_name)
    container = asked.allowed("pods/exec")
    problem = None if container.running else (500, f'container not found ("{container.name}")')
    stream, _ = asked.opened(problem)
    if stream is not None:
        stream.open()
        stream.execute(container)
    raise Gone("the stream has ended")


def serve_attach(
    connection: Connection,
    request: Request,
    user: User,
    headers: Headers,
    namespace: str,
    pod_name: str,
) -> None:
    """Check an attach request in the order of a real cluster, upgrade, and carry the stream.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    asked = Asked(connection, request, user, headers, namespace, pod_name)
    container, options = asked.allowed("pods/attach"), asked.options
    kind, problem = container.interactive, None
    if not container.running:
        problem = 500, f"container {container.name} not found in pod {pod_name}_{namespace}"
    elif (
        kind.tty and options.stderr
    ):  # the runtime looks at the container's tty, not at the query's
        invalid = "rpc error: code = InvalidArgument desc = tty and stderr cannot both be true"
        problem = 500, invalid
    stream, dialect = asked.opened(problem)
    if stream is not None:
        if dialect.v5 and options.tty != kind.tty:
            _mismatch(stream, dialect, options)
        else:
            _attach(stream, dialect, options, container)
    raise Gone("the stream has ended")


def _attach(stream: ExecStream, dialect: Dialect, options: Options, container: Container) -> None:
    # Over a WebSocket of its own (v4) the runtime has a stdin even if none was asked for, one that ends at once.
    attachment = container.attach(options.stdin or not dialect.v5)
    if not options.stdin:
        if not dialect.v5:
            attachment.close_stdin()
        attachment.refuse_input()
    stream.attach(attachment, dialect.success())


def _mismatch(stream: ExecStream, dialect: Dialect, options: Options) -> None:
    """Be silent as the translator and a runtime are that wait for different streams.

    For ever if the container has the terminal; else until the runtime's patience ends.
    """
    silence = Attachments()
    timer = threading.Timer(MISMATCH_SECONDS, silence.close)
    timer.daemon = True
    if options.tty:
        timer.start()
    try:
        attachment = silence.add(None, once=False)
        stream.attach(attachment, dialect.error("Timeout occurred"))
    finally:
        timer.cancel()


class Asked:
    """A request for a stream to a container, on its way to the upgrade.

    Threads: one.
    """

    def __init__(
        self,
        connection: Connection,
        request: Request,
        user: User,
        headers: Headers,
        namespace: str,
        pod_name: str,
    ) -> None:
        self._connection, self._request, self._user = connection, request, user
        self._headers, self._namespace, self._pod = headers, namespace, pod_name
        self.options = Options.from_query(request.query)

    def allowed(self, resource: str) -> Container:
        """Check the rights, and find the container.

        Raises:
            Refused: the answer is a Status.
        """
        verb = "create" if self._request.method == "POST" else "get"
        access.authorize(self._user, verb, resource, self._namespace, self._pod)
        if self._connection.server.minor >= 35:
            access.authorize_stream(self._user, self._pod, resource)
        pod = resources.find_pod(self._connection, self._namespace, self._pod)
        return _container(pod, self.options, self._headers)

    def opened(self, problem: Optional[tuple[int, str]]) -> tuple[Optional[ExecStream], Dialect]:
        """Upgrade, and tell what the kubelet finds wrong, before or after it.

        Returns:
            The stream, to be opened, None if it has failed, and its dialect.

        Raises:
            Gone: there was no upgrade.
        """
        connection, options, server = self._connection, self.options, self._connection.server
        if not (options.stdin or options.stdout or options.stderr):
            problem = 400, "you must specify at least 1 of stdin, stdout, stderr"
        # A request for SPDY offers nothing here, and gets the kubelet's answer as v4 does.
        dialect = negotiate(upgrade.offered(self._headers), server.minor, server.status_metadata)
        # From 1.30 to 1.35 the apiserver ends a v5 stream: it upgrades first and asks afterwards.
        late = dialect is not None and dialect.v5 and server.minor < 36
        if problem and not late:
            upgrade.reply_text(connection, *problem)
        upgrade.check_websocket(self._headers, server.minor, websocket_since=30)
        if dialect is None:
            upgrade.refuse_protocols(connection)
            raise Gone("no subprotocol")
        upgrade.upgrade(connection, self._request, dialect.name)
        stream = ExecStream(connection, dialect, options)
        if problem:
            stream.open()
            stream.fail(dialect.error(f"unable to upgrade connection: {problem[1]}"))
            return None, dialect
        return stream, dialect


def _container(pod: Pod, options: Options, headers: Headers) -> Container:
    container = choose_container(pod, options.container)
    if pod.state == "unscheduled":
        raise Refused(objects.bad_request(f"pod {pod.name} does not have a host assigned"))
    upgrade.check_asked(headers)
    return container


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
