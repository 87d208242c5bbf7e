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
from typing import Optional

from kubews.testing.arguments import PodChange, PodSpec
from kubews.testing.containers import Container
from kubews.testing.ending import Ending
from kubews.testing.interactive import NONE_OF_IT, Interactive
from kubews.testing.marked import kill_marked
from kubews.testing.objects import Json
from kubews.testing.shown import changed

# Every process of a pod inherits this variable: how the ones that left their process group are
# found when the pod is deleted.
MARK = "KUBEWS_POD_UID"

# What is said of the terminal of who started the cluster, who may not even have set it: readline does.
_OF_A_TERMINAL = frozenset({"TERM", "LINES", "COLUMNS"})


class Pod:
    """A pod: its containers by kind, and its JSON.

    Threads: safe.
    """

    def __init__(self, spec: PodSpec, directory: Path, marks: Mapping[str, str]) -> None:
        self.name = spec.name
        self.namespace = spec.namespace
        self.uid = str(uuid.uuid4())
        self.directory = directory / self.uid
        self.state = spec.state
        self.ports = spec.ports
        self.listens = spec.listens
        self.ending = Ending()
        self.change = PodChange()  # a value: whoever reads it sees the old one or the new one
        self.labels = spec.labels
        self.annotations = spec.annotations
        self.created = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        # One of start and kill at a time, unless a signal's handler kills what is being started.
        self._lifecycle = threading.RLock()
        self._made = False
        self._killed = False
        inherited = {key: text for key, text in os.environ.items() if key not in _OF_A_TERMINAL}
        environment = {**inherited, **spec.env, **marks, "HOSTNAME": spec.name, MARK: self.uid}
        environment.setdefault("KUBERNETES_SERVICE_HOST", "127.0.0.1")

        def make(
            name: str, argv: Optional[Sequence[str]], kind: Interactive = NONE_OF_IT
        ) -> Container:
            return Container(name, argv, self.directory / name, environment, kind)

        first = next(iter(spec.containers))
        self.containers = [
            make(name, argv, spec.interactive if name == first else Interactive())
            for name, argv in spec.containers.items()
        ]
        self.init_containers = [make(name, None) for name in spec.init_containers]
        self.ephemeral_containers = [make(*each) for each in spec.ephemeral_containers.items()]

    @property
    def all_containers(self) -> list[Container]:
        """Every container, regular ones first."""
        return [*self.containers, *self.init_containers, *self.ephemeral_containers]

    def start(self) -> None:
        """Make the scratch directory and start what the pod's state says.

        Raises:
            OSError: a command could not be started.
            ValueError: the pod was deleted meanwhile.
        """
        with self._lifecycle:
            self._check_alive()
            self.directory.mkdir(mode=0o755, parents=True)
            self._made = True
            if self.state == "completed":
                for container in self.containers:
                    container.exit_code = 0
            if self.state in ("running", "completed"):
                for container in self.init_containers:
                    container.exit_code = 0
            if self.state == "running":
                for container in [*self.containers, *self.ephemeral_containers]:
                    self._check_alive()
                    container.start()

    def _check_alive(self) -> None:
        if self._killed:
            raise ValueError(f"pod {self.namespace}/{self.name} was deleted while it started")

    def container(self, name: str) -> Optional[Container]:
        """Return the container of that name, of any kind."""
        return next((each for each in self.all_containers if each.name == name), None)

    def restart(self, name: Optional[str]) -> None:
        """End a container's own process, if it runs, and start its command again. Blocks.

        Raises:
            OSError: it could not be started.
            ValueError: it does not run, or the pod is being deleted.
        """
        with self._lifecycle:
            self._check_alive()
            self.choose(name).restart()

    def choose(self, name: Optional[str]) -> Container:
        """Return the container of that name, of any kind; without a name the first.

        Raises:
            ValueError: there is none.
        """
        container = self.containers[0] if name is None else self.container(name)
        if container is None:
            raise ValueError(f"pod {self.namespace}/{self.name} has no container {name!r}")
        return container

    def kill(self) -> None:
        """Kill every process of the pod and remove its files. Idempotent.

        Threads: any; blocks until it is done, whoever does it.
        """
        with self._lifecycle:
            self._killed = True
            self.ending.tell()
            for container in self.all_containers:
                container.kill()
            if any(container.started for container in self.all_containers):
                kill_marked(MARK, self.uid)
            for container in self.all_containers:
                container.wait()
            if self._made:
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
        pod: Json = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": self._spec(),
            "status": self._status(),
        }
        return changed(pod, self.change)

    def _spec(self) -> Json:
        def spec(container: Container) -> Json:
            body: Json = {"name": container.name, "image": "localhost/kubews:none"}
            if container.argv:
                body["command"] = list(container.argv)
            kind = container.interactive
            flags = {"stdin": kind.stdin, "stdinOnce": kind.stdin_once, "tty": kind.tty}
            body.update({key: True for key, value in flags.items() if value})
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
        body["securityContext"] = {}  # kubectl debug does not expect its absence
        if self.state != "unscheduled":
            body["nodeName"] = "localhost"
        return body

    def _status(self) -> Json:
        scheduled = self.state != "unscheduled"
        statuses = [each.as_status(self.created) for each in self.containers] if scheduled else []
        ready = bool(statuses) and all(each["ready"] for each in statuses)
        conditions = [
            {"type": kind, "status": str(value), "lastTransitionTime": self.created}
            for kind, value in (
                ("PodScheduled", scheduled),
                ("ContainersReady", ready),
                ("Ready", ready),
            )
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

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pods: dict[tuple[str, str], Pod] = {}
        self._ending: set[Pod] = set()  # forgotten, but perhaps not dead yet
        self._closed = False

    def add(self, pod: Pod) -> None:
        """Add a pod and start it.

        Raises:
            OSError: a command could not be started.
            ValueError: there is one of that name, or the cluster is closed.
        """
        key = (pod.namespace, pod.name)
        with self._lock:
            if self._closed:
                raise ValueError("the cluster is closed")
            if key in self._pods:
                raise ValueError(f"pod {pod.namespace}/{pod.name} exists already")
            self._pods[key] = pod
        try:
            pod.start()
        except BaseException:
            self._end(pod)
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
        """Forget and kill a pod; return it, or None if there is none. Blocks until it is dead."""
        pod = self.get(namespace, name)
        if pod is not None:
            self._end(pod)
        return pod

    def _end(self, pod: Pod) -> None:
        key = (pod.namespace, pod.name)
        with self._lock:
            if self._pods.get(key) is pod:  # not one of the same name that came later
                del self._pods[key]
            self._ending.add(pod)
        pod.kill()
        with self._lock:
            self._ending.discard(pod)

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces: ``default`` and whatever has a pod."""
        return sorted({"default", *(pod.namespace for pod in self.all())})

    def close(self) -> None:
        """Forget and kill every pod, and take no more. Blocks until all are dead."""
        with self._lock:
            self._closed = True
            pods = [*self._pods.values(), *self._ending]
        for pod in pods:
            self._end(pod)
