"""A cluster and a user: REST requests and live connections."""

from __future__ import annotations

import dataclasses
import logging
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol, TypeVar

from kubews import __version__
from kubews.config import ClientCertificate, Config, Credentials, proxies
from kubews.errors import KubewsError, Unauthorized
from kubews.protocol.codec import Codec
from kubews.transport import forks, http
from kubews.transport.backpressure import DEFAULT_LIMITS, Limits
from kubews.transport.connection import Connection
from kubews.transport.deadline import Deadline
from kubews.transport.dial import dial
from kubews.transport.http import Response
from kubews.transport.loop import Loop
from kubews.transport.tls import Socket, tls_context
from kubews.transport.wire import Wire, upgrade

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kubews.pod import Pod

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
        connect_timeout: seconds for TCP, a proxy, TLS and the answer of the server together.
        proxy_url: ``http``, ``https`` or ``socks5`` URL of the proxy to go through, in place of the
            kubeconfig's and of the environment's; ``""`` leaves it to the environment.
        strict_x509: refuse certificates that break rules of RFC 5280, as Python does by default from 3.13
            on. Many clusters have such, and kubectl accepts them.

    Raises:
        ConfigError: no usable configuration, or a proxy that is none.

    Threads: any number may share one client; it has no state that a call changes for another.
    """

    def __init__(
        self,
        config: Optional[Config] = None,
        *,
        connect_timeout: float = CONNECT_TIMEOUT,
        proxy_url: Optional[str] = None,
        strict_x509: bool = False,
    ) -> None:
        self.config = Config.load() if config is None else config
        if proxy_url is not None:
            cluster = dataclasses.replace(self.config.cluster, proxy_url=proxy_url)
            self.config = dataclasses.replace(self.config, cluster=cluster)
        proxies.choose(self.config.cluster)  # what is wrong with it is better said now
        self.connect_timeout = connect_timeout
        self.strict_x509 = strict_x509
        self._credentials = Credentials(self.config.user)
        self._lock = threading.RLock()
        # Guarded by _lock. Making a context reads all authorities; the files may change, so it is
        # kept with what it was made of: the one for the cluster, and the one for an https proxy.
        self._contexts: dict[bool, tuple[object, ssl.SSLContext]] = {}
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
            timeout: seconds for everything, ``connect_timeout`` by default.

        Returns:
            The answer, of code 200 to 299.

        Raises:
            ApiError: any other answer.
            ConnectFailed: no connection, or it broke.

        Threads: blocks.
        """
        deadline = Deadline(self.connect_timeout if timeout is None else timeout)
        what = f"{method} {path.partition('?')[0]}"

        def attempt() -> Response:
            sock = self._dial(deadline)
            try:
                sent = {"Accept": "application/json", **self._headers(), **(headers or {})}
                target = self.config.cluster.path_prefix + path
                response = http.request(sock, method, target, sent, body, deadline)
            finally:
                sock.close()
            _log.debug("%s: HTTP %d %s", what, response.code, response.reason)
            if not 200 <= response.code < 300:
                raise http.api_error(response, what)
            return response

        return self._refreshing(attempt)

    def get(self, path: str, *, timeout: Optional[float] = None) -> Any:
        """Get a JSON document; arguments and exceptions as for ``request``.

        Threads: blocks.
        """
        return self.request("GET", path, timeout=timeout).json()

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
        soon = deadline.at_most(self.connect_timeout)

        def attempt() -> Wire:
            sock = self._dial(soon)
            try:
                target = self.config.cluster.path_prefix + path
                return upgrade(sock, target, self._headers(), subprotocols, what, soon)
            except BaseException as exc:
                _log.debug("%s: no stream: %s", what, exc)
                sock.close()
                raise

        wire = self._refreshing(attempt)
        _log.debug("%s: connected, %s", what, wire.subprotocol)
        return wire

    def keep(self, connection: Closable) -> None:
        """Close this together with the client, if it lives as long.

        Raises:
            KubewsError: the client is closed.

        Threads: any.
        """
        with self._lock:
            if self._closed:
                raise KubewsError(f"{self!r} is closed")
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
        self._credentials = Credentials(self.config.user)

    def _refreshing(self, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except Unauthorized:
            # A token that was replaced a moment ago looks like this; what was read is read anew.
            self._credentials.forget()
        return attempt()

    def _headers(self) -> dict[str, str]:
        cluster = self.config.cluster
        return {
            "Host": cluster.netloc,
            "User-Agent": f"kubews/{__version__}",
            **self._credentials.headers(secure=cluster.scheme == "https"),
        }

    def _dial(self, deadline: Deadline) -> Socket:
        if self._closed:
            raise KubewsError(f"{self!r} is closed")
        cluster = self.config.cluster
        proxy = proxies.choose(cluster)
        if proxy is not None:
            _log.debug("connecting through the proxy %s", proxy)
        return dial(
            cluster.host,
            cluster.port,
            context=self._tls() if cluster.scheme == "https" else None,
            server_hostname=cluster.tls_server_name,
            proxy=proxy,
            proxy_context=self._tls(True) if proxy and proxy.scheme == "https" else None,
            deadline=deadline,
        )

    def _tls(self, to_proxy: bool = False) -> ssl.SSLContext:
        # For an https proxy client-go takes the settings of the cluster. Such proxies have certificates
        # of public authorities too.
        cluster = self.config.cluster
        certificate = self._credentials.client_certificate()
        made_of: tuple[Optional[str], Optional[ClientCertificate]] = (cluster.ca_pem(), certificate)
        with self._lock:
            kept = self._contexts.get(to_proxy)
        if kept is not None and kept[0] == made_of:
            return kept[1]
        context = tls_context(
            ca_pem=made_of[0],
            verify=not cluster.insecure_skip_tls_verify,
            strict=self.strict_x509,
            and_system=to_proxy,
            certificate_pem=certificate.cert_pem if certificate else None,
            key_pem=certificate.key_pem if certificate else None,
        )
        with self._lock:
            self._contexts[to_proxy] = (made_of, context)
        return context


def _log_end(what: str, connection: Connection) -> None:
    if not _log.isEnabledFor(logging.DEBUG):
        return
    try:
        status = connection.status.get(Deadline(0))
        _log.debug("%s: ended, %s", what, status.reason or "Success")
    except (KubewsError, TimeoutError) as exc:
        _log.debug("%s: %s", what, exc)
