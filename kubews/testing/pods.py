"""Pods: named groups of containers, and the objects that the API shows of them.

Threads: everything here may be used by any thread.
"""

from __future__ import annotations

import datetime
import os
import shutil
import stat
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Optional

from kubews.testing.marked import kill_marked
from kubews.testing.objects import Json
from kubews.testing.processes import Container

# Every process of a pod inherits this variable: how the ones that left their process group are
# found when the pod is deleted.
MARK = "KUBEWS_POD_UID"

PodState = Literal["running", "waiting", "unscheduled", "completed"]


class Pod:
    """A pod: its containers by kind, and its JSON.

    Threads: safe.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        directory: Path,
        *,
        containers: Mapping[str, Optional[Sequence[str]]],
        init_containers: Sequence[str] = (),
        ephemeral_containers: Mapping[str, Optional[Sequence[str]]],
        state: PodState = "running",
        ports: Mapping[str, int],
        labels: Mapping[str, str],
        annotations: Mapping[str, str],
        env: Mapping[str, str],
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.uid = str(uuid.uuid4())
        self.directory = directory
        self.state = state
        self.ports = dict(ports)
        self.labels = dict(labels)
        self.annotations = dict(annotations)
        self.created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        environment = {**os.environ, **env, "HOSTNAME": name, MARK: self.uid}
        environment.setdefault("KUBERNETES_SERVICE_HOST", "127.0.0.1")

        def make(name: str, argv: Optional[Sequence[str]]) -> Container:
            return Container(name, argv, directory / name, environment)

        self.containers = [make(name, argv) for name, argv in containers.items()]
        self.init_containers = [make(name, None) for name in init_containers]
        self.ephemeral_containers = [
            make(name, argv) for name, argv in ephemeral_containers.items()
        ]

    @property
    def all_containers(self) -> list[Container]:
        """Every container, regular ones first."""
        return [*self.containers, *self.init_containers, *self.ephemeral_containers]

    def start(self) -> None:
        """Make the scratch directory and start what the pod's state says."""
        self.directory.mkdir(mode=0o755, parents=True)
        if self.state == "completed":
            for container in self.containers:
                container.exit_code = 0
        if self.state in ("running", "completed"):
            for container in self.init_containers:
                container.exit_code = 0
        if self.state == "running":
            for container in [*self.containers, *self.ephemeral_containers]:
                container.start()

    def container(self, name: str) -> Optional[Container]:
        """Return the container of that name, of any kind."""
        return next((each for each in self.all_containers if each.name == name), None)

    def kill(self) -> None:
        """Kill every process of the pod and remove its files."""
        for container in self.all_containers:
            container.kill()
        if any(container.started for container in self.all_containers):
            kill_marked(MARK, self.uid)
        for container in self.all_containers:
            container.wait()
        _remove_tree(self.directory)

    @property
    def phase(self) -> str:
        """The pod's phase."""
        if self.state in ("waiting", "unscheduled"):
            return "Pending"
        codes = [each.exit_code for each in self.containers if not each.running]
        if len(codes) < len(self.containers):
            return "Running"
        return "Failed" if any(codes) else "Succeeded"

    def as_json(self) -> Json:
        """Return the Pod object."""
        metadata: Json = {"name": self.name, "namespace": self.namespace, "uid": self.uid}
        metadata.update({"resourceVersion": "1", "creationTimestamp": self.created})
        if self.labels:
            metadata["labels"] = self.labels
        if self.annotations:
            metadata["annotations"] = self.annotations
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": self._spec(),
            "status": self._status(),
        }

    def _spec(self) -> Json:
        def spec(container: Container) -> Json:
            body: Json = {"name": container.name, "image": "localhost/kubews:none"}
            if container.argv:
                body["command"] = list(container.argv)
            return body

        body: Json = {"containers": [spec(each) for each in self.containers]}
        body["containers"][0]["ports"] = [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in self.ports.items()
        ]
        if self.init_containers:
            body["initContainers"] = [spec(each) for each in self.init_containers]
        if self.ephemeral_containers:
            body["ephemeralContainers"] = [spec(each) for each in self.ephemeral_containers]
        body["restartPolicy"] = "Never"
        if self.state != "unscheduled":
            body["nodeName"] = "localhost"
        return body

    def _status(self) -> Json:
        scheduled = self.state != "unscheduled"
        statuses = [each.as_status(self.created) for each in self.containers] if scheduled else []
        ready = bool(statuses) and all(each["ready"] for each in statuses)
        conditions = [
            {"type": "PodScheduled", "status": str(scheduled)},
            {"type": "ContainersReady", "status": str(ready)},
            {"type": "Ready", "status": str(ready)},
        ]
        body: Json = {"phase": self.phase, "conditions": conditions}
        if not scheduled:
            return body
        body.update({"hostIP": "127.0.0.1", "podIP": "127.0.0.1", "startTime": self.created})
        body["containerStatuses"] = statuses
        for key, group in (
            ("initContainerStatuses", self.init_containers),
            ("ephemeralContainerStatuses", self.ephemeral_containers),
        ):
            if group:
                body[key] = [each.as_status(self.created) for each in group]
        return body


def _remove_tree(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # something made a directory read-only
        for path, _, _ in os.walk(directory):
            os.chmod(path, stat.S_IRWXU)
        shutil.rmtree(directory, ignore_errors=True)


class Pods:
    """The pods of a cluster.

    Threads: safe.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._pods: dict[tuple[str, str], Pod] = {}

    def add(self, pod: Pod) -> None:
        """Add a pod and start it.

        Raises:
            ValueError: there is one of that name.
        """
        key = (pod.namespace, pod.name)
        with self._lock:
            if key in self._pods:
                raise ValueError(f"pod {pod.namespace}/{pod.name} exists already")
            self._pods[key] = pod
        try:
            pod.start()
        except BaseException:
            self.remove(*key)
            raise

    def get(self, namespace: str, name: str) -> Optional[Pod]:
        """Return a pod, or None."""
        with self._lock:
            return self._pods.get((namespace, name))

    def all(self) -> list[Pod]:
        """Return every pod, in order of creation."""
        with self._lock:
            return list(self._pods.values())

    def remove(self, namespace: str, name: str) -> Optional[Pod]:
        """Kill and forget a pod; return it, or None if there is none."""
        with self._lock:
            pod = self._pods.pop((namespace, name), None)
        if pod is not None:
            pod.kill()
        return pod

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces: ``default`` and whatever has a pod."""
        return sorted({"default", *(pod.namespace for pod in self.all())})

    def clear(self) -> None:
        """Kill and forget every pod."""
        for pod in self.all():
            self.remove(pod.namespace, pod.name)
