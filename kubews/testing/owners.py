"""What selects pods: Services and workloads. They are objects to be read, nothing acts on them.

Threads: ``Owners`` may be used by any thread, and everything else consists of values.
"""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from kubews.testing.arguments import OwnerKind, ServiceSpec, WorkloadSpec
from kubews.testing.objects import Json


def service(spec: ServiceSpec) -> Json:
    """Return a Service as one would send it to a server."""
    body: Json = {"type": "ExternalName" if spec.external_name else "ClusterIP"}
    if spec.selector:
        body["selector"] = dict(spec.selector)
    if spec.external_name:
        body["externalName"] = spec.external_name
    if spec.headless:
        body["clusterIP"] = "None"
    if spec.declared:
        body["ports"] = [
            {
                **({"name": each.name} if each.name else {}),
                "protocol": each.protocol,
                "port": each.number,
                # What a server fills in where nothing was said.
                "targetPort": each.number if each.target is None else each.target,
            }
            for each in spec.declared
        ]
    return _document(spec.kind, spec.name, spec.namespace, body)


def workload(spec: WorkloadSpec) -> Json:
    """Return a workload as one would send it to a server; it asks for no pod of its own."""
    labels = dict(spec.selector)
    selector: Json = {"matchLabels": labels} if labels else {}
    if spec.expressions:
        selector["matchExpressions"] = list(spec.expressions)
        # The template's labels have to be among those that are selected.
        labels = {**_satisfying(spec.expressions), **labels}
    pod: Json = {"containers": [{"name": "app", "image": "localhost/kubews:none"}]}
    template: Json = {"metadata": {"labels": labels}, "spec": pod}
    body: Json = {"selector": selector, "template": template}
    kind = spec.kind.kind
    if kind == "ReplicationController":
        body["selector"] = labels
    if kind in ("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"):
        body["replicas"] = 0
    if kind == "StatefulSet":
        body["serviceName"] = spec.name
    if kind == "Job":
        body.update({"manualSelector": True, "suspend": True})
        pod["restartPolicy"] = "Never"
    return _document(spec.kind, spec.name, spec.namespace, body)


def _satisfying(expressions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {
        each["key"]: next(iter(each.get("values", ())), "any")
        for each in expressions
        if each["operator"] in ("In", "Exists")
    }


def _document(kind: OwnerKind, name: str, namespace: str, body: Json) -> Json:
    return {
        "kind": kind.kind,
        "apiVersion": f"{kind.group}/v1" if kind.group else "v1",
        "metadata": {"name": name, "namespace": namespace},
        "spec": body,
    }


class Owners:
    """The Services and workloads of a cluster, as a server shows them.

    Threads: safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: dict[tuple[str, str, str], Json] = {}

    def add(self, kind: OwnerKind, document: Json) -> None:
        """Add an object.

        Raises:
            ValueError: there is one of that kind and name.
        """
        metadata = document["metadata"]
        key = (kind.plural, metadata["namespace"], metadata["name"])
        created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        shown: Json = {**metadata, "uid": str(uuid.uuid4()), "resourceVersion": "1"}
        shown["creationTimestamp"] = created
        spec: Json = dict(document["spec"])
        if kind.plural == "services" and spec["type"] == "ClusterIP":
            spec.setdefault("clusterIP", "10.96.0.1")  # nothing listens there
            spec["clusterIPs"] = [spec["clusterIP"]]
        with self._lock:
            if key in self._documents:
                raise ValueError(f"{kind.word}/{key[2]} exists already in namespace {key[1]!r}")
            self._documents[key] = {**document, "metadata": shown, "spec": spec, "status": {}}

    def get(self, plural: str, namespace: str, name: str) -> Optional[Json]:
        """Return an object, or None."""
        with self._lock:
            return self._documents.get((plural, namespace, name))

    def all(self, plural: str, namespace: str) -> list[Json]:
        """Return the objects of a kind, of every namespace if none is named, in order of their names."""
        with self._lock:
            found: list[Any] = sorted(self._documents.items())
        return [
            document
            for (kind, where, _), document in found
            if kind == plural and namespace in ("", where)
        ]

    def namespaces(self) -> set[str]:
        """Return the names of the namespaces that have an object."""
        with self._lock:
            return {namespace for _, namespace, _ in self._documents}
