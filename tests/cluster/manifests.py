"""Pods as documents for the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Optional

State = Literal["running", "waiting", "unscheduled", "completed"]

#: What a container without a command of its own does: nothing, for ever.
IDLE = ("sh", "-c", "exec sleep 1000000")

# No image of this name exists anywhere, so the container waits for ever (ErrImageNeverPull).
_ABSENT = "localhost/kubews/absent:1"


#: Where a container has its service account, and what the admission plugin of the same name mounts there;
#: in a cluster of ours it is switched off, as what no controller makes would be asked for.
ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_ACCOUNT = {
    "name": "account",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt"}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
    },
}


@dataclass(frozen=True)
class PodSpec:
    """A pod as a test wants it.

    Args:
        name: the pod's name.
        containers: command by container name; None for one that idles.
        image: of all containers, except those in ``images``.
        images: image by container name.
        state: what shall become of it: ``running``, ``completed``, or never more than ``waiting``
            (its image is missing) or ``unscheduled`` (no node takes it).
        ports: port number by name, in the first container.
        labels: its labels.
        annotations: its annotations.
        env: variables of all containers.
        stdin: keep stdin of the first container open, for attach.
        stdin_once: end it with the first attachment that had it.
        tty: give the first container a terminal.
        restart_policy: ``Always`` or ``Never`` or ``OnFailure``.
        init_containers: names of containers that have completed before.
        node: the node to run on; None leaves it to a scheduler.
        account: the service account whose token the containers have, at the usual place. On ``node`` they
            are in its network, too, where the API server of a cluster of ours is.

    Threads: a value.
    """

    name: str
    containers: Mapping[str, Optional[Sequence[str]]]
    image: str
    images: Mapping[str, str] = field(default_factory=dict)
    state: State = "running"
    ports: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    restart_policy: str = "Always"
    init_containers: Sequence[str] = ()
    node: Optional[str] = None
    account: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as the API wants it."""
        spec: dict[str, Any] = {
            "containers": [self._container(name) for name in self.containers],
            "restartPolicy": "Never" if self.state == "completed" else self.restart_policy,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": bool(self.account),
        }
        if self.account:
            spec.update(serviceAccountName=self.account)
        if self.account and self.node:
            spec.update(hostNetwork=True, volumes=[_ACCOUNT])
        if self.init_containers:
            spec["initContainers"] = [
                self.container(name, ["true"]) for name in self.init_containers
            ]
        if self.state == "unscheduled":
            spec["nodeSelector"] = {"kubews.test/there-is": "no-such-node"}
        elif self.node is not None:
            spec["nodeName"] = self.node
        metadata = {
            "name": self.name,
            "labels": dict(self.labels),
            "annotations": dict(self.annotations),
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def container(self, name: str, command: Optional[Sequence[str]]) -> dict[str, Any]:
        """Return a container of this pod's image and environment."""
        if command is None:
            command = IDLE
        waiting = self.state == "waiting"
        return {
            "name": name,
            "image": _ABSENT if waiting else self.images.get(name, self.image),
            # Ours are nowhere but on the node; somebody else's may have to be fetched.
            "imagePullPolicy": "Never" if waiting or self.node else "IfNotPresent",
            "command": list(command),
            "env": [{"name": key, "value": value} for key, value in self.env.items()],
            "volumeMounts": [{"name": "account", "mountPath": ACCOUNT_PATH, "readOnly": True}]
            if self.account and self.node
            else [],
        }

    def _container(self, name: str) -> dict[str, Any]:
        command = self.containers[name]
        if self.state == "completed":
            command = ["true"]
        container = self.container(name, command)
        if name == next(iter(self.containers)):
            container["ports"] = [
                {"name": key, "containerPort": value} for key, value in self.ports.items()
            ]
            container.update(stdin=self.stdin, stdinOnce=self.stdin_once, tty=self.tty)
        return container
