"""Routing, and the resources that are read: discovery, namespaces, pods.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubews.testing import access, handlers, objects, portforward
from kubews.testing.access import Refused, User
from kubews.testing.dialect import is_true
from kubews.testing.pods import Pod

if TYPE_CHECKING:
    from kubews.testing.connection import Connection, Request

_TEXT = "text/plain; charset=utf-8"

# (kind, is there a name, is there a namespace)
_READABLE = {
    ("namespaces", False, False),
    ("namespaces", True, False),
    ("pods", False, False),
    ("pods", False, True),
    ("pods", True, True),
}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# What a real cluster has: a 404 would look as if the pod were missing.
_NOT_YET = frozenset({"attach", "ephemeralcontainers", "log", "proxy"})


def route(connection: Connection, request: Request, user: User, headers: access.Headers) -> None:
    """Answer a request of an authenticated user.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    parts = [urllib.parse.unquote(part) for part in request.path.strip("/").split("/")]
    if parts[:2] != ["api", "v1"] or len(parts) == 2:
        _discovery(connection, request.path.rstrip("/"), user)
        return
    namespace, parts = ("", parts[2:])
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    kind, name, subresource, *rest = [*parts, "", ""][: max(3, len(parts))]
    if (kind, subresource, rest) == ("pods", "exec", []) and namespace:
        handlers.serve_exec(connection, request, user, headers, namespace, name)
    elif (kind, subresource, rest) == ("pods", "portforward", []) and namespace:
        portforward.serve_portforward(connection, request, user, headers, namespace, name)
    elif kind == "pods" and namespace and subresource in _NOT_YET:
        resource = f"pods/{subresource}"
        access.authorize(user, _VERBS.get(request.method, "get"), resource, namespace, name)
        find_pod(connection, namespace, name)
        raise Refused(objects.status(501, "NotImplemented", f"LocalCluster has no {resource} yet"))
    elif (kind, subresource, rest, request.method) == ("pods", "status", [], "GET") and namespace:
        access.authorize(user, "get", "pods/status", namespace, name)
        _read(connection, request, kind, namespace, name)
    elif subresource or (kind, bool(name), bool(namespace)) not in _READABLE:
        connection.reply(404, b"404 page not found\n", _TEXT)
    elif request.method == "DELETE" and kind == "pods" and name:
        _delete(connection, user, namespace, name)
    elif request.method != "GET":
        message = "the server does not allow this method on the requested resource"
        raise Refused(objects.status(405, "MethodNotAllowed", message))
    else:
        access.authorize(user, "get" if name else "list", kind, namespace, name)
        _read(connection, request, kind, namespace, name)


def _discovery(connection: Connection, path: str, user: User) -> None:
    access.authorize_path(user, path)
    bodies = {
        "/version": objects.version(connection.server.minor),
        "/api": objects.API_VERSIONS,
        "/apis": objects.API_GROUPS,
        "/api/v1": objects.API_RESOURCES,
    }
    if path in bodies:
        connection.reply(200, objects.dumps(bodies[path]) + b"\n")
    elif path in ("/healthz", "/livez", "/readyz"):
        connection.reply(200, b"ok", _TEXT)
    else:
        connection.reply(404, b"404 page not found\n", _TEXT)


def _read(connection: Connection, request: Request, kind: str, namespace: str, name: str) -> None:
    if kind == "namespaces":
        _namespaces(connection, name)
    elif name:
        _pods(connection, request, [find_pod(connection, namespace, name).as_json()], single=True)
    else:
        _list(connection, request, namespace)


def find_pod(connection: Connection, namespace: str, name: str) -> Pod:
    """Return a pod.

    Raises:
        Refused: 404.
    """
    pod = connection.server.pods.get(namespace, name)
    if pod is None:
        raise Refused(objects.not_found("pods", name))
    return pod


def _namespaces(connection: Connection, name: str) -> None:
    names = connection.server.pods.namespaces()
    if not name:
        connection.reply_json(200, objects.listing("NamespaceList", map(objects.namespace, names)))
    elif name in names:
        connection.reply_json(200, objects.namespace(name))
    else:
        raise Refused(objects.not_found("namespaces", name))


def _list(connection: Connection, request: Request, namespace: str) -> None:
    query = dict(request.query)
    if is_true(query.get("watch")):
        raise Refused(objects.status(405, "MethodNotAllowed", "LocalCluster has no watch"))
    pods = [
        pod.as_json()
        for pod in connection.server.pods.all()
        if (not namespace or pod.namespace == namespace)
        and selected(query.get("labelSelector", ""), pod.labels)
        and selected(query.get("fieldSelector", ""), _fields(pod))
    ]
    _pods(connection, request, pods)


def _pods(
    connection: Connection, request: Request, pods: list[objects.Json], *, single: bool = False
) -> None:
    if "as=Table" in (request.header("accept") or ""):
        connection.reply_json(200, objects.pod_table(pods))
    else:
        connection.reply_json(200, pods[0] if single else objects.listing("PodList", pods))


def _delete(connection: Connection, user: User, namespace: str, name: str) -> None:
    access.authorize(user, "delete", "pods", namespace, name)
    body = find_pod(connection, namespace, name).as_json()
    connection.server.pods.remove(namespace, name)
    connection.reply_json(200, body)


def _fields(pod: Pod) -> dict[str, str]:
    return {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "status.phase": pod.phase,
        "spec.nodeName": "" if pod.state == "unscheduled" else "localhost",
    }


def selected(selector: str, values: Mapping[str, str]) -> bool:
    """Tell whether an equality selector (``a=b,c!=d,e,!f``) selects these values.

    Raises:
        Refused: 400, for a selector of another form.
    """
    terms = [term.strip() for term in selector.split(",") if term.strip()]
    return all(_matches(term, values) for term in terms)


def _matches(term: str, values: Mapping[str, str]) -> bool:
    if "(" in term or " " in term:
        raise Refused(objects.bad_request(f"LocalCluster knows no set selectors: {term}"))
    if "!=" in term:
        key, _, wanted = term.partition("!=")
        return values.get(key) != wanted
    if "=" in term:
        key, _, wanted = term.replace("==", "=").partition("=")
        return values.get(key) == wanted
    return (term.lstrip("!") in values) != term.startswith("!")
