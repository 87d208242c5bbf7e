"""The JSON that an API server writes: Status objects, pods, lists and discovery.

Field order and texts are those of a real server: ``metav1.Status`` before the upgrade and on the
status channel, as ``k8s.io/apimachinery`` and the kubelet's streaming library print them.

Threads: pure functions.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

Json = dict[str, Any]

# encoding/json of Go escapes these; clients must see what they would see on a real cluster.
_GO_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def dumps(value: Mapping[str, Any]) -> bytes:
    """Encode as Go's ``encoding/json`` does: no spaces, HTML characters escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.translate(_GO_ESCAPES).encode("utf-8", "replace")


def status(
    code: int,
    reason: str,
    message: str,
    *,
    name: str = "",
    group: str = "",
    kind: str = "",
    cause: str = "",
) -> Json:
    """Return a failure Status as the API server sends it in an HTTP body."""
    body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    body.update({"message": message, "reason": reason})
    details: Json = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    if cause:
        details["causes"] = [{"message": cause}]
    if details:
        body["details"] = details
    body["code"] = code
    return body


def not_found(kind: str, name: str, group: str = "") -> Json:
    """Return the 404 Status for an object that does not exist."""
    message = f'{kind}.{group} "{name}" not found' if group else f'{kind} "{name}" not found'
    return status(404, "NotFound", message, name=name, group=group, kind=kind)


def bad_request(message: str) -> Json:
    """Return a 400 Status."""
    return status(400, "BadRequest", message)


def invalid(kind: str, name: str, causes: Sequence[Json]) -> Json:
    """Return the 422 Status for an object with these faults (``apimachinery: NewInvalid``)."""
    texts = [f"{cause['field']}: {cause['message']}" for cause in causes]
    said = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    body = status(422, "Invalid", f'{kind} "{name}" is invalid: {said}', name=name, kind=kind)
    body["details"]["causes"] = list(causes)
    return body


def stream_success(*, metadata: bool = True) -> Json:
    """Return the Status that ends a stream whose process ended with 0."""
    return {"metadata": {}, "status": "Success"} if metadata else {"status": "Success"}


def stream_exit(code: int, detail: str, *, metadata: bool = True) -> Json:
    """Return the Status of a process that ended with ``code``; ``detail`` differs by producer."""
    body: Json = {"metadata": {}} if metadata else {}
    body["status"] = "Failure"
    body["message"] = f"command terminated with non-zero exit code: {detail}"
    body["reason"] = "NonZeroExitCode"
    # The cause's type is spelled "reason" on the wire (apimachinery StatusCause).
    body["details"] = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return body


def stream_error(cause: str, *, metadata: bool = True) -> Json:
    """Return the Status of a stream that failed for any reason but an exit code."""
    body: Json = {"metadata": {}} if metadata else {}
    body.update({"status": "Failure", "message": f"Internal error occurred: {cause}"})
    body.update({"reason": "InternalError", "details": {"causes": [{"message": cause}]}})
    body["code"] = 500
    return body


def version(minor: int) -> Json:
    """Return the body of ``/version``."""
    return {
        "major": "1",
        "minor": str(minor),
        "gitVersion": f"v1.{minor}.0+kubews",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    }


API_VERSIONS: Json = {
    "kind": "APIVersions",
    "versions": ["v1"],
    "serverAddressByClientCIDRs": [],
}


def resource(name: str, kind: str, verbs: Sequence[str], **extra: Any) -> Json:
    """Return an entry of an APIResourceList."""
    singular = kind.lower() if "/" not in name else ""
    namespaced = not name.startswith("namespaces")
    return {
        "name": name,
        "singularName": singular,
        "namespaced": namespaced,
        "kind": kind,
        "verbs": list(verbs),
        **extra,
    }


API_RESOURCES: Json = {
    "kind": "APIResourceList",
    "groupVersion": "v1",
    "resources": [
        resource("namespaces", "Namespace", ["get", "list"], shortNames=["ns"]),
        resource("pods", "Pod", ["delete", "get", "list"], shortNames=["po"], categories=["all"]),
        resource("pods/attach", "PodAttachOptions", ["create", "get"]),
        resource("pods/exec", "PodExecOptions", ["create", "get"]),
        resource("pods/log", "Pod", ["get"]),
        resource("pods/portforward", "PodPortForwardOptions", ["create", "get"]),
    ],
}


def namespace(name: str) -> Json:
    """Return a Namespace object."""
    return {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/metadata.name": name},
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }


def listing(kind: str, items: Iterable[Json], version: str = "v1") -> Json:
    """Return a list object; items of a list carry no kind of their own, as on a real server."""
    bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
    metadata = {"resourceVersion": "1"}
    return {"kind": kind, "apiVersion": version, "metadata": metadata, "items": bare}


_COLUMNS = [
    ("Name", "name", "Name of the pod"),
    ("Ready", "", "Containers that are ready"),
    ("Status", "", "Phase, or why a container waits"),
    ("Restarts", "", "Restarts of the containers"),
    ("Age", "", "Time since the pod was made"),
]


def pod_table(pods: Iterable[Json]) -> Json:
    """Return the Table that ``kubectl get pods`` asks for."""
    columns = [
        {"name": name, "type": "string", "format": form, "description": text, "priority": 0}
        for name, form, text in _COLUMNS
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": "1"},
        "columnDefinitions": columns,
        "rows": [_pod_row(pod) for pod in pods],
    }


def _pod_row(pod: Json) -> Json:
    states = pod["status"].get("containerStatuses", [])
    ready = sum(1 for state in states if state["ready"])
    meta = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
    return {
        "cells": [
            pod["metadata"]["name"],
            f"{ready}/{len(pod['spec']['containers'])}",
            _pod_summary(pod),
            "0",
            _age(pod["metadata"]["creationTimestamp"]),
        ],
        "object": {**meta, "metadata": pod["metadata"]},
    }


def _age(created: str) -> str:
    then = datetime.datetime.strptime(created, "%Y-%m-%dT%H:%M:%S%z")
    return f"{int((datetime.datetime.now(datetime.timezone.utc) - then).total_seconds())}s"


def _pod_summary(pod: Json) -> str:
    for state in pod["status"].get("containerStatuses", []):
        for kind in ("waiting", "terminated"):
            reason: Optional[str] = state["state"].get(kind, {}).get("reason")
            if reason:
                return reason
    return str(pod["status"]["phase"])
