"""What serves HTTP behind the API server: a pod, a service, a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union
from urllib.parse import quote

from kubews.errors import ConfigError
from kubews.ports import Port, parse
from kubews.transport.deadline import Deadline

if TYPE_CHECKING:
    from kubews.client import Client
    from kubews.transport.exchange import Body, HttpResponse
    from kubews.transport.wire import WebSocket

Params = Union[Mapping[str, Any], Iterable[tuple[str, Any]], None]


class Behind(NamedTuple):
    """Who is to be asked through the proxy.

    Args:
        client: how to reach the cluster.
        resource: ``pods``, ``services`` or ``nodes``.
        namespace: empty for a node.
        name: of the object.
        port: a number or a name; empty for the server's choice.
        scheme: ``http``, ``https``, or empty.

    Threads: a value.
    """

    client: Client
    resource: str
    namespace: str
    name: str
    port: str = ""
    scheme: str = ""

    @property
    def root(self) -> str:
        """The path of the collection that the object is in."""
        within = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"/api/v1{within}/{self.resource}"

    @property
    def where(self) -> str:
        """The object in words."""
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.resource.removesuffix('s')} {name}"


class Served:
    """What a handle of something that serves can do.

    Threads: any.
    """

    def _behind(self, port: Optional[Port], deadline: Deadline) -> Behind:
        raise AssertionError("a subclass says who is asked")

    def request(
        self,
        method: str,
        path: str = "/",
        *,
        port: Optional[Port] = None,
        scheme: str = "",
        params: Params = None,
        headers: Optional[Mapping[str, str]] = None,
        body: Body = None,
        timeout: Optional[float] = None,
    ) -> HttpResponse:
        """Make an HTTP request to what is served, through the API server.

        The server sees the API server's address and the ``Host`` of the cluster, and headers that the client
        was given for everything. Redirects are given as they come, with ``Location`` rewritten by the API server.
        An error in the form of the API server's own (a ``Status``) is taken for one, whoever made it.

        The request is sent to its end before the answer is read: a server that answers at length while it is
        asked stops both. For that there is ``connect``.

        Args:
            method: such as ``GET``, in any case.
            path: at the server behind, percent-encoded, with a query or without.
            port: number, or name of a container's port, of a service's own; by default the first that a pod declares.
            scheme: what is spoken there: ``http`` or ``https``; by default http.
            params: names and values to add to the query.
            headers: to send besides those that are the configuration's: credentials are the cluster's, and
                none go on.
            body: bytes, a binary file, or an iterable of bytes. Bytes and a regular file, from where it stands, go
                with their length; what else is read or made as it is sent goes in chunks, or with a
                ``Content-Length`` in ``headers``, which must be true then; a pipe is read as far as that.
            timeout: seconds for each wait for the server, None for ever once it is connected.

        Returns:
            The answer, of any code, as a binary file to read; close it, or read it to the end.

        Raises:
            ApiError: the API server refused, or did not reach who serves.
            ConfigError: the path is a URL or leads out of the object, or a header cannot be given.
            TypeError: the body, or the value of a header, is none.
            LocalProtocolError: the body has more or fewer bytes than its length says: a file became shorter.
            ConnectFailed: no connection, or no answer.
            RemoteProtocolError: the answer does not say where it ends.

        Threads: blocks.
        """
        from kubews import proxy  # not for programs that only run commands

        behind = self._behind(port, Deadline(timeout))._replace(scheme=scheme)
        return proxy.request(behind, method, path, params, headers, body, timeout)

    def websocket(
        self,
        path: str = "/",
        *,
        port: Optional[Port] = None,
        scheme: str = "",
        headers: Optional[Mapping[str, str]] = None,
        subprotocols: Sequence[str] = (),
        timeout: Optional[float] = None,
    ) -> WebSocket:
        """Open a WebSocket to what is served, through the API server.

        Args:
            path: at the server behind; a query is refused, because API servers drop it.
            port: see ``request``, as for ``scheme`` and ``headers``.
            subprotocols: to offer, the best first.
            timeout: seconds for each call of the WebSocket, None for ever.

        Returns:
            A connected ``WebSocket`` of websocket-client.

        Raises:
            ApiError: the API server refused, or who serves did.
            ConfigError: there is a query, or all of a URL.
            TypeError: the value of a header is none.
            ConnectFailed: no connection, or no answer.

        Threads: blocks.
        """
        from kubews import proxy  # not for programs that only run commands

        behind = self._behind(port, Deadline(timeout))._replace(scheme=scheme)
        return proxy.websocket(behind, path, headers, subprotocols, timeout)


class Proxied(Served):
    """A service or a node; ``client.service("web")`` and ``client.node("n1")`` make one.

    Args:
        client: how to reach the cluster.
        resource: ``services`` or ``nodes``.
        name: of the object.
        namespace: of the service, empty for a node.

    Raises:
        ConfigError: it cannot be such a name.

    Threads: any.
    """

    def __init__(self, client: Client, resource: str, name: str, namespace: str = "") -> None:
        if name in ("", ".", "..") or "/" in name or ":" in name:
            raise ConfigError(f"{name!r} is not the name of one of the {resource}")
        self._asked = Behind(client, resource, namespace, name)

    def __repr__(self) -> str:
        return f"<kubews.Proxied {self._asked.where}>"

    def _behind(self, port: Optional[Port], deadline: Deadline) -> Behind:
        return self._asked._replace(port="" if port is None else str(parse(port)))
