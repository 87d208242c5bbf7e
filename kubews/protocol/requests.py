"""Paths and queries of the API server's endpoints."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional, Union
from urllib.parse import quote, unquote, urlencode


def pod_path(namespace: str, name: str) -> str:
    """Return the path of a pod; both names are percent-encoded as one segment each."""
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def exec_path(
    namespace: str,
    name: str,
    command: Sequence[str],
    *,
    container: Optional[str] = None,
    stdin: bool = False,
    stdout: bool = True,
    stderr: bool = True,
    tty: bool = False,
) -> str:
    """Return path and query of an exec.

    Args:
        namespace: of the pod.
        name: of the pod.
        command: the argument vector, an element each; no shell takes part.
        container: its name, or None to let the server choose the only one.
        stdin: whether a channel for input is wanted. The same holds for ``stdout`` and ``stderr``.
        tty: whether the process gets a terminal.

    False is told by leaving the parameter out: the server takes every value but ``0`` and ``false``
    for true, the empty one included (``apimachinery/pkg/runtime/conversion.go``).
    """
    return _stream_path(
        namespace, name, "exec", container, command,
        {"stdin": stdin, "stdout": stdout, "stderr": stderr, "tty": tty},
    )  # fmt: skip


def attach_path(
    namespace: str, name: str, *, container: Optional[str] = None, stdin: bool = False, tty: bool
) -> str:
    """Return path and query of an attachment to a container's own process.

    Args:
        namespace: of the pod.
        name: of the pod.
        container: its name, or None to let the server choose the only one.
        stdin: whether a channel for input is wanted.
        tty: what the container's ``tty`` says; any other value hangs or fails
            (``remotecommand/httpstream.go``, ``cri/streaming/server.go: validateAttachRequest``).
    """
    flags = {"stdin": stdin, "stdout": True, "stderr": not tty, "tty": tty}
    return _stream_path(namespace, name, "attach", container, (), flags)


def _stream_path(
    namespace: str,
    name: str,
    what: str,
    container: Optional[str],
    command: Sequence[str],
    flags: dict[str, bool],
) -> str:
    query = [("container", container)] if container else []
    query += [("command", argument) for argument in command]
    query += [(flag, "true") for flag, wanted in flags.items() if wanted]
    # errors="surrogateescape": an argument made by os.fsdecode goes out as the bytes it came from.
    encoded = urlencode(query, quote_via=quote, safe="", errors="surrogateescape")
    return f"{pod_path(namespace, name)}/{what}?{encoded}"


def log_path(
    namespace: str, name: str, *, container: Optional[str] = None, **options: Union[bool, int, str]
) -> str:
    """Return path and query of a log.

    Args:
        namespace: of the pod.
        name: of the pod.
        container: its name, or None to let the server choose the only one.
        **options: by the names of the API: ``follow``, ``tailLines``, ``sinceTime``; what is False or empty
            is left out, and 0 is not.
    """
    query = [("container", container)] if container else []
    for key, value in options.items():
        if value is True:
            query.append((key, "true"))
        elif value is not False and value != "":
            query.append((key, str(value)))
    encoded = urlencode(query, quote_via=quote, safe="")
    return f"{pod_path(namespace, name)}/log" + (f"?{encoded}" if encoded else "")


def portforward_path(namespace: str, name: str, ports: Sequence[int]) -> str:
    """Return path and query of a port-forward.

    Args:
        namespace: of the pod.
        name: of the pod.
        ports: of the pod, in the order that numbers the channels of the legacy protocol; a port may stand
            there more than once. The tunnel needs none, but a server that knows only the legacy protocol
            refuses a request without.
    """
    # One parameter each: both this and a list with commas are understood, and this needs no rule of its own.
    query = urlencode([("ports", str(port)) for port in ports])
    path = f"{pod_path(namespace, name)}/portforward"
    return f"{path}?{query}" if query else path


def object_path(namespace: str, resource: str, name: str, *, group: str = "") -> str:
    """Return the path of an object of version v1 in a namespace.

    Args:
        namespace: of the object.
        resource: in the plural, such as ``services``.
        name: of the object.
        group: such as ``apps``; empty for the core group, whose paths are older than groups.
    """
    root = f"/apis/{group}/v1" if group else "/api/v1"
    return f"{root}/namespaces/{quote(namespace, safe='')}/{resource}/{quote(name, safe='')}"


def pods_path(namespace: str, selector: str) -> str:
    """Return path and query of the list of the pods that a label selector selects."""
    query = urlencode([("labelSelector", selector)], quote_via=quote, safe="")
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods?{query}"


def proxy_path(root: str, name: str, port: str, scheme: str, path: str) -> str:
    """Return path and query of a request to what a pod, a service or a node serves.

    Args:
        root: the path of the collection, such as ``/api/v1/namespaces/shop/pods``.
        name: of the object.
        port: a number or a name; empty for the server's choice.
        scheme: that the object speaks, ``http`` or ``https``; empty for the server's choice.
        path: below the object's own root, percent-encoded, with a query or without.

    Raises:
        ValueError: name, port or path would lead out of the object, to others, or the path is not encoded.

    Source: ``apimachinery/pkg/util/net: SplitSchemeNamePort``.
    """
    # API servers decode the path before they part it.
    if name in ("", ".", "..") or re.search("[/:%]", name + port):
        raise ValueError(f"{name!r} or {port!r} is no name")
    asked, mark, query = path.partition("?")
    if re.search("%(?![0-9A-Fa-f]{2})", asked):
        raise ValueError(f"{asked!r} has a % that is not encoded as %25")
    if any(segment in (".", "..") for segment in unquote(asked).split("/")):
        raise ValueError(f"{asked!r} has segments of dots")
    # What is encoded stays as it is, and nothing can end the path or the line.
    sent = quote(asked.lstrip("/"), safe="/%:@!$&'()*+,;=~")
    asked_for = quote(query, safe="/?%:@!$&'()*+,;=~")
    whole = f"{scheme}:{name}:{port}" if scheme else f"{name}:{port}" if port else name
    return f"{root}/{quote(whole, safe=':')}/proxy/{sent}{mark}{asked_for}"
