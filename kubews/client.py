"""A cluster and a user: REST requests and live connections."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Optional, Protocol, TypeVar

from kubews.access import Access, Use
from kubews.config import Config, proxies
from kubews.errors import KubewsError
from kubews.protocol.access import ACCESS_REVIEWS, access_review
from kubews.protocol.codec import Codec
from kubews.transport import forks, http
from kubews.transport.backpressure import DEFAULT_LIMITS, Limits
from kubews.transport.connection import Connection
from kubews.transport.deadline import NEVER, Deadline
from kubews.transport.http import Response
from kubews.transport.loop import Loop
from kubews.transport.wire import Wire, upgrade

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from kubews.logstream import Logs
    from kubews.options import LogOptions
    from kubews.pod import Pod
    from kubews.served import Proxied

T = TypeVar("T")

# Silent unless the program configures it. No header, token or command line is ever said here.
_log = logging.getLogger("kubews")
_log.addHandler(logging.NullHandler())

#: Seconds for TCP, TLS and the answer together.
CONNECT_TIMEOUT = 30.0

#: Seconds between pings (client-go: 5, ``tools/remotecommand/websocket.go``).
PING_INTERVAL = 10.0


class Closable(Protocol):
    """What a client closes.

    Threads: any.
    """

    def close(self) -> None:
        """Close it; again is nothing."""


class Client:
    """Access to one cluster as one user.

    Args:
        config: what to connect to; by default what kubectl would use, else the pod's service account.
        connect_timeout: seconds for TCP, a proxy, TLS and the answer of the server together. What a credential
            plugin takes before is not counted: it may wait for the user.
        proxy_url: ``http``, ``https`` or ``socks5`` URL of the proxy to go through, in place of the
            kubeconfig's and of the environment's; ``""`` leaves it to the environment.
        strict_x509: refuse certificates that break rules of RFC 5280, as Python does by default from 3.13
            on. Many clusters have such, and kubectl accepts them.
        headers: to send with every request, of streams too.
        explain: after a 403 instead of a stream, ask the server which verb is missing: one or two
            requests more.

    Raises:
        ConfigError: no usable configuration, a proxy that is none, or headers that cannot be sent.
        TypeError: ``config`` is something else, such as a path.

    Threads: any number may share one client; it has no state that a call changes for another.
    """

    def __init__(
        self,
        config: Optional[Config] = None,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        proxy_url: Optional[str] = None,
        strict_x509: bool = False,
        headers: Optional[Mapping[str, str]] = None,
        explain: bool = False,
    ) -> None:
        if not isinstance(config, (Config, type(None))):
            raise TypeError(
                f"config must be a Config, not {type(config).__name__}: "
                "Config.load(PATH) reads a file, Config.from_dict(DOCUMENT) takes what was read"
            )
        self.config = Config.load() if config is None else config
        if proxy_url is not None:
            cluster = dataclasses.replace(self.config.cluster, proxy_url=proxy_url)
            self.config = dataclasses.replace(self.config, cluster=cluster)
        self.connect_timeout = connect_timeout
        self.explains = explain
        proxies.choose(self.config.cluster)  # what is wrong with it is better said now
        self._make_access = partial(Access, self.config, dict(headers or {}), strict_x509)
        self._access = self._make_access()
        self._lock = threading.RLock()  # guards what follows
        self._connections: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._closed = False
        forks.tell(self)

    def __repr__(self) -> str:
        return f"<kubews.Client {self.config!r}>"

    def pod(
        self, name: str, *, namespace: Optional[str] = None, container: Optional[str] = None
    ) -> Pod:
        """Return a handle of a pod; nothing is asked of the server yet.

        Args:
            name: ``web-0`` or ``pod/web-0``; or ``deploy/web``, ``rs/``, ``sts/``, ``ds/``, ``rc/``,
                ``job/``, ``svc/`` (also in kubectl's long forms) for the pod that kubectl would choose.
                It is chosen anew each time something is opened.
            namespace: by default the context's.
            container: by default the pod's only one, else the one that its annotation
                ``kubectl.kubernetes.io/default-container`` names, else the first.

        Raises:
            ConfigError: it cannot be such a name.
        """
        from kubews.pod import Pod  # the one import that points up: what users type starts here

        return Pod(self, name, namespace=namespace, container=container)

    def logs(
        self, selector: str, *, namespace: Optional[str] = None, **options: Unpack[LogOptions]
    ) -> Logs[Any]:
        """Read or follow the logs of all pods with some labels as one, in the order of time.

        The pods are those that there are now; each line begins with ``[pod/web-0/app]`` unless
        ``prefix=False``.

        Args:
            selector: such as ``app=web,tier!=cache``.
            namespace: by default the context's.
            **options: as for ``Pod.logs``; ``wait_ready`` waits for a first pod, and each of its containers. During a
                rollout some pod always waits to start: ``ignore_errors=True`` reads the others.

        Raises:
            NotReady: there is no such pod.
            KubewsError: as for ``Pod.logs``.

        Threads: blocks until the server has agreed to all of them.
        """
        from kubews import podlogs

        return podlogs.of_selector(self, selector, namespace=namespace, **options)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Optional[bytes] = None,
        headers: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
    ) -> Response:
        """Make a REST request.

        Args:
            method: such as ``GET``.
            path: with query, percent-encoded, without the server's own prefix.
            body: or None.
            headers: beside those for ``Host``, ``User-Agent`` and the credentials.
            timeout: seconds for everything; by default ``connect_timeout``, beside what a credential plugin takes.

        Returns:
            The answer, of code 200 to 299.

        Raises:
            ApiError: any other answer.
            ConnectFailed: no connection, or it broke.

        Threads: blocks.
        """
        what = f"{method} {path.partition('?')[0]}"

        def ask(sock: Any, everything: http.Headers, soon: Deadline) -> Response:
            target = self.config.cluster.path_prefix + path
            response = http.request(sock, method, target, everything, body, soon)
            forks.close(sock)
            _log.debug("%s: HTTP %d %s", what, response.code, response.reason)
            if not 200 <= response.code < 300:
                raise http.api_error(response, what)
            return response

        self._check_open()
        limit = self.connect_timeout if timeout is None else timeout
        sent = {"Accept": "application/json", **(headers or {})}
        return self._access.use(ask, sent, Deadline(timeout), limit)

    def get(self, path: str, *, timeout: Optional[float] = None) -> Any:
        """Get a JSON document; arguments and exceptions as for ``request``.

        Threads: blocks.
        """
        return self.request("GET", path, timeout=timeout).json()

    def authenticate(self, deadline: Deadline = NEVER) -> None:
        """Have credentials ready, which may take the user's time: for who counts his own afterwards.

        Args:
            deadline: for a plugin or an issuer.

        Raises:
            CredentialsError: they cannot be had.

        Threads: blocks.
        """
        self._access.identity.show(deadline)

    def can_i(
        self,
        verb: str,
        resource: str,
        *,
        namespace: Optional[str] = None,
        name: str = "",
        timeout: Optional[float] = None,
    ) -> bool:
        """Ask the server whether this user may do something, as ``kubectl auth can-i`` does.

        Args:
            verb: such as ``get``.
            resource: such as ``pods``, ``pods/exec``, ``deployments.apps`` or ``deployments.apps/scale``.
            namespace: by default the context's; ``""`` for all of them, and for what is in none.
            name: of one object; by default any.
            timeout: seconds, as for ``request``.

        Returns:
            Whether it is allowed now. Every user who is known to the server may ask.

        Raises:
            ApiError: the server does not answer this.
            ConnectFailed: no connection, or it broke.

        Threads: blocks.
        """
        where = self.config.namespace if namespace is None else namespace
        body = json.dumps(access_review(verb, resource, where, name)).encode()
        sent = {"Content-Type": "application/json"}
        answer = self.request(
            "POST", ACCESS_REVIEWS, body=body, headers=sent, timeout=timeout
        ).json()
        status = answer.get("status") if isinstance(answer, dict) else None
        return isinstance(status, dict) and status.get("allowed") is True

    def upgrade(
        self, path: str, subprotocols: Sequence[str], what: str, deadline: Deadline
    ) -> Wire:
        """Open a WebSocket.

        Args:
            path: with query, without the server's own prefix.
            subprotocols: to offer, the best first.
            what: the request in words, for messages.
            deadline: for the whole opening; ``connect_timeout`` holds too.

        Raises:
            ApiError: the server refused.
            ConnectFailed: no connection, or no answer.

        Threads: blocks.
        """

        def ask(sock: Any, everything: http.Headers, soon: Deadline) -> Wire:
            try:
                target = self.config.cluster.path_prefix + path
                wire = upgrade(sock, target, everything, subprotocols, what, soon)
                # In here, where Ctrl-C closes the socket: to log takes its time.
                _log.debug("%s: connected, %s", what, wire.subprotocol)
            except BaseException as exc:
                # Its text: who keeps a record is not to keep all that the frames hold.
                _log.debug("%s: no stream: %s", what, str(exc))
                raise
            return wire

        return self.use(ask, {}, deadline)

    def use(self, use: Use[T], headers: Mapping[str, str], deadline: Deadline) -> T:
        """Do something with a new connection to the server; ``connect_timeout`` is what it is told to keep to.

        Args: see ``Access.use``.

        Threads: blocks.
        """
        self._check_open()
        return self._access.use(use, headers, deadline, self.connect_timeout)

    def service(self, name: str, *, namespace: Optional[str] = None) -> Proxied:
        """Return a handle of a service, for requests to what it serves; nothing is asked of the server yet.

        Args:
            name: of the service.
            namespace: by default the context's.

        Raises:
            ConfigError: it cannot be such a name.
        """
        from kubews.served import Proxied

        return Proxied(self, "services", name, namespace or self.config.namespace)

    def node(self, name: str) -> Proxied:
        """Return a handle of a node, for requests to its kubelet and to what listens there.

        Raises:
            ConfigError: it cannot be such a name.
        """
        from kubews.served import Proxied

        return Proxied(self, "nodes", name)

    def keep(self, connection: Closable) -> None:
        """Close this together with the client, if it lives as long.

        Raises:
            KubewsError: the client is closed.

        Threads: any.
        """
        with self._lock:
            self._check_open()
            self._connections.add(connection)

    def open(
        self,
        path: str,
        subprotocols: Sequence[str],
        codec: Callable[[str], Codec],
        *,
        inbound: Mapping[int, int],
        where: str,
        what: str,
        deadline: Deadline,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Connection:
        """Open a stream.

        Args:
            path: see ``upgrade``, as for what is not said here.
            codec: makes the codec for the negotiated subprotocol.
            inbound: see ``Connection``.
            where: what the stream is to, for messages.
            limits: how much the connection may hold.

        Raises:
            ApiError: the server refused.
            ConnectFailed: no connection, or no answer.

        Threads: blocks.
        """
        wire = self.upgrade(path, subprotocols, what, deadline)
        loop: Optional[Loop] = None
        try:
            loop = Loop(f"kubews {where}", start=False)
            loop.start()
            connection = Connection(
                wire,
                codec(wire.subprotocol),
                loop,
                inbound=inbound,
                where=where,
                limits=limits,
                ping=PING_INTERVAL,
            )
            connection.on_closed(lambda: _log_end(what, connection))
            self.keep(connection)
        except BaseException:  # Ctrl-C too: a connection that nobody holds would live for ever
            if loop is not None:
                loop.stop()
                loop.join(1.0)
            wire.close()
            raise
        return connection

    def close(self) -> None:
        """Close every connection that was opened here. Remote processes are not ended by that.

        Threads: blocks up to about a second a connection; may be called again.
        """
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        exc: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _after_fork(self) -> None:
        # Another thread may have been inside.
        self._lock = threading.RLock()
        self._access = self._make_access()

    def _check_open(self) -> None:
        if self._closed:
            raise KubewsError(f"{self!r} is closed")


def _log_end(what: str, connection: Connection) -> None:
    if not _log.isEnabledFor(logging.DEBUG):
        return
    try:
        status = connection.status.get(Deadline(0))
        _log.debug("%s: ended, %s", what, status.reason or "Success")
    except (KubewsError, TimeoutError) as exc:
        _log.debug("%s: %s", what, str(exc))
