"""exec before the upgrade: the checks of a real cluster in their order, and the refusals.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

from kubews.testing import access, objects, resources, upgrade
from kubews.testing.access import Headers, Refused, User
from kubews.testing.dialect import Options, negotiate
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
    dialect = negotiate(upgrade.offered(headers), server.minor, server.status_metadata)
    problem = _kubelet_problem(options, container)
    # From 1.30 to 1.35 the apiserver ends a v5 stream: it upgrades first and asks afterwards.
    late = dialect is not None and dialect.v5 and server.minor < 36
    if problem and not late:
        upgrade.reply_text(connection, *problem)
    upgrade.check_websocket(headers, server.minor, websocket_since=30)
    if dialect is None:
        upgrade.refuse_protocols(connection)
        return
    upgrade.upgrade(connection, request, dialect.name)
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


def _kubelet_problem(options: Options, container: Container) -> Optional[tuple[int, str]]:
    if not (options.stdin or options.stdout or options.stderr):
        return 400, "you must specify at least 1 of stdin, stdout, stderr"
    if not container.running:
        return 500, f'container not found ("{container.name}")'
    return None
