"""Routing, and the resources that are read: discovery, namespaces, pods, and what selects pods.

Threads: every function belongs to the thread of its connection.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING

from kubews.testing import access, discovery, handlers, logs, objects, portforward, proxy, reviews
from kubews.testing.access import Refused, User
from kubews.testing.arguments import OwnerKind
from kubews.testing.dialect import is_true
from kubews.testing.pods import Pod
from kubews.testing.selectors import selected

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
_NOT_YET = frozenset({"ephemeralcontainers"})


def route(connection: Connection, request: Request, user: User, headers: access.Headers) -> None:
    """Answer a request of an authenticated user.

    Raises:
        Refused: the answer is a Status.
        Gone: the connection is used up.
    """
    proxied = proxy.PATH.fullmatch(request.path)
    if proxied is not None:
        where = {key: urllib.parse.unquote(text or "") for key, text in proxied.groupdict().items()}
        where["path"] = proxied["path"] or ""
        proxy.serve_proxy(connection, request, user, headers, where)
        return
    parts = [urllib.parse.unquote(part) for part in request.path.strip("/").split("/")]
    group, parts = _below_v1(parts)
    if not parts:
        _discovery(connection, request.path.rstrip("/"), user)
        return
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    kind, name, subresource, *rest = [*parts, "", ""][: max(3, len(parts))]
    owner = discovery.owner_kind(group, kind)
    if owner is not None and not subresource and (namespace or not name):
        _owners(connection, request, user, owner, namespace, name)
    elif reviews.kind_of(group, kind, connection.server.minor) and not (namespace or name):
        reviews.serve(connection, request, user, group, kind)
    elif group:
        connection.reply(404, b"404 page not found\n", _TEXT)
    elif (kind, subresource, rest) == ("pods", "exec", []) and namespace:
        handlers.serve_exec(connection, request, user, headers, namespace, name)
    elif (kind, subresource, rest) == ("pods", "attach", []) and namespace:
        handlers.serve_attach(connection, request, user, headers, namespace, name)
    elif (kind, subresource, rest) == ("pods", "portforward", []) and namespace:
        portforward.serve_portforward(connection, request, user, headers, namespace, name)
    elif (kind, subresource, rest, request.method) == ("pods", "log", [], "GET") and namespace:
        logs.serve_log(connection, request, user, headers, namespace, name)
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
        raise _not_allowed()
    else:
        access.authorize(user, "get" if name else "list", kind, namespace, name)
        _read(connection, request, kind, namespace, name)


def _below_v1(parts: list[str]) -> tuple[str, list[str]]:
    """Return the group of a path, and what comes after its version; nothing if there is no such."""
    if parts[:2] == ["api", "v1"]:
        return "", parts[2:]
    if len(parts) > 2 and (parts[0], parts[2]) == ("apis", "v1"):
        return parts[1], parts[3:]
    return "", []


def _discovery(connection: Connection, path: str, user: User) -> None:
    access.authorize_path(user, path)
    bodies = discovery.bodies(connection.server.minor)
    if path in bodies:
        connection.reply(200, objects.dumps(bodies[path]) + b"\n")
    elif path in ("/healthz", "/livez", "/readyz"):
        connection.reply(200, b"ok", _TEXT)
    else:
        connection.reply(404, b"404 page not found\n", _TEXT)


def _not_allowed() -> Refused:
    message = "the server does not allow this method on the requested resource"
    return Refused(objects.status(405, "MethodNotAllowed", message))


def _owners(
    connection: Connection,
    request: Request,
    user: User,
    kind: OwnerKind,
    namespace: str,
    name: str,
) -> None:
    """Answer what is asked of Services and workloads."""
    verb = _VERBS.get(request.method, "get" if name else "list")
    access.authorize(user, verb, kind.plural, namespace, name, group=kind.group)
    if request.method != "GET":
        raise _not_allowed()
    query = dict(request.query)
    if is_true(query.get("watch")):
        raise _no_watch()
    owners = connection.server.owners
    if name:
        found = owners.get(kind.plural, namespace, name)
        if found is None:
            raise Refused(objects.not_found(kind.plural, name, kind.group))
        connection.reply_json(200, found)
        return
    items = [
        each
        for each in owners.all(kind.plural, namespace)
        # They have no labels of their own.
        if selected(query.get("labelSelector", ""), {})
        and selected(query.get("fieldSelector", ""), _names(each["metadata"]))
    ]
    version = f"{kind.group}/v1" if kind.group else "v1"
    connection.reply_json(200, objects.listing(f"{kind.kind}List", items, version))


def _names(metadata: objects.Json) -> dict[str, str]:
    return {f"metadata.{key}": metadata[key] for key in ("name", "namespace")}


def _no_watch() -> Refused:
    return Refused(objects.status(405, "MethodNotAllowed", "LocalCluster has no watch"))


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
    server = connection.server
    names = sorted({*server.pods.namespaces(), *server.owners.namespaces()})
    if not name:
        connection.reply_json(200, objects.listing("NamespaceList", map(objects.namespace, names)))
    elif name in names:
        connection.reply_json(200, objects.namespace(name))
    else:
        raise Refused(objects.not_found("namespaces", name))


def _list(connection: Connection, request: Request, namespace: str) -> None:
    query = dict(request.query)
    if is_true(query.get("watch")):
        raise _no_watch()
    pods = [
        pod.as_json()
        # In the order of their names, which is that of etcd: who chooses among equals sees it.
        for pod in sorted(connection.server.pods.all(), key=lambda pod: (pod.namespace, pod.name))
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
